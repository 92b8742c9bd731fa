"""The real thing: the decoder starts from the memory of the window it has to write back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory
from mnemoscope.types import Window


class RealMemory:
    trained_as = written_as = "memory"
    reads = True

    def windows_to_read(self, windows: Sequence[Window]) -> Sequence[Window]:
        return windows

    def reader(self, encoder: Adapter, seed: int) -> Adapter:
        return encoder

    def hand_over(self, memory: Memory, ids: Tensor, seed: int) -> Memory:
        return memory


CONDITION = RealMemory()
