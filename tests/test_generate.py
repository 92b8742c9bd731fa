"""Greedy writing in slots against the same thing written as its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mnemoscope.codec import generate
from mnemoscope.codec.families.native import Native
from mnemoscope.memory.memory import Memory, MemorySpec, Part

EOS = 0


class Countdown(torch.nn.Module):
    """A model whose memory is what is left to write: row n writes n, n - 1, ... 1 and EOS; minus one never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.calls = 0

    def spec(self) -> MemorySpec:
        return MemorySpec((Part("left", (1,), torch.float32),))

    def empty(self, batch: int) -> Memory:
        return Memory({"left": torch.zeros(batch, 1)})

    def forward(self, ids: Tensor, start: Memory) -> tuple[Tensor, Memory]:
        self.calls += 1
        left = start["left"].squeeze(1)
        token = torch.where(left < 0, 99, left).long()
        return torch.nn.functional.one_hot(token, 100)[:, None].float(), Memory(
            {"left": torch.where(left > 0, left - 1, left)[:, None]}
        )


def write(left: list[int], length: int) -> tuple[list[list[int]], list[bool], int]:
    model = Countdown()
    decoder = Native.__new__(Native)
    torch.nn.Module.__init__(decoder)
    decoder.adapter, decoder.bos, decoder.eos = model, EOS, EOS  # type: ignore[assignment]
    memory = Memory({"left": torch.tensor(left, dtype=torch.float32)[:, None]})
    found = generate.Writer(decoder).write(memory, length)
    return [r.ids for r in found], [r.stopped for r in found], model.calls


@pytest.mark.parametrize("rows", [1, 2, 8, 1024])
@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("length", [1, 3, 4, 10])
def test_every_window_is_written_from_its_own_memory(
    rows: int, stride: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "CPU_ROWS", rows)
    monkeypatch.setattr(generate, "CPU_STRIDE", stride)
    left = [3, 0, -1, 7, 19, 20, 21, 5, -1, 1, 2]
    ids, stopped, _ = write(left, length)
    whole = [[99] * 99 if n < 0 else list(range(n, 0, -1)) for n in left]
    assert ids == [w[: 2 * length] for w in whole]
    assert stopped == [0 <= n < 2 * length for n in left]


def test_rows_that_end_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot of 30 tokens and EOS beside windows of one: two slots need no more steps than the long window alone."""
    monkeypatch.setattr(generate, "CPU_ROWS", 2)
    assert write([30] + [1] * 3, 16)[2] == 31
    assert write([1] * 8, 16)[2] == 8


def test_where_looks_are_dear_rows_leave_only_after_a_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "CPU_ROWS", 2)
    monkeypatch.setattr(generate, "CPU_STRIDE", 8)
    assert write([30] + [1] * 3, 16)[2] == 32
    assert write([1] * 8, 16)[2] == 32


def test_one_window_is_as_many_slots_as_it_needs() -> None:
    assert write([5], 4) == ([[5, 4, 3, 2, 1]], [True], 6)
