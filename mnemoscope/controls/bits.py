"""``bits:b``: the memory, each of its numbers rounded to b bits; b from 2 to 16.

The quantiser is uniform, symmetric about zero, and has a step for each channel (the last axis of a part: a Mamba's 16
numbers of ``ssm``, 3 of ``conv``) of each window, which is a power of two ::

    step = the least 2^k >= max |x| / (2^(b-1) - 1),    x -> step * round(x / step)

with halves rounded to the even level: 2^b - 1 levels, zero among them.  This is block floating point, as in the Open
Compute Project's Microscaling formats (2023).  k takes 8 bits, so the memory of a window takes b bits a number and 8 a
channel, all told; a step of full precision would hand over 32 a channel beside, where conv has three numbers.
Retention under ``bits:b`` is what this code keeps; a cleverer one of as many bits may keep more.
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
        """The nearest level to each number of a part [B, ..., numbers of a channel], in its dtype."""
        needed = part.abs().amax(-1, keepdim=True) / self.levels
        mantissa = torch.frexp(needed)[0]
        # exact; a mantissa of 1/2 is that of a power of two
        step = torch.where(mantissa > 0.5, needed / mantissa, needed)
        return torch.where(step > 0, (part / step).round() * step, part)


CONDITION = Bits
