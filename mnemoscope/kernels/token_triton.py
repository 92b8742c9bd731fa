"""One token's convolution and scan in Triton: what writing a text takes a step of.

A step reads and writes every window's state once and does little else, so neighbouring threads take neighbouring
numbers of the state, where the kernels for many tokens give a channel's whole state to one thread.  Forward only; same
arguments and results as :mod:`mnemoscope.kernels.conv_ref` and :mod:`mnemoscope.kernels.scan_ref` for L = 1.

Prefixes: p_ pointer, s_ distance between the rows of two windows, b_ block in registers, o_ offset, m_ mask, i_ program
index.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mnemoscope.kernels.triton_lanes import LOG2E, load, sigmoid, softplus

#: channels of a program of the convolution; numbers of the state of one of the scan, and its warps
CHANNELS, NUMBERS, WARPS = 256, 1024, 4


@triton.jit
def conv_token_kernel(p_x, p_w, p_bias, p_start, p_y, p_end, s_x, D, K: tl.constexpr, BD: tl.constexpr):
    i_b = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < D
    q_start, q_end = p_start + i_b * D * (K - 1), p_end + i_b * D * (K - 1)
    b_x = load(p_x + i_b * s_x, o_d, m_d)
    b = b_x * load(p_w + K - 1, o_d * K, m_d)
    if p_bias is not None:
        b += load(p_bias, o_d, m_d)
    for k in tl.static_range(K - 1):
        b_past = load(q_start + k, o_d * (K - 1), m_d)
        b += b_past * load(p_w + k, o_d * K, m_d)
        if k > 0:
            tl.store(q_end + o_d * (K - 1) + k - 1, b_past.to(p_end.dtype.element_ty), mask=m_d)
    tl.store(q_end + o_d * (K - 1) + K - 2, b_x.to(p_end.dtype.element_ty), mask=m_d)
    tl.store(p_y + i_b * D + o_d, (b * sigmoid(b)).to(p_y.dtype.element_ty), mask=m_d)


@triton.jit
def scan_token_kernel(
    p_u, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_start, p_y, p_end, s_u, s_dt, s_B, s_C, s_z, D, per,
    N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    i_b = tl.program_id(0).to(tl.int64)
    o_d, o_n = tl.program_id(1) * BD + tl.arange(0, BD), tl.arange(0, BN)
    m_d = o_d < D
    o_h, m_h = o_d[:, None] * N + o_n[None, :], m_d[:, None] & (o_n < N)[None, :]
    o_g = (o_d // per)[:, None] * N + o_n[None, :]
    b_u, b_dt = load(p_u + i_b * s_u, o_d, m_d), load(p_dt + i_b * s_dt, o_d, m_d)
    if p_bias is not None:
        b_dt, _ = softplus(b_dt + load(p_bias, o_d, m_d))
    b_h = tl.zeros([BD, BN], dtype=tl.float32)
    if p_start is not None:
        b_h = load(p_start + i_b * D * N, o_h, m_h) * tl.exp2(b_dt[:, None] * (load(p_A, o_h, m_h) * LOG2E))
    b_h += (b_dt * b_u)[:, None] * load(p_B + i_b * s_B, o_g, m_h)
    tl.store(p_end + i_b * D * N + o_h, b_h, mask=m_h)
    b_y = tl.sum(b_h * load(p_C + i_b * s_C, o_g, m_h), axis=1) + load(p_D, o_d, m_d) * b_u
    if p_z is not None:
        b_z = load(p_z + i_b * s_z, o_d, m_d)
        b_y = b_y * b_z * sigmoid(b_z)
    tl.store(p_y + i_b * D + o_d, b_y.to(p_y.dtype.element_ty), mask=m_d)


def conv_token(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, 1, D] with neighbouring channels neighbours in memory; weight and start contiguous."""
    y, end = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(start)
    batch, _, d = x.shape
    conv_token_kernel[batch, triton.cdiv(d, CHANNELS)](
        x, weight, bias, start, y, end, x.stride(0), d, K=weight.shape[1], BD=CHANNELS
    )  # fmt: skip
    return y, end


def scan_token(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, bias: Tensor | None,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """u, dt, z [B, 1, D] and B, C [B, 1, G, N], a window's numbers side by side; the others contiguous."""
    batch, _, d = u.shape
    groups, n = B.shape[2], B.shape[3]
    y = u.new_empty(u.shape)
    end = u.new_empty((batch, d, n), dtype=torch.float32)
    bn = triton.next_power_of_2(n)
    bd = max(1, NUMBERS // bn)
    strides = [0 if x is None else x.stride(0) for x in (u, dt, B, C, z)]
    scan_token_kernel[batch, triton.cdiv(d, bd)](
        u, dt, A, B, C, D, z, bias, start, y, end, *strides, d, d // groups, N=n, BD=bd, BN=bn, num_warps=WARPS
    )  # fmt: skip
    return y, end
