"""No memory: the same decoder, trained from an empty memory.  What it writes is what can be guessed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory
from mnemoscope.types import Window


class NoMemory:
    trained_as = written_as = "none"
    reads = False

    def windows_to_read(self, windows: Sequence[Window]) -> Sequence[Window]:
        return windows

    def reader(self, encoder: Adapter, seed: int) -> Adapter:
        return encoder

    def hand_over(self, memory: Memory, ids: Tensor, seed: int) -> Memory:
        return memory.zeros_like()


CONDITION = NoMemory()
