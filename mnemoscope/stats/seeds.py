"""Decoder seeds as a second level of variance: another decoder would have read the same memories a little differently.

Every seed's decoder reads every document, so documents and seeds are crossed, and the variance of a number with the
seeds pooled is, to first order, the sum of two parts (Owen 2007; Cameron, Gelbach & Miller 2011):

    V = V_documents + V_seeds,      V_seeds = variance of the seeds' own numbers / S

What a seed does to single documents is in both, so V errs to the wide side, by little where documents are many.  With S
of 3 or so, drawing seeds anew would not do: the variance of three drawn from three is a third too small, and its
quantiles are the normal's.  So the interval over documents is stretched, each arm by

    k = t_f sqrt(V) / (t_d sqrt(V_documents)),      f = V^2 / (V_documents^2 / d + V_seeds^2 / (S - 1))

(Satterthwaite 1946), d being the documents' degrees of freedom: where the seeds agree it stays as it is, skewed or not,
and where they alone disagree it is Student's of S - 1 degrees.  ``benchmarks/coverage.py`` measures what it covers.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from mnemoscope.stats.bootstrap import FloatArray


def variance(by_seed: FloatArray) -> FloatArray:
    """Of the mean of ``by_seed`` [S, k], [k]: 0 with one seed, whose luck nobody can tell from the truth."""
    if len(by_seed) < 2:
        return np.zeros(by_seed.shape[1:])
    found: FloatArray = by_seed.var(axis=0, ddof=1) / len(by_seed)
    return found


def total(documents: float, freedom: float, seeds: float, n_seeds: int) -> tuple[float, float]:
    """The variance of documents and seeds together, and its degrees of freedom.

    Args:
        documents, freedom: variance over documents, and its degrees of freedom.
        seeds: variance over seeds, see :func:`variance`.
    """
    both = documents + seeds
    if seeds == 0 or not np.isfinite(both):
        return both, freedom
    of_documents = documents**2 / freedom if documents else 0.0
    return both, both**2 / (of_documents + seeds**2 / (n_seeds - 1))


def stretched(
    value: float, low: float, high: float, confidence: float, documents: float, freedom: float, both: float, f: float
) -> tuple[float, float]:
    """``low`` and ``high`` of an interval over documents, made to hold the seeds too; see the module's formula."""
    if both == documents or not np.isfinite(low):
        return low, high
    half = float(stats.t.ppf((1 + confidence) / 2, f)) * both**0.5
    own = float(stats.t.ppf((1 + confidence) / 2, freedom)) * documents**0.5
    if own == 0:
        return value - half, value + half
    return value - (value - low) * half / own, value + (high - value) * half / own


def named(n_seeds: int) -> str:
    """For the method of an estimate."""
    return "one decoder seed" if n_seeds == 1 else f"{n_seeds} decoder seeds as a second level"
