"""One process is as good as two (design, section 5, equality 6), whether they train one decoder or share a run's."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import child
import numpy as np
import polars as pl
import pytest
import small
from child import Kill
from polars.testing import assert_frame_equal
from safetensors.numpy import load_file

#: 68 tokens are 17 windows of 4 and 5 of 12, 80 are 5 of 16: two processes never get equally many
ODD = {"batch_tokens": 68, "tokens": 1360}
DECODERS = ("growing/seed-0/memory", "growing/seed-0/none", "fixed/seed-0/memory-L4", "fixed/seed-0/memory-L12")


def launch(command: Sequence[str], logs: Sequence[Path], kill: Kill | None = None) -> list[BaseProcess]:
    """Starts a process for each log, as torchrun would; ``kill`` is for the main one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        child.start(
            command,
            log,
            kill if rank == 0 else None,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(len(logs)),
            LOCAL_WORLD_SIZE=str(len(logs)),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            OMP_NUM_THREADS="1",
        )
        for rank, log in enumerate(logs)
    ]


def finish(processes: Sequence[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def study(folder: Path) -> Path:
    small.study(folder)
    values = small.values(folder)
    return small.write(
        values | {"decoders": [d | ODD for d in values["decoders"]]},
        folder / "study.toml",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("study")
    study(made)
    return made


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    command = ["run", str(folder / "study.toml"), "--until", "score", "--out", str(folder / "alone")]
    assert child.run(command, folder / "alone.log") == 0, (folder / "alone.log").read_text()
    return folder / "alone"


def files(run: Path) -> set[str]:
    return {str(p.relative_to(run)) for p in run.rglob("*")}


def assert_same_training(one: Path, other: Path) -> None:
    """Equal up to float32 rounding, of which sums over other parts differ."""
    curves = [pl.read_parquet(run / "curves.parquet").drop("seconds") for run in (one, other)]
    assert_frame_equal(*curves, rel_tol=2e-6, abs_tol=0)
    for name in DECODERS:
        weights, others = (load_file(run / "checkpoints" / f"{name}.safetensors") for run in (one, other))
        for key, value in weights.items():
            np.testing.assert_allclose(value, others[key], rtol=1e-5, atol=2e-6, err_msg=f"{name} {key}")


def assert_same_records(one: Path, other: Path) -> None:
    names = ["run", "decoder", "condition", "length", "seed", "window_id", "position", "nats"]
    tables = [pl.read_parquet(run / "tokens.parquet").select(names) for run in (one, other)]
    assert_frame_equal(*tables, rel_tol=1e-4, abs_tol=1e-5)


def test_two_processes_run_a_study(folder: Path, alone: Path) -> None:
    out, logs = folder / "two", [folder / "two.0.log", folder / "two.1.log"]
    command = ["run", str(folder / "study.toml"), "--until", "score", "--out", str(out)]
    assert finish(launch(command, logs)) == [0, 0], [log.read_text() for log in logs]
    assert '"processes": 2' in (out / "manifest.json").read_text()
    assert_same_training(out, alone)
    assert_same_records(out, alone)
    # both trained, one spoke and wrote
    assert child.trainings(logs[0]) == child.trainings(logs[1])
    assert "reconstructing" in logs[0].read_text()
    assert logs[1].read_text() == ""
    assert files(out) == files(alone)


def test_begun_by_two_ended_by_one(folder: Path, alone: Path) -> None:
    out, logs = folder / "fewer", [folder / "fewer.0.log", folder / "fewer.1.log"]
    command = ["run", str(folder / "study.toml"), "--until", "score", "--out", str(out)]
    main, other = launch(command, logs, Kill("latest"))
    main.join(120)
    assert main.exitcode == -signal.SIGKILL
    other.kill()  # as the launcher does
    other.join()
    assert child.run(command, folder / "fewer.log") == 0
    assert child.trainings(folder / "fewer.log")[0] == ("memory", list(range(10, 20)))
    assert_same_training(out, alone)
    assert_same_records(out, alone)


def test_two_jobs_share_the_decoders_of_a_run(folder: Path, alone: Path) -> None:
    out = folder / "shared"
    begin = ["run", str(folder / "study.toml"), "--out", str(out), "--until"]
    assert child.run([*begin, "prepare"], folder / "shared.log") == 0
    for stage in ("train", "reconstruct"):
        logs = [folder / f"shared.{stage}.{part}.log" for part in ("growing", "fixed")]
        jobs = [child.start([stage, str(out), "--only", log.suffixes[-2][1:]], log) for log in logs]
        assert finish(jobs) == [0, 0], [log.read_text() for log in logs]
    assert child.run([*begin, "score"], folder / "shared.log") == 0
    assert not Path(f"{folder / 'shared.log'}.steps").exists(), "what the jobs had done was done again"
    assert_frame_equal(
        *(pl.read_parquet(run / "curves.parquet").drop("seconds") for run in (out, alone)), check_exact=True
    )
    assert_frame_equal(*(pl.read_parquet(run / "tokens.parquet") for run in (out, alone)), check_exact=True)


def test_two_processes_pretrain(tmp_path: Path) -> None:
    small.text(tmp_path / "train.jsonl", documents=20, seed=1)
    small.text(tmp_path / "measure.jsonl", seed=2)
    file = small.write(small.pretraining(tmp_path, batch_tokens=80), tmp_path / "study.toml")
    command = ["pretrain", str(file), "--out"]
    assert child.run([*command, str(tmp_path / "one")], tmp_path / "one.log") == 0
    logs = [tmp_path / "two.0.log", tmp_path / "two.1.log"]
    assert finish(launch([*command, str(tmp_path / "two")], logs)) == [0, 0], [log.read_text() for log in logs]
    curves = [pl.read_parquet(tmp_path / run / "curves.parquet").drop("seconds") for run in ("one", "two")]
    assert_frame_equal(*curves, rel_tol=2e-6, abs_tol=0)
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    for key, value in one.items():
        np.testing.assert_allclose(value, two[key], rtol=1e-5, atol=2e-6, err_msg=key)


def test_what_is_wrong_stops_every_process_before_training(folder: Path, tmp_path: Path) -> None:
    values = small.values(folder)
    few = small.write(values | {"decoders": [values["decoders"][0] | {"batch_tokens": 12}]}, folder / "few.toml")
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    assert finish(launch(["run", str(few), "--out", str(tmp_path / "out")], logs)) == [2, 2]
    told = [log.read_text() for log in logs]
    assert "a step of 1 windows of 12 tokens cannot be shared by 2 processes. Raise batch_tokens" in told[0]
    assert "the main process stopped: a step of 1 windows" in told[1]
    assert "Traceback" not in told[0] + told[1]
    assert not any(Path(f"{log}.steps").exists() for log in logs)
