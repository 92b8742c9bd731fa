"""Only the convolution states, with the recurrent (SSM) states zero.

A layer's convolution state is what goes into it at the last d_conv - 1 tokens (of d_conv = 4: three).  In the first
layer that is these tokens, almost verbatim.  Above, it has been through the recurrences below, so that earlier tokens
can be found in it too: this is not a memory of three tokens, but what needs no recurrent state to be handed over.
"""

from __future__ import annotations

from mnemoscope.controls._altered import SomeParts, kind_of


class ConvOnly(SomeParts):
    def keeps(self, part: str) -> bool:
        return kind_of(part) == "conv"


CONDITION = ConvOnly("conv_only")
