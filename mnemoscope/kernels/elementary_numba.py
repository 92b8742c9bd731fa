"""What the kernels that Numba compiles share: how they are compiled, functions without branches, and tensors as rows.

Loops over channels are innermost, over blocks of a fixed number of them, so that LLVM makes vectors of them.  All is
computed in float32; what is bfloat16 in memory is read and written as it lies there, as integers of 16 bits.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange, threading_layer, types
from numba.extending import overload
from torch import Tensor

# sums in any order, products into sums; a NaN stays one.  Python's division, which raises, would be a branch
_MATH = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
inlined = partial(njit, inline="always", **_MATH)
task = partial(njit, **_MATH)
kernel = partial(njit, parallel=True, cache=True, **_MATH)

# Numba, which looks at no OMP_NUM_THREADS, would take all cores, and its OpenMP layer, once it starts, tell PyTorch to
# do so too: where others use the machine, threads that wait for one another make every small operation 40 times slower.
# Only where the two differ, for a process that has started it cannot be forked
if (_threads := torch.get_num_threads()) < numba.config.NUMBA_NUM_THREADS:
    numba.set_num_threads(_threads)
    torch.set_num_threads(_threads)

LOG2E, LN2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
ZERO, ONE = np.float32(0.0), np.float32(1.0)
#: 1.5 * 2^23: adding it rounds to an integer, whose bits are then the sum's lowest
_ROUND = np.float32(12582912.0)


# as written: reordered, the rounding would cancel
@njit(forceinline=True, fastmath={"contract"}, error_model="numpy")
def exp2(x: Any) -> Any:
    """2^x for x <= 0 in float32, to 2e-7 down to 2^-126 and that below.

    A power of two made in the exponent's bits, times the polynomial of least relative error on [-1/2, 1/2].
    """
    x = max(x, np.float32(-126.0))
    k = x + _ROUND
    r = x - (k - _ROUND)
    p = np.float32(1.326472731307149e-3)
    p = p * r + np.float32(9.671512991189957e-3)
    p = p * r + np.float32(5.550733581185341e-2)
    p = p * r + np.float32(2.4022242426872253e-1)
    p = p * r + np.float32(6.931470036506653e-1)
    p = p * r + ONE
    power = np.int32(np.float32(k).view(np.int32) << np.int32(23))
    return np.int32(np.float32(p).view(np.int32) + power).view(np.float32)


@inlined()
def exp(x: Any) -> Any:
    """e^x for x <= 0 in float32, to 2e-7 (1 + |x|)."""
    return exp2(x * LOG2E)


@inlined()
def sigmoid(x: Any) -> Any:
    e = exp(-abs(x))
    return (ONE if x >= ZERO else e) / (ONE + e)


@inlined()
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
    p = p * q + ONE
    return max(x, ZERO) + np.float32(2.0) * s * p


def number(array: Any, i: Any) -> Any:
    """The float32 that lies at ``i``."""


@overload(number, jit_options={"forceinline": True})
def _number(array: Any, i: Any) -> Any:
    # an index that is a sum might be negative and so count from the end, unless it is unsigned: no vectors then
    if array.dtype == types.uint16:

        def widened(array: Any, i: Any) -> Any:
            return np.uint32(np.uint32(array[np.uintp(i)]) << np.uint32(16)).view(np.float32)

        return widened

    def same(array: Any, i: Any) -> Any:
        return array[np.uintp(i)]

    return same


def put(array: Any, i: Any, x: Any) -> None:
    """Lays the float32 ``x`` at ``i``, rounded to the nearest, of two to the even, where there is bfloat16."""


@overload(put, jit_options={"forceinline": True})
def _put(array: Any, i: Any, x: Any) -> Any:
    if array.dtype == types.uint16:

        def rounded(array: Any, i: Any, x: Any) -> None:
            bits = np.float32(x).view(np.uint32)
            even = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            bits = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + even)
            # the carry must not make a number of a NaN
            array[np.uintp(i)] = np.uint16(np.uint32(bits >> np.uint32(16)) if x == x else np.uint32(0x7FC0))

        return rounded

    def same(array: Any, i: Any, x: Any) -> None:
        array[np.uintp(i)] = x

    return same


# a slice in a loop costs more than the loop over its numbers
@inlined()
def load(to: Any, array: Any, at: Any, width: Any) -> None:
    """``width`` numbers of a flat array, from ``at`` on, to the beginning of ``to``."""
    for d in range(width):
        to[d] = number(array, at + d)


@inlined()
def store(array: Any, at: Any, source: Any, width: Any) -> None:
    """The other way round."""
    for d in range(width):
        put(array, at + d, source[d])


@inlined()
def place(x: Any, b: Any, t: Any) -> Any:
    """Where window b's token t begins in what :func:`flat` gives."""
    return b * x[1] + t * x[2]


def kept_as(*tensors: Tensor | None) -> torch.dtype:
    """In which dtype tensors that a kernel reads together lie in memory: bfloat16 if all do, else float32."""
    halves = all(x is None or x.dtype == torch.bfloat16 for x in tensors)
    return torch.bfloat16 if halves else torch.float32


def numbers(x: Tensor) -> Any:
    """A tensor's memory, float32 or bfloat16, as NumPy has it."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def flat(x: Tensor, dtype: torch.dtype) -> tuple[Any, int, int]:
    """A tensor [B, L, ...] whose last dimensions are dense, as all numbers from its first to its last, and how far
    apart windows and tokens are; others are copied first."""
    x = x.detach().to(dtype)
    if x.numel() == 0:
        return numbers(x.reshape(-1)), 0, 0
    if not x[0, 0].is_contiguous():
        x = x.contiguous()
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    return numbers(x.as_strided((span,), (1,))), x.stride(0), x.stride(1)


def dense(x: Tensor | None) -> Any:
    """A tensor's numbers in float32, contiguous; none for None."""
    return np.empty(0, np.float32) if x is None else x.detach().to(torch.float32).contiguous().numpy()


def differentiated(*inputs: Tensor | None) -> bool:
    """Whether gradients of a function of these will be asked for."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


@cache
def loops_may_meet() -> bool:
    """Whether kernels may run in several threads at once: what Numba falls back to where neither OpenMP nor TBB is
    found ends the process then."""
    _loop(np.zeros(2))  # which of them it is is known once a loop has run
    return str(threading_layer()) != "workqueue"


@njit(parallel=True)
def _loop(array: Any) -> None:
    for i in prange(len(array)):
        array[i] += 1.0
