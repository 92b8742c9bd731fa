"""Greedy reconstruction from a memory alone.  The length comes from the window; there is no cap and no default.

Windows are written in slots: a row that ends makes room for the next window, so a few long rows do not keep many idle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mnemoscope.codec.decoder import Decoder
from mnemoscope.memory.memory import Memory

#: tokens written between looks at which rows have ended; each look waits for the device
STRIDE = 8
#: rows written at once, at most, and the memory that they may take
ROWS = 1024
BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Greedy output for one window: ids up to and without EOS, and whether EOS came."""

    ids: list[int]
    stopped: bool


class Slots:
    """Rows that are written together, in buffers that stay where they are, so that a GPU can replay the writing.

    Attributes:
        token: the last token of each row [S, 1] int64.
        ended: rows that wrote EOS, and rows without a window [S] bool.
        memory: of each row.
        out: the last STRIDE tokens of each row [S, STRIDE] int64; EOS after EOS.
    """

    def __init__(self, decoder: Decoder, size: int):
        device = decoder.adapter.device
        self.decoder, self.size = decoder, size
        self.token = torch.full((size, 1), decoder.bos, dtype=torch.int64, device=device)
        self.ended = torch.ones(size, dtype=torch.bool, device=device)
        self.memory = decoder.adapter.empty(size)
        self.out = torch.empty(size, STRIDE, dtype=torch.int64, device=device)
        self.runs = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def put(self, rows: Tensor, token: Tensor | int, memory: Memory) -> None:
        """Lays windows into the slots ``rows`` [n] int64."""
        self.token[rows] = token
        self.ended[rows] = False
        for name, part in self.memory.items():
            part[rows] = memory[name].to(part.dtype)

    def advance(self) -> None:
        """Writes STRIDE tokens in every row."""
        self.runs += 1
        if not self.token.is_cuda or self.runs == 1:  # the first run compiles what the recording replays
            self._write()
            return
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            # what autocast has cast goes when it ends: a recording must cast its own weights, and keep them to itself
            torch.clear_autocast_cache()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self._write()
            torch.clear_autocast_cache()
        self.graph.replay()

    def _write(self) -> None:
        token, ended, memory = self.token, self.ended, self.memory
        for step in range(STRIDE):
            logits, memory = self.decoder.adapter(token, memory)
            token = torch.where(ended.unsqueeze(1), self.decoder.eos, logits.argmax(-1))
            ended = ended | (token.squeeze(1) == self.decoder.eos)
            self.out[:, step] = token.squeeze(1)
        self.token.copy_(token)
        self.ended.copy_(ended)
        for name, part in self.memory.items():
            part.copy_(memory[name])


class Writer:
    """Writes windows back from their memories, taking the most likely token at every step.

    Keeps its buffers, and on a GPU its recordings, from one call to the next; they stay right when other weights are
    loaded into the decoder.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        fitting = max(1, BYTES // max(1, decoder.adapter.spec().bytes))
        self.rows = min(ROWS, 1 << (fitting.bit_length() - 1))
        self._slots: dict[int, Slots] = {}

    def size(self, rows: int) -> int:
        """How many slots ``rows`` rows are written in: the next power of two, so that there are few sizes."""
        return min(self.rows, 1 << (rows - 1).bit_length())

    def slots(self, rows: int) -> Slots:
        """Empty slots for ``rows`` rows, the same ones for the same size."""
        size = self.size(rows)
        if size not in self._slots:
            self._slots[size] = Slots(self.decoder, size)
        slots = self._slots[size]
        slots.ended.fill_(True)
        return slots

    @torch.no_grad()
    def write(self, memory: Memory, length: int) -> list[Reconstruction]:
        """Stops a window at EOS, or after ``2 * length`` tokens.  Windows do not influence one another.

        Args:
            memory: of B windows of ``length`` tokens.
        """
        batch, limit, eos = memory.batch, 2 * length, self.decoder.eos
        device = self.decoder.adapter.device
        # whole strides; what lies beyond the limit is cut off at the end
        written = np.full((batch, -(-limit // STRIDE) * STRIDE), eos, dtype=np.int64)
        slots = self.slots(batch)
        window = np.full(slots.size, -1)  # that each slot holds
        position = np.zeros(slots.size, dtype=np.int64)
        following = 0
        while True:
            free = np.flatnonzero(window < 0)
            if following < batch and len(free):
                free = free[: batch - following]
                fresh = np.arange(following, following + len(free))
                window[free], position[free] = fresh, 0
                slots.put(
                    torch.from_numpy(free).to(device), self.decoder.bos, memory.rows(torch.from_numpy(fresh).to(device))
                )
                following += len(free)
            busy = np.flatnonzero(window >= 0)
            if len(busy) == 0:
                break
            if following == batch and 2 * len(busy) <= slots.size:
                kept, rows = slots, torch.from_numpy(busy).to(device)
                slots = self.slots(len(busy))
                slots.put(torch.arange(len(busy), device=device), kept.token[rows], kept.memory.rows(rows))
                window = np.append(window[busy], np.full(slots.size - len(busy), -1))
                position = np.append(position[busy], np.zeros(slots.size - len(busy), dtype=np.int64))
                busy = np.arange(len(busy))
            slots.advance()
            out = slots.out.cpu().numpy()
            columns = position[busy, None] + np.arange(STRIDE)
            written[window[busy, None], columns] = out[busy]
            position[busy] += STRIDE
            done = busy[(out[busy, -1] == eos) | (position[busy] >= limit)]
            window[done] = -1
        return [_reconstruction(row, eos) for row in written[:, :limit]]


def _reconstruction(row: np.ndarray, eos: int) -> Reconstruction:
    ends = np.flatnonzero(row == eos)
    return Reconstruction(row[: ends[0]].tolist() if len(ends) else row.tolist(), bool(len(ends)))
