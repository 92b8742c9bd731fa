"""The entry point of the command line."""

from __future__ import annotations

import io
import os

import pytest
import typer
from rich.console import Console
from rich.text import Text

from mnemoscope import cli
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
