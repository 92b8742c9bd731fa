"""The command that makes a page about texts of one's own, without a study file."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from mnemoscope.cli.shared import (
    Bars,
    Device,
    ModelName,
    Out,
    TextField,
    TokensPerLength,
    TrainedDecoder,
    done,
    loading,
    out,
)


def measure(
    model: ModelName,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="texts to measure, JSON lines, Parquet; folders or globs"),
    ],
    out_dir: Out,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="window lengths in tokens, rising, such as 16,64; those that the decoder knows and the texts have if "
            "left out",
            show_default=False,
        ),
    ] = None,
    decoder: TrainedDecoder = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            help="other texts, to train a decoder on; may be given again. Takes --tokens, --learning-rate, --lengths",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="tokens to train it on, over all lengths; millions to trust it", show_default=False),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="peak of its training; 1e-3 suits many models", show_default=False)
    ] = None,
    annotate: Annotated[
        list[str] | None,
        typer.Option(
            help="classes of tokens to compare, KIND or KIND:ARGUMENT; may be given again; names and numbers if left "
            "out",
            show_default=False,
        ),
    ] = None,
    text: TextField = "text",
    domain: Annotated[
        str | None,
        typer.Option(
            help="field of a record that holds the kind of text; each file is one if left out", show_default=False
        ),
    ] = None,
    tokens_per_length: TokensPerLength = 8192,
    seed: Annotated[int, typer.Option(min=0, help="of the choice of windows, and of training")] = 0,
    device: Device = "auto",
) -> None:
    """A page about your texts: what this model's memory gives back of them, at every length.

    With the decoder that is shipped with mamba-nano, with one of another run, or with one that is trained first.

    Writes what a run writes, study.toml too: change it there, and mnemoscope run goes further.
    """
    from mnemoscope import request

    loading([*files, *(train or ())])
    study = request.Measure(
        model=model,
        files=files,
        lengths=lengths,
        decoder=decoder,
        train=train or (),
        tokens=tokens,
        learning_rate=learning_rate,
        kinds=annotate or request.KINDS,
        text=text,
        domain=domain,
        tokens_per_length=tokens_per_length,
        seed=seed,
        device=device,
    ).study()
    from mnemoscope import pipeline
    from mnemoscope.report.opening import opening

    run = pipeline.run(study, out_dir, Bars())
    said = opening(run.table("estimates"), run.study, [d.name for d in run.study.decoders])
    interval = f" ({said.interval}; {said.n})" if said.value else ""
    out.print(Text(" ".join(filter(None, (said.before, said.value, said.after))) + interval), soft_wrap=True)
    done(run.path)
