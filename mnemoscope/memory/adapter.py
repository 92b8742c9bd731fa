"""The protocol between a model and everything else: read tokens from a memory to a memory.

An architecture is one file in ``architectures/``, named after Hugging Face's ``model_type``, that exposes
``ARCHITECTURE``, a subclass of :class:`Adapter`.  The model keeps its Hugging Face class and its parameters; the
adapter owns the forward pass, because several library classes silently ignore the state when more than one token
follows a cache (design, section 5, equality 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemoscope.kernels import cross_entropy_ref
from mnemoscope.memory.memory import Memory, MemorySpec, Part


class Adapter(nn.Module, ABC):
    """A language model that reads from a memory and ends with one.

    Attributes:
        model: the Hugging Face model; its parameters are this module's.
        scan: backend of the scan, see :func:`mnemoscope.kernels.scan.choose`.

    Symbols: B windows, L tokens, d width of the model, V vocabulary.
    """

    model_type: ClassVar[str]
    #: configuration class and language-model class of transformers, by name
    config_class: ClassVar[str]
    model_class: ClassVar[str]

    #: the library's classes are duck-typed here: their attributes are what an architecture's file is about
    model: Any

    def __init__(self, model: nn.Module, scan: str = "auto"):
        super().__init__()
        self.model = model
        self.scan = scan

    @abstractmethod
    def spec(self) -> MemorySpec:
        """The parts of the memory of one window, in layer order."""

    @abstractmethod
    def hidden(self, ids: Tensor, start: Memory | None) -> tuple[Tensor, Memory]:
        """Reads ``ids`` [B, L] int64 from ``start`` (an empty memory if None).

        Returns:
            the last layer's normalised output [B, L, d], and the memory after the last token, both with gradients to
            the parameters and to every part of ``start``.
        """

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., d]."""

    def cross_entropy(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`head` gives to ``targets`` [T] int64 after ``hidden`` [T, d], never held for all T at once.

        Returns:
            -ln p of each target [T] float32, with gradients, and the most likely token [T] int64.
        """
        return cross_entropy_ref.of_head(self.head, hidden, targets, self.vocabulary)

    def forward(self, ids: Tensor, start: Memory | None = None) -> tuple[Tensor, Memory]:
        """Logits [B, L, V] and the memory after the last token; arguments as in :meth:`hidden`."""
        hidden, end = self.hidden(ids, start)
        return self.head(hidden), end

    def empty(self, batch: int) -> Memory:
        """The memory of ``batch`` windows before the first token: zeros."""
        return self.spec().zeros(batch, self.device)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; token ids must be below it."""
        return int(self.model.config.vocab_size)


__all__ = ["Adapter", "Memory", "MemorySpec", "Part"]
