"""Tokens lost from their place."""

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Mean


class OmissionInPlace(Mean):
    """Share of the window's tokens that the monotone alignment of token ids does not match in the reconstruction.

    A token counts as lost whether another stands in its stead or nothing does.

    Does not count: insertions; a token that was written, but out of order.
    NaN: no token of the group was measured.
    """

    name = "omission_in_place"
    unit = "fraction"
    direction = "lost"
    level = "token"
    bounds = (0.0, 1.0)
    value = ~pl.col("recovered_in_place")


METRIC = OmissionInPlace()
