"""What the true tokens cost the decoder."""

from __future__ import annotations

import math

import polars as pl

from mnemoscope.score.metrics import Mean


class Nats(Mean):
    """Mean of -ln p of each token, given the true tokens before it and what the decoder started from.

    Does not count: the end of the text (EOS); what could be guessed without the memory (``bits_retained`` does).
    NaN: no token of the group was measured.
    """

    name = "nats"
    unit = "nats/token"
    direction = "lost"
    level = "token"
    bounds = (0.0, math.inf)
    value = pl.col("nats")


METRIC = Nats()
