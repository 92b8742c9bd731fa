"""``greedy``: the most likely token at every step (:class:`mnemoscope.codec.generate.Writer`)."""

from __future__ import annotations

from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.memory.memory import Memory


class Greedy:
    follows = True

    def write(self, writer: Writer, memory: Memory, length: int, judge: Judge) -> list[Reconstruction]:
        return writer.write(memory, length)


SEARCH = Greedy()
