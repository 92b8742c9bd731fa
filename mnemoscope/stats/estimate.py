"""tokens.parquet and reconstructions.parquet -> estimates.parquet.  The one owner of cluster identity.

    rows of a table -> per-document sums of numerator and denominator -> ratio of sums, cluster bootstrap

The document (``doc_id``) is the unit of resampling, always: tokens of a document share its author, its subject and its
luck, and an interval that took them for independent would be too narrow by far.  The texts of a pair are one unit: see
:func:`cluster`.  Seeds are pooled within each document: a document counts once, however many decoders read it; how far
they disagree widens the interval (:mod:`mnemoscope.stats.seeds`).

A unit that was not measured is in neither sum and not in n (see :mod:`mnemoscope.score.metrics`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import plugins, schema
from mnemoscope.annotate import key, project
from mnemoscope.config import Estimates, Study
from mnemoscope.errors import RunError
from mnemoscope.score.metrics import Metric
from mnemoscope.score.records import replacing
from mnemoscope.stats import seeds
from mnemoscope.stats.bootstrap import FloatArray, divide, generator, ratio_intervals

#: columns of the key that are groups by themselves
COLUMNS = ("domain", "dialect", "source")
#: the dialects of texts that come in pairs, over the windows that have a partner
PAIR = "pair"
#: the group of tokens that no span of an annotation touches, in documents that have spans
UNLABELLED = "(unlabelled)"
_CELL = ["decoder", "condition", "length"]
#: a token is paired with itself under ``none``: same decoder, seed and length, same place in the same window
_PAIRED_IN = ["decoder", "seed", "length"]
_TOKEN = ["window_id", "position", "token_id"]
TOKENS, WINDOWS = "tokens.parquet", "reconstructions.parquet"
#: rows of estimates that share one matrix product
_BATCH = 512


class Sums(NamedTuple):
    """One estimate to be: per-document sums, documents in the order of their ids.

    Attributes:
        key: the estimate's columns up to and with ``group``.
        documents: [n] ids, rising; only documents in which something was measured.
        num, den: float64 [n].
        units: tokens, words or windows measured.
        by_seed: float64 [S, n, 2], num and den of each decoder seed that is pooled here, by rising seed.
    """

    key: dict[str, Any]
    documents: list[str]
    num: FloatArray
    den: FloatArray
    units: int
    by_seed: FloatArray


def estimate(run_folder: Path, study: Study) -> None:
    """Writes ``estimates.parquet``, atomically; the same files and study give the same numbers, whatever the order of
    rows.

    Raises:
        RunError: a table is missing, ``estimate.by`` names what is not there, or the rows of two conditions do not
            pair one to one.
    """
    wanted = study.estimate
    frame = compute(
        sums(run_folder, ["all", *wanted.by], wanted),
        seed=study.seed,
        confidence=wanted.confidence,
        resamples=wanted.resamples,
    )
    with replacing(run_folder / "estimates.parquet") as part:
        pq.write_table(frame.to_arrow().cast(schema.arrow("estimates")), part)


def compute(rows: Iterable[Sums], *, seed: int, confidence: float, resamples: int) -> pl.DataFrame:
    """The estimates [rows] with their intervals, columns as in ``schema.ESTIMATES``."""
    bounds = {name: plugins.load("metric", name).bounds for name in plugins.names("metric")}
    by_documents: dict[tuple[str, ...], list[Sums]] = {}
    for row in rows:
        by_documents.setdefault(tuple(row.documents), []).append(row)
    out: list[dict[str, Any]] = []
    for documents, group in by_documents.items():
        for start in range(0, len(group), _BATCH):
            batch = group[start : start + _BATCH]
            if not documents:
                out += [_record(r, np.nan, np.nan, np.nan, "none: nothing was measured", confidence) for r in batch]
                continue
            found = ratio_intervals(
                np.column_stack([r.num for r in batch]),
                np.column_stack([r.den for r in batch]),
                confidence=confidence,
                resamples=resamples,
                rng=generator(seed, documents),
            )
            for i, r in enumerate(batch):
                spread = seeds.Spread(found.variance[i], found.freedom[i], _over_seeds(r.by_seed), len(r.by_seed))
                ends = (float(found.value[i]), float(found.low[i]), float(found.high[i]))
                low, high = spread.stretched(*ends, confidence)
                if r.key["metric"] in bounds:  # which arms that grew by the seeds may pass; NaN stays
                    least, largest = bounds[r.key["metric"]]
                    low, high = max(low, least), min(high, largest)
                method = found.method[i]
                if r.key["seed"] == "all" and np.isfinite(low):
                    method += f", {seeds.named(len(r.by_seed))}"
                out.append(_record(r, found.value[i], low, high, method, confidence))
    columns = [c.name for c in schema.ESTIMATES]
    if not out:
        return pl.DataFrame(schema=columns)
    out.sort(key=_order)
    return pl.DataFrame(out, infer_schema_length=None).select(columns)


def _over_seeds(by_seed: FloatArray) -> float:
    """The variance over decoder seeds of the ratio of sums [S, n, 2]."""
    total = by_seed.sum(1, keepdims=True)
    rest = total - by_seed
    return seeds.variance(divide(total[:, 0, 0], total[:, 0, 1]), [divide(rest[..., 0], rest[..., 1])])


def _record(row: Sums, value: float, low: float, high: float, method: str, confidence: float) -> dict[str, Any]:
    return {
        **row.key,
        "value": float(value),
        "low": float(low),
        "high": float(high),
        "confidence": confidence,
        "n_tokens": row.units,
        "n_documents": len(row.documents),
        "method": method,
    }


def _order(record: dict[str, Any]) -> tuple[Any, ...]:
    group = record["group"]
    # positions, bins and classes that begin with a number by that number, then the others
    begins = re.match(r"\d+(\.\d+)?(e[-+]\d+)?", group)
    return (
        *(record[c] for c in _CELL),
        (record["seed"] != "all", record["seed"]),
        (record["by"] != "all", record["by"]),
        float(begins[0]) if begins else math.inf,
        group,
        record["metric"],
    )


def sums(
    run_folder: Path,
    by: Iterable[str],
    study: Estimates,
    metrics: Iterable[str | Metric] | None = None,
    chosen: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda table: table,
) -> Iterator[Sums]:
    """Per-document sums of every metric (or of those named), for every cell of decoder, condition and length.

    Args:
        by: ``all``, a column in ``COLUMNS``, ``position``, or the name of a file in ``annotations/``.
        study: bins of the window, at most L of them, and which decoder guesses for others.
        chosen: the rows of a table that count; it is given the tokens, and the windows if a metric is of windows.

    Window metrics have no position and no annotation; paired metrics exist only beside a ``none`` decoder.
    """
    names = plugins.names("metric") if metrics is None else metrics
    wanted: list[Metric] = [m if isinstance(m, Metric) else plugins.load("metric", m) for m in names]
    read = {"token": lambda: token_rows(run_folder, study.guesses), "window": lambda: scan(run_folder / WINDOWS)}
    tables = {level: chosen(read[level]()) for level in read if level in {m.level for m in wanted}}
    if any(m.paired for m in wanted):
        _refuse_unpaired(tables["token"])
    for grouping in by:
        for level, table in tables.items():
            if level == "window" and grouping not in ("all", *COLUMNS, PAIR):
                continue
            grouped = with_group(table, run_folder, grouping, study.position_bins)
            plain = [m for m in wanted if m.level == level and not m.paired]
            paired = [m for m in wanted if m.level == level and m.paired]
            if plain:
                yield from _cells(_per_document(grouped, plain), plain, grouping)
            if paired:
                yield from _cells(_per_document(beside_none(grouped), paired), paired, grouping)


def scan(path: Path) -> pl.LazyFrame:
    if not path.exists():
        raise RunError("the table is missing", remedy="Run the stages before 'estimate' first", file=path)
    return pl.scan_parquet(path)


def token_rows(run_folder: Path, guesses: str | None) -> pl.LazyFrame:
    """A run's tokens; those of ``guesses`` under ``none`` stand again, seed by seed, under the name of every decoder
    that was not measured under ``none`` itself (``estimate.guesses``)."""
    table = scan(run_folder / TOKENS)
    if guesses is None:
        return table
    none = table.filter(pl.col("condition") == "none")
    lacking = table.select(_PAIRED_IN).unique().join(none.select(_PAIRED_IN).unique(), on=_PAIRED_IN, how="anti")
    lent = none.filter(pl.col("decoder") == guesses).drop("decoder").join(lacking, on=["seed", "length"])
    return pl.concat([table, lent.select(table.collect_schema().names())])


def with_group(table: pl.LazyFrame, run_folder: Path, by: str, position_bins: int) -> pl.LazyFrame:
    """The table with the text column ``group``; rows that belong to no group are left out."""
    if by == "all":
        return table.with_columns(group=pl.lit("all"))
    if by in COLUMNS:
        return table.with_columns(group=pl.col(by)).filter(pl.col("group") != "")
    if by == PAIR:
        return _in_pairs(table).with_columns(group=pl.col("dialect"))
    if by == "position":
        length, position = pl.col("length").cast(pl.Int64), pl.col("position").cast(pl.Int64)
        bins = pl.min_horizontal(length, pl.lit(position_bins, pl.Int64))
        number = position * bins // length
        first = (number * length + bins - 1) // bins  # the least position whose bin is ``number``
        last = ((number + 1) * length + bins - 1) // bins - 1
        return table.with_columns(group=pl.format("{}-{}", first, last))
    require_groups(run_folder, [by])
    return _with_label(table, run_folder / "annotations" / f"{by}.parquet")


def cluster() -> pl.Expr:
    """The unit of resampling: the pair that a text belongs to, or else the document.

    The texts of a pair say the same in several dialects and are called ``<pair>/<dialect>`` (``pair`` of a corpus).
    """
    end = pl.concat_str(pl.lit("/"), pl.col("dialect"))
    return pl.when(pl.col("dialect") != "").then(pl.col("doc_id").str.strip_suffix(end)).otherwise("doc_id")


def _in_pairs(table: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of windows that have a partner in every dialect: one of the same length that begins at the same token.
    So what is compared is as long, and as far into the text."""
    first = pl.col("window_id").str.split(":").list.last()
    windows = table.select("length", "dialect", "doc_id", "window_id", cluster().alias("pair"), first=first).unique()
    paired = windows.filter(pl.col("pair") != pl.col("doc_id"))
    dialects = pl.col("dialect").n_unique()
    full = paired.with_columns(all=dialects).filter(dialects.over("length", "pair", "first") == pl.col("all"))
    return table.join(full.select("window_id"), on="window_id", how="semi")


