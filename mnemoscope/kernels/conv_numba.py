"""The causal depthwise convolution and SiLU on a CPU, compiled by Numba where it runs.

Same arguments and results as :mod:`mnemoscope.kernels.conv_ref`, in float32, for at most TAPS taps.  A task owns BLOCK
channels of one window; the backward pass computes what the SiLU is of again.  Sums over windows are made afterwards,
in order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from mnemoscope.kernels.elementary_numba import (
    ONE,
    dense,
    differentiated,
    flat,
    inlined,
    kept_as,
    kernel,
    load,
    numbers,
    place,
    sigmoid,
    store,
    task,
)
from mnemoscope.kernels.token_numba import conv_token

#: channels of a task
BLOCK = 64
#: fewer are completed by zeros, before the oldest
TAPS = 4


@inlined()
def _read(past: Any, w: Any, x: Any, weight: Any, bias: Any, start: Any, b: Any, d0: Any, length: Any) -> Any:
    """The start state and the inputs after it as rows [TAPS - 1 + L, BLOCK]; taps and bias as rows [TAPS + 1, BLOCK].

    Gives the number of channels.
    """
    width = min(BLOCK, start.shape[1] - d0)
    missing = TAPS - weight.shape[1]
    for d in range(width):
        for k in range(weight.shape[1]):
            w[missing + k, d] = weight[d0 + d, k]
        for k in range(start.shape[2]):
            past[missing + k, d] = start[b, d0 + d, k]
        if len(bias):
            w[TAPS, d] = bias[d0 + d]
    for t in range(length):
        load(past[TAPS - 1 + t], x[0], place(x, b, t) + d0, width)
    return width


@inlined()
def _pre(past: Any, w: Any, t: Any, d: Any) -> Any:
    """What the SiLU is of."""
    late = w[2, d] * past[t + 2, d] + w[3, d] * past[t + 3, d]
    return w[TAPS, d] + w[0, d] * past[t, d] + w[1, d] * past[t + 1, d] + late


@task()
def _forward_task(b: int, d0: int, length: int, x: Any, weight: Any, bias: Any, start: Any, y: Any, end: Any) -> None:
    channels = start.shape[1]
    w, row = np.zeros((TAPS + 1, BLOCK), np.float32), np.empty(BLOCK, np.float32)
    past = np.zeros((TAPS - 1 + length, BLOCK), np.float32)
    width = _read(past, w, x, weight, bias, start, b, d0, length)
    for t in range(length):
        for d in range(BLOCK):
            value = _pre(past, w, t, d)
            row[d] = value * sigmoid(value)
        store(y, (b * length + t) * channels + d0, row, width)
    first = TAPS - 1 + length - start.shape[2]
    for d in range(width):
        for k in range(start.shape[2]):
            end[b, d0 + d, k] = past[first + k, d]


@kernel()
def _forward(length: int, x: Any, weight: Any, bias: Any, start: Any, y: Any, end: Any) -> None:
    blocks = -(-start.shape[1] // BLOCK)
    for i in prange(len(start) * blocks):
        _forward_task(i // blocks, i % blocks * BLOCK, length, x, weight, bias, start, y, end)


@task()
def _backward_task(
    b: int, d0: int, length: int, x: Any, weight: Any, bias: Any, start: Any, dy: Any, dend: Any,
    dx: Any, dw: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    channels, missing = start.shape[1], TAPS - weight.shape[1]
    w, dw_rows = np.zeros((TAPS + 1, BLOCK), np.float32), np.zeros((TAPS + 1, BLOCK), np.float32)
    row = np.zeros(BLOCK, np.float32)
    past = np.zeros((TAPS - 1 + length, BLOCK), np.float32)
    # of what the SiLU is of, with zeros before the first token and after the last
    up = np.zeros((length + 2 * (TAPS - 1), BLOCK), np.float32)
    width = _read(past, w, x, weight, bias, start, b, d0, length)
    for t in range(length):
        load(row, dy[0], place(dy, b, t) + d0, width)
        for d in range(BLOCK):
            value = _pre(past, w, t, d)
            s = sigmoid(value)
            row[d] *= s * (ONE + value * (ONE - s))
            up[t + TAPS - 1, d] = row[d]
        for k in range(TAPS):
            for d in range(BLOCK):
                dw_rows[k, d] += row[d] * past[t + k, d]
        for d in range(BLOCK):
            dw_rows[TAPS, d] += row[d]
    for t in range(TAPS - 1 + length):
        for d in range(BLOCK):
            early = w[0, d] * up[t + 3, d] + w[1, d] * up[t + 2, d]
            row[d] = early + w[2, d] * up[t + 1, d] + w[3, d] * up[t, d]
        if t >= length + missing:
            for d in range(width):
                row[d] += dend[b, d0 + d, t - length - missing]
        if t >= TAPS - 1:
            store(dx, (b * length + t - (TAPS - 1)) * channels + d0, row, width)
        elif t >= missing:
            for d in range(width):
                dstart[b, d0 + d, t - missing] = row[d]
    for d in range(width):
        dbias[b, d0 + d] = dw_rows[TAPS, d]
        for k in range(weight.shape[1]):
            dw[b, d0 + d, k] = dw_rows[missing + k, d]


@kernel()
def _backward(
    length: int, x: Any, weight: Any, bias: Any, start: Any, dy: Any, dend: Any,
    dx: Any, dw: Any, dbias: Any, dstart: Any,
) -> None:  # fmt: skip
    blocks = -(-start.shape[1] // BLOCK)
    for i in prange(len(start) * blocks):
        b, d0 = i // blocks, i % blocks * BLOCK
        _backward_task(b, d0, length, x, weight, bias, start, dy, dend, dx, dw, dbias, dstart)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
        kept = kept_as(x)
        y, end = torch.empty(x.shape, dtype=kept), torch.empty(start.shape, dtype=torch.float32)
        given = (dense(weight), dense(bias), dense(start))
        _forward(x.shape[1], flat(x, kept), *given, numbers(y.view(-1)), end.numpy())
        ctx.save_for_backward(x, weight, bias, start)
        return y.to(x.dtype), end

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, start = inputs = ctx.saved_tensors
        kept = kept_as(x)
        dx, dstart = torch.empty(x.shape, dtype=kept), torch.empty(start.shape, dtype=torch.float32)
        dw = torch.empty(len(x), *weight.shape, dtype=torch.float32)
        dbias = torch.empty(len(x), len(weight), dtype=torch.float32)
        given = (flat(x, kept), dense(weight), dense(bias), dense(start), flat(dy, kept), dense(dend))
        _backward(x.shape[1], *given, *(numbers(g) for g in (dx.view(-1), dw, dbias, dstart)))
        gradients = (dx, dw.sum(0), None if bias is None else dbias.sum(0), dstart)
        return tuple(None if g is None else g.to(i.dtype) for g, i in zip(gradients, inputs, strict=True))


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.conv_ref.causal_conv`; ``start`` is float32.

    Raises:
        TypeError: ``start`` is not float32 (the reference serves float64).
    """
    if start.dtype != torch.float32:
        raise TypeError(f"the numba convolution computes in float32, start is {start.dtype}; use the reference backend")
    if x.shape[1] == 1 and not differentiated(x, weight, bias, start):
        return conv_token(x, weight, bias, start)
    y, end = _Conv.apply(x, weight, bias, start)
    return y, end
