"""The entry point of the command line."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import ModuleType

import pytest
import typer
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from mnemoscope import bench, cli, config, pipeline, pretraining, zoo
from mnemoscope.cli import shared


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_threads_do_not_wait_long_for_one_another_unless_told_to(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spins: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["mnemoscope", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_paragraphs_of_help_are_broken_where_the_terminal_ends() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert {"demo", "compare"} <= set(commands)
    for name, command in commands.items():
        assert not any("\n" in paragraph for paragraph in command.help.split("\n\n")), name


@pytest.mark.parametrize(("width", "shown"), [(80, "50%"), (160, "20000/40000")])
def test_a_task_takes_one_line_of_any_terminal(monkeypatch: pytest.MonkeyPatch, width: int, shown: str) -> None:
    written = io.StringIO()
    monkeypatch.setattr(shared, "err", Console(file=written, force_terminal=True, width=width))
    with shared.Bars().task("training trained-here/seed-0/memory", 40000, "tokens") as bar:
        bar.at(20000, "1.234 nats/token, and more than any line could ever hold " * 3)
        bar.progress.refresh()
    drawn = [str(Text.from_ansi(line.replace("\x1b[2K", ""))).strip() for line in written.getvalue().splitlines()]
    lines = [line for line in drawn if line]
    assert all(line.startswith("training trained-here/seed-0/memory") for line in lines)
    assert any(shown in line and "1.234" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_a_log_is_told_how_far_a_task_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line a minute, from what was done before the task was resumed; nothing of a task that is soon over."""
    written, now = io.StringIO(), [100.0]
    monkeypatch.setattr(shared, "err", Console(file=written, width=80))
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with shared.Bars().task("training", 1000, "tokens") as bar:
        for seconds, done in ((0, 400), (30, 500), (60, 600), (90, 700), (120, 800)):
            now[0] = 100 + seconds
            bar.at(done, "3.1 nats/token")
    with shared.Bars().task("tokenising [all]", 1, "documents") as bar:
        bar.at(0, "7 documents")
        now[0] += 61
        bar.at(0, "9 documents")
        now[0] += 1
    with shared.Bars().task("aligning", 3, "windows") as bar:
        bar.at(3)
    assert written.getvalue().splitlines() == [
        "training ...",
        "training: 60%, 600 of 1,000 tokens, 3.33 tokens/s, 0:02:00 left, 3.1 nats/token",
        "training: 80%, 800 of 1,000 tokens, 3.33 tokens/s, 0:01:00 left, 3.1 nats/token",
        "training: took 0:02:00",
        "tokenising [all] ...",
        "tokenising [all]: 9 documents",
        "tokenising [all]: took 0:01:02",
        "aligning ...",
    ]


class ReachedError(Exception):
    pass


@pytest.mark.parametrize(
    ("command", "module", "does"),
    [("run", pipeline, "run"), ("pretrain", pretraining, "pretrain"), ("bench", bench, "forecast")],
)
def test_every_command_on_a_study_takes_other_values(
    monkeypatch: pytest.MonkeyPatch, command: str, module: ModuleType, does: str
) -> None:
    """And goes on with the study that a file with these values would be."""

    def reached(study: config.Study, *_: object) -> None:
        raise ReachedError(study)

    monkeypatch.setattr(module, does, reached)
    file = str(zoo.study("demo"))
    words = [command, file, "--set", "seed=7", "--set", "decoders.0.name=other", "--set", "compute.device=cpu"]
    done = CliRunner().invoke(cli.app, words if command == "bench" else [*words, "--out", "nowhere"])
    assert isinstance(done.exception, ReachedError), done.output
    (study,) = done.exception.args
    changes = ("seed=7", "decoders.0.name=other", "compute.device=cpu")
    assert study == config.load(file, changes=changes) != config.load(file)
    assert (study.seed, study.decoders[0].name, study.compute.device) == (7, "other", "cpu")


def test_what_is_wrong_with_what_is_set_is_said_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = io.StringIO()
    monkeypatch.setattr(cli, "err", Console(file=written, width=80))
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        monkeypatch.setenv(name, "0")  # so that it is put back
    given = "decoders.nobody.conditions=[bold]"
    monkeypatch.setattr(
        "sys.argv", ["mnemoscope", "run", str(zoo.study("demo")), "--out", str(tmp_path / "out"), "--set", given]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert written.getvalue().startswith(f"error --set {given}: there is no nobody in decoders. There are: ")
    assert not (tmp_path / "out").exists()
