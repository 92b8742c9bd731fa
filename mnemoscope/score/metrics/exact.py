"""Windows written back without a fault."""

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Mean


class Exact(Mean):
    """Share of windows whose greedy reconstruction is the window, token for token, and ends where it ends.

    Does not count: how wrong the others are; one wrong token in 256 is as bad as none right.
    NaN: no window of the group was measured.
    """

    name = "exact"
    unit = "fraction"
    direction = "kept"
    level = "window"
    bounds = (0.0, 1.0)
    value = pl.col("exact")


METRIC = Exact()
