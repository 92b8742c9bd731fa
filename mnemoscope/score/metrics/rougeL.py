"""ROUGE-L, for comparison with the paper."""  # noqa: N999 (the metric is spelt so)

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Mean


class RougeL(Mean):
    """Mean F1 of the longest common subsequence of words (Lin 2004; the library rouge-score, no stemming).

    Does not count: case, punctuation, symbols and every letter outside a-z and 0-9; words out of order.
    NaN: no window of the group holds a word of ASCII letters or digits.  Such windows are left out of the mean.
    """

    name = "rougeL"
    unit = "fraction"
    direction = "kept"
    level = "window"
    bounds = (0.0, 1.0)
    value = pl.col("rougeL")


METRIC = RougeL()
