"""tokens.parquet, certificate/ -> bracket.parquet: certainly lost <= forgotten <= not recovered by the best reader.

*Forgotten* is a token that the memory does not tell from every other that could stand there.  From below: tokens that
have a substitute with the same stored memory.  From above: tokens that the best reader did not write back in place,
and those certainly lost that it wrote back all the same, which was a guess.  Both ends are of the same windows.

    documents        half A           half B
    best on it       growing/1        reencode/0       fewest tokens not recovered, of all decoders, searches, seeds
    reported on it   reencode/0       growing/1        the best of the *other* half

So no document's own tokens choose the decoder that speaks for them, and the smallest of several numbers is not taken
for a measurement of the smallest.  A length has one decoder for all its classes.

What was written back may be a guess too where nothing is certain: ``none`` says how much guessing writes back.  So the
ceiling is of what a decoder with this memory *and its knowledge of the language* can do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import schema
from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.score.records import replacing
from mnemoscope.stats import certain
from mnemoscope.stats.bootstrap import generator
from mnemoscope.stats.compare import difference
from mnemoscope.stats.estimate import Sums, cluster, compute, require_groups, scan, with_group

#: how certificate/ calls the precision that a model of this dtype keeps its memory at
KEPT_AT = {"float32": "fp32", "bfloat16": "bf16"}
_METHOD = ["decoder", "seed"]
_PLACE = ["length", "window_id", "position", "token_id"]
_CELL = ("length", "by", "group")


def write(run_folder: Path, study: Study) -> pl.DataFrame:
    """Writes ``bracket.parquet`` of a run that is scored and has a certificate of its own, and returns it.

    Raises:
        RunError: a table is missing, the certificate is of other tokens than the run, or says nothing at the precision
            of the model.
    """
    frame = brackets(run_folder, study)
    with replacing(run_folder / "bracket.parquet") as part:
        pq.write_table(frame.to_arrow().cast(schema.arrow("bracket")), part)
    return frame


def brackets(run_folder: Path, study: Study) -> pl.DataFrame:
    """What :func:`write` writes, by ``schema.BRACKET``, a row for each length, ``by`` and group."""
    assert study.model is not None
    e = study.estimate
    require_groups(run_folder, e.by)
    precision = KEPT_AT.get(study.model.dtype, "")
    measured = scan(run_folder / "tokens.parquet").filter(pl.col("condition") == "memory")
    chosen = best(measured, study)
    written = _written(measured, chosen)
    read = _certified(certain.tokens(run_folder).filter(pl.col("precision") == precision), written, run_folder)
    cells: list[dict[tuple[Any, ...], Sums]] = [{}, {}]
    guessed: dict[tuple[Any, ...], float] = {}
    for by in ("all", *e.by):
        lost = certain.grouped(read.lazy(), run_folder, by, e.position_bins)
        guesses = {
            (r["length"], r["group"], r["doc_id"]): r["guessed"]
            for r in lost.with_columns(doc_id=cluster())
            .group_by("length", "group", "doc_id")
            .agg(guessed=(pl.col("weight") * (pl.col("lost") & pl.col("recovered"))).sum())
            .collect()
            .iter_rows(named=True)
        }
        for row in certain.sums(lost, by, study.seed):
            cells[0][_cell(row)] = row
        for row in _ceilings(with_group(written, run_folder, by, e.position_bins), by, guesses):
            cells[1][_cell(row)] = row
            length, _, group = _cell(row)
            more = sum(v for (n, g, _), v in guesses.items() if (n, g) == (length, group))
            guessed[_cell(row)] = more / row.den.sum()
    how = {"seed": study.seed, "confidence": e.confidence, "resamples": e.resamples}
    floors, ceilings = (
        {_cell_of(r): r for r in compute(some.values(), **how).iter_rows(named=True)}  # type: ignore[arg-type]
        for some in cells
    )
    rows = []
    for cell, ceiling in ceilings.items():
        floor = floors.get(cell)
        gap = difference(cells[1][cell], cells[0][cell], confidence=e.confidence) if floor else None
        # the ceiling is never below the floor
        low, high = np.clip([gap.low, gap.high], 0, 1) if gap else (math.nan, math.nan)
        named, how_chosen = chosen.names(cell[0])
        rows.append(
            {
                **dict(zip(_CELL, cell, strict=True)),
                **{"run": study.name, "model": study.model.name, "precision": precision},
                **_ends("floor", floor),
                **_ends("ceiling", ceiling),
                **{"gap": gap.value if gap else math.nan},
                **{"gap_low": float(low), "gap_high": float(high)},
                **{"guessed": guessed[cell], "confidence": e.confidence},
                **{"n_tokens": ceiling["n_tokens"], "n_certified": floor["n_tokens"] if floor else 0},
                **{"n_documents": ceiling["n_documents"], "decoders": named},
                "method": f"{how_chosen}; ends: {ceiling['method']}; gap: {gap.method if gap else 'none'}",
            }
        )
    return pl.DataFrame(rows, schema=[c.name for c in schema.BRACKET], infer_schema_length=None)


class Best:
    """The decoder that speaks for each half of the documents of each length.

    Args:
        halves: length, doc_id (by :func:`cluster`), half.
        picked: length, half, decoder, seed: the best on the other half.
    """

    def __init__(self, halves: pl.DataFrame, picked: pl.DataFrame):
        self.halves, self.picked = halves, picked

    def names(self, length: int) -> tuple[str, str]:
        """The decoders, and how they were chosen."""
        mine = self.picked.filter(length=length).sort("half")
        names = [f"{d}/seed-{s}" for d, s in mine.select(_METHOD).rows()]
        if mine["of"][0] == 1:
            return names[0], "the only decoder"
        if mine.height == 1:
            return names[0], f"the first of {mine['of'][0]}: one document leaves none to choose by"
        return ", ".join(dict.fromkeys(names)), f"best of {mine['of'][0]} on the other half of the documents"


def best(measured: pl.LazyFrame, study: Study) -> Best:
    """Chooses by the share of tokens not recovered in place; of equals, the first in the study.

    Args:
        measured: rows of tokens.parquet under the real memory.
    """
    summed = (
        measured.with_columns(doc_id=cluster())
        .group_by("length", *_METHOD, "doc_id")
        .agg(missed=(~pl.col("recovered_in_place")).sum().cast(pl.Int64), n=pl.len())
        .collect(engine="streaming")
    )
    order = {d.name: i for i, d in enumerate(study.decoders)}
    halves, picked = [], []
    for (length,), some in summed.partition_by("length", as_dict=True, maintain_order=False).items():
        documents = some["doc_id"].unique().sort().to_list()
        place = generator(study.seed, documents).permutation(len(documents))
        half = {documents[p]: i % 2 for i, p in enumerate(place)}
        halves += [{"length": length, "doc_id": d, "half": half[d]} for d in documents]
        methods = sorted(some.select(_METHOD).unique().rows(), key=lambda m: (order[m[0]], m[1]))
        for mine in sorted(set(half.values())):
            others = [d for d in documents if half[d] != mine]
            rates = (
                some.filter(pl.col("doc_id").is_in(others))
                .group_by(_METHOD)
                .agg(rate=pl.col("missed").sum() / pl.col("n").sum())
            )
            rate = {(d, s): r for d, s, r in rates.select(*_METHOD, "rate").rows()}
            decoder, seed = min(methods, key=lambda m: rate.get(m, math.inf))
            picked.append({"length": length, "half": mine, "decoder": decoder, "seed": seed, "of": len(methods)})
    types = {"length": pl.Int32, "seed": pl.Int32}
    return Best(pl.DataFrame(halves).cast({"length": pl.Int32}), pl.DataFrame(picked).cast(types))  # type: ignore[arg-type]


def _written(measured: pl.LazyFrame, chosen: Best) -> pl.LazyFrame:
    """The tokens, once each, as the decoder that speaks for their document wrote them."""
    speaks = chosen.halves.join(chosen.picked, on=["length", "half"]).rename({"doc_id": "unit"}).drop("half", "of")
    tokens = measured.with_columns(unit=cluster())
    return tokens.join(speaks.lazy(), on=["length", "unit", *_METHOD], how="semi").drop("unit")


def _certified(read: pl.LazyFrame, written: pl.LazyFrame, run_folder: Path) -> pl.DataFrame:
    """The certificate's tokens with ``recovered``: whether the decoder wrote them back.

    Raises:
        RunError: one of them is no token of the run, or there is none.
    """
    measured = written.select("length").unique()
    beside = written.select(*_PLACE, recovered="recovered_in_place")
    found = read.join(measured, on="length", how="semi").join(beside, on=_PLACE, how="left").collect(engine="streaming")
    alone = found["recovered"].null_count()
    if found.is_empty() or alone:
        what = f"{alone:,} of its {found.height:,} tokens are not the run's" if alone else "it holds no such token"
        raise RunError(
            f"the certificate at the model's precision and the run do not go together: {what}",
            remedy="Take certificate/ away and give the command again",
            file=run_folder / "certificate",
        )
    return found


def _ceilings(table: pl.LazyFrame, by: str, guesses: dict[tuple[Any, ...], float]) -> Iterator[Sums]:
    """Per-document sums of tokens not recovered, and of those that were guessed."""
    cells = ["run", "model", "length", "group"]
    documents = (
        table.with_columns(doc_id=cluster())
        .group_by(*cells, "doc_id")
        .agg(num=(~pl.col("recovered_in_place")).sum().cast(pl.Float64), den=pl.len().cast(pl.Float64))
        .sort("doc_id")
        .collect(engine="streaming")
    )
    for cell in documents.partition_by(cells, maintain_order=True):
        found = cell.select(cells).row(0, named=True)
        named = {"decoder": "best", "condition": "memory", "seed": "all", "metric": "not_recovered"}
        ids = cell["doc_id"].to_list()
        more = [guesses.get((found["length"], found["group"], d), 0.0) for d in ids]
        num, den = cell["num"].to_numpy() + more, cell["den"].to_numpy()
        both = pl.DataFrame({"num": num, "den": den}).to_numpy()
        yield Sums({**found, **named, "unit": "fraction", "by": by}, ids, num, den, int(den.sum()), both[None])


def _cell(row: Sums) -> tuple[Any, ...]:
    return _cell_of(row.key)


def _cell_of(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[c] for c in _CELL)


def _ends(name: str, row: dict[str, Any] | None) -> dict[str, float]:
    values = (row["value"], row["low"], row["high"]) if row else (math.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
