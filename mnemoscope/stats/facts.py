"""tokens.parquet of windows that begin with facts -> facts.parquet (a row a fact) and facts_summary.parquet.

    tokens of a fact -> bits with memory and without -> sums by document -> share with its interval

The unit of resampling is the document, here too: the facts of one text share its subject and its luck.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import schema
from mnemoscope.config import Study
from mnemoscope.score.records import replacing
from mnemoscope.stats.estimate import Sums, beside_none, compute, scan

#: metric -> unit, numerator and denominator of a fact's row, and what counts the units
_METRICS = {
    "whole": ("fraction", "whole", "facts"),
    "retention": ("fraction", "kept_nats", "nats_none"),
    "bits_retained": ("bits/token", "kept_bits", "tokens"),
    "omission_in_place": ("fraction", "lost", "tokens"),
}
#: characters of what was written back that are shown beyond a fact's own
_MORE = 40


def write(run_folder: Path, facts: Mapping[int, Sequence[Any]], study: Study) -> None:
    """Writes both tables into ``run_folder``, each atomically.

    Args:
        facts: by length N, named tuples with the columns of ``schema.FACTS`` that are about the text alone, and
            ``first``, the place of their first token in the document.

    Raises:
        RunError: the tables of scored windows are missing.
    """
    by_seed = _by_seed(run_folder, facts)
    model = study.model.name if study.model else ""
    made = {"facts": _table(run_folder, by_seed, model), "facts_summary": summary(by_seed, study)}
    for name, frame in made.items():
        wanted = schema.arrow(name)
        with replacing(run_folder / f"{name}.parquet") as part:
            pq.write_table(frame.select(wanted.names).to_arrow().cast(wanted), part, compression="zstd")


def _by_seed(run_folder: Path, facts: Mapping[int, Sequence[Any]]) -> pl.DataFrame:
    """A row a fact, length and seed: nats of its tokens without memory, what the memory saved of them, tokens lost."""
    rows = [
        f._asdict() | {"after": length, "window_id": f"{f.doc_id}:{length}:{f.first}"}
        for length, some in facts.items()
        for f in some
    ]
    wanted = pl.DataFrame(rows, infer_schema_length=None)
    tokens = beside_none(scan(run_folder / "tokens.parquet")).filter(pl.col("condition") == "memory")
    mine = tokens.join(wanted.lazy().select("window_id", "tokens"), on="window_id").filter(
        pl.col("position") < pl.col("tokens")
    )
    none, memory = (pl.col(c).cast(pl.Float64) for c in ("nats_none", "nats"))
    measured = (
        mine.group_by("window_id", "seed")
        .agg(nats_none=none.sum(), kept_nats=(none - memory).sum(), lost=(~pl.col("recovered_in_place")).sum())
        .collect(engine="streaming")
    )
    return wanted.join(measured, on="window_id").with_columns(
        kept_bits=pl.col("kept_nats") / math.log(2), whole=(pl.col("lost") == 0).cast(pl.Float64), facts=pl.lit(1)
    )


def _table(run_folder: Path, by_seed: pl.DataFrame, model: str) -> pl.DataFrame:
    """By ``schema.FACTS``, the worst first: by length, then by the share that is retained."""
    measured = by_seed.group_by("window_id").agg(
        pl.col("nats_none", "kept_bits", "lost", "whole").mean(), seeds=pl.len(), first_seed=pl.col("seed").min()
    )
    of_fact = by_seed.drop("seed", "nats_none", "kept_nats", "kept_bits", "lost", "whole", "facts").unique("window_id")
    windows = scan(run_folder / "reconstructions.parquet").filter(pl.col("condition") == "memory")
    written = windows.select("window_id", first_seed="seed", reference="reference", reconstruction="reconstruction")
    frame = of_fact.join(measured, on="window_id").join(written.collect(), on=["window_id", "first_seed"])
    bits = pl.col("nats_none") / math.log(2)
    whole = frame.with_columns(
        model=pl.lit(model),
        bits=bits,
        bits_retained=pl.col("kept_bits"),
        retention=pl.when(bits > 0).then(pl.col("kept_bits") / bits).otherwise(float("nan")),
        omission_in_place=pl.col("lost") / pl.col("tokens"),
        again=pl.col("reference").str.count_matches(pl.col("fact"), literal=True).cast(pl.Int64) - 1,
        written=pl.col("reconstruction").str.slice(0, pl.col("fact").str.len_chars() + _MORE),
    )
    return whole.sort(
        "after", "retention", "bits", "doc_id", "char_start", descending=[False, False, True, False, False]
    )


def summary(by_seed: pl.DataFrame, study: Study) -> pl.DataFrame:
    """By ``schema.FACTS_SUMMARY``: of all facts and of each kind, at each length."""
    e = study.estimate
    found = compute(_sums(by_seed, study), seed=study.seed, confidence=e.confidence, resamples=e.resamples)
    return found.sort("length", pl.col("by") != "all", "group", "metric")


def _sums(by_seed: pl.DataFrame, study: Study) -> Iterator[Sums]:
    seeds = by_seed["seed"].unique().sort()
    for by, group in (("all", pl.lit("all")), ("kind", pl.col("kind"))):
        grouped = by_seed.with_columns(group=group)
        for (length, name), rows in sorted(grouped.partition_by("after", "group", as_dict=True).items()):
            documents = rows["doc_id"].unique().sort()
            key = {"run": study.name, "model": study.model.name if study.model else "", "decoder": "decoder"}
            key |= {"condition": "memory", "seed": "all", "length": length, "by": by, "group": name}
            for metric, (unit, num, den) in _METRICS.items():
                totals = rows.group_by("seed", "doc_id").agg(num=pl.col(num).sum(), den=pl.col(den).sum())
                each = np.zeros((len(seeds), len(documents), 2))
                place = seeds.search_sorted(totals["seed"]), documents.search_sorted(totals["doc_id"])
                each[place] = totals.select("num", "den").to_numpy()
                units = int(rows["facts" if metric == "whole" else "tokens"].sum()) // len(seeds)
                both = each.sum(0)
                key_of = {**key, "metric": metric, "unit": unit}
                yield Sums(key_of, documents.to_list(), both[:, 0], both[:, 1], units, each)
