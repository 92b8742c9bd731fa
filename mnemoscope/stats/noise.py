"""``noise:s`` from below: what nobody can tell apart in a memory to whose numbers noise is added.

The condition: to every number of a memory independent Gaussian noise is added, of s times the standard deviation of
its part's numbers in the window's memory, whichever of two texts was read.  Nothing is claimed of a memory without it.

Two texts leave the memories a and b.  Whoever sees the noisy one and says which text it was errs with

    P(errs | first) + P(errs | second)  >=  1 - TV  =  2 Phi(-d / 2),      d = |a - b| / noise

by Le Cam's bound, as the total variation of two Gaussians of one covariance is 2 Phi(d / 2) - 1, and a likelihood-ratio
test attains it (Tsybakov 2009, Introduction to Nonparametric Estimation, section 2.4; Lehmann & Romano 2005, chapter
13).  A decoder that writes the text is such a reader: the chances that it gets either token wrong add up to as much.

    d = 0    1       the texts leave one memory: as lost as by equality
    d = 1    0.617
    d = 2    0.317
    d = 4    0.0455
    d = 8    0.00006  told apart for all that matters

A token's loss is the largest over its substitutes.  It is a lower bound: another substitute may be nearer.  It is *not*
a share of tokens that are certainly lost, and is added to none.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import ndtr

from mnemoscope.stats.bootstrap import FloatArray

METRIC = "lost_to_noise"


def named(strength: float) -> str:
    """The condition of a strength, as a study spells it."""
    return f"noise:{strength:.15g}"


def lost(apart: FloatArray, strength: float) -> FloatArray:
    """What the two chances of an error add up to at least, in [0, 1].

    Args:
        apart: distance of two memories, each part in units of its standard deviation; may be infinite.
        strength: s > 0.
    """
    out: FloatArray = 2 * ndtr(-np.asarray(apart, np.float64) / (2 * strength))
    return out


def tokens(table: pl.LazyFrame, strength: float) -> pl.LazyFrame:
    """Tokens by :func:`mnemoscope.stats.certain.tokens`, once each, with ``lost`` and ``precision`` for the noise."""
    losses = pl.col("apart").map_batches(lambda d: pl.Series(lost(d.to_numpy(), strength)), return_dtype=pl.Float64)
    once = table.filter(pl.col("precision") == pl.col("precision").first())
    return once.with_columns(lost=losses, precision=pl.lit(named(strength)))
