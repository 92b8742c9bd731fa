"""Differences between two sets of rows: two decoders over the same windows, two domains, two classes of tokens.

    difference = num_a / den_a - num_b / den_b, sums over documents        interval = difference -+ t_f sqrt(V)

V is the jackknife's over documents: leave one out of both sides at once where they share documents (what a document
does to both cancels: paired), or out of its own side where they share none.  Its degrees of freedom are those of
Student's and Welch's t, with the effective number of documents in place of their number
(:func:`mnemoscope.stats.bootstrap.effective`).  With one token a document it *is* the paired t-test's, or Welch's.  For
ratios of few documents it covers better than the bootstrap, whatever its flavour (MacKinnon, Nielsen & Webb 2023;
``benchmarks/coverage.py``).  Decoder seeds come on top, by :mod:`mnemoscope.stats.seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mnemoscope.config import Study
from mnemoscope.stats import seeds
from mnemoscope.stats.bootstrap import FloatArray, divide, effective
from mnemoscope.stats.estimate import Sums, sums
from mnemoscope.types import Estimate

_KEY = ["decoder", "condition", "length", "seed", "metric", "by", "group"]
_LN2 = math.log(2)

#: sums of both sides, [m, columns] each -> [m]
Statistic = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """An estimate with p, two-sided, of the hypothesis that it is 0; NaN where there is no interval.  p and interval
    agree: p < 1 - confidence where 0 is outside."""

    p: float


class _Side(NamedTuple):
    """What is measured of one set of rows: named columns of sums, each by document and by decoder seed."""

    documents: list[str]
    columns: FloatArray  # [n, columns]
    by_seed: FloatArray  # [S, n, columns]


def difference(a: Sums, b: Sums, *, confidence: float) -> Difference:
    """The metric of ``a`` less that of ``b``.

    ``n_documents`` counts the documents of either side, ``n_tokens`` the units of the smaller one.  The interval is
    NaN if a side has fewer than two documents, or no denominator without one of them.
    """

    def statistic(a: FloatArray, b: FloatArray) -> FloatArray:
        return divide(a[:, 0], a[:, 1]) - divide(b[:, 0], b[:, 1])

    return _compared(_side([a]), _side([b]), statistic, min(a.units, b.units), confidence)


def parts(a: tuple[Sums, Sums], b: tuple[Sums, Sums], *, confidence: float) -> dict[str, Difference]:
    """A difference in bits retained a token, parted in two that add up to it (Kitagawa 1955; Oaxaca 1973).

    Bits retained = prior * share: the bits there were to retain, times the share of them that was retained::

        prior    the mean share  * (prior of a - prior of b)    a's tokens cost more to begin with
        share    the mean prior  * (share of a - share of b)    a's tokens are kept worse, whatever they cost

    Args:
        a, b: the sums of the metrics ``bits_retained`` and ``retention`` of either side.
    """

    def of(side: FloatArray) -> tuple[FloatArray, FloatArray]:
        tokens, saved, nats = side[:, 1], side[:, 2], side[:, 3]
        return divide(nats, tokens) / _LN2, divide(saved, nats)

    def prior(a: FloatArray, b: FloatArray) -> FloatArray:
        (prior_a, share_a), (prior_b, share_b) = of(a), of(b)
        return (share_a + share_b) / 2 * (prior_a - prior_b)

    def share(a: FloatArray, b: FloatArray) -> FloatArray:
        (prior_a, share_a), (prior_b, share_b) = of(a), of(b)
        return (prior_a + prior_b) / 2 * (share_a - share_b)

    units = min(a[0].units, b[0].units)
    left, right = _side(a), _side(b)
    return {f.__name__: _compared(left, right, f, units, confidence) for f in (prior, share)}


def _side(metrics: Sequence[Sums]) -> _Side:
    """num and den of each of the metrics, which were measured in the same documents."""
    first = metrics[0]
    assert all(m.documents == first.documents for m in metrics)
    columns = np.column_stack([c for m in metrics for c in (m.num, m.den)])
    return _Side(first.documents, columns, np.concatenate([m.by_seed for m in metrics], axis=2))


def _compared(a: _Side, b: _Side, statistic: Statistic, units: int, confidence: float) -> Difference:
    """``statistic`` of the sums of both sides, with its interval."""
    documents = sorted({*a.documents, *b.documents})
    nan = math.nan
    if not (a.documents and b.documents):
        return Difference(nan, nan, nan, units, len(documents), "none: nothing was measured on one side", nan)
    sums_a, sums_b = a.columns.sum(0), b.columns.sum(0)
    value = float(statistic(sums_a[None], sums_b[None])[0])
    if min(len(a.documents), len(b.documents)) < 2:
        return Difference(value, nan, nan, units, len(documents), "none: fewer than two documents", nan)
    apart = set(a.documents).isdisjoint(b.documents)
    worth = [float(effective(side.columns[:, 1:2])[0]) - 1 for side in (a, b)]
    samples = [(a, None), (None, b)] if apart else [(a, b)]
    variances = [_jackknife(_left_out(*sample, sums_a, sums_b, documents, statistic)) for sample in samples]
    variance, freedom = sum(variances), min(worth)
    if apart and variance > 0:
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom = variance**2 / sum(np.divide(v**2, f) for v, f in zip(variances, worth, strict=True))
    spread = seeds.Spread(variance, float(freedom), *_over_seeds(a, b, samples, documents, statistic))
    half = spread.half(confidence)
    if not math.isfinite(half):
        why = "none: no denominator without one of the documents"
        return Difference(value, nan, nan, units, len(documents), why, nan)
    paired = "documents of each side apart" if apart else "paired by document"
    method = f"jackknife over documents, {paired}, t, {seeds.named(spread.n_seeds)}"
    return Difference(value, value - half, value + half, units, len(documents), method, spread.p(value))


def _left_out(
    a: _Side | None,
    b: _Side | None,
    sums_a: FloatArray,
    sums_b: FloatArray,
    documents: list[str],
    statistic: Statistic,
) -> FloatArray:
    """[n], the statistic without each document of the sides given: of both at once where both are."""
    rest = [
        np.broadcast_to(whole, (len(other.documents) if other else 1, len(whole)))
        if side is None
        else whole - (_placed(side, documents) if a and b else side.columns)
        for side, whole, other in ((a, sums_a, b), (b, sums_b, a))
    ]
    return statistic(*rest)


def _jackknife(left_out: FloatArray) -> float:
    """The variance of a statistic of n documents, from its values without each of them."""
    n = len(left_out)
    return float((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


def _placed(side: _Side, documents: list[str]) -> FloatArray:
    """The columns at the rows of ``documents``; 0 where the side lacks one."""
    place = {document: i for i, document in enumerate(documents)}
    out = np.zeros((len(documents), side.columns.shape[1]))
    out[[place[d] for d in side.documents]] = side.columns
    return out


def _over_seeds(
    a: _Side,
    b: _Side,
    samples: Sequence[tuple[_Side | None, _Side | None]],
    documents: list[str],
    statistic: Statistic,
) -> tuple[float, int]:
    """The variance over decoder seeds, and their number: pair by pair where both sides have as many, as the classes of
    one decoder's tokens have and two decoders trained alike; else each side's by itself."""
    n_a, n_b = len(a.by_seed), len(b.by_seed)
    if n_a != n_b:
        of_a = _over_seeds(a, _repeated(b, n_a), [], documents, statistic)[0]
        of_b = _over_seeds(_repeated(a, n_b), b, [], documents, statistic)[0]
        # the larger number would promise degrees of freedom that the smaller has not
        return of_a + of_b, max(2, min(n_a, n_b))
    values = np.empty(n_a)
    left_out: list[list[FloatArray]] = [[] for _ in samples]
    for s in range(n_a):
        mine = {id(side): side._replace(columns=side.by_seed[s]) for side in (a, b)}
        whole = [mine[id(side)].columns.sum(0) for side in (a, b)]
        values[s] = statistic(whole[0][None], whole[1][None])[0]
        for rows, (x, y) in zip(left_out, samples, strict=True):
            here = (x and mine[id(x)], y and mine[id(y)])
            rows.append(_left_out(here[0], here[1], whole[0], whole[1], documents, statistic))
    return seeds.variance(values, [np.stack(rows) for rows in left_out]), n_a


def _repeated(side: _Side, n: int) -> _Side:
    """The side as if ``n`` seeds had all measured what its own did together."""
    return side._replace(by_seed=np.broadcast_to(side.columns, (n, *side.columns.shape)))


def between(run_folder: Path, study: Study, metric: str, a: dict[str, Any], b: dict[str, Any]) -> pl.DataFrame:
    """The differences ``a`` less ``b`` wherever the rest of the key agrees, seeds pooled.

    Args:
        a, b: values of key columns that name the sides, over the same columns, e.g. ``{"decoder": "growing"}`` and
            ``{"decoder": "fixed"}``, or ``{"by": "domain", "group": "news"}`` and another group.

    Returns:
        a row per remaining key, sorted by it, with ``value, low, high, n_tokens, n_documents, method, p``.
    """
    wanted = study.estimate
    grouping = a.get("by", "all")
    sides: list[dict[tuple[Any, ...], Sums]] = []
    rest = [c for c in _KEY if c not in a]
    rows = list(sums(run_folder, [grouping], wanted, [metric]))
    for side in (a, b):
        chosen = [r for r in rows if r.key["seed"] == "all" and all(r.key[c] == v for c, v in side.items())]
        sides.append({tuple(r.key[c] for c in rest): r for r in chosen})
    out = []
    for key in sorted(sides[0].keys() & sides[1].keys()):
        found = difference(sides[0][key], sides[1][key], confidence=wanted.confidence)
        numbers = {c: getattr(found, c) for c in ("value", "low", "high", "n_tokens", "n_documents", "method", "p")}
        out.append({**dict(zip(rest, key, strict=True)), **numbers})
    return pl.DataFrame(out)
