"""How the numbers of a memory are stored, and how far two stored memories lie apart in units of the last place.

A unit in the last place (ulp) is a step to the next number that the format has.  Its numbers in order, fp8 (e4m3)::

    code   0xfe  ...  0x82      0x81     0x80   0x00  0x01    0x02    ...  0x7e
    value  -448       -2^-8     -2^-9    -0     +0    2^-9    2^-8         448
    place  -127       -3        -2       -1     0     1       2            126

Two numbers are equal here only if their bits are: -0 and +0 are a step apart, as whoever keeps the bits keeps the sign.

================  =====================================================================================================
fp32, bf16, fp16  each number rounded to the nearest, ties to even; beyond the format's range: infinity (IEEE 754)
fp8, int8         with a scale of its own for each part of each window, stored beside it in a byte: the least power of
                  two 2^s, -126 <= s <= 127, with which the part's largest magnitude does not exceed the format's (448,
                  127), as in the scales of OCP's microscaling formats (E8M0); fp8 is e4m3 without infinities
================  =====================================================================================================

Symbols: B windows, n numbers of a part.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: name -> dtype of the stored numbers, and the largest magnitude to which a part is scaled (None: it is not)
_FORMATS: dict[str, tuple[torch.dtype, float | None]] = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "fp16": (torch.float16, None),
    "fp8": (torch.float8_e4m3fn, 448.0),
    "int8": (torch.int8, 127.0),
}
#: the precisions that there are, finest first
PRECISIONS = tuple(_FORMATS)
_LEAST, _MOST = -126, 127
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Stored(NamedTuple):
    """One part of B memories as it is stored.

    Attributes:
        numbers: [B, n] in the format's dtype.
        exponent: s [B] int32, where a number stands for itself times 2^s; zeros where nothing is scaled.
    """

    numbers: Tensor
    exponent: Tensor


def store(part: Tensor, precision: str, exponent: Tensor | None = None) -> Stored:
    """A part [B, ...], float32 or float64, at one of ``PRECISIONS``.

    Args:
        exponent: s [B] instead of the one that fits; what exceeds the format is then its largest number.
    """
    dtype, largest = _FORMATS[precision]
    x = part.flatten(1)
    if largest is None:
        return Stored(x.to(dtype), torch.zeros(len(x), dtype=torch.int32, device=x.device))
    if exponent is None:
        exponent = _fitting(x, largest)
    x = torch.ldexp(x, -exponent.unsqueeze(1)).clamp(-largest, largest)
    return Stored((x if dtype.is_floating_point else x.round()).to(dtype), exponent)


def restore(stored: Stored) -> Tensor:
    """What the stored numbers stand for, float32 [B, n]: all that whoever starts from them can know."""
    return torch.ldexp(stored.numbers.float(), stored.exponent.unsqueeze(1))


def apart(one: Stored, rest: Stored, precision: str) -> tuple[Tensor, Tensor]:
    """How far each of B stored parts lies from one.

    Args:
        one: of a single window.
        rest: of B windows.

    Returns:
        the largest distance of any two numbers in ulps, and the number of numbers that differ, both int64 [B]; both 0
        if and only if all bits are equal.  Where the scales differ, both are counted at the coarser one, and are 1 at
        least: of the scale itself.
    """
    steps = (places(rest.numbers) - places(one.numbers)).abs()
    rescaled = torch.nonzero(rest.exponent != one.exponent).flatten()
    if len(rescaled):
        common = torch.maximum(rest.exponent[rescaled], one.exponent)
        mine = Stored(rest.numbers[rescaled], rest.exponent[rescaled])
        x, y = (store(restore(s).expand(len(common), -1), precision, common) for s in (mine, one))
        steps[rescaled] = (places(x.numbers) - places(y.numbers)).abs()
    largest, differing = steps.amax(1), (steps != 0).sum(1)
    largest[rescaled], differing[rescaled] = largest[rescaled].clamp(min=1), differing[rescaled].clamp(min=1)
    return largest, differing


def places(numbers: Tensor) -> Tensor:
    """The place of each number among all numbers of its format in order: +0 is 0, -0 is -1, infinity one step after
    the largest; int64.  NaN has a place too, beyond infinity, by its bits."""
    if not numbers.dtype.is_floating_point:
        return numbers.long()
    bits = numbers.view(_BITS[numbers.dtype.itemsize]).long()
    sign = 1 << (8 * numbers.dtype.itemsize - 1)
    return torch.where(bits < 0, -1 - (bits & (sign - 1)), bits)


def same(one: Tensor, rest: Tensor) -> Tensor:
    """Whether each of ``rest`` [B, ...] is ``one`` [1, ...] bit for bit: bool [B]."""
    kind = _BITS[one.dtype.itemsize]
    return (one.contiguous().view(kind) == rest.contiguous().view(kind)).flatten(1).all(1)


def _fitting(x: Tensor, largest: float) -> Tensor:
    """The least s with max |x| <= largest * 2^s, for each row [B, n]: int32 [B]."""
    mantissa, exponent = torch.frexp(x.abs().amax(1).double() / largest)
    # frexp gives [0.5, 1); at 0.5 itself the power below fits
    return (exponent - (mantissa == 0.5).int()).clamp(_LEAST, _MOST).int()
