"""``noise:s``: the memory with Gaussian noise of s times each part's standard deviation, s > 0.

The standard deviation is that of the part's numbers in the one window.  The noise of a number is a function of the
study's seed, the window's tokens and the number's place in the memory, and of nothing else: neither of the batch, nor
of the device, nor of s, so that ``noise:0.1`` and ``noise:0.2`` differ in strength alone.  Windows of the same tokens
get the same noise.

The numbers are SplitMix64's (Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators, figure 13): a
counter, mixed.  So all are made at once on any device, where a generator a window would make them one after another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mnemoscope.controls._altered import Altered, matched
from mnemoscope.errors import ConfigError
from mnemoscope.memory.memory import Memory

#: the golden ratio's 64 bits, SplitMix64's odd increment; and the two factors of its mixer, all as signed integers
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_FACTORS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


class Noise(Altered):
    example = "0.1"

    def __init__(self, argument: str):
        found = matched(r"\d+(\.\d+)?", argument, "noise", "a number above 0, in decimals", self.example)
        self.strength = float(found[0])
        if not 0 < self.strength < math.inf or f"{self.strength:.15g}" != argument:
            plain = f"{self.strength:.15g}" if 0 < self.strength < math.inf else self.example
            raise ConfigError(
                f"the condition 'noise:{argument}' is of no strength, or not written as short as it can be",
                remedy=f"Write noise:{plain}",
            )
        super().__init__(f"noise:{argument}")

    def hand_over(self, memory: Memory, ids: Tensor, seed: int) -> Memory:
        keys = of_windows(ids, seed)
        parts, first = {}, 0
        for name, part in memory.items():
            flat = part.flatten(1)
            spread = flat.std(1, correction=0, keepdim=True)
            z = normal(keys, first, flat.shape[1]).to(part.dtype)
            parts[name] = (flat + self.strength * spread * z).view_as(part)
            first += flat.shape[1]
        return Memory(parts)


def of_windows(ids: Tensor, seed: int) -> Tensor:
    """A 64-bit number [B] int64 of each window's tokens [B, L], in their order, and the seed."""
    places = torch.arange(ids.shape[1], device=ids.device)
    return mix(mix(mix(ids) + _STEP * places).sum(1) + mix(ids.new_full((1,), seed)))


def normal(keys: Tensor, first: int, count: int) -> Tensor:
    """Standard normal numbers [B, count] float32: of the stream that starts at each key, those from ``first`` on.

    A uniform number of 23 bits, in the middle of its cell, through the normal quantile: none lies beyond 5.3.
    """
    places = torch.arange(first + 1, first + 1 + count, device=keys.device)
    bits = shift(mix(keys.unsqueeze(1) + _STEP * places), 41)
    return (2 * (bits.float() + 0.5) / (1 << 23) - 1).erfinv() * math.sqrt(2)


def mix(x: Tensor) -> Tensor:
    """SplitMix64's mixer of int64, whose products wrap as those of unsigned integers do."""
    x = (x ^ shift(x, 30)) * _FACTORS[0]
    x = (x ^ shift(x, 27)) * _FACTORS[1]
    return x ^ shift(x, 31)


def shift(x: Tensor, by: int) -> Tensor:
    """To the right, filled with zeros, where ``>>`` of a signed integer repeats its sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


CONDITION = Noise
