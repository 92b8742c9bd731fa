"""No memory: the same decoder, trained from an empty memory.  What it writes is what can be guessed."""

from __future__ import annotations

from collections.abc import Sequence

from mnemoscope.memory.memory import Memory
from mnemoscope.types import Window


class NoMemory:
    trained_as = written_as = "none"
    reads = False

    def windows_to_read(self, windows: Sequence[Window]) -> Sequence[Window]:
        return windows

    def hand_over(self, memory: Memory) -> Memory:
        return memory.zeros_like()


CONDITION = NoMemory()
