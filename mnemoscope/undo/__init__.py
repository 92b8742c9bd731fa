"""A window read back from the memory of the first layer alone, without a trained decoder: by undoing its steps.

The first layer of a Mamba is known to the last number once the tokens are: with K the width of its convolution,

    h_t = exp(D_t A) h_(t-1) + D_t B_t u_t          D_t, B_t, u_t: functions of the tokens x_(t-K+1) ... x_t

The convolution's memory holds its last K - 1 inputs, and each of them is that of one token.  So the step t can be
undone with each token that may have stood at t - K + 1, the next older one, and the right one is told from the others
by the state that it leaves: one that texts lead to (``distribution.py``), and in the end, before the first step, none
but the one that those tokens alone lead to.

What is read so is no guess: the text is read by the model again, and only one whose memory is the given one, to the
last bit of every layer, is taken (:mod:`mnemoscope.codec.search.undo`).

layer.py         the first layer, as a function of tokens
distribution.py  how its states are distributed after real text; fitted once for a model
reader.py        from a state to the tokens
"""

from mnemoscope.undo.distribution import Distribution
from mnemoscope.undo.layer import FirstLayer
from mnemoscope.undo.reader import Reader

__all__ = ["Distribution", "FirstLayer", "Reader"]
