"""certificate/ -> what share of the tokens is certainly lost, with intervals, and from which distance on.

A token is certainly lost at a precision if one of its substitutes leaves the same stored memory.  The share is a ratio
of sums over documents, each token weighed by the number that it stands for; the document is the unit of resampling.
It is a lower bound: a token of whose substitutes none was indistinguishable may have another that is.  What is lost to
noise (:mod:`mnemoscope.stats.noise`) is estimated beside it, as another metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import schema
from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.score.records import replacing
from mnemoscope.stats import noise
from mnemoscope.stats.estimate import Sums, cluster, compute, require_groups, with_group

METRIC, UNIT = "certainly_lost", "fraction"
#: tokens between a token and the end of its window, in doublings: 0, 1, 2-3, 4-7, ...
DISTANCE = "distance"
_TOKEN = ["run", "model", "length", "precision", "window_id", "position"]
_CELL = ["run", "model", "precision", "length"]


def tokens(run_folder: Path) -> pl.LazyFrame:
    """A row per token and precision of the run's tables ``certificate/``, with ``lost``: whether any substitute is
    indistinguishable; ``apart``, the distance of the nearest; and ``distance``, the number of tokens that follow it in
    the window."""
    folder = run_folder / "certificate"
    if not any(folder.glob("*.parquet")):
        raise RunError("there is no certificate here", remedy="Make one: mnemoscope certify --help", file=folder)
    table = pl.scan_parquet(folder / "*.parquet")
    rest = [c for c in table.collect_schema().names() if c not in (*_TOKEN, "equal", "ulps", "differing", "apart")]
    nearest = [pl.col("apart").min()] if "apart" in table.collect_schema() else []
    lost = table.group_by(_TOKEN).agg(pl.col(rest).first(), *nearest, lost=pl.col("equal").any())
    return lost.with_columns(distance=(pl.col("length") - 1 - pl.col("position")).cast(pl.Int64))


def write(run_folder: Path, target: Path, by: Iterable[str], strengths: Sequence[float], study: Study) -> None:
    """Writes what :func:`shares` finds, with the study's seed and way of estimating.

    Raises:
        RunError: ``by`` names what is not there.
    """
    by, e = list(by), study.estimate
    require_groups(run_folder, [name for name in by if name != DISTANCE])
    how = {"seed": study.seed, "confidence": e.confidence, "resamples": e.resamples, "position_bins": e.position_bins}
    with replacing(target) as part:
        found = shares(run_folder, by, strengths, **how)  # type: ignore[arg-type]
        pq.write_table(found.to_arrow().cast(schema.arrow("estimates")), part)


def shares(
    run_folder: Path,
    by: Iterable[str] = (),
    strengths: Sequence[float] = (),
    *,
    seed: int,
    confidence: float,
    resamples: int,
    position_bins: int = 1,
) -> pl.DataFrame:
    """The share certainly lost, by ``schema.ESTIMATES``: ``certificate`` is the decoder, the precision the condition.

    Args:
        by: as in a study's ``estimate.by``, or ``distance``; over all it is always estimated.
        strengths: of the noise, for which the metric ``lost_to_noise`` is estimated under ``noise:s``.

    Raises:
        RunError: there is no certificate, or it is of a version that did not keep the distances.
    """
    table = tokens(run_folder)
    if strengths and "apart" not in table.collect_schema():
        raise RunError(
            "this certificate does not say how far the memories lie apart: an earlier version made it",
            remedy="Make it anew, or ask for no noise",
            file=run_folder / "certificate",
        )
    tables = [(METRIC, table), *((noise.METRIC, noise.tokens(table, s)) for s in strengths)]
    rows = (
        row
        for metric, found in tables
        for name in ("all", *by)
        for row in sums(grouped(found, run_folder, name, position_bins), name, seed, metric)
    )
    return compute(rows, seed=seed, confidence=confidence, resamples=resamples)


def horizons(run_folder: Path) -> pl.DataFrame:
    """Writes ``horizons.parquet`` (``schema.HORIZONS``): where certain loss begins, for each length and precision.

    ``first`` is the least distance at which a token that was read is lost: with more tokens it can only shrink.  No
    interval: it is a smallest value.
    """
    table = tokens(run_folder).collect()
    shares = _with_doubling(table.lazy()).group_by(*_CELL, "low").agg(_share().alias("share"))
    half = shares.filter(pl.col("share") >= 0.5).group_by(_CELL).agg(half=pl.col("low").min()).collect()
    found = (
        table.group_by(_CELL)
        .agg(
            first=pl.col("distance").filter("lost").min(),
            lost=_share(),
            n_tokens=pl.len(),
            n_documents=cluster().n_unique(),
        )
        .join(half, on=_CELL, how="left")
        .sort("length", "lost", "precision")
        .select(c.name for c in schema.HORIZONS)
    )
    with replacing(run_folder / "horizons.parquet") as part:
        pq.write_table(found.to_arrow().cast(schema.arrow("horizons")), part)
    return found


def _share() -> pl.Expr:
    return pl.col("weight").filter("lost").sum() / pl.col("weight").sum()


def _with_doubling(table: pl.LazyFrame) -> pl.LazyFrame:
    """With ``low`` and ``high``, the ends of the doubling of distance that a token lies in."""
    # a float's exponent is exact here: distances are far below 2^53
    bits = pl.col("distance").map_batches(lambda d: pl.Series(np.frexp(d.to_numpy())[1]), return_dtype=pl.Int32)
    low = pl.when(pl.col("distance") == 0).then(0).otherwise(pl.lit(2, pl.Int64).pow(bits - 1)).cast(pl.Int64)
    return table.with_columns(low=low).with_columns(high=pl.max_horizontal(2 * pl.col("low") - 1, "low"))


def grouped(table: pl.LazyFrame, run_folder: Path, by: str, position_bins: int) -> pl.LazyFrame:
    """The tokens with the text column ``group``, by ``distance`` or as in :mod:`mnemoscope.stats.estimate`."""
    if by != DISTANCE:
        return with_group(table, run_folder, by, position_bins)
    return _with_doubling(table).with_columns(
        group=pl.when(pl.col("low") == pl.col("high"))
        .then(pl.col("low").cast(pl.String))
        .otherwise(pl.format("{}-{}", "low", "high"))
    )


def sums(table: pl.LazyFrame, by: str, seed: int, metric: str = METRIC) -> Iterator[Sums]:
    """Per-document sums of what is lost of the tokens of each cell and ``group``."""
    cells = [*_CELL, "group"]
    documents = (
        table.with_columns(doc_id=cluster())
        .group_by(*cells, "doc_id")
        .agg(num=(pl.col("weight") * pl.col("lost")).sum(), den=pl.col("weight").sum(), units=pl.len())
        .sort("doc_id")
        .collect(engine="streaming")
    )
    for cell in documents.partition_by(cells, maintain_order=True):
        found = cell.select(cells).row(0, named=True)
        named = {"decoder": "certificate", "condition": found.pop("precision"), "seed": str(seed)}
        both = cell.select("num", "den").to_numpy()
        yield Sums(
            {**found, **named, "metric": metric, "unit": UNIT, "by": by},
            cell["doc_id"].to_list(),
            both[:, 0].copy(),
            both[:, 1].copy(),
            int(cell["units"].sum()),
            both[None],
        )
