"""tokens.parquet -> what a regression needs: outcomes by decoder seed, the class of each token, and the controls.

What is always there to be held constant, of each token in its window:

    surprisal     nats without memory, the mean over decoder seeds
    position      place in the window
    subwords      tokens of the word that it belongs to; words begin with white space, and end with the window
    repetition    whether the window held the same token before

A window's length is held constant by taking each length for itself.  A column or an annotation is a control too; an
annotation whose labels are all numbers (a frequency, say) counts as a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from mnemoscope.annotate import leading_space
from mnemoscope.config import Effects, Study
from mnemoscope.errors import RunError
from mnemoscope.score.metrics import Metric
from mnemoscope.stats.bootstrap import FloatArray
from mnemoscope.stats.estimate import COLUMNS, UNLABELLED, annotated, beside_none, cluster, token_rows, with_group

#: most tokens of a cell: whole documents are drawn until there are so many, which bounds memory at about 2 GB
MOST_TOKENS = 500_000
_BUILT_IN = ("surprisal", "position", "subwords", "repetition")
_PLACE = ["window_id", "position"]


class Cell(NamedTuple):
    """Attributes:
    key: run, model, decoder, condition and length.
    outcomes: metric -> float64 [S, N]; of a ratio of sums, each token's own ratio.
    weights: metric -> float64 [S, N], the denominators: 1 for means.
    controls: name -> [N], numbers or texts.
    group: [N], texts; documents: [N], numbers.
    note: what was left out, for the method.
    """

    key: dict[str, Any]
    outcomes: dict[str, FloatArray]
    weights: dict[str, FloatArray]
    group: npt.NDArray[Any]
    controls: dict[str, npt.NDArray[Any]]
    documents: npt.NDArray[Any]
    note: str


def require(run_folder: Path, controls: Sequence[str]) -> None:
    """Raises RunError unless each of ``controls`` is known here."""
    known = [*_BUILT_IN, *COLUMNS, *annotated(run_folder)]
    for name in controls:
        if name not in known:
            raise RunError(
                f"effects control for {name!r}, which this run does not have",
                remedy=f"There are: {', '.join(known)}",
                file=run_folder,
            )


def cells(run_folder: Path, study: Study, wanted: Effects, metrics: Sequence[Metric]) -> Iterator[Cell]:
    """The cells under the real memory, a decoder and a length each."""
    tokens = token_rows(run_folder, study.estimate.guesses)
    keys = ["run", "model", "decoder", "condition", "length"]
    real = tokens.filter(pl.col("condition") == "memory")
    for row in real.select(keys).unique().sort(keys).collect(engine="streaming").iter_rows(named=True):
        here = tokens.filter(pl.col("decoder") == row["decoder"], pl.col("length") == row["length"])
        here, note = _drawn(here, row["length"], study.seed)
        yield _cell(run_folder, study, wanted, metrics, here, row, note)


def _drawn(cell: pl.LazyFrame, length: int, seed: int) -> tuple[pl.LazyFrame, str]:
    """The cell's tokens, or those of as many documents as make up ``MOST_TOKENS``."""
    first = pl.col("seed") == pl.col("seed").min()
    one = cell.filter(pl.col("condition") == "memory").filter(first)
    sizes = one.group_by(unit=cluster()).len().collect(engine="streaming")
    if sizes["len"].sum() <= MOST_TOKENS:
        return cell, ""
    lot = [hashlib.sha256(f"{seed} {length} {unit}".encode()).digest() for unit in sizes["unit"]]
    drawn = sizes.with_columns(lot=pl.Series(lot)).sort("lot").filter(pl.col("len").cum_sum() <= MOST_TOKENS)
    note = f", {drawn.height:,} of {sizes.height:,} documents drawn"
    return cell.filter(cluster().is_in(drawn["unit"].implode())), note


