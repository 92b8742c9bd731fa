"""What a study will take: every stage of it is there, times add up, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import small
from typer.testing import CliRunner

from mnemoscope import bench, cli


def test_times_add_up() -> None:
    lines = [
        bench.Line("train", "memory, L = 4", 1000, "tokens", 2.5),
        bench.Line("train", "none, L = 4", 1000, "tokens", 1.5),
        bench.Line("score", "all", 10, "tokens", 0.25),
    ]
    found = bench.Forecast("cpu", lines)
    assert found.seconds == pytest.approx(4.25)
    assert found.of_stage("train") == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.21, "3.2 s"), (125.4, "2 min 05 s"), (59.97 + 60, "2 min 00 s"), (7260, "2 h 01 min")]
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert cli._time(seconds) == said


def test_a_study_is_timed_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small.study(tmp_path)
    monkeypatch.setattr(bench, "REPEAT", 0.0)
    kept: list[bench.Forecast] = []
    forecast = bench.forecast
    monkeypatch.setattr(bench, "forecast", lambda *arguments: kept.append(forecast(*arguments)) or kept[0])
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(cli.app, ["bench", str(study), "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "reconstruct" in done.stdout
    assert "GB of memory" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before
    (found,) = kept
    assert list(dict.fromkeys(line.stage for line in found.lines)) == [
        *("prepare", "train", "reconstruct", "score", "estimate", "report")
    ]
    assert all(line.seconds >= 0 for line in found.lines)
    trained = {line.what: line.amount for line in found.lines if line.stage == "train"}
    # growing: 25 steps of 64 tokens (60 where windows have 12) for memory and for none; fixed: 9 steps a length of 64
    # and 60 tokens, for memory alone
    steps_of_12 = (trained["none, L = 12"]) / 60
    assert trained["none, L = 4"] == (25 - steps_of_12) * 64
    assert trained["memory, L = 4"] == trained["none, L = 4"] + 9 * 64
    assert trained["memory, L = 12"] == trained["none, L = 12"] + 9 * 60
    # a checkpoint after 10 and 20 steps of 25, none but the last of 9; and each decoder's weights in the end
    assert trained["saving"] == 2 * 3 + 2
    assert trained["beginning"] == 4
    # 96 tokens a length: measured as memory, wrong and none, and once more by the fixed decoders
    measured = sum(line.amount for line in found.lines if line.stage == "reconstruct")
    assert measured == 2 * 96 * (3 + 1)
    assert found.peak_bytes > 0
