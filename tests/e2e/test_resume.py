"""Resumed is as if never stopped (design, section 5, equality 6): by an exception, by a kill at any moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import child
import numpy as np
import polars as pl
import pytest
import small
import tiny
import torch
from child import Kill
from polars.testing import assert_frame_equal
from torch import Tensor, nn

from mnemoscope import config
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native
from mnemoscope.errors import RunError
from mnemoscope.train import checkpoint
from mnemoscope.train.loop import READ_EVERY, fit
from mnemoscope.train.plan import Plan, fixed, growing
from mnemoscope.train.processes import accelerator
from mnemoscope.types import IntArray

STEPS, EVERY = 60, 20
#: the callback is called here, which is not a checkpoint
STOP = READ_EVERY
assert EVERY < STOP < STEPS
assert STOP % EVERY

RECIPES: dict[str, IntArray] = {
    "growing": growing((3, 5, 8), STEPS, 0.5, (1, 2)),
    "fixed": fixed(5, STEPS),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- the loop -------------------------------------------------------------------------------------------------------


class StoppedError(Exception):
    pass


def train(
    folder: Path, recipe: str = "growing", stop: int | None = None, identity: str = "this", nan_at: int | None = None
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Trains a tiny decoder; its weights and its curve.  Raises StoppedError after ``stop`` steps."""
    encoder = tiny.adapter("mamba", num_hidden_layers=1)
    decoder = Native.from_encoder(encoder, 0, 0)
    plan = Plan(RECIPES[recipe], 24, config.Optimiser(learning_rate=1e-2, weight_decay=0.1), EVERY)
    steps_seen = [0]

    def loss(module: nn.Module, ids: Tensor) -> Tensor:
        nats: Tensor = module(encode(encoder, ids), ids)[0]
        steps_seen[0] += 1
        return nats * float("nan") if steps_seen[0] - 1 == nan_at else nats

    def progress(seen: int, total: int, nats: float) -> None:
        if stop is not None:
            raise StoppedError

    curve = fit(
        decoder,
        loss,
        lambda rng, length, count: rng.integers(1, 37, size=(count, length)),
        plan,
        seed=(7,),
        identity=identity,
        folder=folder,
        accelerator=accelerator(config.Compute(device="cpu")),
        row={"run": "r", "decoder": "d", "condition": "memory", "seed": 0},
        progress=progress,
    )
    assert steps_seen[0] <= STEPS - (STOP // EVERY) * EVERY or steps_seen[0] == STEPS
    return {name: value.clone() for name, value in decoder.state_dict().items()}, curve


def assert_same(one: tuple[dict[str, Tensor], list[Any]], other: tuple[dict[str, Tensor], list[Any]]) -> None:
    for name, weight in one[0].items():
        assert torch.equal(weight, other[0][name]), name
    rows, others = ([{**row, "seconds": 0} for row in curve] for curve in (one[1], other[1]))
    # what a checkpoint kept of the curve went through its file's float32
    as_float32 = [{k: np.float32(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    assert as_float32 == [{k: np.float32(v) if isinstance(v, float) else v for k, v in row.items()} for row in others]
    assert [row["step"] for row in rows] == list(range(STEPS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {recipe: train(tmp_path_factory.mktemp(recipe), recipe) for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
def test_stopped_between_checkpoints(tmp_path: Path, whole: dict[str, Any], recipe: str) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path, recipe, stop=STOP)
    state = json.loads((tmp_path / "latest" / "state.json").read_text())
    assert state["step"] == STOP // EVERY * EVERY
    seconds = pl.read_parquet(tmp_path / "latest" / "curve.parquet")["seconds"]
    resumed = train(tmp_path, recipe)
    assert_same(resumed, whole[recipe])
    # wall time goes on from where the checkpoint was
    assert all(a["seconds"] <= b["seconds"] for a, b in zip(resumed[1], resumed[1][1:], strict=False))
    assert resumed[1][state["step"]]["seconds"] > seconds[-1]


def only_old(folder: Path) -> None:
    """Killed between the renames of the last checkpoint and of the new one, which is whole."""
    shutil.copytree(folder / "latest", folder / "new")
    (folder / "latest").rename(folder / "old")


def half_new(folder: Path) -> None:
    """Killed while the new one was being written, ``old`` left from a removal that was killed too."""
    (folder / "new").mkdir()
    (folder / "new" / "weights.safetensors").write_bytes(b"half")
    (folder / "old").mkdir()
    (folder / "old" / "curve.parquet").write_bytes(b"half")


def old_beside_latest(folder: Path) -> None:
    """Killed before the older one was removed."""
    shutil.copytree(folder / "latest", folder / "old")


@pytest.mark.parametrize("state", [only_old, half_new, old_beside_latest])
def test_whatever_a_kill_leaves_of_checkpoints(
    tmp_path: Path, whole: dict[str, Any], state: Callable[[Path], None]
) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path, stop=STOP)
    state(tmp_path)
    # stopped once more, before it could save: what was there is still there
    with pytest.raises(StoppedError):
        train(tmp_path, stop=STOP)
    assert_same(train(tmp_path), whole["growing"])


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path, stop=STOP, identity="that")
    with pytest.raises(RunError, match="this checkpoint is of another training") as caught:
        train(tmp_path)
    assert caught.value.file == tmp_path / "latest" / "state.json"


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is nan at step 45 of this. Lower the learning rate"):
        train(tmp_path, nan_at=45)
    assert json.loads((tmp_path / "latest" / "state.json").read_text())["step"] == 40


def test_final_weights_appear_whole(tmp_path: Path) -> None:
    target = tmp_path / "memory.safetensors"
    (tmp_path / "memory.safetensors.new").write_bytes(b"half")
    checkpoint.save_weights(nn.Linear(2, 2), target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["memory.safetensors"]


# ---- the command ----------------------------------------------------------------------------------------------------

#: a study of 25 + 25 + 9 + 9 steps; each of these ends one attempt, in the order in which they come to pass
MOMENTS = [
    Kill("study.toml", before=True),  # the manifest is there, and nothing else
    Kill("cache/*", before=True),  # tokens written, not in place
    Kill("latest"),  # just after the first checkpoint of the first decoder
    Kill(step=15),  # between its first and its second
    Kill("seed-0/memory.safetensors", before=True),  # trained, not saved
    Kill("seed-0/memory.safetensors"),  # saved, its checkpoints not removed
    Kill("old"),  # second decoder: between the two renames of its second checkpoint
    Kill("seed-0/memory-L12.safetensors", before=True),  # shorter than a checkpoint: from its beginning
    Kill("decoded/growing.seed-0.none.L4.parquet"),
    Kill("tokens.parquet"),  # score: before reconstructions.parquet
    Kill("estimates.parquet", before=True),
    Kill("figures/*.svg"),
]
CHECKPOINT_EVERY = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("study")
    small.study(made)
    return made


def run(folder: Path, out: str, until: str = "estimate") -> list[str]:
    return ["run", str(folder / "study.toml"), "--out", str(folder / out), "--until", until]


@pytest.fixture(scope="module")
def unstopped(folder: Path) -> Path:
    assert child.run(run(folder, "whole"), folder / "whole.log") == 0
    return folder / "whole"


def assert_same_records(run: Path, other: Path) -> None:
    for table in ("tokens", "reconstructions", "curves", "estimates"):
        one, two = (pl.read_parquet(place / f"{table}.parquet") for place in (run, other))
        if table == "curves":
            one, two = one.drop("seconds"), two.drop("seconds")
        # sums over tokens are taken by several threads, whose order changes the last digit
        assert_frame_equal(one, two, check_exact=table != "estimates", rel_tol=1e-12, abs_tol=1e-12)


def assert_little_done_again(log: Path, kills: int) -> None:
    """At most a checkpoint's worth of steps is done again after each kill, and none that was saved."""
    done: dict[str, int] = {}
    again = 0
    for name, steps in child.trainings(log):
        if not steps:
            continue
        assert steps == list(range(steps[0], steps[0] + len(steps)))
        repeated = done.get(name, 0) - steps[0]
        assert 0 <= repeated <= CHECKPOINT_EVERY, f"{name}: {repeated} steps done again"
        again += repeated
        done[name] = steps[-1] + 1
    assert 0 < again <= kills * CHECKPOINT_EVERY


def test_killed_at_every_kind_of_moment(folder: Path, unstopped: Path) -> None:
    out, log = folder / "killed", folder / "killed.log"
    command = run(folder, "killed", until="report")
    for moment in MOMENTS:
        assert child.run(command, log, moment) == -signal.SIGKILL, f"never came to {moment}\n{log.read_text()}"
    assert child.run(command, log) == 0, log.read_text()
    assert_same_records(out, unstopped)
    assert_little_done_again(log, len(MOMENTS))
    for name in ("growing/seed-0/memory", "growing/seed-0/none", "fixed/seed-0/memory-L4", "fixed/seed-0/memory-L12"):
        weights = [(run / "checkpoints" / f"{name}.safetensors").read_bytes() for run in (out, unstopped)]
        assert weights[0] == weights[1], name
    assert not (out / "checkpoints" / "training").exists()
    assert "Traceback" not in log.read_text()


def test_done_twice_does_nothing_twice(folder: Path, unstopped: Path) -> None:
    log = folder / "again.log"
    files = [*unstopped.rglob("*.safetensors"), *(unstopped / f"{t}.parquet" for t in ("tokens", "curves"))]
    before = [f.stat().st_mtime_ns for f in files]
    assert child.run(run(folder, "whole"), log) == 0
    assert not Path(f"{log}.steps").exists(), "it trained again"
    assert [f.stat().st_mtime_ns for f in files] == before


def test_the_installed_command_killed_from_outside(folder: Path, unstopped: Path) -> None:
    """No hook in it: the command itself, killed as soon as its first checkpoint is seen."""
    out = folder / "outside"
    command = [Path(sys.executable).with_name("mnemoscope"), *run(folder, "outside")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(out.glob("checkpoints/training/*/*/*/latest")) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert child.run(run(folder, "outside"), folder / "outside.log") == 0
    assert_same_records(out, unstopped)


# ---- pretraining ----------------------------------------------------------------------------------------------------

PRETRAIN_MOMENTS = [
    Kill("tokenizer", before=True),
    Kill("cache/*", count=2),
    Kill("latest"),
    Kill(step=15),
    Kill("old"),
    Kill("pretrained.json", before=True),  # the model is saved, the stage is not done
]


def test_pretraining_killed_at_every_kind_of_moment(tmp_path: Path) -> None:
    small.text(tmp_path / "train.jsonl", documents=20, seed=1)
    small.text(tmp_path / "measure.jsonl", seed=2)
    study = small.write(small.pretraining(tmp_path), tmp_path / "study.toml")
    command = ["pretrain", str(study), "--out"]
    assert child.run([*command, str(tmp_path / "whole")], tmp_path / "whole.log") == 0
    log = tmp_path / "killed.log"
    for moment in PRETRAIN_MOMENTS:
        assert child.run([*command, str(tmp_path / "killed")], log, moment) == -signal.SIGKILL, log.read_text()
    assert child.run([*command, str(tmp_path / "killed")], log) == 0, log.read_text()
    assert_little_done_again(log, len(PRETRAIN_MOMENTS))
    for file in ("model/model.safetensors", "model/tokenizer.json", "model/config.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    curves = [pl.read_parquet(tmp_path / run / "curves.parquet").drop("seconds") for run in ("killed", "whole")]
    assert_frame_equal(*curves, check_exact=True)
    # and once done it is done
    steps = Path(f"{log}.steps").read_text()
    assert child.run([*command, str(tmp_path / "killed")], log) == 0
    assert Path(f"{log}.steps").read_text() == steps