def _cell(
    run_folder: Path,
    study: Study,
    wanted: Effects,
    metrics: Sequence[Metric],
    tokens: pl.LazyFrame,
    key: dict[str, Any],
    note: str,
) -> Cell:
    real = tokens.filter(pl.col("condition") == "memory")
    if any(m.paired for m in metrics):
        with_none = beside_none(tokens).filter(pl.col("condition") == "memory")
        metrics = [m for m in metrics if not m.paired] if with_none.head(1).collect().is_empty() else metrics
        real = with_none if any(m.paired for m in metrics) else real
    values = {m.name: m.numerator for m in metrics} | {f"{m.name}:weight": m.denominator for m in metrics}
    as_numbers = {name: value.cast(pl.Float64) for name, value in values.items()}
    outcomes = real.select(*_PLACE, "seed", **as_numbers).sort("seed", *_PLACE).collect(engine="streaming")
    seeds = outcomes["seed"].unique().sort()

    once = real.filter(pl.col("seed") == seeds[0])
    grouped = with_group(once, run_folder, wanted.by, study.estimate.position_bins)
    place = [*_PLACE, "doc_id", "dialect", "char_start", "char_end", "token", "token_id", *COLUMNS]
    frame = grouped.select(*dict.fromkeys(place), "group").collect(engine="streaming")
    if "surprisal" in wanted.controls:
        none = tokens.filter(pl.col("condition") == "none").group_by(_PLACE).agg(surprisal=pl.col("nats").mean())
        frame = frame.join(none.collect(engine="streaming"), on=_PLACE, how="left")
    frame = _in_window(once, frame)
    for name in wanted.controls:
        if name not in (*_BUILT_IN, *COLUMNS):
            frame = _annotated(frame, run_folder, name, study.estimate.position_bins)
    whole = frame.drop_nulls(wanted.controls)
    if whole.height < frame.height:
        note += f", {frame.height - whole.height:,} tokens without all controls left out"
    whole = whole.with_columns(unit=cluster()).sort(_PLACE)
    sums = {name: _by_seed(outcomes.select(*_PLACE, "seed", name), whole, len(seeds)) for name in values}
    weights = {m.name: sums[f"{m.name}:weight"] for m in metrics}
    return Cell(
        key,
        {
            m.name: np.divide(sums[m.name], w, out=np.zeros_like(w), where=w != 0)
            for m in metrics
            for w in [weights[m.name]]
        },
        weights,
        whole["group"].to_numpy(),
        {name: whole[name].to_numpy() for name in wanted.controls},
        whole["unit"].rank("dense").to_numpy(),
        note,
    )


def _by_seed(outcomes: pl.DataFrame, whole: pl.DataFrame, seeds: int) -> FloatArray:
    """[S, N]; every seed measured the same tokens, or estimate would have refused the run."""
    name = outcomes.columns[-1]
    chosen = outcomes.join(whole.select(_PLACE), on=_PLACE, how="semi").sort("seed", *_PLACE)
    if chosen.height != seeds * whole.height:
        raise RunError(
            "the decoder seeds did not measure the same tokens",
            remedy="Measure them again, over the same windows",
            file="tokens.parquet",
        )
    return chosen[name].to_numpy().reshape(seeds, whole.height)


def _in_window(tokens: pl.LazyFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with ``subwords`` and ``repetition``, reckoned over all of each window's tokens."""
    begins = (leading_space() > 0) | (pl.col("position") == 0)
    found = (
        tokens.select(*_PLACE, "token", "token_id")
        .sort(_PLACE)
        .with_columns(word=begins.cast(pl.Int32).cum_sum().over("window_id"))
        .select(
            *_PLACE,
            subwords=pl.len().over("window_id", "word").cast(pl.Float64),
            repetition=(pl.int_range(pl.len()).over("window_id", "token_id") > 0).cast(pl.Float64),
        )
        .collect(engine="streaming")
    )
    return frame.join(found, on=_PLACE, how="left")


def _annotated(frame: pl.DataFrame, run_folder: Path, name: str, bins: int) -> pl.DataFrame:
    """``frame`` with the column ``name``: numbers if all labels are, and null where a token has none."""
    labelled = with_group(frame.drop("group").lazy(), run_folder, name, bins).collect().rename({"group": name})
    label = pl.col(name).replace(UNLABELLED, None)
    numbers = labelled.select(label.cast(pl.Float64, strict=False).alias("number"), label=label)
    if numbers.filter(pl.col("label").is_not_null() & pl.col("number").is_null()).is_empty():
        labelled = labelled.with_columns(numbers["number"].alias(name))
    return frame.join(labelled.select(*_PLACE, name), on=_PLACE, how="left")
