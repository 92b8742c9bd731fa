"""The selective scan in Triton: sequential in time, states in registers, recomputed by chunks for the backward pass.

Same arguments and results as :mod:`mnemoscope.kernels.scan_ref`.  A program owns BD channels of one window and walks
through its tokens; the forward pass keeps the state at the start of every CHUNK tokens, the backward pass computes a
chunk's states again into a scratch buffer and walks them in reverse.  Sums over channels (gradients of B and C) and
over windows (of A, D, dt_bias) are written as partial sums and added afterwards, so that results do not depend on the
order in which programs finish.

Prefixes: p_ pointer, b_ block in registers, o_ offset, m_ mask, i_ program or loop index.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 32


@triton.jit
def _softplus(x):
    return tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(tl.minimum(x, 20.0))))


@triton.jit
def scan_fwd_kernel(
    p_u, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_start, p_y, p_end, p_saved,
    L, D, N, G,
    BD: tl.constexpr, BN: tl.constexpr, CHUNK: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    SAVE: tl.constexpr,
):  # fmt: skip
    i_b, i_d = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d, o_n = i_d * BD + tl.arange(0, BD), tl.arange(0, BN)
    m_d, m_n = o_d < D, o_n < N
    m_dn = m_d[:, None] & m_n[None, :]
    o_dn = o_d[:, None] * N + o_n[None, :]
    i_g = (i_d * BD) // (D // G)
    b_A = tl.load(p_A + o_dn, mask=m_dn, other=0.0).to(tl.float32)
    b_D = tl.load(p_D + o_d, mask=m_d, other=0.0).to(tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_h = tl.load(p_start + i_b * D * N + o_dn, mask=m_dn, other=0.0).to(tl.float32)
    chunks = (L + CHUNK - 1) // CHUNK
    for t in range(0, L):
        if SAVE:  # noqa: SIM102  decided when the kernel is compiled, unlike the next
            if t % CHUNK == 0:
                tl.store(p_saved + (i_b * chunks + t // CHUNK) * D * N + o_dn, b_h, mask=m_dn)
        row = (i_b * L + t) * D
        col = ((i_b * L + t) * G + i_g) * N
        b_u = tl.load(p_u + row + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_dt = tl.load(p_dt + row + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_B = tl.load(p_B + col + o_n, mask=m_n, other=0.0).to(tl.float32)
        b_C = tl.load(p_C + col + o_n, mask=m_n, other=0.0).to(tl.float32)
        if HAS_BIAS:
            b_dt = _softplus(b_dt + b_bias)
        b_h = tl.exp(b_dt[:, None] * b_A) * b_h + (b_dt * b_u)[:, None] * b_B[None, :]
        b_y = tl.sum(b_h * b_C[None, :], axis=1) + b_D * b_u
        if HAS_Z:
            b_z = tl.load(p_z + row + o_d, mask=m_d, other=0.0).to(tl.float32)
            b_y = b_y * b_z * tl.sigmoid(b_z)
        tl.store(p_y + row + o_d, b_y, mask=m_d)
    tl.store(p_end + i_b * D * N + o_dn, b_h, mask=m_dn)


@triton.jit
def scan_bwd_kernel(
    p_u, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_saved, p_scratch, p_dy, p_dend,
    p_du, p_ddt, p_dA, p_dB, p_dC, p_dD, p_dz, p_dbias, p_dstart,
    L, D, N, G, NB,
    BD: tl.constexpr, BN: tl.constexpr, CHUNK: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    i_b, i_d = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d, o_n = i_d * BD + tl.arange(0, BD), tl.arange(0, BN)
    m_d, m_n = o_d < D, o_n < N
    m_dn = m_d[:, None] & m_n[None, :]
    o_dn = o_d[:, None] * N + o_n[None, :]
    o_s = tl.arange(0, BD)[:, None] * BN + o_n[None, :]
    p_scratch += (i_b * NB + i_d) * CHUNK * BD * BN
    i_g = (i_d * BD) // (D // G)
    b_A = tl.load(p_A + o_dn, mask=m_dn, other=0.0).to(tl.float32)
    b_D = tl.load(p_D + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_dh = tl.load(p_dend + i_b * D * N + o_dn, mask=m_dn, other=0.0).to(tl.float32)
    b_dA = tl.zeros([BD, BN], dtype=tl.float32)
    b_dD = tl.zeros([BD], dtype=tl.float32)
    b_dbias = tl.zeros([BD], dtype=tl.float32)
    chunks = (L + CHUNK - 1) // CHUNK
    for i_c in range(0, chunks):
        c = chunks - 1 - i_c
        first = c * CHUNK
        count = tl.minimum(CHUNK, L - first)
        b_h = tl.load(p_saved + (i_b * chunks + c) * D * N + o_dn, mask=m_dn, other=0.0)
        for i in range(0, count):
            tl.store(p_scratch + i * BD * BN + o_s, b_h)
            row = (i_b * L + first + i) * D
            col = ((i_b * L + first + i) * G + i_g) * N
            b_u = tl.load(p_u + row + o_d, mask=m_d, other=0.0).to(tl.float32)
            b_dt = tl.load(p_dt + row + o_d, mask=m_d, other=0.0).to(tl.float32)
            b_B = tl.load(p_B + col + o_n, mask=m_n, other=0.0).to(tl.float32)
            if HAS_BIAS:
                b_dt = _softplus(b_dt + b_bias)
            b_h = tl.exp(b_dt[:, None] * b_A) * b_h + (b_dt * b_u)[:, None] * b_B[None, :]
        tl.debug_barrier()
        for j in range(0, count):
            i = count - 1 - j
            row = (i_b * L + first + i) * D
            col = ((i_b * L + first + i) * G + i_g) * N
            b_u = tl.load(p_u + row + o_d, mask=m_d, other=0.0).to(tl.float32)
            b_raw = tl.load(p_dt + row + o_d, mask=m_d, other=0.0).to(tl.float32) + b_bias
            b_B = tl.load(p_B + col + o_n, mask=m_n, other=0.0).to(tl.float32)
            b_C = tl.load(p_C + col + o_n, mask=m_n, other=0.0).to(tl.float32)
            b_dy = tl.load(p_dy + row + o_d, mask=m_d, other=0.0).to(tl.float32)
            b_dt = b_raw
            if HAS_BIAS:
                b_dt = _softplus(b_raw)
            b_prev = tl.load(p_scratch + i * BD * BN + o_s)
            b_a = tl.exp(b_dt[:, None] * b_A)
            b_h = b_a * b_prev + (b_dt * b_u)[:, None] * b_B[None, :]
            if HAS_Z:
                b_z = tl.load(p_z + row + o_d, mask=m_d, other=0.0).to(tl.float32)
                b_y = tl.sum(b_h * b_C[None, :], axis=1) + b_D * b_u
                b_sig = tl.sigmoid(b_z)
                tl.store(p_dz + row + o_d, b_dy * b_y * b_sig * (1.0 + b_z * (1.0 - b_sig)), mask=m_d)
                b_dy = b_dy * b_z * b_sig
            b_dD += b_dy * b_u
            b_dh += b_dy[:, None] * b_C[None, :]
            b_hB = tl.sum(b_dh * b_B[None, :], axis=1)
            part = ((i_d * tl.num_programs(0) + i_b) * L + first + i) * N
            tl.store(p_dC + part + o_n, tl.sum(b_dy[:, None] * b_h, axis=0), mask=m_n)
            tl.store(p_dB + part + o_n, tl.sum(b_dh * (b_dt * b_u)[:, None], axis=0), mask=m_n)
            b_da = b_dh * b_prev * b_a
            b_ddt = tl.sum(b_da * b_A, axis=1) + b_u * b_hB
            b_dA += b_da * b_dt[:, None]
            if HAS_BIAS:
                b_ddt = b_ddt * tl.sigmoid(b_raw)
                b_dbias += b_ddt
            tl.store(p_du + row + o_d, b_dy * b_D + b_dt * b_hB, mask=m_d)
            tl.store(p_ddt + row + o_d, b_ddt, mask=m_d)
            b_dh = b_dh * b_a
        tl.debug_barrier()
    tl.store(p_dstart + i_b * D * N + o_dn, b_dh, mask=m_dn)
    tl.store(p_dA + i_b * D * N + o_dn, b_dA, mask=m_dn)
    tl.store(p_dD + i_b * D + o_d, b_dD, mask=m_d)
    if HAS_BIAS:
        tl.store(p_dbias + i_b * D + o_d, b_dbias, mask=m_d)


def _block(channels: int, groups: int, n: int) -> tuple[int, int]:
    """Channels and state numbers of one program: about 512 state numbers, all channels in one group."""
    bn = triton.next_power_of_2(n)
    bd = max(1, min(32, 512 // bn, triton.next_power_of_2(channels)))
    per_group = channels // groups
    while groups > 1 and per_group % bd:
        bd //= 2
    return bd, bn


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
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
        u, dt, A, B, C, D, start = (x.contiguous() for x in (u, dt, A, B, C, D, start))
        z = None if z is None else z.contiguous()
        dt_bias = None if dt_bias is None else dt_bias.contiguous()
        batch, length, channels = u.shape
        groups, n = B.shape[2], B.shape[3]
        bd, bn = _block(channels, groups, n)
        save = any(ctx.needs_input_grad)
        chunk = min(CHUNK, length)
        y, end = torch.empty_like(u), torch.empty_like(start)
        saved = start.new_empty((batch, triton.cdiv(length, chunk), channels, n) if save else (1,))
        grid = (batch, triton.cdiv(channels, bd))
        scan_fwd_kernel[grid](
            u, dt, A, B, C, D, z, dt_bias, start, y, end, saved,
            length, channels, n, groups,
            BD=bd, BN=bn, CHUNK=chunk, HAS_Z=z is not None, HAS_BIAS=dt_bias is not None, SAVE=save,
            num_warps=1,
        )  # fmt: skip
        ctx.save_for_backward(u, dt, A, B, C, D, z, dt_bias, saved)
        ctx.chunk = chunk
        return y, end

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor) -> tuple[Tensor | None, ...]:
        u, dt, A, B, C, D, z, dt_bias, saved = ctx.saved_tensors
        batch, length, channels = u.shape
        groups, n = B.shape[2], B.shape[3]
        bd, bn = _block(channels, groups, n)
        blocks = triton.cdiv(channels, bd)
        exact = saved.dtype
        new = saved.new_empty
        du, ddt = torch.empty_like(u), torch.empty_like(dt)
        dz = None if z is None else torch.empty_like(z)
        dA, dstart, dD = new(batch, channels, n), new(batch, channels, n), new(batch, channels)
        dbias = None if dt_bias is None else new(batch, channels)
        dB, dC = new(blocks, batch, length, n), new(blocks, batch, length, n)
        scratch = new(batch * blocks * ctx.chunk * bd * bn)
        scan_bwd_kernel[(batch, blocks)](
            u, dt, A, B, C, D, z, dt_bias, saved, scratch, dy.contiguous(), dend.contiguous(),
            du, ddt, dA, dB, dC, dD, dz, dbias, dstart,
            length, channels, n, groups, blocks,
            BD=bd, BN=bn, CHUNK=ctx.chunk, HAS_Z=z is not None, HAS_BIAS=dt_bias is not None,
            num_warps=1,
        )  # fmt: skip

        def over_blocks(partial: Tensor, like: Tensor) -> Tensor:
            total = partial.view(groups, blocks // groups, batch, length, n).sum(1)
            return total.permute(1, 2, 0, 3).to(like.dtype)

        return (
            du,
            ddt,
            dA.sum(0).to(A.dtype),
            over_blocks(dB, B),
            over_blocks(dC, C),
            dD.sum(0).to(D.dtype),
            dz,
            None if dbias is None else dbias.sum(0).to(dt_bias.dtype),
            dstart.to(exact),
        )


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
    """See :func:`mnemoscope.kernels.scan_ref.selective_scan`; the states are float32.

    Raises:
        TypeError: ``start`` is not float32 (the reference serves float64).
    """
    if start.dtype != torch.float32:
        raise TypeError(f"the triton scan computes in float32, start is {start.dtype}; use the reference backend")
    return _Scan.apply(u, dt, A, B, C, D, z, dt_bias, start)
