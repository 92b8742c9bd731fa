"""What a study will take: costs are drawn out rightly, strides are counted rightly, every stage is there, and nothing
is left behind.  No test looks at a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small
import tiny
import torch
from typer.testing import CliRunner

from mnemoscope import bench, cli, errors
from mnemoscope.bench import clock, measuring
from mnemoscope.cli.forecast import duration
from mnemoscope.codec.families.native import Native
from mnemoscope.codec.generate import Slots, Writer


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work says itself how long it took."""
    monkeypatch.setattr(clock, "typical", lambda work: work())


@pytest.mark.usefixtures("told")
def test_a_cost_is_drawn_out_from_sizes_that_are_not_long() -> None:
    tried: list[int] = []

    def work(size: int) -> float:
        tried.append(size)
        return 0.1 + 0.01 * size

    cost = clock.Cost(work, [1, 4, 16, 64, 256])
    # 0.74 s are long enough: 256 was not tried
    assert tried == [1, 4, 16, 64]
    assert not cost.covers(256)
    assert cost(4) == pytest.approx(0.14)
    assert cost(10) == pytest.approx(0.2)
    assert cost(256) == pytest.approx(2.66)


@pytest.mark.usefixtures("told")
def test_a_cost_that_falls_is_not_drawn_out_below_nothing() -> None:
    cost = clock.Cost(lambda size: {1: 0.3, 4: 0.2, 16: 0.1}[size], [1, 4, 16])
    assert cost(1000) >= 0.1


