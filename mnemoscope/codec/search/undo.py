"""``undo:FOLDER``: the text that the first layer's memory is of, read by undoing its steps (:mod:`mnemoscope.undo`).

A text that is read so is taken only where it is read into the very memory that was handed over, to the last bit of
every part; where none is found, what is written is the decoder's, greedily.  So what a decoder fails to write and this
search does write was not forgotten.  FOLDER is made by ``mnemoscope undo``.
"""

from __future__ import annotations

import threading
from pathlib import Path

from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.errors import ConfigError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory
from mnemoscope.undo.distribution import ABOUT, Distribution
from mnemoscope.undo.reader import EFFORTS, Reader

#: texts of one window that are read again, at most
READ_AGAIN = 16


class Undo:
    example = "FOLDER"
    follows = False

    def __init__(self, argument: str):
        if not argument or not (Path(argument) / ABOUT).is_file():
            given = f"there is none in {argument!r}" if argument else "has none"
            raise ConfigError(
                f"the search 'undo' needs the folder of a distribution of states, and {given}",
                remedy="Write undo:FOLDER; make it with: mnemoscope undo MODEL --text FILE --out FOLDER",
            )
        self.folder = Path(argument)
        self._reader: Reader | None = None
        self._lock = threading.Lock()

    def reader(self, encoder: Adapter) -> Reader:
        with self._lock:
            if self._reader is None:
                self._reader = Reader(encoder, Distribution.load(self.folder))
        return self._reader

    def write(self, writer: Writer, memory: Memory, length: int, judge: Judge) -> list[Reconstruction]:
        reader = self.reader(judge.encoder)
        found = writer.write(memory, length)
        together = writer.size(writer.rows, length)
        ssm, conv = (memory[f"layers.0.{part}"].cpu() for part in ("ssm", "conv"))
        for row in range(memory.batch):
            # a memory of nothing
            if not ssm[row].any():
                continue
            for effort in EFFORTS:
                read = reader.read(ssm[row], conv[row], length, effort)
                texts = [text for text in read if writer.decoder.eos not in text][:READ_AGAIN]
                distances = judge.distances(memory, [row] * len(texts), texts, together)
                same = next((text for text, distance in zip(texts, distances, strict=True) if distance == 0), None)
                if same is not None:
                    found[row] = Reconstruction(same, True)
                    break
        return found


SEARCH = Undo
