"""What the memory tells of a token that the tokens before it do not."""

from __future__ import annotations

import math

import polars as pl

from mnemoscope.score.metrics import Mean


class BitsRetained(Mean):
    """Mean of log2 p(token | tokens before, memory) - log2 p(token | tokens before), the second from the decoder
    trained with no memory: conditional pointwise V-information (Xu et al. 2020; Hewitt et al. 2021; Ethayarajh et
    al. 2022).  Negative where the memory misled; never clipped.

    Does not count: what the memory holds and this decoder cannot read, so it bounds what is kept from below; the end
    of the text (EOS).
    NaN: no token of the group was measured under both conditions.
    """

    name = "bits_retained"
    unit = "bits/token"
    direction = "kept"
    level = "token"
    paired = True
    value = (pl.col("nats_none").cast(pl.Float64) - pl.col("nats").cast(pl.Float64)) / math.log(2)


METRIC = BitsRetained()
