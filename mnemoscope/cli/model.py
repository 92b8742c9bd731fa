"""Commands on a model: what its memory is, what is certainly lost, and how to make one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mnemoscope.cli.shared import (
    Bars,
    Changes,
    Classes,
    Data,
    Device,
    DomainField,
    ModelName,
    NoiseLevels,
    Out,
    StudyFile,
    Substitutes,
    TokensPerLength,
    Track,
    intervals,
    loading,
    out,
    percent,
    strengths,
    tracking,
)

if TYPE_CHECKING:
    import polars as pl


def inspect(
    model: ModelName,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit on the hub")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16")] = "float32",
) -> None:
    """What a model's memory is made of, and whether it carries what was read (exit code 0 only if it does)."""
    loading()
    from mnemoscope.memory import continuity, describe
    from mnemoscope.memory.load import load

    loaded = load(model, revision=revision, dtype=dtype, need_tokenizer=False)
    adapter = loaded.adapter
    parameters = sum(p.numel() for p in adapter.parameters())
    table = Table(title=Text(f"{model}: {adapter.model_type}, {parameters:,} parameters"))
    for column in ("part", "count", "shape", "dtype", "numbers", "bytes"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in describe.describe(adapter):
        shape = " x ".join(map(str, row.shape))
        table.add_row(row.part, str(row.count), shape, row.dtype, f"{row.numbers:,}", f"{row.bytes:,}")
    out.print(table)
    found = continuity.require(adapter, model)
    worst, part = max((max(found.split[p], found.batch[p]), p) for p in found.split)
    out.print(
        f"continuity holds: reading a then b equals reading both, to {worst:.1e} in {part} "
        f"({found.allowed[part]:.0e} allowed); "
        f"an empty memory instead changes the hidden states by {found.influence:.1e}",
        highlight=False,
        soft_wrap=True,
    )


def certify(
    model: ModelName,
    text: Annotated[
        list[str], typer.Option(help="file, folder or glob of text; may be given again", show_default=False)
    ],
    out_dir: Out,
    lengths: Annotated[str, typer.Option(help="window lengths in tokens, rising")] = "64,256,1024,4096",
    substitutes: Substitutes = 4,
    per_doubling: Annotated[
        int, typer.Option(min=0, help="tokens at each doubling of the distance to the window's end; 0: all")
    ] = 8,
    tokens_per_length: TokensPerLength = 65536,
    domain: DomainField = None,
    annotate: Classes = None,
    noise: NoiseLevels = "0.1,1",
    seed: Annotated[int, typer.Option(min=0, help="of the choice of windows and tokens")] = 0,
    device: Device = "auto",
) -> None:
    """Which tokens no decoder can recover: those that an alternative replaces without any change to the memory.

    At five precisions of storage: fp32, bf16, fp16, fp8 (e4m3), int8.  Beside it, another thing: how surely a token is
    told from its alternatives in a memory with noise.  Forward passes only; writes certificate/, estimates.parquet and
    horizons.parquet.
    """
    loading(text)
    from mnemoscope import certificate
    from mnemoscope.certificate import request

    study = request.study(
        model, text, lengths, tokens_per_length, domain=domain, annotations=annotate or [], seed=seed, device=device
    )
    settings = certificate.Settings(substitutes=substitutes, per_doubling=per_doubling or None, noise=strengths(noise))
    run = certificate.certify(study, out_dir, settings, Bars())
    _show(run.table("estimates"), run.table("horizons"))
    files = Text.assemble((f"{run.path / 'estimates.parquet'}", "bold"), "  by class and distance, and under noise")
    out.print(files, soft_wrap=True)


def _show(estimates: pl.DataFrame, horizons: pl.DataFrame) -> None:
    """Every length and precision: what is lost of all tokens, and from where on."""
    from mnemoscope.stats import certain

    lost = estimates.filter(metric=certain.METRIC, by="all").rename({"condition": "precision"})
    both = horizons.drop("n_tokens", "n_documents").join(
        lost, on=["run", "model", "length", "precision"], validate="1:1", maintain_order="left"
    )
    table = Table("window", "precision", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("lost, %", "first at", "half from", "tokens", "docs"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in both.iter_rows(named=True):
        first, half = ("never" if row[edge] is None else f"{row[edge]:,}" for edge in ("first", "half"))
        counts = f"{row['n_tokens']:,}", f"{row['n_documents']:,}"
        shown = percent(row["value"], row["low"], row["high"])
        table.add_row(f"{row['length']:,}", row["precision"], shown, first, half, *counts)
    out.print(table)
    said = intervals(lost["confidence"][0])
    out.print(Text(f"{said}; first at, half from: tokens between a lost token and the window's end", style="dim"))


def pretrain(study: StudyFile, out_dir: Out, data: Data = None, changes: Changes = None, track: Track = None) -> None:
    """A language model from nothing, by the \\[pretrain] section of a study: tokenizer, tokens, model."""
    from mnemoscope import config, pretraining

    wanted = tracking(config.load(study, data=data, changes=changes or ()), track)
    folder = pretraining.pretrain(wanted, out_dir, Bars())
    out.print(Text.assemble((f"{folder}", "bold"), f"  use it as a model: mnemoscope inspect {folder}"), soft_wrap=True)
