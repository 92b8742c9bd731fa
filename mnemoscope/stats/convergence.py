"""learning.parquet -> convergence.parquet: how far from converged the decoders are, by ``schema.CONVERGENCE``.

    nats [documents, points] -> what is kept after so many tokens -> where that is going (asymptote)
                                                                  -> what the learning itself cost (prequential)

``nats``, ``bits_retained`` and ``retention`` are those of the metrics of these names, over the windows that training
was evaluated on.  Along a curve the prior, p without memory, is that of the fully trained decoder ``none`` of the same
seed, so that a curve is of the reading alone; in a prequential code both sides learn as they go.  A ``none`` that was
not trained leaves nats only.

Counted over documents (:mod:`mnemoscope.stats.estimate`).  An asymptote's interval holds the documents and the scatter
of the points, not the luck of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import config, schema
from mnemoscope.score.records import replacing
from mnemoscope.stats.asymptote import asymptote
from mnemoscope.stats.bootstrap import FloatArray, generator
from mnemoscope.stats.estimate import Sums, cluster, compute
from mnemoscope.stats.prequential import code_length
from mnemoscope.types import IntArray

_UNITS = {"nats": "nats/token", "bits_retained": "bits/token", "retention": "fraction"}
_CELL = ["run", "model", "decoder", "condition", "length"]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A cell's learning curve; S seeds, n documents, P + 1 points.

    Attributes:
        key: the columns ``_CELL``.
        seeds: rising.
        documents: ids, rising.
        tokens: [P + 1] of training; the first is 0.
        nats: [S, n, P + 1], summed over each document.
        count: [n] tokens of each document.
    """

    key: dict[str, Any]
    seeds: tuple[int, ...]
    documents: list[str]
    tokens: IntArray
    nats: FloatArray
    count: FloatArray

    def of_seed(self, place: int) -> Curve:
        return replace(self, seeds=self.seeds[place : place + 1], nats=self.nats[place : place + 1])

    @property
    def seed(self) -> str:
        """As tables have it."""
        return str(self.seeds[0]) if len(self.seeds) == 1 else "all"


def converge(run_folder: Path, study: config.Study) -> None:
    """Writes ``convergence.parquet``, atomically, if any training was evaluated."""
    file = run_folder / "learning.parquet"
    if not file.exists():
        return
    frame = convergence(pl.read_parquet(file), study)
    with replacing(run_folder / "convergence.parquet") as part:
        pq.write_table(frame.to_arrow().cast(schema.arrow("convergence")), part)


def convergence(learning: pl.DataFrame, study: config.Study) -> pl.DataFrame:
    """The rows of ``schema.CONVERGENCE``: seeds pooled within each document (seed ``all``), and each seed alone.

    Args:
        learning: by ``schema.LEARNING``.
    """
    wanted = study.estimate
    settled = {d.name: _settled(d) for d in study.decoders}
    found = curves(learning)
    measured: list[Sums] = []
    extrapolated: list[dict[str, Any]] = []
    for key, curve in found.items():
        run, model, decoder, _, length = key
        guess = [found.get((run, model, name, "none", length)) for name in (decoder, wanted.guesses)]
        own, lent = guess if curve.key["condition"] != "none" else (None, None)
        none = own or (lent if lent is not None and lent.seeds == curve.seeds else None)
        alone = [(curve.of_seed(i), None if none is None else none.of_seed(i)) for i in range(len(curve.seeds))]
        for seed, one, prior in (("all", curve, none), *((one.seed, one, prior) for one, prior in alone)):
            measured += _sums(one, prior, seed, code=own is not None)
            extrapolated += _asymptotes(one, prior, seed, settled[decoder], study)
    frame = compute(measured, seed=study.seed, confidence=wanted.confidence, resamples=wanted.resamples)
    frame = frame.rename({"by": "kind"}).with_columns(tokens=pl.col("group").cast(pl.Int64))
    columns = [c.name for c in schema.CONVERGENCE]
    rows = pl.concat(
        [frame.select(columns), pl.DataFrame(extrapolated, schema_overrides={"tokens": pl.Int64}).select(columns)],
        how="vertical_relaxed",
    )
    return rows.sort(["decoder", "condition", "length", "seed", "metric", "kind", "tokens"])


def _settled(decoder: config.Decoder) -> float:
    """The share of a training after which its curve may follow a law: the rate has risen, and all lengths are in."""
    warmup = 0.0 if decoder.optimiser is None else decoder.optimiser.warmup
    return max(warmup, decoder.growth or 0.0)


