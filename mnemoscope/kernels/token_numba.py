"""One token of the selective scan and of the convolution on a CPU, without gradients, as writing takes them.

Same arguments and results as :mod:`mnemoscope.kernels.scan_ref` and :mod:`mnemoscope.kernels.conv_ref` with L = 1, in
float32.  A task owns one window and reads its states as they lie, where the kernels for many tokens lay them out anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from mnemoscope.kernels.elementary_numba import (
    LOG2E,
    ZERO,
    dense,
    exp2,
    flat,
    inlined,
    kept_as,
    kernel,
    number,
    numbers,
    place,
    put,
    sigmoid,
    softplus,
    task,
)

#: numbers of a channel's state whose loop has a length that LLVM knows, and so becomes vectors without a remainder
ROW = 16


@inlined()
def _step(A: Any, start: Any, end: Any, bb: Any, cc: Any, b: Any, d: Any, i0: Any, s: Any, x: Any) -> Any:
    """ROW numbers of a channel's state, and their part of y."""
    total = ZERO
    for i in range(ROW):
        h = exp2(s * A[d, i0 + i]) * start[b, d, i0 + i] + x * bb[i0 + i]
        end[b, d, i0 + i] = h
        total += h * cc[i0 + i]
    return total


@task()
def _scan_task(
    b: int,
    groups: int,
    u: Any,
    dt: Any,
    z: Any,
    B: Any,
    C: Any,
    A: Any,
    D: Any,
    bias: Any,
    start: Any,
    y: Any,
    end: Any,
) -> None:
    channels, n = A.shape
    per = channels // groups
    step, bb, cc = np.empty(channels, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for d in range(channels):
        step[d] = number(dt[0], place(dt, b, 0) + d)
    if len(bias):
        for d in range(channels):
            step[d] = softplus(step[d] + bias[d])
    for g in range(groups):
        for i in range(n):
            bb[i] = number(B[0], place(B, b, 0) + g * n + i)
            cc[i] = number(C[0], place(C, b, 0) + g * n + i)
        for d in range(g * per, (g + 1) * per):
            value = number(u[0], place(u, b, 0) + d)
            s, x = step[d] * LOG2E, step[d] * value
            total = D[d] * value
            for q in range(n // ROW):
                total += _step(A, start, end, bb, cc, b, d, q * ROW, s, x)
            for i in range(n // ROW * ROW, n):
                h = exp2(s * A[d, i]) * start[b, d, i] + x * bb[i]
                end[b, d, i] = h
                total += h * cc[i]
            step[d] = total
    if len(z[0]):
        for d in range(channels):
            gate = number(z[0], place(z, b, 0) + d)
            step[d] *= gate * sigmoid(gate)
    for d in range(channels):
        put(y, b * channels + d, step[d])


@kernel()
def _scan(
    groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any, start: Any, y: Any, end: Any
) -> None:
    for b in prange(len(start)):
        _scan_task(b, groups, u, dt, z, B, C, A, D, bias, start, y, end)


def scan_token(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    start: Tensor,
) -> tuple[Tensor, Tensor]:
    """y [B, 1, D] and the state after the token [B, D, N]."""
    kept = kept_as(u, dt, B, C, z)
    y, end = torch.empty(u.shape, dtype=kept), torch.empty(start.shape, dtype=torch.float32)
    rows = [flat(torch.empty(0, dtype=kept) if x is None else x, kept) for x in (u, dt, z, B, C)]
    _scan(B.shape[2], *rows, *(dense(x) for x in (A, D, dt_bias, start)), numbers(y.view(-1)), end.numpy())
    return y.to(u.dtype), end


@task()
def _conv_task(b: int, x: Any, weight: Any, bias: Any, start: Any, y: Any, end: Any) -> None:
    channels, taps = weight.shape
    total = np.empty(channels, np.float32)
    if taps == 4:
        # loops over taps that LLVM has counted would hinder vectors of channels
        for d in range(channels):
            value = number(x[0], place(x, b, 0) + d)
            first, second, third = start[b, d, 0], start[b, d, 1], start[b, d, 2]
            early = weight[d, 3] * value + weight[d, 0] * first
            total[d] = early + weight[d, 1] * second + weight[d, 2] * third
            end[b, d, 0], end[b, d, 1], end[b, d, 2] = second, third, value
    else:
        for d in range(channels):
            value = number(x[0], place(x, b, 0) + d)
            total[d] = weight[d, taps - 1] * value
            for k in range(taps - 1):
                total[d] += weight[d, k] * start[b, d, k]
            for k in range(taps - 2):
                end[b, d, k] = start[b, d, k + 1]
            if taps > 1:
                end[b, d, taps - 2] = value
    if len(bias):
        for d in range(channels):
            total[d] += bias[d]
    for d in range(channels):
        put(y, b * channels + d, total[d] * sigmoid(total[d]))


@kernel()
def _conv(x: Any, weight: Any, bias: Any, start: Any, y: Any, end: Any) -> None:
    for b in prange(len(start)):
        _conv_task(b, x, weight, bias, start, y, end)


def conv_token(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """y [B, 1, D] and the state after the token [B, D, K - 1]."""
    kept = kept_as(x)
    y, end = torch.empty(x.shape, dtype=kept), torch.empty(start.shape, dtype=torch.float32)
    _conv(flat(x, kept), dense(weight), dense(bias), dense(start), numbers(y.view(-1)), end.numpy())
    return y.to(x.dtype), end
