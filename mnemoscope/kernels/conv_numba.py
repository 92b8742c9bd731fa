"""The causal depthwise convolution and SiLU on a CPU, compiled by Numba where it runs.

Same arguments and results as :mod:`mnemoscope.kernels.conv_ref`, in float32.  A task owns BLOCK channels of one window;
the backward pass computes what the SiLU is of again.  Sums over windows are made afterwards, in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from mnemoscope.kernels.elementary_numba import MATH, dense, flat, load, place, sigmoid, store

#: channels of a task
BLOCK = 64


@njit(inline="always")
def _past(past: Any, x: Any, b: Any, d0: Any, start: Any, length: Any, taps: Any, width: Any) -> None:
    """The start state and the inputs after it, as rows [taps - 1 + length, BLOCK]."""
    for d in range(width):
        for k in range(taps - 1):
            past[k, d] = start[b, d0 + d, k]
    for t in range(length):
        load(past[taps - 1 + t], x[0], place(x, b, t) + d0, width)


@njit(inline="always", fastmath=MATH)
def _pre(row: Any, past: Any, t: Any, w: Any, taps: Any) -> None:
    """What the SiLU is of at token t."""
    for d in range(BLOCK):
        row[d] = w[taps, d]
    for k in range(taps):
        for d in range(BLOCK):
            row[d] += w[k, d] * past[t + k, d]


@njit(inline="always")
def _taps(w: Any, weight: Any, bias: Any, d0: Any, width: Any) -> None:
    """Weights and, last, bias as rows [taps + 1, BLOCK]."""
    taps = weight.shape[1]
    for d in range(width):
        for k in range(taps):
            w[k, d] = weight[d0 + d, k]
        if len(bias):
            w[taps, d] = bias[d0 + d]


@njit(fastmath=MATH)
def _forward_task(b: int, d0: int, x: Any, weight: Any, bias: Any, start: Any, y: Any, end: Any) -> None:
    channels = start.shape[1]
    length = len(y) // (len(start) * channels)
    taps, width = weight.shape[1], min(BLOCK, channels - d0)
    w, row = np.zeros((taps + 1, BLOCK), np.float32), np.empty(BLOCK, np.float32)
    past = np.zeros((taps - 1 + length, BLOCK), np.float32)
    _taps(w, weight, bias, d0, width)
    _past(past, x, b, d0, start, length, taps, width)
    for t in range(length):
        _pre(row, past, t, w, taps)
        for d in range(BLOCK):
            row[d] *= sigmoid(row[d])
        store(y, (b * length + t) * channels + d0, row, width)
    for d in range(width):
        for k in range(taps - 1):
            end[b, d0 + d, k] = past[length + k, d]


@njit(parallel=True, fastmath=MATH, cache=True)
def _forward(x: Any, weight: Any, bias: Any, start: Any, y: Any, end: Any) -> None:
    blocks = -(-start.shape[1] // BLOCK)
    for task in prange(len(start) * blocks):
        _forward_task(task // blocks, task % blocks * BLOCK, x, weight, bias, start, y, end)


@njit(fastmath=MATH)
def _backward_task(
    b: int, d0: int, x: Any, weight: Any, bias: Any, start: Any, dy: Any, dend: Any,
    dx: Any, dw: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    channels = start.shape[1]
    length = len(dy) // (len(start) * channels)
    taps, width = weight.shape[1], min(BLOCK, channels - d0)
    w, dw_rows = np.zeros((taps + 1, BLOCK), np.float32), np.zeros((taps + 1, BLOCK), np.float32)
    row, up = np.empty(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    past = np.zeros((taps - 1 + length, BLOCK), np.float32)
    dpast = np.zeros((taps - 1 + length, BLOCK), np.float32)
    _taps(w, weight, bias, d0, width)
    _past(past, x, b, d0, start, length, taps, width)
    for d in range(width):
        for k in range(taps - 1):
            dpast[length + k, d] = dend[b, d0 + d, k]
    for t in range(length):
        _pre(row, past, t, w, taps)
        load(up, dy, (b * length + t) * channels + d0, width)
        for d in range(BLOCK):
            s = sigmoid(row[d])
            up[d] *= s * (np.float32(1.0) + row[d] * (np.float32(1.0) - s))
            dw_rows[taps, d] += up[d]
        for k in range(taps):
            for d in range(BLOCK):
                dw_rows[k, d] += up[d] * past[t + k, d]
                dpast[t + k, d] += up[d] * w[k, d]
    for t in range(length):
        store(dx, (b * length + t) * channels + d0, dpast[taps - 1 + t], width)
    for d in range(width):
        dbias[b, d0 + d] = dw_rows[taps, d]
        for k in range(taps):
            dw[b, d0 + d, k] = dw_rows[k, d]
        for k in range(taps - 1):
            dstart[b, d0 + d, k] = dpast[k, d]


@njit(parallel=True, fastmath=MATH, cache=True)
def _backward(
    x: Any, weight: Any, bias: Any, start: Any, dy: Any, dend: Any,
    dx: Any, dw: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    blocks = -(-start.shape[1] // BLOCK)
    for task in prange(len(start) * blocks):
        b, d0 = task // blocks, task % blocks * BLOCK
        _backward_task(b, d0, x, weight, bias, start, dy, dend, dx, dw, dbias, dstart)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
        y, end = torch.empty(x.shape, dtype=torch.float32), torch.empty(start.shape, dtype=torch.float32)
        _forward(flat(x), dense(weight), dense(bias), dense(start), y.view(-1).numpy(), end.numpy())
        ctx.save_for_backward(x, weight, bias, start)
        return y.to(x.dtype), end

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, start = inputs = ctx.saved_tensors
        dx, dstart = (torch.empty(s.shape, dtype=torch.float32) for s in (x, start))
        dw = torch.empty(len(x), *weight.shape, dtype=torch.float32)
        dbias = torch.empty(len(x), len(weight), dtype=torch.float32)
        upstream = (dense(dy).reshape(-1), dense(dend))
        made = (dx.view(-1), dw, dbias, dstart)
        _backward(flat(x), *(dense(i) for i in (weight, bias, start)), *upstream, *(g.numpy() for g in made))
        gradients = (dx, dw.sum(0), None if bias is None else dbias.sum(0), dstart)
        return tuple(None if g is None else g.to(i.dtype) for g, i in zip(gradients, inputs, strict=True))


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.conv_ref.causal_conv`; ``start`` is float32.

    Raises:
        TypeError: ``start`` is not float32 (the reference serves float64).
    """
    if start.dtype != torch.float32:
        raise TypeError(f"the numba convolution computes in float32, start is {start.dtype}; use the reference backend")
    y, end = _Conv.apply(x, weight, bias, start)
    return y, end
