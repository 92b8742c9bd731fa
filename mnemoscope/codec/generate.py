"""Greedy reconstruction from a memory alone.  The length comes from the window; there is no cap and no default.

Windows are written in slots: a row that ends makes room for the next window, so a few long rows do not keep many idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from mnemoscope.codec.decoder import Decoder
from mnemoscope.memory.memory import Memory
from mnemoscope.types import IntArray

#: on a GPU: tokens written between looks at which rows have ended, for each look waits for the device; rows written at
#: once, at most; and the memory that they may take
STRIDE, ROWS, BYTES = 8, 1024, 2 << 30
#: the same on a CPU, where a look costs next to nothing, and states that its caches do not hold cost more than the rest
CPU_STRIDE, CPU_ROWS, CPU_BYTES = 1, 256, 32 << 20
#: of a stride on a GPU, each of which goes on where the one before leaves the states; the last carries them back
RECORDINGS = 2


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Greedy output for one window: ids up to and without EOS, and whether EOS came."""

    ids: list[int]
    stopped: bool


class Slots:
    """Rows that are written together, in buffers that stay where they are, so that a GPU can replay the writing.

    Attributes:
        token: the last token of each row [S] int64.
        ended: rows that wrote EOS, and rows without a window [S] bool.
        state: of each row, see :class:`mnemoscope.codec.decoder.Decoder`.  On a GPU it lies in as many places as there
            are recordings, in turn.
        out: the last ``stride`` tokens of each row [S, stride] int64; EOS after EOS.
    """

    def __init__(self, decoder: Decoder, size: int, stride: int, room: int):
        device = decoder.device
        self.decoder, self.size = decoder, size
        self.token = torch.full((size,), decoder.bos, dtype=torch.int64, device=device)
        self.ended = torch.ones(size, dtype=torch.bool, device=device)
        self.state = decoder.start(decoder.empty(size), room)
        self.out = torch.empty(size, stride, dtype=torch.int64, device=device)
        # a device brings its tokens here by itself only if it never moves
        self._told = torch.empty(size, stride, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._arrived = torch.cuda.Event() if device.type == "cuda" else None
        self.runs = 0
        self._home = self.state
        self._recordings: list[tuple[torch.cuda.CUDAGraph, Memory]] = []
        self._following = 0

    def put(self, rows: Tensor, token: Tensor | int, state: Memory) -> None:
        """Lays windows into the slots ``rows`` [n] int64."""
        self.token[rows] = token
        self.ended[rows] = False
        for name, part in self.state.items():
            part[rows] = state[name].to(part.dtype)

    def advance(self) -> None:
        """Writes ``stride`` tokens in every row."""
        self.runs += 1
        if not self.token.is_cuda:
            self.state = self._write()
        elif self.runs == 1:  # compiles what the recordings replay
            self._carry_back(self._write())
        else:
            if self._following == len(self._recordings):
                self._recordings.append(self._record())
            graph, after = self._recordings[self._following]
            graph.replay()
            self.state, self._following = after, (self._following + 1) % RECORDINGS

    def tell(self) -> None:
        """Has ``out`` brought to the CPU as it is after the strides so far; waits for nothing."""
        self._told.copy_(self.out, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def told(self) -> IntArray:
        """What :meth:`tell` was asked for, until it is asked again: [S, stride] int64."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._told.numpy()

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Memory]:
        """The recording that goes on from where the states lie now, and where it leaves them."""
        graph = torch.cuda.CUDAGraph()
        # they are replayed one after the other, in the order in which they were made
        pool = self._recordings[0][0].pool() if self._recordings else None
        # what autocast has cast goes when it ends: a recording must cast its own weights, and keep them to itself
        torch.clear_autocast_cache()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            after = self._write()
            if self._following == RECORDINGS - 1:
                self._carry_back(after)
                after = self._home
        torch.clear_autocast_cache()
        return graph, after

    def _write(self) -> Memory:
        """The states after ``stride`` tokens more."""
        token, ended, state = self.token, self.ended, self.state
        for step in range(self.out.shape[1]):
            logits, state = self.decoder.step(state, token)
            token = torch.where(ended, self.decoder.eos, logits.argmax(-1))
            ended = ended | (token == self.decoder.eos)
            self.out[:, step] = token
        self.token.copy_(token)
        self.ended.copy_(ended)
        return state

    def _carry_back(self, state: Memory) -> None:
        for name, part in self._home.items():
            if part is not state[name]:
                part.copy_(state[name])


class Writer:
    """Writes windows back from their memories, taking the most likely token at every step.

    Keeps its buffers, and on a GPU its recordings, from one call to the next; they stay right when other weights are
    loaded into the decoder.

    Attributes:
        rows: written at once, at most.
        stride: tokens written between looks at which rows have ended.
        ahead: whether the next stride is begun before a look, while no row is to come or to go: a GPU has something to
            do then while the CPU looks.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        on_cpu = decoder.device.type == "cpu"
        self.stride, self.rows, self.bytes = (CPU_STRIDE, CPU_ROWS, CPU_BYTES) if on_cpu else (STRIDE, ROWS, BYTES)
        self.ahead = not on_cpu
        self._one: dict[int, Memory] = {}
        self._slots: dict[tuple[int, tuple[torch.Size, ...]], Slots] = {}

    def room(self, length: int) -> int:
        """Tokens that a window of ``length`` may take, in whole strides."""
        return -(-2 * length // self.stride) * self.stride

    def size(self, rows: int, length: int) -> int:
        """How many slots ``rows`` rows are written in: the next power of two, so that there are few sizes."""
        each = sum(part.nbytes for part in self._state(length).values())
        fitting = max(1, self.bytes // max(1, each))
        return min(self.rows, 1 << (fitting.bit_length() - 1), 1 << (rows - 1).bit_length())

    @torch.no_grad()
    def slots(self, rows: int, length: int) -> Slots:
        """Empty slots for ``rows`` rows, the same ones for the same size; of all lengths whose states are alike."""
        size = self.size(rows, length)
        key = size, tuple(part.shape for part in self._state(length).values())
        if key not in self._slots:
            self._slots[key] = Slots(self.decoder, size, self.stride, self.room(length))
        slots = self._slots[key]
        slots.ended.fill_(True)
        return slots

    @torch.no_grad()
    def _state(self, length: int) -> Memory:
        """The state of one row."""
        if length not in self._one:
            self._one[length] = self.decoder.start(self.decoder.empty(1), self.room(length))
        return self._one[length]

    @torch.no_grad()
    def write(self, memory: Memory, length: int) -> list[Reconstruction]:
        """Stops a window at EOS, or after ``2 * length`` tokens.  Windows do not influence one another.

        Args:
            memory: of B windows of ``length`` tokens.
        """
        batch, limit, eos, stride = memory.batch, 2 * length, self.decoder.eos, self.stride
        device = self.decoder.device
        # whole strides; what lies beyond the limit is cut off at the end
        room = self.room(length)
        written = np.full((batch, room), eos, dtype=np.int64)
        slots = self.slots(batch, length)
        window = np.full(slots.size, -1)  # that each slot holds
        position = np.zeros(slots.size, dtype=np.int64)
        following, ahead = 0, False
        while True:
            free = np.flatnonzero(window < 0)
            if following < batch and len(free):
                free = free[: batch - following]
                fresh = np.arange(following, following + len(free))
                window[free], position[free] = fresh, 0
                begun = self.decoder.start(memory.rows(torch.from_numpy(fresh).to(device)), room)
                slots.put(torch.from_numpy(free).to(device), self.decoder.bos, begun)
                following += len(free)
            busy = np.flatnonzero(window >= 0)
            if len(busy) == 0:
                break
            if not ahead and following == batch and 2 * len(busy) <= slots.size:
                kept, rows = slots, torch.from_numpy(busy).to(device)
                slots = self.slots(len(busy), length)
                slots.put(torch.arange(len(busy), device=device), kept.token[rows], kept.state.rows(rows))
                window = np.append(window[busy], np.full(slots.size - len(busy), -1))
                position = np.append(position[busy], np.zeros(slots.size - len(busy), dtype=np.int64))
                busy = np.arange(len(busy))
            if not ahead:
                slots.advance()
            slots.tell()
            ahead = self.ahead and following == batch and 2 * len(busy) > slots.size
            # some row goes on unless it ends
            ahead = ahead and bool((position[busy] + stride < limit).any())
            if ahead:
                slots.advance()
            out = slots.told()
            columns = position[busy, None] + np.arange(stride)
            written[window[busy, None], columns] = out[busy]
            position[busy] += stride
            done = busy[(out[busy, -1] == eos) | (position[busy] >= limit)]
            window[done] = -1
        return [_reconstruction(row, eos) for row in written[:, :limit]]


def _reconstruction(row: np.ndarray, eos: int) -> Reconstruction:
    ends = np.flatnonzero(row == eos)
    return Reconstruction(row[: ends[0]].tolist() if len(ends) else row.tolist(), bool(len(ends)))


class Texts:
    """What one decoder has written, so that nothing is written twice: conditions that hand over the same of the same
    window give one text, and what hands over nothing gives one for all windows of a length.

    Holds the texts of one length and one way of handing over.

    Attributes:
        alone: for whoever writes a text that others wait for.
    """

    def __init__(self) -> None:
        self.alone = Lock()
        self._of: tuple[str, int] | None = None
        self._held: dict[str, Reconstruction] = {}

    def held(self, written_as: str, length: int) -> dict[str, Reconstruction]:
        """By the id of the window that was read, "" if none was; to be added to.

        Args:
            written_as: of the condition.
        """
        if self._of != (written_as, length):
            self._of, self._held = (written_as, length), {}
        return self._held
