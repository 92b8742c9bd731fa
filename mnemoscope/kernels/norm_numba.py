"""Residual sum and root-mean-square norm on a CPU, compiled by Numba where it runs: one pass over memory each way.

Same arguments and results as :mod:`mnemoscope.kernels.norm_ref`, in float32.  The gradient of the weight is summed in a
fixed number of parts, in order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from mnemoscope.kernels.elementary_numba import dense, kept_as, kernel, number, numbers, put, task

#: parts that the rows are shared among
PARTS = 32


@task()
def _forward_row(h: Any, y: Any, weight: Any, eps: Any, total: Any, x: Any) -> Any:
    square = np.float32(0.0)
    for i in range(len(weight)):
        value = h[i] + number(y, i)
        total[i] = value
        square += value * value
    rstd = np.float32(1.0) / np.sqrt(square / np.float32(len(weight)) + eps)
    for i in range(len(weight)):
        put(x, i, total[i] * rstd * weight[i])
    return rstd


@task()
def _backward_row(total: Any, weight: Any, rstd: Any, dtotal: Any, dx: Any, dh: Any, dw: Any) -> None:
    dot = np.float32(0.0)
    for i in range(len(weight)):
        dot += number(dx, i) * weight[i] * total[i]
    dot *= rstd * rstd * rstd / np.float32(len(weight))
    for i in range(len(weight)):
        dh[i] = dtotal[i] + rstd * number(dx, i) * weight[i] - dot * total[i]
    for i in range(len(weight)):
        dw[i] += number(dx, i) * total[i] * rstd


@kernel()
def _forward(h: Any, y: Any, weight: Any, eps: Any, total: Any, x: Any, rstd: Any) -> None:
    for row in prange(len(rstd)):
        rstd[row] = _forward_row(h[row], y[row], weight, eps, total[row], x[row])


@kernel()
def _backward(total: Any, weight: Any, rstd: Any, dtotal: Any, dx: Any, dh: Any, dw: Any) -> None:
    for part in prange(PARTS):
        for row in range(len(rstd) * part // PARTS, len(rstd) * (part + 1) // PARTS):
            _backward_row(total[row], weight, rstd[row], dtotal[row], dx[row], dh[row], dw[part])


class _AddNorm(torch.autograd.Function):
    """h' in float32 and x in ``dtype``, which is that or bfloat16."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, y: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        d = len(weight)
        total, x = torch.empty(h.shape, dtype=torch.float32), torch.empty(h.shape, dtype=dtype)
        rstd = torch.empty(h.numel() // d, dtype=torch.float32)
        added = numbers(y.to(kept_as(y)).contiguous().view(-1, d))
        made = (numbers(v.view(-1, d)) for v in (total, x))
        _forward(dense(h).reshape(-1, d), added, dense(weight), np.float32(eps), *made, rstd.numpy())
        ctx.save_for_backward(total, weight, rstd)
        ctx.dtypes = h.dtype, y.dtype, weight.dtype
        return total, x

    @staticmethod
    def backward(ctx: Any, dtotal: Tensor, dx: Tensor) -> tuple[Tensor | None, ...]:
        total, weight, rstd = ctx.saved_tensors
        d = len(weight)
        dh, dw = torch.empty_like(total), torch.zeros(PARTS, d)
        rows = [numbers(v.contiguous().view(-1, d)) for v in (total, dtotal, dx, dh)]
        _backward(rows[0], dense(weight), rstd.numpy(), *rows[1:], dw.numpy())
        of_h, of_y, of_weight = ctx.dtypes
        return dh.to(of_h), dh.to(of_y), dw.sum(0).to(of_weight), None, None


def add_norm(h: Tensor, y: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.norm_ref.add_norm`; ``h`` is float32.

    Raises:
        TypeError: ``h`` is not float32 (the reference serves other streams).
    """
    if h.dtype != torch.float32:
        raise TypeError(f"the numba norm computes in float32, h is {h.dtype}; use the reference backend")
    dtype = torch.bfloat16 if out_dtype == torch.bfloat16 else torch.float32
    total, x = _AddNorm.apply(h, torch.zeros_like(h) if y is None else y, weight, eps, dtype)
    return total, x.to(out_dtype)