@pytest.mark.usefixtures("told")
def test_work_that_was_held_up_is_timed_again() -> None:
    times = iter([0.01, 5.0, 0.04, 0.16])
    cost = clock.Cost(lambda size: next(times), [1, 4, 16])
    assert cost.seconds == [0.01, 0.04, 0.16]


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("gpu", [False, True])
def test_lengths_that_were_not_timed_lie_between_those_that_were(gpu: bool) -> None:
    tried: set[tuple[int, int]] = set()

    def work(length: int, windows: int) -> float:
        """A token more in every window, as decoders have it, and a cost of the whole."""
        tried.add((length, windows))
        return 1e-3 + 1e-5 * windows * (length + 1)

    full = {length: 2048 // length for length in (4, 8, 16, 32, 64, 128, 256)}
    cost = clock.Batches(work, full, gpu)
    assert cost.whole
    if gpu:
        assert tried == set(full.items())
    else:
        assert {length for length, _ in tried} == {4, 32, 256}
        # from 256 tokens, but no fewer than two windows, in leaps of four
        assert {windows for length, windows in tried if length == 256} == {2, 8}
    for length, windows in full.items():
        assert cost(length, windows) == pytest.approx(1e-3 + 1e-5 * windows * (length + 1))


def test_work_that_takes_long_is_done_once_and_not_for_the_middle_length(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []

    def seconds_of(work: partial[None]) -> float:
        work()
        return 3.0

    monkeypatch.setattr(clock, "seconds_of", seconds_of)
    full = {length: 2048 // length for length in (4, 16, 256)}
    cost = clock.Batches(lambda length, windows: tried.append((length, windows)), full, gpu=False)
    assert tried == [(4, 64), (256, 2)]
    assert not cost.whole
    # one size was timed: twice as many windows take twice as long
    assert cost(4, 128) == pytest.approx(6.0)
    # as many tokens of a length between: 3 s for 256 tokens, 1.5 s for 256 of 512; linear in windows, 64 and 1
    assert cost(16, 16) == pytest.approx(1.5 + 1.5 * (16 - 1) / (64 - 1))


def test_leaps_end_with_the_whole() -> None:
    assert clock.rising(2, 40) == [2, 8, 32, 40]
    assert clock.rising(8, 8) == [8]


def test_strides_worked_by_hand() -> None:
    # 5 windows in 8 slots, the ends in strides: after one stride 3 are left and move to 4 slots, after three strides
    # one is left and moves to 1
    assert measuring.strides([1, 1, 3, 3, 5], partial(_slots, 1024)) == {8: 1, 4: 2, 1: 2}
    # what needs none is not there
    assert measuring.strides([0, 1, 0, 1, 3, 3, 5], partial(_slots, 1024)) == {8: 1, 4: 2, 1: 2}
    assert not measuring.strides([0, 0], partial(_slots, 1024))
    # 2 slots for 3 windows: the third takes the place of the first that ends, and stays alone for one stride
    assert measuring.strides([1, 3, 3], partial(_slots, 2)) == {2: 3, 1: 1}


def _slots(most: int, rows: int) -> int:
    return min(most, 1 << (rows - 1).bit_length())


@pytest.mark.parametrize(("most", "batch"), [(1024, 37), (8, 37), (4, 3)])
def test_strides_are_those_that_the_writer_takes(most: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: Counter[int] = Counter()
    advance: Callable[[Slots], None] = Slots.advance

    def counted(slots: Slots) -> None:
        taken[slots.size] += 1
        advance(slots)

    monkeypatch.setattr(Slots, "advance", counted)
    torch.manual_seed(0)
    adapter = tiny.adapter("mamba")
    # the memories are noise, so texts part and end at different places
    memory = adapter.empty(batch).map(lambda part: 3 * torch.randn_like(part))
    writer = Writer(Native(adapter, bos=0, eos=1))
    writer.rows = most
    length = 20
    written = writer.write(memory, length)
    ends = np.array([min(2 * length, len(w.ids) + w.stopped) for w in written])
    assert len(set(ends)) > 1
    assert measuring.strides(ends, partial(writer.size, length=length)) == taken


def test_times_add_up() -> None:
    lines = [
        bench.Line("train", "growing, memory", 1000, "tokens", 2.5),
        bench.Line("train", "growing, none", 1000, "tokens", 1.5),
        bench.Line("score", "3 measurements", 10, "tokens", 0.25),
    ]
    found = bench.Forecast("cpu", lines)
    assert found.seconds == pytest.approx(4.25)
    assert found.of_stage("train") == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.21, "3.2 s"), (125.4, "2 min 05 s"), (59.97 + 60, "2 min 00 s"), (7260, "2 h 01 min")]
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_study_is_timed_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small.study(tmp_path)
    monkeypatch.setattr(clock, "ENOUGH", 0.0)
    kept: list[bench.Forecast] = []
    forecast = bench.forecast
    monkeypatch.setattr(bench, "forecast", lambda *arguments: kept.append(forecast(*arguments)) or kept[0])
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(cli.app, ["bench", str(study), "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
    (found,) = kept
    assert done.stdout.startswith(f"about {duration(found.seconds)} for ")
    stages = ["prepare", "train", "reconstruct", "score", "estimate", "report"]
    assert list(dict.fromkeys(line.stage for line in found.lines)) == stages
    assert all(stage in done.stdout for stage in stages)
    assert all(line.seconds >= 0 for line in found.lines)
    amounts = {(line.stage, line.what): line.amount for line in found.lines}
    # growing: 25 steps of 64 tokens (60 where windows have 12); fixed: 9 steps a length of 64 and 60 tokens
    assert 25 * 60 <= amounts["train", "growing, none"] == amounts["train", "growing, memory"] <= 25 * 64
    assert amounts["train", "fixed, memory"] == 9 * (64 + 60)
    # a checkpoint after 10 and 20 steps of 25, none but the last of 9; and each decoder's weights in the end
    assert amounts["train", "saving"] == 2 * 3 + 2
    assert amounts["train", "beginning"] == 4
    # 96 tokens at each of two lengths
    measured = {what: amount for (stage, what), amount in amounts.items() if stage == "reconstruct"}
    names = ["growing, memory", "growing, none", "growing, wrong", "fixed, memory"]
    assert measured == dict.fromkeys(names, 192)
    assert amounts["score", "8 measurements"] == 8 * 96
    assert "yet to be trained" in done.stdout
    assert found.peak_bytes > 0


def test_a_study_of_trained_decoders_is_timed(tmp_path: Path) -> None:
    """Their texts' ends are looked at; nothing of training is in it."""
    from mnemoscope import config, pipeline

    made = pipeline.run(config.load(small.study(tmp_path)), tmp_path / "run", until="train")
    trained = {"name": "t", "recipe": "trained", "seeds": [0], "conditions": ["memory", "wrong", "none"]}
    values = small.values(tmp_path, decoders=[trained | {"weights": str(made.checkpoints / "growing")}])
    found = bench.forecast(config.load(small.write(values, tmp_path / "again.toml")))
    assert {line.stage for line in found.lines} == {"prepare", "reconstruct", "score", "estimate", "report"}
    assert any("end their texts" in sentence for sentence in found.assumed)
    assert not any("yet to be trained" in sentence for sentence in found.assumed)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"decoders": []}, "measures nothing"),
        ({"windows": {"lengths": [4, 4000], "tokens_per_length": 96}}, "no document has 4000 tokens"),
        ({"text": {"train": [], "measure": [{"path": "measure.jsonl"}]}}, "text.train is empty"),
    ],
)
def test_what_run_refuses_is_refused(changes: dict[str, object], problem: str, tmp_path: Path) -> None:
    from mnemoscope import config, pipeline

    study = config.load(small.study(tmp_path, **changes))
    messages = []
    for attempt in (lambda: bench.forecast(study), lambda: pipeline.run(study, tmp_path / "run")):
        with pytest.raises(errors.MnemoscopeError, match=problem) as refused:
            attempt()
        messages.append((type(refused.value), refused.value.problem, refused.value.remedy))
    assert messages[0] == messages[1]
