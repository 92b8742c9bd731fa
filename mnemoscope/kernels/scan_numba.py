"""The selective scan on a CPU, compiled by Numba where it runs: no compiler needed, no tensor of the size [B, L, D, N].

Same arguments and results as :mod:`mnemoscope.kernels.scan_ref`, in float32.  A task owns BLOCK channels of one window
and walks its tokens with the state in the cache; the backward pass computes the states again.  Sums over tasks are made
afterwards, in order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from mnemoscope.kernels.elementary_numba import (
    LN2,
    LOG2E,
    ONE,
    ZERO,
    dense,
    differentiated,
    exp2,
    flat,
    inlined,
    kept_as,
    kernel,
    load,
    numbers,
    place,
    sigmoid,
    softplus,
    store,
    task,
)
from mnemoscope.kernels.token_numba import scan_token

#: channels of a task
BLOCK = 128
#: numbers of a channel's state taken together, so that sums over them stay in registers; zeros complete the last
LANES = 4
# Rows of BLOCK numbers that are read together lie in one array, at distances that are known when it is compiled: each
# other array is one more that LLVM has to compare addresses with, before every loop.
#: of a token: the input times the step, the step, what becomes y, its gradient, and sums that lead to those of dt and u
_X, _STEP, _Y, _DY, _BY_A, _BY_B = (k * BLOCK for k in range(6))
#: of LANES numbers of the state: A log2 e, the state or its gradient, and that of A
_A, _H, _DA = (k * LANES * BLOCK for k in range(3))


@inlined()
def _own(i: Any, channels: Any, groups: Any) -> Any:
    """Window, group, first channel and number of channels of a task; no block lies in two groups."""
    per = channels // groups
    blocks = -(-per // BLOCK)
    g = i // blocks % groups
    first = i % blocks * BLOCK
    return i // (blocks * groups), g, g * per + first, min(BLOCK, per - first)


@inlined()
def _state(own: Any, A: Any, h: Any, b: Any, d0: Any, width: Any) -> None:
    """A and h of a task's channels, LANES numbers of the state to a row."""
    for d in range(width):
        for i in range(A.shape[1]):
            at = i % LANES * BLOCK + d
            own[i // LANES, _A + at], own[i // LANES, _H + at] = A[d0 + d, i] * LOG2E, h[b, d0 + d, i]


@inlined()
def _unload(to: Any, own: Any, rows: Any, b: Any, d0: Any, width: Any) -> None:
    """What lies in ``own`` from ``rows`` on, to window b's channels."""
    for d in range(width):
        for i in range(to.shape[2]):
            to[b, d0 + d, i] = own[i // LANES, rows + i % LANES * BLOCK + d]


@task()
def _forward_task(
    i_task: int, length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any,
    start: Any, y: Any, end: Any,
) -> None:  # fmt: skip
    channels, n = A.shape
    b, g, d0, width = _own(i_task, channels, groups)
    quads = -(-n // LANES)
    own, work = np.zeros((quads, _DA), np.float32), np.zeros(_DY, np.float32)
    _state(own, A, start, b, d0, width)
    uu, step, gate = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    shift, skip = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    bb, cc = np.zeros(quads * LANES, np.float32), np.zeros(quads * LANES, np.float32)
    load(skip, D, d0, width)
    if len(bias):
        load(shift, bias, d0, width)
    for t in range(length):
        load(uu, u[0], place(u, b, t) + d0, width)
        load(step, dt[0], place(dt, b, t) + d0, width)
        load(bb, B[0], place(B, b, t) + g * n, n)
        load(cc, C[0], place(C, b, t) + g * n, n)
        if len(bias):
            for d in range(BLOCK):
                step[d] = softplus(step[d] + shift[d])
        for d in range(BLOCK):
            work[_STEP + d] = step[d]
            work[_X + d] = step[d] * uu[d]
            work[_Y + d] = skip[d] * uu[d]
        for q in range(quads):
            i = q * LANES
            b0, b1, b2, b3 = bb[i], bb[i + 1], bb[i + 2], bb[i + 3]
            c0, c1, c2, c3 = cc[i], cc[i + 1], cc[i + 2], cc[i + 3]
            for d in range(BLOCK):
                x, s = work[_X + d], work[_STEP + d]
                h0 = exp2(s * own[q, _A + d]) * own[q, _H + d] + x * b0
                h1 = exp2(s * own[q, _A + BLOCK + d]) * own[q, _H + BLOCK + d] + x * b1
                h2 = exp2(s * own[q, _A + 2 * BLOCK + d]) * own[q, _H + 2 * BLOCK + d] + x * b2
                h3 = exp2(s * own[q, _A + 3 * BLOCK + d]) * own[q, _H + 3 * BLOCK + d] + x * b3
                own[q, _H + d], own[q, _H + BLOCK + d] = h0, h1
                own[q, _H + 2 * BLOCK + d], own[q, _H + 3 * BLOCK + d] = h2, h3
                work[_Y + d] += h0 * c0 + h1 * c1 + h2 * c2 + h3 * c3
        if len(z[0]):
            load(gate, z[0], place(z, b, t) + d0, width)
            for d in range(BLOCK):
                work[_Y + d] *= gate[d] * sigmoid(gate[d])
        store(y, (b * length + t) * channels + d0, work[_Y:], width)
    _unload(end, own, _H, b, d0, width)


@kernel()
def _forward(
    tasks: int, length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any,
    start: Any, y: Any, end: Any,
) -> None:  # fmt: skip
    for i in prange(tasks):
        _forward_task(i, length, groups, u, dt, z, B, C, A, D, bias, start, y, end)


@task()
def _backward_task(
    i_task: int, length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any,
    start: Any, dy: Any, dend: Any,
    du: Any, ddt: Any, dz: Any, dB: Any, dC: Any, dA: Any, dD: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    channels, n = A.shape
    b, g, d0, width = _own(i_task, channels, groups)
    part = i_task % len(dB)
    quads = -(-n // LANES)
    own, work = np.zeros((quads, _DA + LANES * BLOCK), np.float32), np.zeros(6 * BLOCK, np.float32)
    # what the state shrinks by at each token, and the state before it: where A and the state lie in a task's own
    tape = np.empty((length, quads, _DA), np.float32)
    uu, step, slope = (np.zeros((length, BLOCK), np.float32), np.zeros((length, BLOCK), np.float32),
                       np.ones((length, BLOCK), np.float32))  # fmt: skip
    up, gate = np.zeros((length, BLOCK), np.float32), np.zeros(BLOCK, np.float32)
    shift, skip = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    dskip, dshift = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    bb, cc, dbc = (np.zeros(quads * LANES, np.float32), np.zeros(quads * LANES, np.float32),
                   np.zeros(quads * LANES, np.float32))  # fmt: skip
    _state(own, A, start, b, d0, width)
    load(skip, D, d0, width)
    if len(bias):
        load(shift, bias, d0, width)
    for t in range(length):
        load(uu[t], u[0], place(u, b, t) + d0, width)
        load(step[t], dt[0], place(dt, b, t) + d0, width)
        load(up[t], dy[0], place(dy, b, t) + d0, width)
        load(bb, B[0], place(B, b, t) + g * n, n)
        load(cc, C[0], place(C, b, t) + g * n, n)
        if len(bias):
            for d in range(BLOCK):
                value = step[t, d] + shift[d]
                step[t, d] = softplus(value)
                slope[t, d] = sigmoid(value)
        if len(z[0]):
            load(gate, z[0], place(z, b, t) + d0, width)
            for d in range(BLOCK):
                s = sigmoid(gate[d])
                work[_BY_A + d] = up[t, d] * s * (ONE + gate[d] * (ONE - s))
                up[t, d] *= gate[d] * s
        for d in range(BLOCK):
            work[_STEP + d], work[_DY + d] = step[t, d], up[t, d]
            work[_X + d] = step[t, d] * uu[t, d]
            work[_Y + d] = skip[d] * uu[t, d]
        for q in range(quads):
            i = q * LANES
            b0, b1, b2, b3 = bb[i], bb[i + 1], bb[i + 2], bb[i + 3]
            c0, c1, c2, c3 = cc[i], cc[i + 1], cc[i + 2], cc[i + 3]
            dc0, dc1, dc2, dc3 = ZERO, ZERO, ZERO, ZERO
            for d in range(BLOCK):
                x, s, g_y = work[_X + d], work[_STEP + d], work[_DY + d]
                s0, s1 = exp2(s * own[q, _A + d]), exp2(s * own[q, _A + BLOCK + d])
                s2, s3 = exp2(s * own[q, _A + 2 * BLOCK + d]), exp2(s * own[q, _A + 3 * BLOCK + d])
                h0, h1 = own[q, _H + d], own[q, _H + BLOCK + d]
                h2, h3 = own[q, _H + 2 * BLOCK + d], own[q, _H + 3 * BLOCK + d]
                tape[t, q, _A + d], tape[t, q, _A + BLOCK + d] = s0, s1
                tape[t, q, _A + 2 * BLOCK + d], tape[t, q, _A + 3 * BLOCK + d] = s2, s3
                tape[t, q, _H + d], tape[t, q, _H + BLOCK + d] = h0, h1
                tape[t, q, _H + 2 * BLOCK + d], tape[t, q, _H + 3 * BLOCK + d] = h2, h3
                h0, h1, h2, h3 = s0 * h0 + x * b0, s1 * h1 + x * b1, s2 * h2 + x * b2, s3 * h3 + x * b3
                own[q, _H + d], own[q, _H + BLOCK + d] = h0, h1
                own[q, _H + 2 * BLOCK + d], own[q, _H + 3 * BLOCK + d] = h2, h3
                work[_Y + d] += h0 * c0 + h1 * c1 + h2 * c2 + h3 * c3
                dc0 += g_y * h0
                dc1 += g_y * h1
                dc2 += g_y * h2
                dc3 += g_y * h3
            dbc[i], dbc[i + 1], dbc[i + 2], dbc[i + 3] = dc0, dc1, dc2, dc3
        for i in range(n):
            dC[part, b, t, g, i] = dbc[i]
        if len(z[0]):
            for d in range(BLOCK):
                work[_Y + d] *= work[_BY_A + d]
            store(dz, (b * length + t) * channels + d0, work[_Y:], width)
    _state(own, A, dend, b, d0, width)
    for t in range(length - 1, -1, -1):
        load(bb, B[0], place(B, b, t) + g * n, n)
        load(cc, C[0], place(C, b, t) + g * n, n)
        for d in range(BLOCK):
            work[_STEP + d], work[_DY + d] = step[t, d], up[t, d]
            work[_X + d] = step[t, d] * uu[t, d]
            work[_BY_A + d], work[_BY_B + d] = ZERO, ZERO
        for q in range(quads):
            i = q * LANES
            b0, b1, b2, b3 = bb[i], bb[i + 1], bb[i + 2], bb[i + 3]
            c0, c1, c2, c3 = cc[i], cc[i + 1], cc[i + 2], cc[i + 3]
            db0, db1, db2, db3 = ZERO, ZERO, ZERO, ZERO
            for d in range(BLOCK):
                x, s, g_y = work[_X + d], work[_STEP + d], work[_DY + d]
                g0, g1 = own[q, _H + d] + g_y * c0, own[q, _H + BLOCK + d] + g_y * c1
                g2, g3 = own[q, _H + 2 * BLOCK + d] + g_y * c2, own[q, _H + 3 * BLOCK + d] + g_y * c3
                db0 += g0 * x
                db1 += g1 * x
                db2 += g2 * x
                db3 += g3 * x
                work[_BY_B + d] += g0 * b0 + g1 * b1 + g2 * b2 + g3 * b3
                g0, g1 = g0 * tape[t, q, _A + d], g1 * tape[t, q, _A + BLOCK + d]
                g2, g3 = g2 * tape[t, q, _A + 2 * BLOCK + d], g3 * tape[t, q, _A + 3 * BLOCK + d]
                own[q, _H + d], own[q, _H + BLOCK + d] = g0, g1
                own[q, _H + 2 * BLOCK + d], own[q, _H + 3 * BLOCK + d] = g2, g3
                g0, g1 = g0 * tape[t, q, _H + d], g1 * tape[t, q, _H + BLOCK + d]
                g2, g3 = g2 * tape[t, q, _H + 2 * BLOCK + d], g3 * tape[t, q, _H + 3 * BLOCK + d]
                by_A = g0 * own[q, _A + d] + g1 * own[q, _A + BLOCK + d]
                work[_BY_A + d] += by_A + g2 * own[q, _A + 2 * BLOCK + d] + g3 * own[q, _A + 3 * BLOCK + d]
                own[q, _DA + d] += g0 * s
                own[q, _DA + BLOCK + d] += g1 * s
                own[q, _DA + 2 * BLOCK + d] += g2 * s
                own[q, _DA + 3 * BLOCK + d] += g3 * s
            dbc[i], dbc[i + 1], dbc[i + 2], dbc[i + 3] = db0, db1, db2, db3
        for i in range(n):
            dB[part, b, t, g, i] = dbc[i]
        for d in range(BLOCK):
            by_A, by_B, g_y = work[_BY_A + d], work[_BY_B + d], work[_DY + d]
            dskip[d] += g_y * uu[t, d]
            by_A = (by_A * LN2 + by_B * uu[t, d]) * slope[t, d]
            dshift[d] += by_A
            work[_BY_A + d], work[_BY_B + d] = by_A, by_B * step[t, d] + g_y * skip[d]
        row = (b * length + t) * channels + d0
        store(ddt, row, work[_BY_A:], width)
        store(du, row, work[_BY_B:], width)
    _unload(dA, own, _DA, b, d0, width)
    _unload(dstart, own, _H, b, d0, width)
    for d in range(width):
        dD[b, d0 + d] = dskip[d]
        dbias[b, d0 + d] = dshift[d]


@kernel()
def _backward(
    tasks: int, length: int, groups: int, u: Any, dt: Any, z: Any, B: Any, C: Any, A: Any, D: Any, bias: Any,
    start: Any, dy: Any, dend: Any,
    du: Any, ddt: Any, dz: Any, dB: Any, dC: Any, dA: Any, dD: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    for i in prange(tasks):
        _backward_task(
            i, length, groups, u, dt, z, B, C, A, D, bias, start, dy, dend,
            du, ddt, dz, dB, dC, dA, dD, dbias, dstart,
        )  # fmt: skip


def _arguments(
    kept: torch.dtype, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None,
    bias: Tensor | None, start: Tensor,
) -> tuple[Any, ...]:  # fmt: skip
    """What both kernels are given."""
    batch, length, channels = u.shape
    groups = B.shape[2]
    tasks = batch * groups * -(-(channels // groups) // BLOCK)
    rows = [flat(torch.empty(0, dtype=kept) if x is None else x, kept) for x in (u, dt, z, B, C)]
    return (tasks, length, groups, *rows, *(dense(x) for x in (A, D, bias, start)))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        u, dt, _, B, C, _, z, _, start = inputs
        kept = kept_as(u, dt, B, C, z)
        y, end = torch.empty(u.shape, dtype=kept), torch.empty(start.shape, dtype=torch.float32)
        _forward(*_arguments(kept, *inputs), numbers(y.view(-1)), end.numpy())
        ctx.save_for_backward(*inputs)
        return y.to(u.dtype), end

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        u, dt, _, B, C, _, z, bias, start = inputs
        kept = kept_as(u, dt, B, C, z)
        batch, _, channels = u.shape
        groups = B.shape[2]
        parts = -(-(channels // groups) // BLOCK)
        du, ddt, dz = (torch.empty(u.shape, dtype=kept) for _ in range(3))
        dB, dC = (torch.empty(parts, *B.shape, dtype=torch.float32) for _ in range(2))
        dD, dbias = (torch.empty(batch, channels, dtype=torch.float32) for _ in range(2))
        dA, dstart = (torch.empty(start.shape, dtype=torch.float32) for _ in range(2))
        rows = (flat(dy, kept), dense(dend), *(numbers(x.view(-1)) for x in (du, ddt, dz)))
        _backward(*_arguments(kept, *inputs), *rows, *(x.numpy() for x in (dB, dC, dA, dD, dbias, dstart)))
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
    inputs = (u, dt, A, B, C, D, z, dt_bias, start)
    if u.shape[1] == 1 and not differentiated(*inputs):
        return scan_token(*inputs)
    y, end = _Scan.apply(*inputs)
    return y, end