def curves(learning: pl.DataFrame) -> dict[tuple[Any, ...], Curve]:
    """By run, model, decoder, condition and length.

    Seeds see a few tokens more or less by the same point: points are paired from the last on, and have the tokens of
    the first seed.
    """
    clustered = learning.with_columns(doc_id=cluster()).group_by(*_CELL, "seed", "tokens", "doc_id")
    summed = clustered.agg(pl.col("n_tokens", "nats").sum()).sort("seed", "tokens", "doc_id")
    out = {}
    for key, cell in summed.partition_by(_CELL, as_dict=True, maintain_order=True).items():
        seeds = cell.partition_by("seed", maintain_order=True)
        points = min(s["tokens"].n_unique() for s in seeds)
        documents = cell["doc_id"].unique().sort().to_list()
        nats = [s["nats"].to_numpy().reshape(-1, len(documents))[-points:].T for s in seeds]
        out[key] = Curve(
            dict(zip(_CELL, key, strict=True)),
            tuple(s["seed"][0] for s in seeds),
            documents,
            seeds[0]["tokens"].unique().sort().to_numpy()[-points:],
            np.stack(nats),
            seeds[0]["n_tokens"].to_numpy()[: len(documents)].astype(np.float64),
        )
    return out


def _ratios(nats: FloatArray, prior: FloatArray | None, count: FloatArray) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Numerator and denominator of each metric, of sums of nats, of those without memory, and of tokens."""
    found = {"nats": (nats, count)}
    if prior is not None:
        found |= {"bits_retained": ((prior - nats) / math.log(2), count), "retention": (prior - nats, prior)}
    return found


def _code(curve: Curve) -> FloatArray:
    """What each document [S, n] costs, in nats, at the mean rate of the code of all tokens of training."""
    return code_length(curve.tokens[1:], curve.nats[..., :-1]) / float(curve.tokens[-1])


def _sums(curve: Curve, none: Curve | None, seed: str, *, code: bool) -> Iterator[Sums]:
    """What is to be estimated at each point, and of the code of all tokens.

    Args:
        code: whether ``none`` was trained on the same tokens, so that its code can be compared.
    """
    last = int(curve.tokens[-1])
    stages: list[tuple[str, int, FloatArray, FloatArray | None]] = [
        ("learning", int(t), curve.nats[..., i], None if none is None else none.nats[..., -1])
        for i, t in enumerate(curve.tokens)
    ]
    stages.append(("prequential", last, _code(curve), _code(none) if none is not None and code else None))
    for kind, tokens, nats, prior in stages:
        count = np.broadcast_to(curve.count, nats.shape)
        for metric, (num, den) in _ratios(nats, prior, count).items():
            key = curve.key | {"seed": seed, "metric": metric, "unit": _UNITS[metric], "by": kind, "group": str(tokens)}
            units = int(curve.count.sum())
            by_seed = np.stack([num, den], axis=-1)
            yield Sums(key, curve.documents, num.sum(0), den.sum(0), units, by_seed)


def _asymptotes(
    curve: Curve, none: Curve | None, seed: str, settled: float, study: config.Study
) -> Iterator[dict[str, Any]]:
    used = curve.tokens > max(settled * curve.tokens[-1], 0)
    count = curve.count * len(curve.seeds)
    prior = np.zeros_like(count) if none is None else none.nats[..., -1].sum(0)
    found = asymptote(
        curve.tokens[used].astype(np.float64),
        curve.nats[..., used].sum(0),
        count,
        np.column_stack([prior, count]),
        confidence=study.estimate.confidence,
        resamples=study.estimate.resamples,
        rng=generator(study.seed, curve.documents),
    )
    again_prior, again_count = found.documents.T if not found.reason else (np.empty(0), np.empty(0))
    totals = (prior.sum(), count.sum())
    values = _ratios(found.value * totals[1], totals[0] if none else None, totals[1])
    resampled = _ratios(found.levels * again_count, again_prior if none else None, again_count)
    for metric, (num, den) in values.items():
        ends = (math.nan, math.nan) if found.reason else found.ends(resampled[metric][0] / resampled[metric][1])
        law = f"a + b tokens^-{found.exponent:.3g} through {used.sum()} points; documents and scatter resampled"
        yield curve.key | {
            **{"seed": seed, "metric": metric, "unit": _UNITS[metric], "kind": "asymptote", "tokens": None},
            **{"value": float(num / den), "low": ends[0], "high": ends[1]},
            **{"confidence": study.estimate.confidence, "n_tokens": int(curve.count.sum())},
            **{"n_documents": len(curve.documents)},
            "method": f"none: {found.reason}" if found.reason else f"{law}, {study.estimate.resamples} times",
        }
