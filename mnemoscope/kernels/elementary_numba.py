"""What the kernels that Numba compiles share: elementary functions without branches, and tensors as rows.

Loops over channels are innermost, over blocks of a fixed number of them, so that LLVM makes vectors of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

#: what may be done to arithmetic: sums in any order, products into sums; a NaN stays one
MATH = {"reassoc", "contract", "nsz", "arcp"}


@njit(inline="always", fastmath=MATH)
def exp(x: Any) -> Any:
    """e^x for x <= 0 in float32 to 2e-7.

    Cephes' expf: a power of two made in the exponent's bits, times a polynomial on [-ln 2 / 2, ln 2 / 2].
    """
    x = max(x, np.float32(-87.0))
    k = x * np.float32(1.44269504088896341) + np.float32(0.5)
    k = np.floor(k)
    r = x - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    y = p * r * r + r + np.float32(1.0)
    return y * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always", fastmath=MATH)
def sigmoid(x: Any) -> Any:
    e = exp(-abs(x))
    return (np.float32(1.0) if x >= np.float32(0.0) else e) / (np.float32(1.0) + e)


@njit(inline="always", fastmath=MATH)
def softplus(x: Any) -> Any:
    """ln(1 + e^x) = max(x, 0) + 2 artanh(s), s = e / (2 + e), e = e^-|x|; the series ends below 1e-8."""
    e = exp(-abs(x))
    s = e / (np.float32(2.0) + e)
    q = s * s
    p = np.float32(1 / 13)
    p = p * q + np.float32(1 / 11)
    p = p * q + np.float32(1 / 9)
    p = p * q + np.float32(1 / 7)
    p = p * q + np.float32(1 / 5)
    p = p * q + np.float32(1 / 3)
    p = p * q + np.float32(1.0)
    return max(x, np.float32(0.0)) + np.float32(2.0) * s * p


# an index that is a sum might be negative and so count from the end, unless it is unsigned: LLVM makes no vectors then;
# and a slice in a loop costs more than the loop over its numbers
@njit(inline="always")
def load(to: Any, array: Any, at: Any, width: Any) -> None:
    """``width`` numbers of a flat array, from ``at`` on, to the beginning of ``to``."""
    for d in range(width):
        to[d] = array[np.uintp(at + d)]


@njit(inline="always")
def store(array: Any, at: Any, source: Any, width: Any) -> None:
    """The other way round."""
    for d in range(width):
        array[np.uintp(at + d)] = source[d]


@njit(inline="always")
def place(x: Any, b: Any, t: Any) -> Any:
    """Where window b's token t begins in what :func:`flat` gives."""
    return b * x[1] + t * x[2]


def flat(x: Tensor) -> tuple[Any, int, int]:
    """A float32 tensor [B, L, ...] whose last dimensions are dense, as all numbers from its first to its last, and
    how far apart windows and tokens are; others are copied first."""
    inner = x[0, 0] if x.numel() else x
    x = x.detach().to(torch.float32)
    if not (x.numel() and inner.is_contiguous()):
        x = x.contiguous()
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    return x.as_strided((span,), (1,)).numpy(), x.stride(0), x.stride(1)


def dense(x: Tensor | None) -> Any:
    """A tensor's numbers in float32, contiguous; none for None."""
    return np.empty(0, np.float32) if x is None else x.detach().to(torch.float32).contiguous().numpy()
