"""The selective scan on a CPU, compiled by Numba where it runs: no compiler needed, no tensor of the size [B, L, D, N].

Same arguments and results as :mod:`mnemoscope.kernels.scan_ref`, in float32.  The state of one window stays in the
cache while its tokens pass; the backward pass computes the states of a window again.  Windows are shared among a fixed
number of parts, whose sums over windows are added in order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.nn import functional as F

#: parts that the windows of a batch are shared among
PARTS = 16


@njit(inline="always", fastmath=True)
def _exp(x: Any) -> Any:
    """e^x for x <= 0 in float32 to 2e-7; branch-free, so that the loop over a state's numbers is vectorised.

    Cephes' expf: a power of two made in the exponent's bits, times a polynomial on [-ln 2 / 2, ln 2 / 2].
    """
    x = max(x, np.float32(-87.0))
    k = np.floor(x * np.float32(1.44269504088896341) + np.float32(0.5))
    r = x - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    y = p * r * r + r + np.float32(1.0)
    return y * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(parallel=True, fastmath=True, cache=True)
def _forward(u: Any, dt: Any, A: Any, B: Any, C: Any, start: Any, y: Any, end: Any) -> None:
    batch, length, channels = u.shape
    groups, n = B.shape[2], B.shape[3]
    per = channels // groups
    for part in prange(PARTS):
        for b in range(batch * part // PARTS, batch * (part + 1) // PARTS):
            h = end[b]
            h[:] = start[b]
            for t in range(length):
                for d in range(channels):
                    g = d // per
                    step = dt[b, t, d]
                    x = step * u[b, t, d]
                    total = np.float32(0.0)
                    for i in range(n):
                        value = _exp(step * A[d, i]) * h[d, i] + x * B[b, t, g, i]
                        h[d, i] = value
                        total += value * C[b, t, g, i]
                    y[b, t, d] = total


@njit(parallel=True, fastmath=True, cache=True)
def _backward(
    u: Any, dt: Any, A: Any, B: Any, C: Any, start: Any, dy: Any, dend: Any,
    du: Any, ddt: Any, dA: Any, dB: Any, dC: Any, dstart: Any,
) -> None:  # fmt: skip
    batch, length, channels = u.shape
    groups, n = B.shape[2], B.shape[3]
    per = channels // groups
    for part in prange(PARTS):
        before = np.empty((length, channels, n), np.float32)
        h = np.empty((channels, n), np.float32)
        own_dA = dA[part]
        for b in range(batch * part // PARTS, batch * (part + 1) // PARTS):
            h[:] = start[b]
            for t in range(length):
                before[t] = h
                for d in range(channels):
                    g = d // per
                    step = dt[b, t, d]
                    x = step * u[b, t, d]
                    for i in range(n):
                        h[d, i] = _exp(step * A[d, i]) * h[d, i] + x * B[b, t, g, i]
            dh = dstart[b]
            dh[:] = dend[b]
            for t in range(length - 1, -1, -1):
                for g in range(groups):
                    for i in range(n):
                        dB[b, t, g, i] = 0.0
                        dC[b, t, g, i] = 0.0
                for d in range(channels):
                    g = d // per
                    step = dt[b, t, d]
                    x = step * u[b, t, d]
                    up = dy[b, t, d]
                    by_B = np.float32(0.0)
                    by_A = np.float32(0.0)
                    for i in range(n):
                        a = _exp(step * A[d, i])
                        previous = before[t, d, i]
                        grad = dh[d, i] + up * C[b, t, g, i]
                        dC[b, t, g, i] += up * (a * previous + x * B[b, t, g, i])
                        dB[b, t, g, i] += grad * x
                        by_B += grad * B[b, t, g, i]
                        da = grad * previous * a
                        by_A += da * A[d, i]
                        own_dA[d, i] += da * step
                        dh[d, i] = grad * a
                    du[b, t, d] = by_B * step
                    ddt[b, t, d] = by_A + by_B * u[b, t, d]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        inputs = [x.detach().to(torch.float32).contiguous() for x in (u, dt, A, B, C, start)]
        y, end = torch.empty_like(inputs[0]), torch.empty_like(inputs[5])
        _forward(*(x.numpy() for x in inputs), y.numpy(), end.numpy())
        ctx.save_for_backward(*inputs)
        return y, end

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor) -> tuple[Tensor, ...]:
        inputs = ctx.saved_tensors
        u, dt, A, B, C, start = inputs
        du, ddt, dB, dC, dstart = (torch.empty_like(x) for x in (u, dt, B, C, start))
        dA = torch.zeros(PARTS, *A.shape)
        upstream = [g.to(torch.float32).contiguous() for g in (dy, dend)]
        _backward(*(x.numpy() for x in (*inputs, *upstream, du, ddt, dA, dB, dC, dstart)))
        return du, ddt, dA.sum(0), dB, dC, dstart


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
    uf, dtf = u.float(), dt.float()
    if dt_bias is not None:
        dtf = F.softplus(dtf + dt_bias.float())
    y, end = _Scan.apply(uf, dtf, A.float(), B.float(), C.float(), start)
    y = torch.addcmul(y, D.float(), uf)
    if z is not None:
        y = y * F.silu(z.float())
    return y.to(u.dtype), end
