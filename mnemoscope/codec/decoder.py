"""The decoder: a language model that starts from a memory and writes the window that was read into it.

Input [BOS] x1 ... xL, targets x1 ... xL [EOS] (arXiv 2512.15653; GPT-NeoX's [BOS] is its [EOS]).

Symbols: B windows, L tokens, V vocabulary.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory


class Decoder(nn.Module):
    """A copy of a language model, every weight of it trained, that starts from a memory.

    Args:
        adapter: the model; give :meth:`from_encoder` the encoder's to get a copy.
        bos, eos: token ids that open and close every window.
    """

    def __init__(self, adapter: Adapter, bos: int, eos: int):
        super().__init__()
        self.adapter, self.bos, self.eos = adapter, bos, eos

    @classmethod
    def from_encoder(cls, encoder: Adapter, bos: int, eos: int) -> Decoder:
        """A decoder with the encoder's architecture and weights, its own copy of them."""
        adapter = copy.deepcopy(encoder)
        adapter.requires_grad_(True)
        return cls(adapter, bos, eos)

    def forward(self, memory: Memory, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing.

        Args:
            memory: of B windows.
            ids: the windows [B, L] int64.

        Returns:
            nats: -ln p of x1 ... xL and EOS [B, L + 1] float32, with gradients to weights and memory.
            predicted: most likely token at each of these [B, L + 1] int64.
        """
        inputs = F.pad(ids, (1, 0), value=self.bos)
        targets = F.pad(ids, (0, 1), value=self.eos)
        hidden, _ = self.adapter.hidden(inputs, memory)
        nats, predicted = self.adapter.cross_entropy(hidden.flatten(0, 1), targets.flatten())
        return nats.view_as(targets), predicted.view_as(targets)


@torch.no_grad()
def encode(encoder: Adapter, ids: Tensor, *, bos: int | None = None) -> Memory:
    """The memory after reading windows.

    Args:
        ids: [B, L] int64.
        bos: token read before each window, or None for none.
    """
    if bos is not None:
        ids = F.pad(ids, (1, 0), value=bos)
    _, memory = encoder.hidden(ids, None)
    return memory
