"""The cluster bootstrap of ratios of sums, for thousands of rows at once.

    documents        d1    d2    d3   ...              num_i, den_i: one sum per document
    one resample      2     0     1   ...   weights W  ratio* = sum W_i num_i / sum W_i den_i

Resampling documents with replacement is giving each a count; the counts do not depend on what is measured.  One
matrix of counts therefore serves every row (metric, condition, position, ...) over the same documents, and a resample
of all rows is one matrix product.  ``scipy.stats.bootstrap`` draws anew for each row and costs 67 ms a row at 2,000
documents and 2,000 resamples, this 0.2 ms; scipy is the oracle in ``tests/oracles/test_stats.py``, to the last digit.

Interval: BCa (Efron 1987; Efron & Tibshirani 1993, chapter 14, equations 14.9, 14.10, 14.14, 14.15), in which the
leave-one-document-out ratios have a closed form.  Where its corrections do not exist (every resample on one side of
the value, or no skewness to estimate), the percentile interval.  Either takes its quantiles at the levels of Student's
t instead of the normal's, and as if the variance of the resamples were not (n - 1) / n of what it should be (Hesterberg
2015, "expanded" intervals), with n the *effective* number of documents, (sum den)^2 / sum den^2: ten documents of which
one holds half of the text are three (Carter, Schnepel & Steigerwald 2017).  ``benchmarks/coverage.py`` says what that
is worth.

Symbols: n documents, k rows, R resamples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import ndtr, ndtri

FloatArray = npt.NDArray[np.float64]

#: counts drawn at a time, so that memory stays near 30 MB whatever the number of documents
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """value, low, high, variance (the jackknife's), freedom (degrees of, of that variance): float64 [k]; method: [k]
    texts."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    variance: FloatArray
    freedom: FloatArray
    method: list[str]


def generator(seed: int, documents: Sequence[str]) -> np.random.Generator:
    """A generator that depends on the study's seed and on *which* documents are resampled, and on nothing else.

    Rows over the same documents thus share their resamples, in whatever order they are computed, so a difference
    between two of them is not blurred by the draw.
    """
    digest = hashlib.sha256("\0".join(sorted(documents)).encode()).digest()
    return np.random.default_rng([seed % 2**64, int.from_bytes(digest[:16], "big")])


def resample(columns: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Sums [R, k] of ``columns`` [n, k] over R resamples of the n documents."""
    n, k = columns.shape
    out = np.empty((resamples, k))
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        out[start : start + rows] = counts.astype(np.float64) @ columns
    return out


def divide(num: FloatArray, den: FloatArray) -> FloatArray:
    """num / den, NaN where den is 0."""
    out: FloatArray = np.full(np.broadcast(num, den).shape, np.nan)
    return np.divide(num, den, out=out, where=den != 0)


def effective(weights: FloatArray) -> FloatArray:
    """The number of documents that those of ``weights`` [n, k] are worth, [k]: n if all weigh the same, 1 if one has
    all the weight; NaN if none has any."""
    return divide(weights.sum(0) ** 2, (weights**2).sum(0))


def widened(confidence: float, documents: FloatArray) -> FloatArray:
    """The confidence at which an interval of normal theory is as wide as one of Student's with the variance of
    ``documents`` [k] documents is at ``confidence``; 1 where there is no more than one."""
    n = np.maximum(documents, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.sqrt(n / (n - 1)) * stats.t.ppf((1 + confidence) / 2, n - 1)
    return np.where(n > 1, 2 * ndtr(z) - 1, 1.0)


def ratio_intervals(
    num: FloatArray, den: FloatArray, *, confidence: float, resamples: int, rng: np.random.Generator
) -> Intervals:
    """Ratios of sums over documents, with their intervals.

    Args:
        num, den: float64 [n, k], per document and row.
        confidence: coverage aimed at.
        resamples: R.

    A value whose denominator sums to 0 is NaN.  An interval is NaN with fewer than two documents, or if some resample
    has no denominator.
    """
    n, k = num.shape
    value = divide(num.sum(0), den.sum(0))
    if n < 2:
        nan = np.full(k, np.nan)
        return Intervals(value, nan, nan, nan, nan, ["none: fewer than two documents"] * k)
    sums = resample(np.concatenate([num, den], axis=1), resamples, rng)
    left_out = divide(num.sum(0) - num, den.sum(0) - den)
    return intervals(value, divide(sums[:, :k], sums[:, k:]), left_out, confidence, effective(den))


def intervals(
    value: FloatArray, distribution: FloatArray, left_out: FloatArray, confidence: float, documents: FloatArray
) -> Intervals:
    """BCa intervals, or percentile intervals where BCa does not exist.

    Args:
        value: [k], the statistic of the data.
        distribution: [R, k], of the resamples.
        left_out: [n, k], the statistic without each document.
        documents: [k], the effective number of them.
    """
    resamples, k = distribution.shape
    confidences = widened(confidence, documents)
    tails = np.stack([(1 - confidences) / 2, (1 + confidences) / 2])
    with np.errstate(all="ignore"):  # what does not exist becomes NaN, and is looked at below
        below = ((distribution < value).sum(0) + (distribution <= value).sum(0)) / (2 * resamples)
        bias = ndtri(below)
        n = len(left_out)
        influence = (n - 1) * (left_out.mean(0) - left_out) / n
        skewness = (influence**3).sum(0) / (influence**2).sum(0) ** 1.5 / 6
        shifted = bias + ndtri(tails)
        levels = ndtr(bias + shifted / (1 - skewness * shifted))
    # a spread of rounding errors only is no spread, and its "corrections" would be noise
    constant = np.ptp(distribution, axis=0) <= 1e-12 * np.maximum(np.abs(value), 1e-300)
    corrected = np.isfinite(levels).all(0) & ~constant
    levels = np.where(corrected, levels, tails)
    low, high = (_quantiles(np.sort(distribution, axis=0), level) for level in levels)
    low, high = np.where(constant, value, low), np.where(constant, value, high)
    undefined = np.isnan(distribution).any(0) | np.isnan(value)
    low, high = np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
    name = f"cluster bootstrap over documents, {resamples} resamples, "
    method = [
        "none: no denominator in some resamples"
        if undefined[i]
        else name + ("BCa" if corrected[i] else "percentile") + " widened to t"
        for i in range(k)
    ]
    return Intervals(value, low, high, (influence**2).sum(0) * n / (n - 1), documents - 1, method)


def _quantiles(ordered: FloatArray, level: FloatArray) -> FloatArray:
    """Column i's quantile ``level[i]``, interpolated linearly (numpy's default); ``ordered`` [R, k] rises."""
    place = level * (len(ordered) - 1)
    lower = np.floor(place).astype(int)
    upper = np.minimum(lower + 1, len(ordered) - 1)
    column = np.arange(ordered.shape[1])
    a, b = ordered[lower, column], ordered[upper, column]
    result: FloatArray = a + (b - a) * (place - lower)
    return result
