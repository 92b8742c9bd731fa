"""The command that says whose loss it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mnemoscope.cli.shared import (
    Bars,
    Classes,
    Device,
    DomainField,
    NoiseLevels,
    Substitutes,
    TokensPerLength,
    done,
    intervals,
    loading,
    out,
    percent,
    strengths,
)

if TYPE_CHECKING:
    from mnemoscope.rundir import RunDir

_TRAINED = "trained here, by the recipe growing"


def bracket(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="embedded name, folder, or hub name; or a run, to bracket its own windows"
        ),
    ],
    text: Annotated[
        list[str] | None, typer.Option(help="file, folder or glob of text; may be given again", show_default=False)
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", help="run folder; made if it is not there", show_default=False)
    ] = None,
    lengths: Annotated[str, typer.Option(help="window lengths in tokens, rising")] = "16,64,256",
    tokens_per_length: TokensPerLength = 4096,
    decoder: Annotated[
        list[Path] | None,
        typer.Option(
            help="a trained decoder of this model: RUN/checkpoints/NAME; may be given again; the one shipped with the "
            "model if left out, and --tokens too",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help=f"window tokens of a decoder that is {_TRAINED}", show_default=False)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="its peak learning rate", show_default=False)] = None,
    train: Annotated[
        list[str] | None, typer.Option(help="its text: other files than --text; may be given again", show_default=False)
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option(help="its kind: native, bridged, reader; one is trained of each given, native if left out"),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="how a decoder's text is chosen; each is tried; greedy, beam:4 and reencode:4:16 if left out"
        ),
    ] = None,
    domain: DomainField = None,
    annotate: Classes = None,
    substitutes: Substitutes = 4,
    per_doubling: Annotated[
        int, typer.Option(min=0, help="tokens certified at each doubling of the distance to the window's end; 0: all")
    ] = 8,
    noise: NoiseLevels = "0.1,1",
    seed: Annotated[int, typer.Option(min=0, help="of the choice of windows, tokens and halves")] = 0,
    device: Device = "auto",
) -> None:
    """The bracket of a model: certainly lost, at most forgotten, and what the best reader did not recover.

    Both ends are of the same windows, by length and class of token. The same command after an interruption goes on.

    Writes bracket.parquet, the tables of a run, and the page.
    """
    loading([*(text or ()), *(train or ())])
    from mnemoscope import bracket, certificate
    from mnemoscope.bracket import request
    from mnemoscope.errors import ConfigError

    levels = strengths(noise)
    settings = certificate.Settings(substitutes=substitutes, per_doubling=per_doubling or None, noise=levels)
    if (Path(model) / "manifest.json").exists():
        if text or out_dir or decoder or tokens or train or annotate or domain:
            raise ConfigError(
                f"{model} is a run, which has a text, decoders and a folder of its own",
                remedy="Give the run alone, or the model that it is of",
            )
        run = bracket.of_run(model, settings, Bars())
    else:
        if not text or out_dir is None:
            raise ConfigError(
                "a model needs a text to be measured on and a folder to write to",
                remedy="Give --text FILE --out DIR; or a run instead of the model",
            )
        if tokens is None and (learning_rate is not None or train or family):
            raise ConfigError(
                "--learning-rate, --train and --family are of a decoder to be trained", remedy="Add --tokens N"
            )
        if tokens is not None and learning_rate is None:
            raise ConfigError(
                "a decoder is to be trained, and at which rate is not said",
                remedy="Add --learning-rate; our studies take 0.012 times the root of 128 / the model's width",
            )
        training = None
        if tokens is not None and learning_rate is not None:
            training = request.Training(
                tokens=tokens, rate=learning_rate, text=train or (), families=family or ("native",)
            )
        wanted = request.Request(
            model=model,
            text=text,
            lengths=lengths,
            tokens_per_length=tokens_per_length,
            decoders=decoder or (),
            training=training,
            searches=search or request.SEARCHES,
            domain=domain,
            annotations=annotate or (),
            seed=seed,
            device=device,
        )
        run = bracket.bracket(wanted.study(), out_dir, settings, Bars())
    _show(run)
    done(run.path)


def _show(run: RunDir) -> None:
    """What the best reader wrote back, whoever it was, and the decoder beside it; then both ends of every length, and
    of the classes of the longest."""
    from mnemoscope.report import bracket as read

    found = run.table("bracket")
    estimates, (first, *_) = run.table("estimates"), run.study.decoders
    for row in read.written_back(found).filter(by="all").iter_rows(named=True):
        who = read.readers(row["decoders"], run.study)
        said = f"{row['length']:,} tokens: the best reader, {' or '.join(who)}, wrote back {_percent(row)} %"
        beside = read.alone(estimates, first.name, row["length"])
        if beside and who != [read.named(first)]:
            said += f"; {read.named(first)} alone {_percent(beside)} %"
        out.print(Text(said))
    table = Table("tokens", "class", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("floor, %", "ceiling, %", "gap, %", "docs"):
        table.add_column(column, justify="right", no_wrap=True)
    longest = found["length"].max()
    for row in found.iter_rows(named=True):
        if row["by"] == "all" or (row["length"] == longest and row["by"] != "position"):
            ends = [
                percent(*(row[f"{end}{of}"] for of in ("", "_low", "_high"))) for end in ("floor", "ceiling", "gap")
            ]
            name = "all" if row["by"] == "all" else f"{row['by']}: {row['group']}"
            cells = [f"{row['length']:,}", name, *ends, f"{row['n_documents']:,}"]
            table.add_row(*map(Text, cells))
    out.print(table)
    said = "floor: certainly lost; ceiling: not written back by the best reader; gap: not known"
    out.print(Text(f"{said}; {intervals(found['confidence'][0])}", style="dim"))
    for row in found.filter(by="all").iter_rows(named=True):
        out.print(Text(f"{row['length']:,} tokens: {row['decoders']}: {row['method'].partition(';')[0]}", style="dim"))


def _percent(row: dict[str, Any]) -> str:
    return percent(*(row[end] for end in ("value", "low", "high")))
