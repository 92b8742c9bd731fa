"""Model-FLOPs utilisation: what share of the matrix products that a device can do a training asks it for.

    MFU = model FLOPs a token x tokens a second / (ceiling of a device x devices)

after Chowdhery et al. 2022 (PaLM, appendix B), with two differences.  The model FLOPs are those of its matrix products
alone, and the ceiling is measured where the training runs, never taken from a table.
"""

from __future__ import annotations

import math
import time

import torch
from torch import nn

#: rows and columns of the matrices that are multiplied, and how often
_SIZE = {"cuda": 8192, "cpu": 1024}
_TIMES = 10


def flops_per_token(model: nn.Module) -> int:
    """FLOPs of a training's matrix products for one token: 6 x the weights of linear maps, the head among them.

    A multiplication and an addition for each weight in the forward pass, twice that in the backward pass.  Of the
    parameters, embeddings count only where they are the head too, and norms, convolutions, A and D do not count; nor
    do the scan, activations, the loss and the optimiser, though they take time: a Mamba of small width spends most of
    it there, and its MFU is low however well it runs.
    """
    return 6 * sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the fastest of ten products of two large square matrices in ``dtype`` on ``device``.

    8,192 rows on a GPU, 1,024 elsewhere; with the settings in force (threads, TF32).

    Returns:
        NaN where the device cannot multiply such matrices, so that it was not measured.
    """
    n = _SIZE.get(device.type, _SIZE["cpu"])
    try:
        # at random: a GPU multiplies ones faster than what a model multiplies
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        seconds = min(_seconds_of_product(a, b) for _ in range(_TIMES))
    except (RuntimeError, TypeError):  # no room for them, or no such dtype there
        return math.nan
    return 2 * n**3 / seconds


def _seconds_of_product(a: torch.Tensor, b: torch.Tensor) -> float:
    wait = torch.accelerator.synchronize if a.device.type != "cpu" else lambda: None
    wait()
    started = time.perf_counter()
    torch.mm(a, b)
    wait()
    return time.perf_counter() - started
