"""What was read of passages is kept, so that no token is read twice: neither for another decoder or condition that is
given the same windows, nor, of nested windows, for a longer one that begins there::

    L = 4     |. . . .|                            read from nothing
    L = 8     |       |. . . .|                    read on from the memory that the four left
    L = 16    |               |. . . . . . . .|    read on from that of the eight

That reading on leaves the memory that reading at once does, up to rounding, is what every model has shown before it is
measured (:mod:`mnemoscope.memory.continuity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from mnemoscope.codec.decoder import encode
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory, together
from mnemoscope.types import IntArray

#: that the kept memories of one reader may take
BYTES = 2 << 30


class Readings:
    """The memories that one reader's passages left at the lengths at which it was asked for them.

    Where there is no room for all, a passage keeps the memory that it was last read to, and passages beyond those that
    find room for one are read anew each time.

    Args:
        bos: token read before each passage, or None for none.
        most: memories that can be asked for in all, if that is less than ``BYTES`` has room for.
        nested: whether passages are read on; if not, only the memories of one length are kept, the last asked for.
    """

    def __init__(self, reader: Adapter, bos: int | None, most: int, nested: bool = True):
        self.reader, self.bos, self.nested = reader, bos, nested
        room = min(most, BYTES // reader.spec().bytes)
        # not zeros: memory that nothing is kept in is never taken
        self._kept = Memory({name: part.new_empty(room, *part.shape[1:]) for name, part in reader.empty(1).items()})
        self._length = 0
        self._free: list[int] = []
        #: passage -> tokens read -> row
        self._rows: dict[str, dict[int, int]] = {}
        self._drop()
        # batches are measured side by side
        self._lock = Lock()

    @torch.no_grad()
    def after(self, passages: Sequence[str], ids: Tensor) -> Memory:
        """The memories after the first L tokens of some passages.

        Args:
            passages: B names, each of one and the same text whenever it is given.
            ids: these tokens [B, L] int64.
        """
        length = ids.shape[1]
        with self._lock:
            if not self.nested and length != self._length:
                self._drop()
            self._length = length
            rows = [self._rows.get(passage, {}) for passage in passages]
            read = np.array([max((cut for cut in held if cut <= length), default=0) for held in rows])
            groups = {int(cut): np.flatnonzero(read == cut) for cut in np.unique(read)}
            starts = {cut: self._of([rows[i][cut] for i in at]) for cut, at in groups.items() if cut}
        ends = []
        for cut, at in groups.items():
            if cut == length:
                ends.append(starts[cut])
                continue
            ends.append(encode(self.reader, ids[self._index(at), cut:], bos=self.bos, start=starts.get(cut)))
            self._keep([passages[i] for i in at.tolist()], length, ends[-1])
        if len(ends) == 1:
            return ends[0]
        order = np.concatenate(list(groups.values()))
        return together(ends).rows(self._index(np.argsort(order)))

    def _drop(self) -> None:
        # the first is taken first, so that what is read together lies together
        self._rows, self._free = {}, [*range(self._kept.batch)][::-1]

    def _of(self, rows: Sequence[int]) -> Memory:
        """The memories in some rows; as they lie there if they are in order, for copying them takes long."""
        first = rows[0]
        if list(rows) == [*range(first, first + len(rows))]:
            return self._kept.map(lambda part: part[first : first + len(rows)])
        return self._kept.rows(self._index(rows))

    def _keep(self, passages: Sequence[str], length: int, memory: Memory) -> None:
        with self._lock:
            places = [self._place(passage, length) for passage in passages]
            rows = self._index([place for place in places if place is not None])
            if len(rows) < memory.batch:
                memory = memory.rows(self._index([i for i, place in enumerate(places) if place is not None]))
            for name, part in self._kept.items():
                part[rows] = memory[name].to(part.dtype)

    def _place(self, passage: str, length: int) -> int | None:
        """The row for a passage's memory at a length, if there is one."""
        own = self._rows.setdefault(passage, {})
        if length not in own:
            if self._free:
                own[length] = self._free.pop()
            elif own:
                # what it was just read on from is what is asked for again last
                own[length] = own.pop(max((cut for cut in own if cut < length), default=max(own)))
        return own.get(length)

    def _index(self, numbers: Sequence[int] | IntArray) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.int64, device=self.reader.device)
