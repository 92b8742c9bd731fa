"""The causal depthwise convolution and SiLU in Triton, with a start state and gradients to it.

Same arguments and results as :mod:`mnemoscope.kernels.conv_ref`, for kernels of up to four taps (padded with zeros at
the front to four).  A program owns BD channels of CHUNK tokens of one window.

Prefixes: p_ pointer, b_ block in registers, o_ offset, m_ mask, i_ program or loop index.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32
TAPS = 4


@triton.jit
def _input(p_x, p_start, i_b, t, L, D, o_d, m_d):
    """Input at time t >= -3 (0 beyond L), from x [B, L, D] or, before the first token, from start [B, D, 3]."""
    # comparing per channel keeps the masks blocks of booleans, which the interpreter insists on
    b_t = t + tl.zeros_like(o_d)
    b_x = tl.load(p_x + (i_b * L + t) * D + o_d, mask=m_d & (b_t >= 0) & (b_t < L), other=0.0).to(tl.float32)
    b_s = tl.load(p_start + (i_b * D + o_d) * 3 + t + 3, mask=m_d & (b_t < 0), other=0.0).to(tl.float32)
    return tl.where(t < 0, b_s, b_x)


@triton.jit
def conv_fwd_kernel(
    p_x, p_w, p_bias, p_start, p_y, L, D, BD: tl.constexpr, CHUNK: tl.constexpr, HAS_BIAS: tl.constexpr
):  # fmt: skip
    i_b, i_c = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d = tl.program_id(2) * BD + tl.arange(0, BD)
    m_d = o_d < D
    b_w0 = tl.load(p_w + o_d * 4 + 0, mask=m_d, other=0.0).to(tl.float32)
    b_w1 = tl.load(p_w + o_d * 4 + 1, mask=m_d, other=0.0).to(tl.float32)
    b_w2 = tl.load(p_w + o_d * 4 + 2, mask=m_d, other=0.0).to(tl.float32)
    b_w3 = tl.load(p_w + o_d * 4 + 3, mask=m_d, other=0.0).to(tl.float32)
    b_bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    first = i_c * CHUNK
    b_x0 = _input(p_x, p_start, i_b, first - 3, L, D, o_d, m_d)
    b_x1 = _input(p_x, p_start, i_b, first - 2, L, D, o_d, m_d)
    b_x2 = _input(p_x, p_start, i_b, first - 1, L, D, o_d, m_d)
    for t in range(first, tl.minimum(first + CHUNK, L)):
        b_x3 = tl.load(p_x + (i_b * L + t) * D + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_pre = b_bias + b_w0 * b_x0 + b_w1 * b_x1 + b_w2 * b_x2 + b_w3 * b_x3
        tl.store(p_y + (i_b * L + t) * D + o_d, b_pre * tl.sigmoid(b_pre), mask=m_d)
        b_x0, b_x1, b_x2 = b_x1, b_x2, b_x3


@triton.jit
def conv_bwd_kernel(
    p_x, p_w, p_bias, p_start, p_dy, p_dx, p_dw, p_dbias, p_dstart, L, D, CHUNKS,
    BD: tl.constexpr, CHUNK: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    i_b, i_c = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d = tl.program_id(2) * BD + tl.arange(0, BD)
    m_d = o_d < D
    b_w0 = tl.load(p_w + o_d * 4 + 0, mask=m_d, other=0.0).to(tl.float32)
    b_w1 = tl.load(p_w + o_d * 4 + 1, mask=m_d, other=0.0).to(tl.float32)
    b_w2 = tl.load(p_w + o_d * 4 + 2, mask=m_d, other=0.0).to(tl.float32)
    b_w3 = tl.load(p_w + o_d * 4 + 3, mask=m_d, other=0.0).to(tl.float32)
    b_bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_dw0 = tl.zeros([BD], dtype=tl.float32)
    b_dw1 = tl.zeros([BD], dtype=tl.float32)
    b_dw2 = tl.zeros([BD], dtype=tl.float32)
    b_dw3 = tl.zeros([BD], dtype=tl.float32)
    b_db = tl.zeros([BD], dtype=tl.float32)
    first = i_c * CHUNK
    last = tl.minimum(first + CHUNK, L)
    # the three tokens after the chunk also depend on its inputs; walk back from there
    top = tl.minimum(last + 3, L)
    b_x3 = _input(p_x, p_start, i_b, top - 1, L, D, o_d, m_d)
    b_x2 = _input(p_x, p_start, i_b, top - 2, L, D, o_d, m_d)
    b_x1 = _input(p_x, p_start, i_b, top - 3, L, D, o_d, m_d)
    b_p1 = tl.zeros([BD], dtype=tl.float32)
    b_p2 = tl.zeros([BD], dtype=tl.float32)
    b_p3 = tl.zeros([BD], dtype=tl.float32)
    for i in range(0, top - first):
        t = top - 1 - i
        b_x0 = _input(p_x, p_start, i_b, t - 3, L, D, o_d, m_d)
        b_pre = b_bias + b_w0 * b_x0 + b_w1 * b_x1 + b_w2 * b_x2 + b_w3 * b_x3
        b_sig = tl.sigmoid(b_pre)
        b_dy = tl.load(p_dy + (i_b * L + t) * D + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_p0 = b_dy * b_sig * (1.0 + b_pre * (1.0 - b_sig))
        own = (t + tl.zeros_like(o_d)) < last
        b_own = tl.where(own, b_p0, 0.0)
        b_dw0 += b_own * b_x0
        b_dw1 += b_own * b_x1
        b_dw2 += b_own * b_x2
        b_dw3 += b_own * b_x3
        b_db += b_own
        b_dx = b_w3 * b_p0 + b_w2 * b_p1 + b_w1 * b_p2 + b_w0 * b_p3
        tl.store(p_dx + (i_b * L + t) * D + o_d, b_dx, mask=m_d & own)
        b_p1, b_p2, b_p3 = b_p0, b_p1, b_p2
        b_x3, b_x2, b_x1 = b_x2, b_x1, b_x0
    if i_c == 0:
        o_s = (i_b * D + o_d) * 3
        tl.store(p_dstart + o_s + 2, b_w2 * b_p1 + b_w1 * b_p2 + b_w0 * b_p3, mask=m_d)
        tl.store(p_dstart + o_s + 1, b_w1 * b_p1 + b_w0 * b_p2, mask=m_d)
        tl.store(p_dstart + o_s + 0, b_w0 * b_p1, mask=m_d)
    part = (i_b * CHUNKS + i_c) * D + o_d
    tl.store(p_dw + part * 4 + 0, b_dw0, mask=m_d)
    tl.store(p_dw + part * 4 + 1, b_dw1, mask=m_d)
    tl.store(p_dw + part * 4 + 2, b_dw2, mask=m_d)
    tl.store(p_dw + part * 4 + 3, b_dw3, mask=m_d)
    if HAS_BIAS:
        tl.store(p_dbias + part, b_db, mask=m_d)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> Tensor:
        x, weight, start = x.contiguous(), weight.contiguous(), start.contiguous()
        batch, length, channels = x.shape
        y = torch.empty_like(x)
        bd = min(128, triton.next_power_of_2(channels))
        grid = (batch, triton.cdiv(length, CHUNK), triton.cdiv(channels, bd))
        conv_fwd_kernel[grid](
            x, weight, bias, start, y, length, channels, BD=bd, CHUNK=CHUNK, HAS_BIAS=bias is not None, num_warps=1
        )
        ctx.save_for_backward(x, weight, bias, start)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, start = ctx.saved_tensors
        batch, length, channels = x.shape
        bd = min(128, triton.next_power_of_2(channels))
        chunks = triton.cdiv(length, CHUNK)
        dx, dstart = torch.empty_like(x), torch.empty_like(start)
        dw = torch.empty(batch, chunks, channels, TAPS, dtype=torch.float32, device=x.device)
        db = None if bias is None else torch.empty(batch, chunks, channels, dtype=torch.float32, device=x.device)
        conv_bwd_kernel[(batch, chunks, triton.cdiv(channels, bd))](
            x, weight, bias, start, dy.contiguous(), dx, dw, db, dstart, length, channels, chunks,
            BD=bd, CHUNK=CHUNK, HAS_BIAS=bias is not None, num_warps=1,
        )  # fmt: skip
        return dx, dw.sum((0, 1)).to(weight.dtype), None if db is None else db.sum((0, 1)).to(bias.dtype), dstart


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.conv_ref.causal_conv`.

    Raises:
        ValueError: more than four taps (the reference serves them).
    """
    width = weight.shape[1]
    if width > TAPS:
        raise ValueError(f"the triton convolution has up to {TAPS} taps, not {width}; use the reference backend")
    missing = TAPS - width
    y = _Conv.apply(x, F.pad(weight, (missing, 0)), bias, F.pad(start, (missing, 0)))
    length = x.shape[1]
    recent = x[:, max(0, length - (width - 1)) :].transpose(1, 2).to(start.dtype)
    end = torch.cat([start, recent], dim=-1)[..., -(width - 1) :] if length < width - 1 else recent
    return y, end
