"""Words lost: the paper's omission rate."""

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Metric


class OmissionWords(Metric):
    """Share of the window's words that the greedy reconstruction lacks: the k-th occurrence of a word counts as
    recovered if the reconstruction holds at least k of it (arXiv 2512.15653).

    Words are what white space separates, case and punctuation kept, on both sides alike.  The paper's own word lists
    came from two tokenizers, so that even a perfect copy lost words; ours loses none.

    Does not count: order; insertions; a word that only its punctuation or case tells apart counts as lost.  Scripts
    without white space make one word of a sentence: read the token metrics there.
    NaN: no window of the group holds a word.
    """

    name = "omission_words"
    unit = "fraction"
    direction = "lost"
    level = "window"
    bounds = (0.0, 1.0)

    @property
    def numerator(self) -> pl.Expr:
        return (pl.col("words") - pl.col("words_recovered_anywhere")).cast(pl.Float64)

    @property
    def denominator(self) -> pl.Expr:
        return pl.col("words").cast(pl.Int64)


METRIC = OmissionWords()
