"""``bits:b``: the memory, each of its numbers rounded to b bits; b from 2 to 16.

The quantiser is uniform, symmetric about zero, and has one step per part (``layers.3.ssm``) and window ::

    step = max |x| / (2^(b-1) - 1),    x -> step * round(x / step),    2^b - 1 levels, zero among them

with halves rounded to the even level.  So the memory of a window takes b bits a number and one step a part, all told:
with a step per channel, the 16 numbers of a Mamba's channel would carry two bits more each, unseen.  The price is that
a part's largest number decides how finely all of it is kept.  Retention under ``bits:b`` is therefore what this code
of b bits keeps; a cleverer one may keep more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mnemoscope.controls._altered import Altered, matched
from mnemoscope.memory.memory import Memory


class Bits(Altered):
    example = "8"

    def __init__(self, argument: str):
        found = matched(r"[2-9]|1[0-6]", argument, "bits", "a whole number from 2 to 16", self.example)
        self.levels = 2 ** (int(found[0]) - 1) - 1
        super().__init__(f"bits:{argument}")

    def hand_over(self, memory: Memory, ids: Tensor, seed: int) -> Memory:
        return memory.map(self.quantise)

    def quantise(self, part: Tensor) -> Tensor:
        """The nearest level to each number of a part [B, ...], in its dtype."""
        step = part.abs().amax(tuple(range(1, part.ndim)), keepdim=True) / self.levels
        return torch.where(step > 0, (part / step).round() * step, part)


CONDITION = Bits
