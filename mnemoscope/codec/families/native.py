"""``native``: the encoder's architecture, begun with its weights and started from its memory (arXiv 2512.15653)."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

from pydantic import Field
from torch import Tensor

from mnemoscope import config
from mnemoscope.codec.decoder import Decoder
from mnemoscope.codec.families import _low_rank
from mnemoscope.config.sections import PositiveInt
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import Loaded
from mnemoscope.memory.memory import Memory


class NativeOptions(config.Section):
    low_rank: PositiveInt | None = Field(
        None, description="train a matrix of this rank to be added to each linear map's, and nothing else of the model"
    )


class Native(Decoder):
    """A copy of a language model that starts from a memory; every weight of it is trained.

    Args:
        adapter: the model; give :meth:`from_encoder` the encoder's to get a copy.
        low_rank: see :class:`NativeOptions`.
    """

    Options: ClassVar[type[config.Section]] = NativeOptions

    def __init__(self, adapter: Adapter, bos: int, eos: int, low_rank: int | None = None, origin: str = ""):
        super().__init__(bos, eos, origin)
        self.adapter, self.low_rank = adapter, low_rank

    @classmethod
    def make(cls, encoder: Loaded, bos: int, eos: int, options: Any, seed: int) -> Self:
        return cls.from_encoder(encoder.adapter, bos, eos, options.low_rank)

    @classmethod
    def from_encoder(cls, encoder: Adapter, bos: int, eos: int, low_rank: int | None = None) -> Self:
        """A decoder with the encoder's architecture and weights, its own copy of them."""
        return cls(own(encoder), bos, eos, low_rank)

    @property
    def language(self) -> Adapter:
        return self.adapter

    def empty(self, batch: int) -> Memory:
        return self.adapter.empty(batch)

    def hidden(self, memory: Memory, inputs: Tensor) -> Tensor:
        return self.adapter.hidden(inputs, memory)[0]

    def start(self, memory: Memory, room: int) -> Memory:
        return memory

    def step(self, state: Memory, ids: Tensor) -> tuple[Tensor, Memory]:
        logits, state = self.adapter(ids.unsqueeze(1), state)
        return logits.squeeze(1), state

    def begin_training(self) -> None:
        if self.low_rank is not None:
            _low_rank.attach(self.adapter, self.low_rank)

    def end_training(self) -> None:
        _low_rank.merge(self.adapter)


def own(model: Adapter) -> Adapter:
    """A copy, to be trained."""
    return copy.deepcopy(model).requires_grad_(True)


FAMILY = Native
