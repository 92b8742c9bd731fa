"""A study of every family of decoders: trained, killed, taken up again, measured, and used by another study."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import child
import polars as pl
import pytest
import small
from child import Kill
from polars.testing import assert_frame_equal

from mnemoscope import bench, config, pipeline, plugins
from mnemoscope.bench import clock
from mnemoscope.errors import ModelError, RunError
from mnemoscope.rundir import RunDir

#: what is asked of each family, by the decoder's name
ASKED: dict[str, dict[str, Any]] = {
    "native": {},
    "low-rank": {"options": {"low_rank": 2}},
    "bridged": {"family": "bridged", "options": {"rank": 4}},
    "foreign": {"family": "bridged", "options": {"rank": 4, "model": "other"}},
    "reader": {"family": "reader", "options": {"layers": 1}},
}
RECIPES = {"native": "growing", "low-rank": "fixed", "bridged": "growing", "foreign": "fixed", "reader": "growing"}


def asked(folder: Path) -> list[dict[str, Any]]:
    """A decoder of each: 12 steps in all, a checkpoint after every second."""
    training = {"batch_tokens": 48, "tokens": 600, "optimiser": small.OPTIMISER, "checkpoint_every": 2, "seeds": [0]}
    made = []
    for name, more in ASKED.items():
        values = {"recipe": RECIPES[name], "conditions": ["memory", "none", "bits:4@memory"], **training, **more}
        if "model" in values.get("options", {}):
            values["options"] = values["options"] | {"model": str(folder / "other")}
        made.append({"name": name, **values})
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("families")
    small.model(made / "other", "mamba2", seed=1, hidden_size=12, num_heads=6, head_dim=4, n_groups=3)
    small.study(made, decoders=asked(made))
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> RunDir:
    return pipeline.run(config.load(folder / "study.toml"), folder / "whole")


def test_each_family_is_there() -> None:
    assert {more.get("family", "native") for more in ASKED.values()} == set(plugins.names("family"))


def test_every_row_is_there(run: RunDir) -> None:
    tokens = pl.read_parquet(run.path / "tokens.parquet")
    rows = tokens.group_by("decoder", "condition", "length").len()
    assert set(rows["decoder"]) == set(ASKED)
    assert len(rows) == len(ASKED) * 3 * 2
    assert rows["len"].n_unique() <= 2  # by length alone
    assert tokens["nats"].is_finite().all()


def test_what_is_said_of_them(run: RunDir) -> None:
    origins = run.manifest["origins"]
    assert origins.keys() == {"foreign"}
    for d in run.study.decoders:
        about = json.loads((run.checkpoints / d.name / "decoder.json").read_text())
        assert (about["family"], about["options"]) == (d.family, d.options or {})
        assert about["origin"] == origins.get(d.name, "")
        assert about["encoder"] == run.manifest["encoder"]


def test_low_rank_leaves_weights_like_any_other(run: RunDir) -> None:
    from safetensors.torch import load_file

    shapes = [
        {name: weight.shape for name, weight in load_file(file).items()}
        for file in (
            run.checkpoints / "native/seed-0/memory.safetensors",
            run.checkpoints / "low-rank/seed-0/memory-L4.safetensors",
        )
    ]
    assert shapes[0] == shapes[1]


def again(folder: Path, run: RunDir, name: str) -> Path:
    """A study that measures with what the run has trained."""
    trained = {"name": name, "recipe": "trained", "seeds": [0], "conditions": ["memory"]}
    values = small.values(folder, decoders=[trained | {"weights": str(run.checkpoints / name)}])
    return small.write(values, folder / f"{name}.toml")


@pytest.mark.parametrize("name", ASKED)
def test_trained_ones_measure_the_same_elsewhere(folder: Path, run: RunDir, name: str) -> None:
    other = pipeline.run(config.load(again(folder, run, name)), folder / f"again-{name}", until="reconstruct")
    for length in (4, 12):
        file = f"decoded/{name}.seed-0.memory.L{length}.parquet"
        assert_frame_equal(pl.read_parquet(other.path / file), pl.read_parquet(run.path / file), check_exact=True)


@pytest.mark.parametrize("name", ASKED)
def test_resumed_is_as_never_stopped(folder: Path, run: RunDir, name: str) -> None:
    """Killed after its first checkpoint, and between its second and its third."""
    one = [d for d in asked(folder) if d["name"] == name]
    study = small.write(small.values(folder, decoders=one), folder / f"killed-{name}.toml")
    out, log = folder / f"killed-{name}", folder / f"killed-{name}.log"
    command = ["run", str(study), "--out", str(out), "--until", "train"]
    for moment in (Kill("latest"), Kill(step=5)):
        assert child.run(command, log, moment) == -signal.SIGKILL, log.read_text()
    assert child.run(command, log) == 0, log.read_text()
    for file in (run.checkpoints / name).rglob("*.safetensors"):
        assert file.read_bytes() == (out / file.relative_to(run.path)).read_bytes(), file


def test_weights_that_began_as_another_model_are_refused(folder: Path, run: RunDir) -> None:
    study = config.load(again(folder, run, "foreign"))
    small.model(folder / "other", "mamba2", seed=2, hidden_size=12, num_heads=6, head_dim=4, n_groups=3)
    try:
        with pytest.raises(ModelError, match="began as another model than the one that is called so now"):
            pipeline.run(study, folder / "refused", until="prepare")
        with pytest.raises(RunError, match="the origins of this run changed"):
            pipeline.again("train", run.path)
    finally:
        small.model(folder / "other", "mamba2", seed=1, hidden_size=12, num_heads=6, head_dim=4, n_groups=3)


def test_damaged_words_about_them_are_named(folder: Path, run: RunDir, tmp_path: Path) -> None:
    about = run.checkpoints / "reader" / "decoder.json"
    whole = about.read_text()
    try:
        for change, problem in ({"family": "raeder"}, "no family named 'raeder'"), ({"options": {"x": 1}}, "x"):
            about.write_text(json.dumps(json.loads(whole) | change))
            with pytest.raises(ModelError, match=problem) as caught:
                pipeline.run(config.load(again(folder, run, "reader")), tmp_path / problem[:2], until="prepare")
            assert caught.value.file == about
    finally:
        about.write_text(whole)


def test_a_forecast_has_each_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "ENOUGH", 0.0)
    names = {"low-rank", "reader"}
    some = [d | {"conditions": ["memory"]} for d in asked(folder) if d["name"] in names]
    found = bench.forecast(config.load(small.write(small.values(folder, decoders=some), folder / "bench.toml")))
    for stage in ("train", "reconstruct"):
        lines = {line.what: line.seconds for line in found.lines if line.stage == stage}
        assert all(lines[f"{name}, memory"] > 0 for name in names), stage
