"""Tokens right under teacher forcing."""

from __future__ import annotations

import polars as pl

from mnemoscope.score.metrics import Mean


class TokenAccuracy(Mean):
    """Share of the window's tokens that the decoder holds most likely, given the true tokens before them.

    Does not count: how sure the decoder is; that the true tokens before a token help to guess it, memory or not
    (compare the condition ``none``); the end of the text (EOS).
    NaN: no token of the group was measured.
    """

    name = "token_accuracy"
    unit = "fraction"
    direction = "kept"
    level = "token"
    bounds = (0.0, 1.0)
    value = pl.col("predicted_id") == pl.col("token_id")


METRIC = TokenAccuracy()
