"""Prequential code length: what it costs to send the tokens in blocks, each coded by what was learnt from those before.

    L(y_1:n | x_1:n) = t_1 log K  -  sum over i = 1 .. S - 1 of  ln p_i (y_{t_i + 1 : t_{i+1}} | x_{t_i + 1 : t_{i+1}})

with p_i trained on the first t_i of them (Voita & Titov 2020, Information-theoretic probing with minimum description
length, section 2.2.2, "online code"; Dawid 1984 for the name).  A decoder that must see much before it reads a memory
pays for that here, and one that ends as good but learns sooner has the shorter code: the effort counts, where a loss
after training counts the end alone.
"""

from __future__ import annotations

import numpy as np

from mnemoscope.stats.bootstrap import FloatArray
from mnemoscope.types import IntArray


def code_length(ends: IntArray, rates: FloatArray) -> FloatArray:
    """Length of the code [...], in the unit of the rates.

    Args:
        ends: [S] tokens sent by the end of each block, rising; the first is t_1.
        rates: [..., S] cost of a token of each block under what was trained on all blocks before it.  Of the first
            that is log K for a decoder that knows nothing (K tokens to choose from); for one that starts from a
            language model, what that costs before it is trained.
    """
    length: FloatArray = (rates * np.diff(ends, prepend=0)).sum(-1)
    return length
