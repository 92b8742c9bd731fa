"""The share of what there was to remember that the memory brought back."""

from __future__ import annotations

import math

import polars as pl

from mnemoscope.score.metrics import Metric


class Retention(Metric):
    """Bits retained divided by the bits there were to retain: sum(nats_none - nats) / sum(nats_none).

    1 where the decoder is sure of every token, 0 where the memory helps nothing, negative where it misleads; never
    clipped.  A ratio of sums: tokens that could be guessed anyway weigh little.

    Does not count: what the memory holds and this decoder cannot read; what is known of a token before the memory is
    asked; the end of the text (EOS).
    NaN: no token of the group was measured under both conditions, or all were certain without the memory.
    """

    name = "retention"
    unit = "fraction"
    direction = "kept"
    level = "token"
    bounds = (-math.inf, 1.0)
    paired = True

    @property
    def numerator(self) -> pl.Expr:
        return pl.col("nats_none").cast(pl.Float64) - pl.col("nats").cast(pl.Float64)

    @property
    def denominator(self) -> pl.Expr:
        return pl.col("nats_none").cast(pl.Float64)


METRIC = Retention()
