"""ROUGE-2, for comparison with the paper."""

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Mean


class Rouge2(Mean):
    """Mean F1 of the pairs of neighbouring words that reference and reconstruction share (Lin 2004; the library
    rouge-score, no stemming).

    Does not count: case, punctuation, symbols and every letter outside a-z and 0-9; order beyond neighbours.
    NaN: no window of the group holds two words of ASCII letters or digits.  Such windows are left out of the mean.
    """

    name = "rouge2"
    unit = "fraction"
    direction = "kept"
    level = "window"
    bounds = (0.0, 1.0)
    value = pl.col("rouge2")


METRIC = Rouge2()
