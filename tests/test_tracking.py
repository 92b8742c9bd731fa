"""Training curves in a tracker: TensorBoard's files hold the curve, step for step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import small
from typer.testing import CliRunner

from mnemoscope import cli, config, pipeline, pretraining
from mnemoscope.errors import ConfigError
from mnemoscope.train import tracking


def tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, of a folder of TensorBoard's."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def held(curve: pl.DataFrame) -> dict[str, Any]:
    """What the tracker is to hold of a curve, but for the speed."""
    lengths = {f"nats/L{n}": curve.filter(length=n) for n in curve["length"].unique()}
    nats = {tag: dict(rows.select("step", "nats").iter_rows()) for tag, rows in lengths.items()}
    return {**nats, "learning_rate": dict(curve.select("step", "learning_rate").iter_rows())}


def require_held(folder: Path, curve: pl.DataFrame) -> None:
    found = tensorboard(folder)
    speed = found.pop("tokens_per_second")
    for tag, values in held(curve).items():
        assert found.pop(tag) == pytest.approx(values, rel=1e-6)
    assert found == {}
    # one clock for both: of all steps but the first, tokens by seconds
    rows = curve.select("step", pl.col("tokens", "seconds").diff().cast(pl.Float64)).drop_nulls()
    expected = {step: tokens / seconds for step, tokens, seconds in rows.iter_rows() if seconds > 0}
    assert set(speed) <= set(range(1, curve.height))
    assert all(speed[step] == pytest.approx(expected[step], rel=0.05) for step in speed if step in expected)


def test_decoders_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    study = config.load(small.study(tmp_path, compute={"device": "cpu", "scan": "reference", "track": "tensorboard"}))
    run = pipeline.run(study, tmp_path / "run", until="train")
    curves = run.table("curves")
    names = {p.parent.relative_to(run.path / "tracking").as_posix() for p in run.path.rglob("events.*")}
    assert names == {
        *("growing/seed-0/memory", "growing/seed-0/none"),
        *("fixed/seed-0/memory-L4", "fixed/seed-0/memory-L12"),
    }
    for condition in ("memory", "none"):
        of_it = curves.filter(decoder="growing", condition=condition)
        require_held(run.path / "tracking" / "growing" / "seed-0" / condition, of_it)


def test_pretraining_in_tensorboard_by_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    small.text(tmp_path / "train.jsonl", documents=20, seed=1)
    small.text(tmp_path / "measure.jsonl", seed=2)
    study = small.write(small.pretraining(tmp_path), tmp_path / "study.toml")
    out = tmp_path / "run"
    done = CliRunner().invoke(cli.app, ["pretrain", str(study), "--out", str(out), "--track", "tensorboard"])
    assert done.exit_code == 0, done.output
    require_held(out / "tracking" / "encoder", pl.read_parquet(out / "curves.parquet"))


def test_the_tracker_decides_no_number(tmp_path: Path) -> None:
    small.study(tmp_path)
    plain = config.load(tmp_path / "study.toml")
    tracked = plain.model_copy(update={"compute": plain.compute.model_copy(update={"track": "tensorboard"})})
    assert tracked.digest() == plain.digest()


def test_no_such_tracker(tmp_path: Path) -> None:
    small.text(tmp_path / "train.jsonl", documents=20, seed=1)
    small.text(tmp_path / "measure.jsonl", seed=2)
    values = small.pretraining(tmp_path)
    values["compute"]["track"] = "tensorbord"
    study = config.load(small.write(values, tmp_path / "study.toml"))
    with pytest.raises(ConfigError, match=r"no tracker named 'tensorbord'\. Did you mean 'tensorboard'"):
        pretraining.pretrain(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["accelerate.tracking"], "_available_trackers", [])
    with pytest.raises(
        ConfigError, match=r"'tensorboard' is not installed. Install it: pip install 'mnemoscope\[track\]"
    ):
        tracking.require("tensorboard")
    with pytest.raises(ConfigError, match=r"'wandb' is not installed\. Install it: pip install wandb"):
        tracking.require("wandb")
