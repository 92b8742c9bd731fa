"""``undo:FOLDER``: the text that the first layer's memory is of, read by undoing its steps (:mod:`mnemoscope.undo`).

A text that is read so is taken only where it is read into the very memory that was handed over, to the last bit of
every part; where none is found, what is written is the decoder's, greedily.  So what a decoder fails to write and this
search does write was not forgotten.  FOLDER is made by ``mnemoscope undo``.
"""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.errors import ConfigError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory
from mnemoscope.undo.distribution import ABOUT, Distribution, model_of
from mnemoscope.undo.layer import require
from mnemoscope.undo.reader import EFFORTS, Reader


class Undo:
    follows = False
    together = 1

    def __init__(self, argument: str):
        self.folder = Path(argument).expanduser()
        if not argument or not (self.folder / ABOUT).is_file():
            given = f"there is none in {argument!r}" if argument else "has none"
            raise ConfigError(
                f"the search 'undo' needs the folder of a distribution of states, and {given}",
                remedy="Write undo:FOLDER; make it with: mnemoscope undo MODEL --text FILE --out FOLDER",
            )
        self._reader: Reader | None = None
        self._lock = threading.Lock()

    @classmethod
    def path_in(cls, argument: str) -> str:
        return argument

    def require(self, encoder: Adapter) -> None:
        require(encoder, model_of(self.folder))

    def reader(self, encoder: Adapter) -> Reader:
        with self._lock:
            if self._reader is None:
                self._reader = Reader(encoder, Distribution.load(self.folder))
        return self._reader

    def write(self, writer: Writer, memory: Memory, length: int, judge: Judge) -> list[Reconstruction]:
        reader = self.reader(judge.encoder)
        texts = [_read(reader, judge, memory, row, length, writer.decoder.eos) for row in range(memory.batch)]
        rows = [row for row, text in enumerate(texts) if text is None]
        lacking = memory.rows(torch.tensor(rows, dtype=torch.int64, device=writer.decoder.device))
        written = iter(writer.write(lacking, length) if rows else ())
        return [next(written) if text is None else Reconstruction(text, True) for text in texts]


def _read(reader: Reader, judge: Judge, memory: Memory, row: int, length: int, eos: int) -> list[int] | None:
    """The text of one window, None where none is found."""
    ssm, conv = (memory[f"layers.0.{part}"][row].cpu() for part in ("ssm", "conv"))
    # a memory of nothing
    if not ssm.any():
        return None
    for effort in EFFORTS:
        texts = [text for text in reader.read(ssm, conv, length, effort) if eos not in text]
        if (found := next((text for text in texts if judge.same(memory, row, text)), None)) is not None:
            return found
    return None


SEARCH = Undo
