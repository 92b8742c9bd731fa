"""The selective scan on a CPU, compiled by Numba where it runs: no compiler needed, no tensor of the size [B, L, D, N].

Same arguments and results as :mod:`mnemoscope.kernels.scan_ref`, in float32.  A task owns BLOCK channels of one window
and walks its tokens with the state in the cache; the backward pass computes the states again.  Sums over tasks are made
afterwards, in order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from mnemoscope.kernels.elementary_numba import MATH, dense, exp, flat, load, place, sigmoid, softplus, store

#: channels of a task
BLOCK = 64

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@njit(inline="always")
def _own(task: Any, per: Any, blocks: Any) -> Any:
    """Group, first channel and number of channels of one of a window's tasks; no block lies in two groups."""
    g = task // blocks
    i = task % blocks * BLOCK
    return g, g * per + i, min(BLOCK, per - i)


@njit(fastmath=MATH)
def _forward_task(
    task: int, length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any, start: Any,
    y: Any, end: Any,
) -> None:  # fmt: skip
    channels, n = A.shape
    per = channels // groups
    blocks = -(-per // BLOCK)
    b = task // (groups * blocks)
    g, d0, width = _own(task % (groups * blocks), per, blocks)
    a, h = np.zeros((n, BLOCK), np.float32), np.zeros((n, BLOCK), np.float32)
    for d in range(width):
        for i in range(n):
            a[i, d], h[i, d] = A[d0 + d, i], start[b, d0 + d, i]
    uu, step, gate = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    shift, skip = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    x, total = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    load(skip, D, d0, width)
    if len(bias):
        load(shift, bias, d0, width)
    for t in range(length):
        row = (b * length + t) * channels + d0
        of_B, of_C = place(B, b, t) + g * n, place(C, b, t) + g * n
        load(uu, u[0], place(u, b, t) + d0, width)
        load(step, dt[0], place(dt, b, t) + d0, width)
        if len(bias):
            for d in range(BLOCK):
                step[d] = softplus(step[d] + shift[d])
        for d in range(BLOCK):
            x[d] = step[d] * uu[d]
            total[d] = skip[d] * uu[d]
        for i in range(n):
            bi, ci = B[0][of_B + i], C[0][of_C + i]
            for d in range(BLOCK):
                value = exp(step[d] * a[i, d]) * h[i, d] + x[d] * bi
                h[i, d] = value
                total[d] += value * ci
        if len(z[0]):
            load(gate, z[0], place(z, b, t) + d0, width)
            for d in range(BLOCK):
                total[d] *= gate[d] * sigmoid(gate[d])
        store(y, row, total, width)
    for d in range(width):
        for i in range(n):
            end[b, d0 + d, i] = h[i, d]


@njit(parallel=True, fastmath=MATH, cache=True)
def _forward(
    length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any, start: Any,
    y: Any, end: Any,
) -> None:  # fmt: skip
    for task in prange(len(start) * groups * -(-(len(A) // groups) // BLOCK)):
        _forward_task(
            task, length, groups, u, dt, z, B, C, A, D, bias, start, y, end,
        )  # fmt: skip


@njit(fastmath=MATH)
def _backward_task(
    task: int, length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any, start: Any,
    dy: Any, dend: Any,
    du: Any, ddt: Any, dz: Any, dB: Any, dC: Any, dA: Any, dD: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    channels, n = A.shape
    per = channels // groups
    blocks = -(-per // BLOCK)
    b = task // (groups * blocks)
    g, d0, width = _own(task % (groups * blocks), per, blocks)
    part = task % blocks
    # the state before each token, and after the last; and what it shrinks by at each
    states, shrink = np.empty((length + 1, n, BLOCK), np.float32), np.empty((length, n, BLOCK), np.float32)
    a, dh, da = (np.zeros((n, BLOCK), np.float32), np.zeros((n, BLOCK), np.float32),
                 np.zeros((n, BLOCK), np.float32))  # fmt: skip
    h = states[0]
    h[:] = _ZERO
    for d in range(width):
        for i in range(n):
            a[i, d], h[i, d], dh[i, d] = A[d0 + d, i], start[b, d0 + d, i], dend[b, d0 + d, i]
    uu, step, slope = (np.zeros((length, BLOCK), np.float32), np.zeros((length, BLOCK), np.float32),
                       np.ones((length, BLOCK), np.float32))  # fmt: skip
    up, gate = np.zeros((length, BLOCK), np.float32), np.zeros(BLOCK, np.float32)
    shift, skip = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    x, total = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    by_A, by_B = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    dskip, dshift = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    load(skip, D, d0, width)
    if len(bias):
        load(shift, bias, d0, width)
    for t in range(length):
        row = (b * length + t) * channels + d0
        of_B, of_C = place(B, b, t) + g * n, place(C, b, t) + g * n
        load(uu[t], u[0], place(u, b, t) + d0, width)
        load(step[t], dt[0], place(dt, b, t) + d0, width)
        load(up[t], dy, row, width)
        if len(bias):
            for d in range(BLOCK):
                value = step[t, d] + shift[d]
                step[t, d] = softplus(value)
                slope[t, d] = sigmoid(value)
        for d in range(BLOCK):
            x[d] = step[t, d] * uu[t, d]
            total[d] = skip[d] * uu[t, d]
        for i in range(n):
            bi, ci = B[0][of_B + i], C[0][of_C + i]
            for d in range(BLOCK):
                s = exp(step[t, d] * a[i, d])
                value = s * states[t, i, d] + x[d] * bi
                shrink[t, i, d] = s
                states[t + 1, i, d] = value
                total[d] += value * ci
        if len(z[0]):
            load(gate, z[0], place(z, b, t) + d0, width)
            for d in range(BLOCK):
                s = sigmoid(gate[d])
                # of the gate, in place of what it multiplies
                total[d] *= up[t, d] * s * (_ONE + gate[d] * (_ONE - s))
                up[t, d] *= gate[d] * s
            store(dz, row, total, width)
    for t in range(length - 1, -1, -1):
        row = (b * length + t) * channels + d0
        of_B, of_C = place(B, b, t) + g * n, place(C, b, t) + g * n
        for d in range(BLOCK):
            x[d] = step[t, d] * uu[t, d]
            by_A[d] = _ZERO
            by_B[d] = _ZERO
        for i in range(n):
            bi, ci = B[0][of_B + i], C[0][of_C + i]
            by_b, by_c = _ZERO, _ZERO
            for d in range(BLOCK):
                grad = dh[i, d] + up[t, d] * ci
                by_c += up[t, d] * states[t + 1, i, d]
                by_b += grad * x[d]
                by_B[d] += grad * bi
                grad *= shrink[t, i, d]
                dh[i, d] = grad
                grad *= states[t, i, d]
                by_A[d] += grad * a[i, d]
                da[i, d] += grad * step[t, d]
            dB[part, b, t, g, i] = by_b
            dC[part, b, t, g, i] = by_c
        for d in range(BLOCK):
            dskip[d] += up[t, d] * uu[t, d]
            by_A[d] = (by_A[d] + by_B[d] * uu[t, d]) * slope[t, d]
            dshift[d] += by_A[d]
            by_B[d] = by_B[d] * step[t, d] + up[t, d] * skip[d]
        store(ddt, row, by_A, width)
        store(du, row, by_B, width)
    for d in range(width):
        dD[b, d0 + d] = dskip[d]
        dbias[b, d0 + d] = dshift[d]
        for i in range(n):
            dA[b, d0 + d, i] = da[i, d]
            dstart[b, d0 + d, i] = dh[i, d]


@njit(parallel=True, fastmath=MATH, cache=True)
def _backward(
    length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any, start: Any,
    dy: Any, dend: Any,
    du: Any, ddt: Any, dz: Any, dB: Any, dC: Any, dA: Any, dD: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    for task in prange(len(start) * groups * -(-(len(A) // groups) // BLOCK)):
        _backward_task(
            task, length, groups, u, dt, z, B, C, A, D, bias, start, dy, dend,
            du, ddt, dz, dB, dC, dA, dD, dbias, dstart,
        )  # fmt: skip


def _arguments(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, bias: Tensor | None,
    start: Tensor,
) -> tuple[Any, ...]:  # fmt: skip
    """What both kernels are given."""

    gate = (np.empty(0, np.float32), 0, 0) if z is None else flat(z)
    return (u.shape[1], B.shape[2], flat(u), flat(dt), gate, flat(B), flat(C), *(dense(x) for x in (A, D, bias, start)))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        u, start = inputs[0], inputs[8]
        y, end = torch.empty(u.shape, dtype=torch.float32), torch.empty(start.shape, dtype=torch.float32)
        _forward(*_arguments(*inputs), y.view(-1).numpy(), end.numpy())
        ctx.save_for_backward(*inputs)
        return y.to(u.dtype), end

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        u, _, _, B, _, _, z, bias, start = inputs
        batch, _, channels = u.shape
        groups = B.shape[2]
        parts = -(-(channels // groups) // BLOCK)
        du, ddt, dz = (torch.empty(u.shape, dtype=torch.float32) for _ in range(3))
        dB, dC = (torch.empty(parts, *B.shape, dtype=torch.float32) for _ in range(2))
        dD, dbias = (torch.empty(batch, channels, dtype=torch.float32) for _ in range(2))
        dA, dstart = (torch.empty(start.shape, dtype=torch.float32) for _ in range(2))
        rows = (dense(dy).reshape(-1), dense(dend), *(x.view(-1).numpy() for x in (du, ddt, dz)))
        _backward(*_arguments(*inputs), *rows, *(x.numpy() for x in (dB, dC, dA, dD, dbias, dstart)))
        gradients = (
            du, ddt, dA.sum(0), dB.sum(0), dC.sum(0), dD.sum(0), None if z is None else dz,
            None if bias is None else dbias.sum(0), dstart,
        )  # fmt: skip
        return tuple(None if g is None else g.to(x.dtype) for g, x in zip(gradients, inputs, strict=True))


def selective_scan(
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
    """See :func:`mnemoscope.kernels.scan_ref.selective_scan`; ``start`` is float32.

    Raises:
        TypeError: ``start`` is not float32 (the reference serves float64).
    """
    if start.dtype != torch.float32:
        raise TypeError(f"the numba scan computes in float32, start is {start.dtype}; use the reference backend")
    y, end = _Scan.apply(u, dt, A, B, C, D, z, dt_bias, start)
    return y, end
