"""The decoder: a language model that starts from a memory and writes the window that was read into it.

Input [BOS] x1 ... xL, targets x1 ... xL [EOS] (arXiv 2512.15653; GPT-NeoX's [BOS] is its [EOS]).

How it starts from a memory is its family, one file in ``families/`` that exposes ``FAMILY``, a subclass of
:class:`Decoder`.  Whatever the family, a window is written token by token from a *state*, named tensors with the
windows first::

    state = decoder.start(memory, room=2 * length)
    logits, state = decoder.step(state, bos)       # [B, V], and the state that has seen it
    logits, state = decoder.step(state, chosen)
    state = state.rows(beams)                      # its rows in another order, repeated or left out

Symbols: B windows, L tokens, V vocabulary, d width of the language model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnemoscope import config
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import Loaded
from mnemoscope.memory.memory import Memory


class Decoder(nn.Module, ABC):
    """A language model that starts from a memory.

    Attributes:
        Options: what a study may say of the family (``[decoders.options]``); every key has a default.
        bos, eos: token ids that open and close every window.
        origin: digest of the model whose weights it began with, where that is not the encoder; else empty.
    """

    Options: ClassVar[type[config.Section]]

    def __init__(self, bos: int, eos: int, origin: str = ""):
        super().__init__()
        self.bos, self.eos, self.origin = bos, eos, origin

    @classmethod
    @abstractmethod
    def make(cls, encoder: Loaded, bos: int, eos: int, options: Any, seed: int) -> Self:
        """A decoder that is yet to be trained, on the encoder's device and in its precision.

        Args:
            options: of the class's ``Options``.
            seed: of the weights that begin at random.

        Raises:
            ModelError: the options do not fit the encoder.
        """

    @property
    @abstractmethod
    def language(self) -> Adapter:
        """The language model whose head gives the logits."""

    @property
    def device(self) -> torch.device:
        return self.language.device

    @abstractmethod
    def empty(self, batch: int) -> Memory:
        """Memories as it is given them, of ``batch`` windows of which nothing was read: zeros."""

    @abstractmethod
    def hidden(self, memory: Memory, inputs: Tensor) -> Tensor:
        """What the head is given after each of ``inputs`` [B, T] int64, of windows with these memories: [B, T, d]."""

    @abstractmethod
    def start(self, memory: Memory, room: int) -> Memory:
        """The state in which nothing is written yet.  No row of it depends on another.

        Args:
            memory: of B windows.
            room: steps that will be taken from it, at most.
        """

    @abstractmethod
    def step(self, state: Memory, ids: Tensor) -> tuple[Tensor, Memory]:
        """One token more in every row.

        Args:
            ids: [B] int64; BOS in the first step.

        Returns:
            logits of the token to come [B, V], and the state after ``ids``, whose parts have the shapes of the one
            before, which is left as it was.
        """

    def matrices(self) -> list[nn.Parameter]:
        """What is trained as the matrices of linear maps are without being the weight of one: matrices, and stacks of
        them [..., rows, columns]."""
        return []

    def begin_training(self) -> None:
        """Whatever a training needs that the trained weights are without; before a checkpoint is loaded."""

    def end_training(self) -> None:
        """Takes back what :meth:`begin_training` has done; what was learnt stays."""

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
        hidden = self.hidden(memory, inputs)
        nats, predicted = self.language.cross_entropy(hidden.flatten(0, 1), targets.flatten())
        return nats.view_as(targets), predicted.view_as(targets)


@torch.no_grad()
def encode(encoder: Adapter, ids: Tensor, *, bos: int | None = None, start: Memory | None = None) -> Memory:
    """The memory after reading windows.

    Args:
        ids: [B, L] int64.
        bos: token read before each window, or None for none.
        start: the memory of what stands before ``ids`` in the windows, ``bos`` with it; None: nothing does.
    """
    if bos is not None and start is None:
        ids = F.pad(ids, (1, 0), value=bos)
    _, memory = encoder.hidden(ids, start)
    return memory
