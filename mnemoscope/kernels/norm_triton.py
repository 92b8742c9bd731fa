"""Residual sum and root-mean-square norm in Triton: every tensor is read once and written once.

Same arguments and results as :mod:`mnemoscope.kernels.norm_ref`; statistics are float32.  A program owns blocks of ROWS
rows of all d columns; backward, few programs take many blocks each, so that their sums for the weight are few, and
added in the same order on every device.

Prefixes: p_ pointer, b_ block in registers, o_ offset, m_ mask, i_ program or loop index.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: numbers of a block
NUMBERS = 4096
#: programs of the backward pass at most
PROGRAMS = 512


@triton.jit
def add_norm_fwd_kernel(
    p_h, p_y, p_w, p_sum, p_x, p_rstd, eps, T, D, ROWS: tl.constexpr, BD: tl.constexpr, HAS_Y: tl.constexpr
):
    o_t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    o_d = tl.arange(0, BD)
    m = (o_t < T)[:, None] & (o_d < D)[None, :]
    o = o_t[:, None] * D + o_d[None, :]
    b_w = tl.load(p_w + o_d, mask=o_d < D, other=0.0).to(tl.float32)
    b_h = tl.load(p_h + o, mask=m, other=0.0).to(tl.float32)
    if HAS_Y:
        b_h += tl.load(p_y + o, mask=m, other=0.0).to(tl.float32)
        b_sum = b_h.to(p_sum.dtype.element_ty)
        tl.store(p_sum + o, b_sum, mask=m)
        # the norm is of the sum as it is kept
        b_h = b_sum.to(tl.float32)
    b_rstd = tl.rsqrt(tl.sum(b_h * b_h, axis=1) / D + eps)
    tl.store(p_rstd + o_t, b_rstd, mask=o_t < T)
    b_x = b_h * b_rstd[:, None] * b_w[None, :]
    tl.store(p_x + o, b_x.to(p_x.dtype.element_ty), mask=m)


@triton.jit
def add_norm_bwd_kernel(
    p_sum, p_w, p_rstd, p_dsum, p_dx, p_dh, p_dy, p_dw, T, D, BLOCKS,
    ROWS: tl.constexpr, BD: tl.constexpr, HAS_DSUM: tl.constexpr, HAS_DY: tl.constexpr,
):  # fmt: skip
    i_p = tl.program_id(0)
    o_d = tl.arange(0, BD)
    b_w = tl.load(p_w + o_d, mask=o_d < D, other=0.0).to(tl.float32)
    b_dw = tl.zeros([ROWS, BD], dtype=tl.float32)
    for i in range(i_p, BLOCKS, tl.num_programs(0)):
        o_t = tl.cast(i, tl.int64) * ROWS + tl.arange(0, ROWS)
        m = (o_t < T)[:, None] & (o_d < D)[None, :]
        o = o_t[:, None] * D + o_d[None, :]
        b_rstd = tl.load(p_rstd + o_t, mask=o_t < T, other=0.0)[:, None]
        b_unit = tl.load(p_sum + o, mask=m, other=0.0).to(tl.float32) * b_rstd
        b_dx = tl.load(p_dx + o, mask=m, other=0.0).to(tl.float32)
        b_dw += b_dx * b_unit
        b_dunit = b_dx * b_w[None, :]
        b_dh = b_rstd * (b_dunit - b_unit * (tl.sum(b_dunit * b_unit, axis=1) / D)[:, None])
        if HAS_DSUM:
            b_dh += tl.load(p_dsum + o, mask=m, other=0.0).to(tl.float32)
        tl.store(p_dh + o, b_dh.to(p_dh.dtype.element_ty), mask=m)
        if HAS_DY:
            tl.store(p_dy + o, b_dh.to(p_dy.dtype.element_ty), mask=m)
    tl.store(p_dw + i_p * D + o_d, tl.sum(b_dw, axis=0), mask=o_d < D)


def _block(d: int) -> tuple[int, int, int]:
    """Rows and columns of a program's block, and its warps."""
    bd = triton.next_power_of_2(d)
    rows = max(1, min(32, NUMBERS // bd))
    return rows, bd, min(16, max(4, rows * bd // 512))


@torch.library.custom_op(
    "mnemoscope::add_norm",
    mutates_args=(),
    schema="(Tensor h, Tensor? y, Tensor weight, float eps, ScalarType out_dtype) -> (Tensor, Tensor, Tensor)",
)
def _add_norm(
    h: Tensor, y: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """h' (nothing without y, since an operator may not return its input), x, and one over each row's root."""
    h, d = h.contiguous(), h.shape[-1]
    y = None if y is None else y.contiguous()
    total = torch.empty_like(h) if y is not None else h.new_empty(0)
    x, rstd = torch.empty_like(h, dtype=out_dtype), h.new_empty(h.shape[:-1], dtype=torch.float32)
    rows, bd, warps = _block(d)
    add_norm_fwd_kernel[(triton.cdiv(rstd.numel(), rows),)](
        h, y, weight, total, x, rstd, eps, rstd.numel(), d, ROWS=rows, BD=bd, HAS_Y=y is not None, num_warps=warps
    )  # fmt: skip
    return total, x, rstd


@_add_norm.register_fake
def _(h: Tensor, y: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    total = h.new_empty(h.shape if y is not None else (0,))
    return total, h.new_empty(h.shape, dtype=out_dtype), h.new_empty(h.shape[:-1], dtype=torch.float32)


@torch.library.custom_op(
    "mnemoscope::add_norm_backward",
    mutates_args=(),
    schema="(Tensor total, Tensor weight, Tensor rstd, Tensor? dtotal, Tensor dx, ScalarType? y_dtype)"
    " -> (Tensor, Tensor, Tensor)",
)
def _add_norm_backward(
    total: Tensor, weight: Tensor, rstd: Tensor, dtotal: Tensor | None, dx: Tensor, y_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dh, the same in ``y_dtype`` (nothing without one), and dweight."""
    d = total.shape[-1]
    total, dx = total.contiguous(), dx.contiguous()
    dtotal = None if dtotal is None else dtotal.contiguous()
    dh = torch.empty_like(total)
    dy = total.new_empty(0) if y_dtype is None else torch.empty_like(total, dtype=y_dtype)
    rows, bd, warps = _block(d)
    blocks = triton.cdiv(rstd.numel(), rows)
    programs = min(PROGRAMS, blocks)
    dw = torch.empty(programs, d, dtype=torch.float32, device=total.device)
    add_norm_bwd_kernel[(programs,)](
        total, weight, rstd, dtotal, dx, dh, dy, dw, rstd.numel(), d, blocks,
        ROWS=rows, BD=bd, HAS_DSUM=dtotal is not None, HAS_DY=y_dtype is not None, num_warps=warps,
    )  # fmt: skip
    return dh, dy, dw.sum(0).to(weight.dtype)


@_add_norm_backward.register_fake
def _(
    total: Tensor, weight: Tensor, rstd: Tensor, dtotal: Tensor | None, dx: Tensor, y_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    dy = total.new_empty(0) if y_dtype is None else total.new_empty(total.shape, dtype=y_dtype)
    return total.new_empty(total.shape), dy, weight.new_empty(weight.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    h, y, weight, _, _ = inputs
    total, _, rstd = output
    # a gradient that does not come must not become zeros that are read
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(h if y is None else total, weight, rstd)
    ctx.y_dtype = None if y is None else y.dtype


def _backward(
    ctx: Any, dtotal: Tensor | None, dx: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
    total, weight, rstd = ctx.saved_tensors
    if ctx.y_dtype is None:  # the sum is h itself, whose gradient does not pass here
        dtotal = None
    if dx is None:
        return dtotal, None if dtotal is None else dtotal.to(ctx.y_dtype), None, None, None
    own = None if ctx.y_dtype == total.dtype else ctx.y_dtype
    dh, dy, dweight = _add_norm_backward(total, weight, rstd, dtotal, dx, own)
    return dh, None if ctx.y_dtype is None else dh if own is None else dy, dweight, None, None


_add_norm.register_autograd(_backward, setup_context=_setup)


def add_norm(h: Tensor, y: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.norm_ref.add_norm`.

    Raises:
        TypeError: something is float64 (the reference serves it).
    """
    if torch.float64 in (h.dtype, weight.dtype):
        raise TypeError("the triton norm computes in float32; use the reference backend for float64")
    total, x, _ = _add_norm(h, y, weight, eps, out_dtype)
    return h if y is None else total, x
