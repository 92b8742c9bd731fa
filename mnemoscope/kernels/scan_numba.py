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

from mnemoscope.kernels.elementary_numba import MATH, dense, exp, flat, sigmoid, softplus

#: channels of a task
BLOCK = 64

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@njit(inline="always")
def _place(task: Any, per: Any, blocks: Any) -> Any:
    """Group, first channel and number of channels of one of a window's tasks; no block lies in two groups."""
    g = task // blocks
    i = task % blocks * BLOCK
    return g, g * per + i, min(BLOCK, per - i)


@njit(inline="always")
def _load(to: Any, array: Any, at: Any, width: Any) -> None:
    for d in range(width):
        to[d] = array[at + d]


@njit(fastmath=MATH)
def _forward_task(
    task: int, length: int, u: Any, ub: int, ul: int, dt: Any, tb: int, tl: int, z: Any, zb: int, zl: int,
    B: Any, bb: int, bl: int, C: Any, cb: int, cl: int, A: Any, D: Any, bias: Any, start: Any, groups: int,
    gated: bool, biased: bool, y: Any, end: Any,
) -> None:  # fmt: skip
    channels, n = A.shape
    per = channels // groups
    blocks = -(-per // BLOCK)
    b = task // (groups * blocks)
    g, d0, width = _place(task % (groups * blocks), per, blocks)
    a, h = np.zeros((n, BLOCK), np.float32), np.zeros((n, BLOCK), np.float32)
    for d in range(width):
        for i in range(n):
            a[i, d], h[i, d] = A[d0 + d, i], start[b, d0 + d, i]
    uu, step, gate = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    shift, skip = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    x, total = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    _load(skip, D, d0, width)
    if biased:
        _load(shift, bias, d0, width)
    for t in range(length):
        _load(uu, u, b * ub + t * ul + d0, width)
        _load(step, dt, b * tb + t * tl + d0, width)
        if biased:
            for d in range(BLOCK):
                step[d] = softplus(step[d] + shift[d])
        for d in range(BLOCK):
            x[d] = step[d] * uu[d]
            total[d] = skip[d] * uu[d]
        for i in range(n):
            bi, ci = B[b * bb + t * bl + g * n + i], C[b * cb + t * cl + g * n + i]
            for d in range(BLOCK):
                value = exp(step[d] * a[i, d]) * h[i, d] + x[d] * bi
                h[i, d] = value
                total[d] += value * ci
        if gated:
            _load(gate, z, b * zb + t * zl + d0, width)
            for d in range(BLOCK):
                total[d] *= gate[d] * sigmoid(gate[d])
        for d in range(width):
            y[b, t, d0 + d] = total[d]
    for d in range(width):
        for i in range(n):
            end[b, d0 + d, i] = h[i, d]


@njit(parallel=True, fastmath=MATH, cache=True)
def _forward(
    batch: int, length: int, u: Any, ub: int, ul: int, dt: Any, tb: int, tl: int, z: Any, zb: int, zl: int,
    B: Any, bb: int, bl: int, C: Any, cb: int, cl: int, A: Any, D: Any, bias: Any, start: Any, groups: int,
    gated: bool, biased: bool, y: Any, end: Any,
) -> None:  # fmt: skip
    channels = A.shape[0]
    for task in prange(batch * groups * -(-(channels // groups) // BLOCK)):
        _forward_task(
            task,
            length,
            u,
            ub,
            ul,
            dt,
            tb,
            tl,
            z,
            zb,
            zl,
            B,
            bb,
            bl,
            C,
            cb,
            cl,
            A,
            D,
            bias,
            start,
            groups,
            gated,
            biased,
            y,
            end,
        )


@njit(fastmath=MATH)
def _backward_task(
    task: int, length: int, u: Any, ub: int, ul: int, dt: Any, tb: int, tl: int, z: Any, zb: int, zl: int,
    B: Any, bb: int, bl: int, C: Any, cb: int, cl: int, A: Any, D: Any, bias: Any, start: Any, groups: int,
    gated: bool, biased: bool, dy: Any, dend: Any,
    du: Any, ddt: Any, dz: Any, dB: Any, dC: Any, dA: Any, dD: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    channels, n = A.shape
    per = channels // groups
    blocks = -(-per // BLOCK)
    b = task // (groups * blocks)
    g, d0, width = _place(task % (groups * blocks), per, blocks)
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
    _load(skip, D, d0, width)
    if biased:
        _load(shift, bias, d0, width)
    for t in range(length):
        ut, st, upt = uu[t], step[t], up[t]
        _load(ut, u, b * ub + t * ul + d0, width)
        _load(st, dt, b * tb + t * tl + d0, width)
        for d in range(width):
            upt[d] = dy[b, t, d0 + d]
        if biased:
            slopes = slope[t]
            for d in range(BLOCK):
                value = st[d] + shift[d]
                st[d] = softplus(value)
                slopes[d] = sigmoid(value)
        for d in range(BLOCK):
            x[d] = st[d] * ut[d]
            total[d] = skip[d] * ut[d]
        for i in range(n):
            bi, ci = B[b * bb + t * bl + g * n + i], C[b * cb + t * cl + g * n + i]
            before, after, ai, shrinks = states[t, i], states[t + 1, i], a[i], shrink[t, i]
            for d in range(BLOCK):
                s = exp(st[d] * ai[d])
                value = s * before[d] + x[d] * bi
                shrinks[d] = s
                after[d] = value
                total[d] += value * ci
        if gated:
            _load(gate, z, b * zb + t * zl + d0, width)
            for d in range(BLOCK):
                s = sigmoid(gate[d])
                # of the gate, in place of what it multiplies
                total[d] *= upt[d] * s * (_ONE + gate[d] * (_ONE - s))
                upt[d] *= gate[d] * s
            for d in range(width):
                dz[b, t, d0 + d] = total[d]
    for t in range(length - 1, -1, -1):
        ut, st, upt, slopes = uu[t], step[t], up[t], slope[t]
        for d in range(BLOCK):
            x[d] = st[d] * ut[d]
            by_A[d] = _ZERO
            by_B[d] = _ZERO
        for i in range(n):
            bi, ci = B[b * bb + t * bl + g * n + i], C[b * cb + t * cl + g * n + i]
            before, after, ai, shrinks, dhi, dai = states[t, i], states[t + 1, i], a[i], shrink[t, i], dh[i], da[i]
            of_B, of_C = _ZERO, _ZERO
            for d in range(BLOCK):
                grad = dhi[d] + upt[d] * ci
                of_C += upt[d] * after[d]
                of_B += grad * x[d]
                by_B[d] += grad * bi
                grad *= shrinks[d]
                dhi[d] = grad
                grad *= before[d]
                by_A[d] += grad * ai[d]
                dai[d] += grad * st[d]
            dB[part, b, t, g, i] = of_B
            dC[part, b, t, g, i] = of_C
        for d in range(BLOCK):
            dskip[d] += upt[d] * ut[d]
            by_A[d] = (by_A[d] + by_B[d] * ut[d]) * slopes[d]
            dshift[d] += by_A[d]
            by_B[d] = by_B[d] * st[d] + upt[d] * skip[d]
        for d in range(width):
            ddt[b, t, d0 + d] = by_A[d]
            du[b, t, d0 + d] = by_B[d]
    for d in range(width):
        dD[b, d0 + d] = dskip[d]
        dbias[b, d0 + d] = dshift[d]
        for i in range(n):
            dA[b, d0 + d, i] = da[i, d]
            dstart[b, d0 + d, i] = dh[i, d]


@njit(parallel=True, fastmath=MATH, cache=True)
def _backward(
    batch: int, length: int, u: Any, ub: int, ul: int, dt: Any, tb: int, tl: int, z: Any, zb: int, zl: int,
    B: Any, bb: int, bl: int, C: Any, cb: int, cl: int, A: Any, D: Any, bias: Any, start: Any, groups: int,
    gated: bool, biased: bool, dy: Any, dend: Any,
    du: Any, ddt: Any, dz: Any, dB: Any, dC: Any, dA: Any, dD: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    channels = A.shape[0]
    for task in prange(batch * groups * -(-(channels // groups) // BLOCK)):
        _backward_task(
            task,
            length,
            u,
            ub,
            ul,
            dt,
            tb,
            tl,
            z,
            zb,
            zl,
            B,
            bb,
            bl,
            C,
            cb,
            cl,
            A,
            D,
            bias,
            start,
            groups,
            gated,
            biased,
            dy,
            dend,
            du,
            ddt,
            dz,
            dB,
            dC,
            dA,
            dD,
            dbias,
            dstart,
        )


def _arguments(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, bias: Tensor | None,
    start: Tensor,
) -> tuple[Any, ...]:  # fmt: skip
    """What both kernels are given."""

    gate = (np.empty(0, np.float32), 0, 0) if z is None else flat(z)
    rows = (*flat(u), *flat(dt), *gate, *flat(B), *flat(C))
    return (*u.shape[:2], *rows, *(dense(x) for x in (A, D, bias, start)), B.shape[2], z is not None, bias is not None)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        u, start = inputs[0], inputs[8]
        y, end = torch.empty(u.shape, dtype=torch.float32), torch.empty(start.shape)
        _forward(*_arguments(*inputs), y.numpy(), end.numpy())
        ctx.save_for_backward(*inputs)
        return y.to(u.dtype), end

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        u, _, A, B, _, _, z, bias, start = inputs
        batch, _, channels = u.shape
        groups = B.shape[2]
        parts = -(-(channels // groups) // BLOCK)
        du, ddt, dz = torch.empty(u.shape), torch.empty(u.shape), torch.empty(u.shape if z is not None else (0, 0, 0))
        dB, dC = torch.empty(parts, *B.shape), torch.empty(parts, *B.shape)
        dA, dstart = torch.empty(batch, *A.shape), torch.empty(start.shape)
        dD, dbias = torch.empty(batch, channels), torch.empty(batch, channels)
        upstream = [g.to(torch.float32).contiguous() for g in (dy, dend)]
        made = (*upstream, du, ddt, dz, dB, dC, dA, dD, dbias, dstart)
        _backward(*_arguments(*inputs), *(x.numpy() for x in made))
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
