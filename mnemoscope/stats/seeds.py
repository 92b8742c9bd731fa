"""Decoder seeds as a second level of variance: another decoder would have read the same memories a little differently.

Every seed's decoder reads every document: documents and seeds are crossed (Owen 2007), and the variance of a number
with the seeds pooled is that over documents, V_d, and that over seeds, V_s, which is the variance of the seeds' own
numbers over S, less what a seed does to single documents: that is noise, and in V_d already.

With S of 3 or so, drawing seeds anew as documents are would not do: the variance of three drawn from three is a third
too small, and its quantiles are nearly the normal's.  So the half width of an interval over documents grows from
t_d sqrt(V_d) to

    sqrt(t_d^2 V_d + t_s^2 V_s),        d and s = S - 1 degrees of freedom

(Banerjee 1960; its coverage is at least the nominal one, where Satterthwaite's single t falls short by up to 5 points
with 3 seeds that matter).  Where the seeds agree it stays as it is; where they alone disagree it is Student's t of
them.  With a single seed nothing is known of its luck, and the method of the estimate says so.
``benchmarks/coverage.py`` measures what it covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from mnemoscope.stats.bootstrap import FloatArray


class Spread(NamedTuple):
    """Variances of a number over documents and over decoder seeds, with their degrees of freedom."""

    documents: float
    freedom: float
    seeds: float
    n_seeds: int

    def half(self, confidence: float) -> float:
        """Half the width of the symmetric interval; NaN where a variance is unknown."""
        if self.documents + self.seeds == 0:
            return 0.0
        t = float(stats.t.ppf((1 + confidence) / 2, self.freedom))
        if self.seeds == 0:
            return t * math.sqrt(self.documents)
        of_seeds = float(stats.t.ppf((1 + confidence) / 2, self.n_seeds - 1))
        return math.hypot(t * math.sqrt(self.documents), of_seeds * math.sqrt(self.seeds))

    def p(self, value: float) -> float:
        """Of ``value`` being 0 in truth, two-sided: 1 - the confidence at which the interval just reaches 0.

        NaN where nothing varies, or a variance is unknown.
        """
        if not math.isfinite(self.half(0.5)) or self.documents + self.seeds == 0:
            return math.nan
        if self.seeds == 0:
            return float(2 * stats.t.sf(abs(value) / math.sqrt(self.documents), self.freedom))

        def beyond(log_p: float) -> float:
            p = math.exp(log_p)
            t, s = stats.t.isf(p / 2, self.freedom), stats.t.isf(p / 2, self.n_seeds - 1)
            # a square of these would overflow where there are few degrees of freedom
            return math.hypot(t * math.sqrt(self.documents), s * math.sqrt(self.seeds)) - abs(value)

        least = -300.0  # of its logarithm
        return 1.0 if value == 0 else math.exp(brentq(beyond, least, 0.0) if beyond(least) > 0 else least)

    def stretched(self, value: float, low: float, high: float, confidence: float) -> tuple[float, float]:
        """``low`` and ``high`` of an interval over documents, skewed or not, made to hold the seeds too: each arm grows
        as the half width does."""
        if self.seeds == 0 or not math.isfinite(low):
            return low, high
        half, own = self.half(confidence), self._replace(seeds=0.0).half(confidence)
        if own == 0:
            return value - half, value + half
        return value - (value - low) * half / own, value + (high - value) * half / own


def variance(values: FloatArray, left_out: Sequence[FloatArray]) -> float:
    """V_s of the mean of S seeds; 0 with one seed, whose luck nobody can tell from the truth.

    Args:
        values: [S], each seed's number.
        left_out: for each sample of n_j documents, [S, n_j]: each seed's number without each document.
    """
    if len(values) < 2:
        return 0.0
    noise = sum(_interaction(x) for x in left_out)
    return max(0.0, float(values.var(ddof=1)) / len(values) - noise)


def _interaction(left_out: FloatArray) -> float:
    """What a seed does to single documents, as a variance of the mean over both: two-way residuals of the jackknife's
    pseudo-values; 0 where it cannot be told, which is the wide side."""
    seeds, n = left_out.shape
    if n < 2 or not np.isfinite(left_out).all():
        return 0.0
    pseudo = -(n - 1) * left_out
    residual = pseudo - pseudo.mean(0) - pseudo.mean(1, keepdims=True) + pseudo.mean()
    return float((residual**2).sum() / ((seeds - 1) * (n - 1)) / (n * seeds))


def named(n_seeds: int) -> str:
    """For the method of an estimate."""
    return "one decoder seed" if n_seeds == 1 else f"{n_seeds} decoder seeds as a second level"
