"""Greedy writing in slots against the same thing written as its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mnemoscope.codec import generate
from mnemoscope.codec.families.native import Native
from mnemoscope.memory.memory import Memory, MemorySpec, Part

EOS = 0
#: what is written on a GPU is recorded and replayed
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Countdown(torch.nn.Module):
    """A model whose memory is what is left to write: row n writes n, n - 1, ... 1 and EOS; minus one never ends."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.calls = 0

    def spec(self) -> MemorySpec:
        return MemorySpec((Part("left", (1,), torch.float32),))

    def empty(self, batch: int) -> Memory:
        return Memory({"left": torch.zeros(batch, 1, device=self.device)})

    def forward(self, ids: Tensor, start: Memory) -> tuple[Tensor, Memory]:
        self.calls += 1
        left = start["left"].squeeze(1)
        token = torch.where(left < 0, 99, left).long()
        return torch.nn.functional.one_hot(token, 100)[:, None].float(), Memory(
            {"left": torch.where(left > 0, left - 1, left)[:, None]}
        )


def countdown(device: str = "cpu") -> tuple[generate.Writer, Countdown]:
    model = Countdown(device)
    decoder = Native.__new__(Native)
    torch.nn.Module.__init__(decoder)
    decoder.adapter, decoder.bos, decoder.eos = model, EOS, EOS  # type: ignore[assignment]
    return generate.Writer(decoder), model


def memories(left: list[int], device: str = "cpu") -> Memory:
    return Memory({"left": torch.tensor(left, dtype=torch.float32, device=device)[:, None]})


def write(left: list[int], length: int) -> tuple[list[list[int]], list[bool], int]:
    writer, model = countdown()
    found = writer.write(memories(left), length)
    return [r.ids for r in found], [r.stopped for r in found], model.calls


def expected(left: list[int], length: int) -> list[generate.Reconstruction]:
    whole = [[99] * 99 if n < 0 else list(range(n, 0, -1)) for n in left]
    return [generate.Reconstruction(ids[: 2 * length], 0 <= n < 2 * length) for n, ids in zip(left, whole, strict=True)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [1, 2, 8, 1024])
@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("length", [1, 3, 4, 10])
@pytest.mark.parametrize("ahead", [False, True])
def test_every_window_is_written_from_its_own_memory(
    device: str, rows: int, stride: int, length: int, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ROWS", rows), ("STRIDE", stride)):
        monkeypatch.setattr(generate, name, value)
        monkeypatch.setattr(generate, f"CPU_{name}", value)
    left = [3, 0, -1, 7, 19, 20, 21, 5, -1, 1, 2]
    writer, _ = countdown(device)
    writer.ahead = ahead
    assert writer.write(memories(left, device), length) == expected(left, length)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ahead", [False, True])
def test_buffers_are_used_again_wherever_they_lie(device: str, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of strides a text took, the next begins with its own memory in every row."""
    for name in ("ROWS", "CPU_ROWS"):
        monkeypatch.setattr(generate, name, 4)
    writer, _ = countdown(device)
    writer.ahead = ahead
    for length in (3, 20, 11, 4, 30, 9):
        left = [(7 * i + length) % (2 * length) for i in range(9)]
        assert writer.write(memories(left, device), length) == expected(left, length)


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


def test_the_next_stride_is_begun_before_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """In vain where all rows end at once, but not where the limit says that no row goes on."""
    monkeypatch.setattr(generate, "CPU_STRIDE", 8)
    steps = []
    for left in ([30] * 4, [-1] * 4):
        writer, model = countdown()
        writer.ahead = True
        assert writer.write(memories(left), 16) == expected(left, 16)
        steps.append(model.calls)
    assert steps == [32, 32]
    writer, model = countdown()
    writer.ahead = True
    writer.write(memories([5] * 4), 16)
    assert model.calls == 16


def test_one_window_is_as_many_slots_as_it_needs() -> None:
    assert write([5], 4) == ([[5, 4, 3, 2, 1]], [True], 6)
