"""Tokens lost, wherever the reconstruction may have put them."""

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Mean


class OmissionAnywhere(Mean):
    """Share of the window's tokens that the greedy reconstruction lacks: the k-th occurrence of a token counts as
    recovered if the reconstruction holds at least k of it.

    The paper's definition (arXiv 2512.15653), over token ids instead of words.

    Does not count: order (a permutation loses nothing); insertions.  Of a token that occurs several times it always
    takes the last occurrences for the lost ones, whichever they were: between positions, read ``omission_in_place``.
    NaN: no token of the group was measured.
    """

    name = "omission_anywhere"
    unit = "fraction"
    direction = "lost"
    level = "token"
    bounds = (0.0, 1.0)
    value = ~pl.col("recovered_anywhere")


METRIC = OmissionAnywhere()
