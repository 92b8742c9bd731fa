"""ROUGE-1, for comparison with the paper."""

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Mean


class Rouge1(Mean):
    """Mean F1 of the words that reference and reconstruction share (Lin 2004; the library rouge-score, no stemming).

    Does not count: case, punctuation, symbols and every letter outside a-z and 0-9; order (a permutation scores 1).
    NaN: no window of the group holds word of ASCII letters or digits.  Such windows are left out of the mean.
    """

    name = "rouge1"
    unit = "fraction"
    direction = "kept"
    level = "window"
    bounds = (0.0, 1.0)
    value = pl.col("rouge1")


METRIC = Rouge1()
