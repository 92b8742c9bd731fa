"""Low-rank training (LoRA, Hu et al. 2021, section 4.1): of each linear map W only an addition U V is trained.

    W x  ->  (W + U V) x        U [out, r] begins at zero, V [r, in] at random

Gradients and moments are then those of U and V alone.  In the end U V is added to W, so that what is saved is a model
like any other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mnemoscope.memory.adapter import Adapter


class LowRank(nn.Module):
    """Adds U V to a matrix."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator):
        super().__init__()
        rows, columns = weight.shape
        dtype = torch.promote_types(weight.dtype, torch.float32)
        down = torch.randn(rank, columns, generator=generator, dtype=dtype) / columns**0.5
        self.up = nn.Parameter(torch.zeros(rows, rank, dtype=dtype, device=weight.device))
        self.down = nn.Parameter(down.to(weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).to(weight.dtype)


def attach(model: Adapter, rank: int) -> None:
    """Freezes the model, and gives every linear map of it but the head, which is often the embedding, its addition."""
    model.requires_grad_(False)
    head = model.model.get_output_embeddings()
    generator = torch.Generator().manual_seed(0)
    for module in [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]:
        addition = LowRank(module.weight, min(rank, *module.weight.shape), generator)
        parametrize.register_parametrization(module, "weight", addition)


def merge(model: Adapter) -> None:
    """Adds the additions up; a model without them stays as it is."""
    for module in [m for m in model.modules() if parametrize.is_parametrized(m, "weight")]:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
