"""What the commands share: consoles, arguments, progress bars."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from mnemoscope import config

err = Console(stderr=True)
out = Console()
#: columns of a terminal from which on a task has room for all that is known of it
_WIDE = 120
#: seconds from one line of a task to the next where there is no terminal
_EVERY = 60

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="the study file", show_default=False)]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="a value instead of the study file's: model.name=my-model, 'decoders.growing.seeds=[0, 1]'; what is in a "
        "list is chosen by its name, or by number from 0; may be given again",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="run folder; made if it is not there", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Option(
        help="folder that the study's relative paths start from [default: the study's]", envvar="MNEMOSCOPE_DATA"
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="a run folder made by mnemoscope run", show_default=False)
]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="embedded name, folder, or hub name", show_default=False)
]
Track = Annotated[
    str | None,
    typer.Option(
        help="show training curves in a tracker too: tensorboard, or another that Accelerate knows; instead of the "
        "study's compute.track",
        show_default=False,
    ),
]
NoiseLevels = Annotated[
    str,
    typer.Option(
        help="noise added to every number, in standard deviations of its part, for a floor of its own; '': none"
    ),
]
TrainedDecoder = Annotated[
    Path | None,
    typer.Option(
        help="a trained decoder of this model: RUN/checkpoints/NAME; the one shipped with the model if left out",
        show_default=False,
    ),
]
TextField = Annotated[str, typer.Option(help="field of a record that holds the text")]
DomainField = Annotated[str | None, typer.Option(help="field of a record that holds the domain", show_default=False)]
Classes = Annotated[list[str] | None, typer.Option(help="classes to tell apart, e.g. numbers; KIND or KIND:ARGUMENT")]
Substitutes = Annotated[int, typer.Option(min=1, help="alternatives to each token: the model's likeliest")]
TokensPerLength = Annotated[int, typer.Option(min=1, help="windows of so many tokens at each length")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="where to compute")]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "")
        return Text(f"{speed:,.0f} {unit}/s" if speed and unit else "", style="dim")


class _Bar:
    def __init__(self, progress: Progress, task: Any):
        self.progress, self.task = progress, task

    def at(self, done: float, note: str = "") -> None:
        self.progress.update(self.task, completed=done, note=note)


def _say(line: str) -> None:
    err.print(line, highlight=False, markup=False, soft_wrap=True)


class _Lines:
    """A task in a log, as a batch job leaves it: a line when it begins, one a minute, one when that was long ago."""

    def __init__(self, what: str, total: float, unit: str):
        self.what, self.total, self.unit = what, total, unit
        self.began = self.told = time.monotonic()
        self.first: tuple[float, float] | None = None
        _say(f"{what} ...")

    def at(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        self.first = self.first or (now, done)  # a resumed task begins with what was done before
        if now - self.told < _EVERY:
            return
        self.told = now
        seconds, more = now - self.first[0], done - self.first[1]
        known = [f"{done / self.total:.0%}, {done:,.0f} of {self.total:,.0f} {self.unit}"] if self.total > 1 else []
        if known and seconds > 0 and more > 0:
            left = timedelta(seconds=round((self.total - done) * seconds / more))
            rate = more / seconds
            known.append(f"{rate:{',.0f' if rate >= 100 else '.3g'}} {self.unit}/s, {left} left")
        _say(f"{self.what}: {', '.join([*known, *([note] if note else [])])}")

    def end(self) -> None:
        took = time.monotonic() - self.began
        if took >= _EVERY:
            _say(f"{self.what}: took {timedelta(seconds=round(took))}")


class Bars:
    """Progress on the terminal; now and then a line where there is none."""

    @contextmanager
    def task(self, what: str, total: float, unit: str) -> Iterator[_Bar | _Lines]:
        if not err.is_terminal:
            lines = _Lines(what, total, unit)
            yield lines
            lines.end()
            return
        wide = [*([MofNCompleteColumn()] if total > 1 else []), _Rate(), TimeElapsedColumn()]
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if err.width >= _WIDE else 10),
            *(wide if err.width >= _WIDE else [TaskProgressColumn()]),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        ]
        with Progress(*columns, console=err, expand=True) as progress:
            bar = _Bar(progress, progress.add_task(what, total=total, unit=unit, note=""))
            yield bar
            progress.update(bar.task, completed=total)

    def say(self, line: str) -> None:
        _say(line)


def loading(texts: Sequence[str] = ()) -> None:
    """To be said before what takes seconds to import is imported, and only if there are such texts.

    Raises:
        TextError: there are not.
    """
    from mnemoscope.text import files

    for text in texts:
        files.find(text)
    # of several processes one speaks
    if os.environ.get("RANK", "0") == "0":
        err.print("loading the model ...", highlight=False)


def tracking(study: config.Study, track: str | None) -> config.Study:
    """The study, with another tracker if one was asked for."""
    if track is None:
        return study
    return study.model_copy(update={"compute": study.compute.model_copy(update={"track": track})})


def strengths(noise: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        ConfigError: one is none.
    """
    from mnemoscope.errors import ConfigError

    try:
        return tuple(float(part) for part in noise.split(",") if part)
    except ValueError:
        raise ConfigError(
            f"--noise takes numbers with commas between them, not {noise!r}", remedy="Such as 0.1,1"
        ) from None


def percent(value: float, low: float, high: float) -> str:
    """A fraction and its interval in a table of percent: 2.5 (0.8-6.1); a dash where there is no interval."""
    from mnemoscope.report import words

    shown = [words.number(x, "fraction").removesuffix(words.PERCENT) for x in (value, low, high)]
    return f"{shown[0]} ({shown[1]}-{shown[2]})" if low == low else f"{shown[0]} (–)"


def intervals(confidence: float) -> str:
    """What to say below such a table."""
    return f"in brackets: {100 * confidence:g} % intervals over documents; –: none"


def done(folder: Path) -> None:
    """Says where the page is."""
    out.print(Text.assemble((f"{folder / 'report.html'}", "bold"), "  open it in a browser"), soft_wrap=True)