def require_groups(run_folder: Path, by: Iterable[str], section: str = "estimate") -> None:
    """Raises RunError unless each of ``by``, which a section of the study names, is a column, ``position``, or an
    annotation of the run."""
    known = [*COLUMNS, PAIR, "position", *annotated(run_folder)]
    for name in by:
        if name not in known:
            raise RunError(
                f"{section}.by names {name!r}, which is neither a column nor an annotation of this run",
                remedy=f"There are: {', '.join(known)}",
                file=run_folder,
            )


def _with_label(table: pl.LazyFrame, annotation: Path) -> pl.LazyFrame:
    """The tokens of the annotated documents (or windows), grouped by label; those that no span touches are
    ``UNLABELLED``."""
    spans = pl.read_parquet(annotation)
    place = [key(spans), "char_start", "char_end", "token"]
    annotated = table.filter(pl.col(place[0]).is_in(spans[place[0]].unique().implode()))
    places = annotated.select(place).unique().collect(engine="streaming")
    labelled = places.with_columns(group=project(spans, places).fill_null(UNLABELLED))
    return annotated.join(labelled.lazy(), on=place)


def annotated(run_folder: Path) -> list[str]:
    return sorted(p.stem for p in (run_folder / "annotations").glob("*.parquet"))


def beside_none(table: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of every other condition with the column ``nats_none``: the same token, same decoder and seed, under
    the condition ``none``.  Cells without such a decoder are left out."""
    none = table.filter(pl.col("condition") == "none")
    others = table.filter(pl.col("condition") != "none")
    with_none = others.join(none.select(_PAIRED_IN).unique(), on=_PAIRED_IN, how="semi")
    key = [*_PAIRED_IN, *_TOKEN]
    return with_none.join(none.select(*key, nats_none="nats"), on=key, how="left")


def _refuse_unpaired(tokens: pl.LazyFrame) -> None:
    """Raises RunError unless every condition has exactly the tokens of ``none``, each once."""
    none = tokens.filter(pl.col("condition") == "none").with_columns(nats_none="nats")
    columns = [*_PAIRED_IN, "condition", *_TOKEN, "nats_none"]
    odd = (
        pl.concat([beside_none(tokens).select(columns), none.select(columns)])
        .group_by(*_PAIRED_IN, "condition")
        .agg(rows=pl.len(), distinct=pl.struct(_TOKEN).n_unique(), alone=pl.col("nats_none").is_null().sum())
        .collect(engine="streaming")
        .with_columns(in_none=pl.col("rows").filter(pl.col("condition") == "none").first().over(_PAIRED_IN))
        .filter((pl.col("rows") != pl.col("distinct")) | (pl.col("alone") > 0) | (pl.col("rows") != pl.col("in_none")))
        .sort(*_PAIRED_IN, "condition")
    )
    for found in odd.head(1).iter_rows(named=True):
        raise RunError(
            f"the tokens of condition {found['condition']!r} and of 'none' do not pair one to one "
            f"(decoder {found['decoder']!r}, seed {found['seed']}, length {found['length']}: {found['rows']} rows, "
            f"{found['distinct']} distinct, {found['alone']} without a partner, {found['in_none']} under none)",
            remedy="Measure the conditions again, over the same windows",
            file=TOKENS,
        )


def _per_document(table: pl.LazyFrame, metrics: list[Metric]) -> pl.DataFrame:
    """A row per cell, seed, group and document, with ``<metric>:num``, ``:den`` and ``:units``.

    A whole-number denominator counts the units (tokens, words, windows); a real one (nats) weighs rows, so the rows
    are counted.
    """
    kinds = table.select(m.denominator.alias(m.name) for m in metrics).collect_schema()
    aggregates = []
    for m in metrics:
        numerator = m.numerator.fill_nan(None)
        measured = numerator.is_not_null()
        denominator = m.denominator.filter(measured)
        aggregates += [
            numerator.sum().alias(f"{m.name}:num"),
            denominator.sum().cast(pl.Float64).alias(f"{m.name}:den"),
            (denominator.sum() if kinds[m.name].is_integer() else measured.sum()).alias(f"{m.name}:units"),
        ]
    keys = ["run", "model", *_CELL, "seed", "group", "doc_id"]
    return table.with_columns(doc_id=cluster()).group_by(keys).agg(aggregates).collect(engine="streaming")


def _cells(documents: pl.DataFrame, metrics: list[Metric], by: str) -> Iterator[Sums]:
    """The rows to estimate: seeds pooled within each document, and for by='all' each seed too."""
    keys = ["run", "model", *_CELL, "group", "doc_id"]
    units = pl.col("^.*:units$").max()  # each seed measures the same units again: they are counted once
    pooled = documents.group_by(keys).agg(pl.col("^.*:(num|den)$").sum(), units).with_columns(seed=pl.lit("all"))
    parts = [pooled]
    if by == "all":
        parts.append(documents.with_columns(pl.col("seed").cast(pl.String)))
    cells = ["run", "model", *_CELL, "group"]
    by_seed = documents.sort("seed", "doc_id").partition_by(cells, as_dict=True)
    for part in parts:
        for cell in part.sort("doc_id").partition_by([*cells, "seed"], maintain_order=True):
            key = cell.select(*cells, "seed").row(0, named=True) | {"by": by}
            pooled_here = by_seed[cell.select(cells).row(0)]
            if key["seed"] != "all":
                pooled_here = pooled_here.filter(pl.col("seed").cast(pl.String) == key["seed"])
            # every seed's rows among the cell's documents
            seed = pooled_here["seed"].rank("dense").to_numpy() - 1
            row = cell["doc_id"].search_sorted(pooled_here["doc_id"]).to_numpy()
            for m in metrics:
                columns, count = [f"{m.name}:num", f"{m.name}:den"], cell[f"{m.name}:units"]
                measured = (count > 0).to_numpy()
                of_seeds = np.zeros((seed.max() + 1, cell.height, 2))
                of_seeds[seed, row] = pooled_here.select(columns).to_numpy()
                yield Sums(
                    {**key, "metric": m.name, "unit": m.unit},
                    cell["doc_id"].filter(measured).to_list(),
                    cell[columns[0]].to_numpy()[measured],
                    cell[columns[1]].to_numpy()[measured],
                    int(count.sum()),
                    of_seeds[:, measured],
                )
