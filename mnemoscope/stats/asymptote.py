"""Where a learning curve is going: y(n) = a + b n^-c, a the loss after infinitely many tokens.

Assumed: that the curve follows this law from its first point on and for ever; that it is that of one training whose
learning rate does not fall faster than the law (the end of a cosine does, and makes a curve look as if it had further
to go); and that the points scatter about it independently, equally and normally.  a, b and c are not negative: a loss
has a floor of 0.

The fit is that of least squares: for every c on a fine grid a and b are linear, so all resamples are fitted at once and
none can be caught in a local minimum; the value's own c is then refined (``scipy.optimize``).

Interval: documents are drawn anew, all points with the same ones, and the points' scatter about the curve is added
anew, with the variance of P - 3 degrees of freedom, as wide as their Student's t is; quantiles are those of a t of the
documents' effective number (:mod:`mnemoscope.stats.bootstrap`).

What the points cannot tell is not said: with fewer than five, where they do not fall, or where they go on falling as
if to 0, the asymptote is NaN, and the reason stands beside it.

Symbols: P points, n documents, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from mnemoscope.stats.bootstrap import FloatArray, divide, effective, resample, widened

#: exponents that are tried; a curve slower than the first is as good as a straight line in log n
EXPONENTS = np.geomspace(0.02, 8.0, 300)
#: a law of three constants needs as many points and two
LEAST_POINTS = 5
#: resamples that are fitted at a time
_BLOCK = 250


@dataclass(frozen=True, slots=True, eq=False)
class Fits:
    """a, c, and the mean square of what is left [R] each; ``open``: whether the asymptote is not seen, because a is 0,
    c is the least, or nothing falls."""

    level: FloatArray
    exponent: FloatArray
    error: FloatArray
    open: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Asymptote:
    """The loss after infinitely many tokens; NaN, and ``reason``, where it is not known.

    Attributes:
        levels: of the resamples [R], empty where it is not known.
        documents: sums of the documents' numbers in each resample [R, k].
        confidence: at which quantiles are to be taken, see :func:`ends`.
    """

    value: float
    exponent: float
    levels: FloatArray
    documents: FloatArray
    confidence: float
    reason: str = ""

    def ends(self, of: FloatArray) -> tuple[float, float]:
        """The interval of what was computed from ``levels`` [R]."""
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(of, [tail, 1 - tail])
        return float(low), float(high)


def fit(tokens: FloatArray, losses: FloatArray) -> Fits:
    """The best laws of curves ``losses`` [R, P] over ``tokens`` [P], c on the grid."""
    x = (tokens / np.exp(np.log(tokens).mean())) ** -EXPONENTS[:, None]  # [C, P]
    parts = [_fit(x, losses[start : start + _BLOCK]) for start in range(0, len(losses), _BLOCK)]
    return Fits(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("level", "exponent", "error", "open")))


def _fit(x: FloatArray, y: FloatArray) -> Fits:
    level, slope = _linear(x, y)
    error = np.stack([((level[:, c, None] + slope[:, c, None] * x[c] - y) ** 2).mean(1) for c in range(len(x))], axis=1)
    best = error.argmin(1)
    row = np.arange(len(y))
    a, b = level[row, best], slope[row, best]
    return Fits(a, EXPONENTS[best], error[row, best], (a <= 0) | (b <= 0) | (best == 0))


def _linear(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """a and b [R, C] of least squares, neither below 0, of curves [R, P] over x [C, P]."""
    mean_x, mean_y = x.mean(1), y.mean(1, keepdims=True)
    centred = x - mean_x[:, None]
    slope = y @ centred.T / (centred**2).sum(1)
    level = mean_y - slope * mean_x
    at_floor = level < 0
    slope = np.where(at_floor, np.maximum(y @ x.T / (x**2).sum(1), 0), slope)
    level = np.where(at_floor, 0, level)
    rising = slope < 0
    return np.where(rising, np.maximum(mean_y, 0), level), np.where(rising, 0, slope)


def _refined(tokens: FloatArray, losses: FloatArray, near: float) -> tuple[float, float]:
    """a and c of one curve [P], from the best c of the grid."""
    ratio = math.log(EXPONENTS[1] / EXPONENTS[0])
    scaled = tokens / np.exp(np.log(tokens).mean())

    def error(log_c: float) -> float:
        x = (scaled ** -math.exp(log_c))[None]
        level, slope = _linear(x, losses[None])
        return float(((level + slope * x - losses) ** 2).sum())

    bounds = (math.log(near) - ratio, math.log(near) + ratio)
    log_c = optimize.minimize_scalar(error, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
    level, _ = _linear((scaled ** -math.exp(log_c))[None], losses[None])
    return float(level[0, 0]), math.exp(log_c)


def asymptote(
    tokens: FloatArray,
    losses: FloatArray,
    weights: FloatArray,
    more: FloatArray,
    *,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> Asymptote:
    """Of the curve of sums of losses over sums of weights.

    Args:
        tokens: [P] of training, rising, above 0.
        losses: [n, P] sum of each document's losses at each point.
        weights: [n] tokens of each document.
        more: [n, k] other numbers of the documents, whose sums in each resample are wanted.
    """
    points = len(tokens)
    nothing = np.empty(0)

    def unknown(reason: str) -> Asymptote:
        return Asymptote(math.nan, math.nan, nothing, nothing, confidence, reason)

    if points < LEAST_POINTS:
        return unknown(f"{points} points of training, and {LEAST_POINTS} are needed")
    if not np.isfinite(losses).all():
        return unknown("a loss is not finite")
    curve = losses.sum(0) / weights.sum()
    if np.ptp(curve) <= 1e-9 * np.abs(curve).max():
        return unknown("the loss does not change")
    found = fit(tokens, curve[None])
    if found.open[0]:
        falls = np.polyfit(np.log(tokens), curve, 1)[0] < 0
        return unknown("the points fall as if for ever" if falls else "the points do not fall")
    value, exponent = _refined(tokens, curve, float(found.exponent[0]))
    if value <= 1e-6 * curve[-1]:  # 0 but for rounding
        return unknown("the points fall as if for ever")
    if len(weights) < 2:
        return unknown("fewer than two documents")
    freedom = points - 3
    normal, student = stats.norm.ppf((1 + confidence) / 2), stats.t.ppf((1 + confidence) / 2, freedom)
    scatter = math.sqrt(float(found.error[0]) * points / freedom) * float(student / normal)
    sums = resample(np.column_stack([losses, weights, more]), resamples, rng)
    curves = divide(sums[:, :points], sums[:, points : points + 1])
    again = fit(tokens, curves + scatter * rng.standard_normal(curves.shape))
    if again.open.mean() > 0.5:
        return unknown(f"{again.open.mean():.0%} of the resampled curves fall as if for ever, or not at all")
    worth = float(widened(confidence, effective(weights[:, None]))[0])
    return Asymptote(value, exponent, again.level, sums[:, points + 1 :], worth)
