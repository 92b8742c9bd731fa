"""What the decoder is given.  One file per condition; a control is a condition, so every later step treats real and
control rows alike.

A file exposes ``CONDITION``, a :class:`Condition`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mnemoscope.memory.memory import Memory
from mnemoscope.types import Window


class Condition(Protocol):
    """One way of handing a memory to a decoder.

    Attributes:
        trained_as: the condition whose decoder is used; its own name if a decoder is trained for it.
        written_as: the condition whose texts these are too: the same decoder is handed the same of the window that is
            read, so it writes the same.  Its own name if it hands over something else.
        reads: whether the encoder has to read anything at all.
    """

    trained_as: str
    written_as: str
    reads: bool

    def windows_to_read(self, windows: Sequence[Window]) -> Sequence[Window]:
        """For each window, in order, the window of the same length that the encoder reads in its stead."""
        ...

    def hand_over(self, memory: Memory) -> Memory:
        """What the decoder starts from, given what the encoder ended with."""
        ...
