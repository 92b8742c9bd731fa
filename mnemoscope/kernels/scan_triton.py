"""The selective scan in Triton: sequential in time, the state in registers, recomputed for the backward pass.

Same arguments and results as :mod:`mnemoscope.kernels.scan_ref`.  A program is one warp; each of its lanes owns one
channel, in the forward pass two if it can, with up to K = 16 numbers of its state as K / 4 blocks [32, 4], so that a
sum over the state needs no other lane and nothing per channel is computed twice.  A longer state is walked in slices of
K, whose sums over the state add up in memory.  The program walks through the tokens of some windows, T tokens at a
time.

The forward pass keeps the state every PARTS T tokens; the backward pass computes the states of T tokens again from
there and holds them while it walks back.  Sums over channels (gradients of B and C) and over windows (of A, D,
dt_bias) are written as partial sums and added afterwards, so that results do not depend on the order in which programs
finish.

Prefixes: p_ pointer, s_ distance between the rows of two tokens, b_ block in registers, o_ offset, m_ mask, i_ program
or loop index.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mnemoscope.kernels.token_triton import scan_token
from mnemoscope.kernels.triton_lanes import (
    LANES,
    LN2,
    LOG2E,
    advance,
    dot,
    halve_products,
    load,
    load_row,
    scale,
    sigmoid,
    softplus,
    store_row,
    sum_lanes,
)


@triton.jit
def scan_fwd_chunk(
    h, A, b_D, q_u, q_dt, q_B, q_C, q_z, q_y, q_sums, p_bias, q_saved,
    s_u, s_dt, s_B, s_C, s_z, s_saved, D, o_d, m_d, o_l, i_s, i_n, i_c,
    N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, PARTS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """The first ``TOKENS`` of the T tokens of chunk ``i_c``; the state after them."""
    # every lane reads the same; comparing blocks keeps masks blocks of booleans
    m_l, o_all = o_l >= 0, o_l * 0
    first = i_c * T
    if q_saved is not None:  # noqa: SIM102  decided when the kernel is compiled
        if (i_c > 0) & (i_c % PARTS == 0):
            store_row(q_saved + (i_c // PARTS - 1) * s_saved, o_l * K, m_l, 0, h, K, K)
    y: tl.tuple = ()
    for i in tl.static_range(TOKENS):
        t = first + i
        b_u = load(q_u + t * s_u, o_d, m_d)
        b_dt = load(q_dt + t * s_dt, o_d, m_d)
        if p_bias is not None:
            b_dt, _ = softplus(b_dt + load(p_bias, o_d, m_d))
        B = load_row(q_B + t * s_B, o_all, m_l, i_n, N, K)
        C = load_row(q_C + t * s_C, o_all, m_l, i_n, N, K)
        h = advance(h, A, b_dt, b_dt * b_u, B)
        b_y = dot(h, C)
        if q_sums is not None:
            b_y += load(q_sums + t * D, o_d, m_d & (o_all + i_s > 0))
            tl.store(q_sums + t * D + o_d, b_y, mask=m_d)
        b_y += b_D * b_u
        if q_z is not None:
            b_z = load(q_z + t * s_z, o_d, m_d)
            b_y = b_y * b_z * sigmoid(b_z)
        y += (b_y,)
    # after the loads of all T tokens, which must not wait for these
    for i in tl.static_range(TOKENS):
        tl.store(q_y + (first + i) * D + o_d, y[i], mask=m_d)
    return h


@triton.jit(do_not_specialize=["batch", "L", "windows"])
def scan_fwd_kernel(
    p_u, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_start, p_y, p_end, p_saved, p_sums,
    s_u, s_dt, s_B, s_C, s_z, batch, L, D, per, windows,
    N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, TAIL: tl.constexpr, PARTS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # a lane that owns two channels reads B and C once for both; they must lie side by side
    o_l = tl.arange(0, WIDE) % LANES * (WIDE // LANES) + tl.arange(0, WIDE) // LANES
    i_p = tl.program_id(0)
    i_g, o_g = i_p // tl.cdiv(per, WIDE), i_p % tl.cdiv(per, WIDE) * WIDE + o_l
    o_d, m_d = i_g * per + o_g, o_g < per
    slices: tl.constexpr = (N + K - 1) // K
    kept = (tl.cdiv(L, T) - 1) // PARTS
    # blocks of 32 channels, as the backward pass reads them
    s_saved = tl.num_programs(0) * (WIDE // LANES) * slices * K * LANES
    b_D = load(p_D, o_d, m_d)
    first = tl.program_id(1).to(tl.int64) * windows
    for i_s in range(slices):
        i_n = i_s * K
        A = scale(load_row(p_A, o_d * N, m_d, i_n, N, K), LOG2E)
        for i_w in range(0, tl.minimum(windows, batch - first)):
            i_b = first + i_w
            i_row = i_b * L
            q_u, q_dt, q_y = p_u + i_row * s_u, p_dt + i_row * s_dt, p_y + i_row * D
            q_B, q_C = p_B + i_row * s_B + i_g * N, p_C + i_row * s_C + i_g * N
            q_z = None if p_z is None else p_z + i_row * s_z
            q_sums = None if p_sums is None else p_sums + i_row * D
            q_saved = None
            if p_saved is not None:
                q_saved = p_saved + i_b * kept * s_saved + (i_p * (WIDE // LANES) * slices + i_s) * K * LANES
            if p_start is not None:  # noqa: SIM108  decided when the kernel is compiled, here and below
                h = load_row(p_start + i_b * D * N, o_d * N, m_d, i_n, N, K)
            else:
                h = scale(A, 0.0)
            for i_c in range(L // T):
                h = scan_fwd_chunk(
                    h, A, b_D, q_u, q_dt, q_B, q_C, q_z, q_y, q_sums, p_bias, q_saved,
                    s_u, s_dt, s_B, s_C, s_z, s_saved, D, o_d, m_d, o_l, i_s, i_n, i_c, N, K, T, PARTS, T,
                )  # fmt: skip
            if TAIL:
                h = scan_fwd_chunk(
                    h, A, b_D, q_u, q_dt, q_B, q_C, q_z, q_y, q_sums, p_bias, q_saved,
                    s_u, s_dt, s_B, s_C, s_z, s_saved, D, o_d, m_d, o_l, i_s, i_n, L // T, N, K, T, PARTS, TAIL,
                )  # fmt: skip
            store_row(p_end + i_b * D * N, o_d * N, m_d, i_n, h, N, K)


@triton.jit
def scan_bwd_chunk(
    dh, dA, b_dD, b_dbias, A, b_D, b_bias, q_start, q_saved,
    q_u, q_dt, q_B, q_C, q_z, q_dy, q_sums, q_du, q_ddt, q_dBC, q_dz,
    s_u, s_dt, s_B, s_C, s_z, s_dy, s_saved, D, o_d, m_d, o_l, o_v, m_v, i_s, i_n, i_c,
    N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, PARTS: tl.constexpr, TOKENS: tl.constexpr,
    BIASED: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """Back over the first ``TOKENS`` of the T tokens of chunk ``i_c``.

    Returns the gradients of the state before them, and the sums so far of those of A, D and dt_bias.
    """
    # every lane reads the same; comparing blocks keeps masks blocks of booleans
    m_l, o_all = o_l >= 0, o_l * 0
    first, i_k = i_c * T, i_c // PARTS
    if i_k > 0:
        h = load_row(q_saved + (i_k - 1) * s_saved, o_l * K, m_l, 0, K, K)
    elif q_start is not None:
        h = load_row(q_start, o_d * N, m_d, i_n, N, K)
    else:
        h = scale(A, 0.0)
    if PARTS > 1:
        for t in range(i_k * PARTS * T, first):
            b_dt = load(q_dt + t * s_dt, o_d, m_d)
            if BIASED:
                b_dt, _ = softplus(b_dt + b_bias)
            B = load_row(q_B + t * s_B, o_all, m_l, i_n, N, K)
            h = advance(h, A, b_dt, b_dt * load(q_u + t * s_u, o_d, m_d), B)
    hs: tl.tuple = (h,)
    u: tl.tuple = ()
    dt: tl.tuple = ()
    slope: tl.tuple = ()
    dy: tl.tuple = ()
    z: tl.tuple = ()
    for i in tl.static_range(TOKENS):
        t = first + i
        b_u = load(q_u + t * s_u, o_d, m_d)
        b_dt = load(q_dt + t * s_dt, o_d, m_d)
        if BIASED:
            b_dt, b_slope = softplus(b_dt + b_bias)
            slope += (b_slope,)
        B = load_row(q_B + t * s_B, o_all, m_l, i_n, N, K)
        hs += (advance(hs[i], A, b_dt, b_dt * b_u, B),)
        u += (b_u,)
        dt += (b_dt,)
        dy += (load(q_dy + t * s_dy, o_d, m_d),)
        if q_z is not None:
            z += (load(q_z + t * s_z, o_d, m_d),)
    m_out = m_d & (o_all + i_s == SLICES - 1)
    for i in tl.static_range(TOKENS - 1, -1, -1):
        t = first + i
        # always dt, which the compiler cannot know: keeping the exponentials from above takes registers that cost more
        # than to compute them again
        b_dt = tl.where(m_d, dt[i], 0.0)
        b_x = b_dt * u[i]
        B = load_row(q_B + t * s_B, o_all, m_l, i_n, N, K)
        C = load_row(q_C + t * s_C, o_all, m_l, i_n, N, K)
        b_dy = dy[i]
        if q_z is not None:
            b_gate = sigmoid(z[i])
            b_dz = b_dy * b_gate * (1.0 + z[i] * (1.0 - b_gate))
            b_dy = b_dy * z[i] * b_gate
            b_y = dot(hs[i + 1], C)
        # the sums over the state that du and ddt need
        b_hB, b_hA = tl.zeros([LANES, 4], dtype=tl.float32), tl.zeros([LANES, 4], dtype=tl.float32)
        dBC: tl.tuple = ()
        new_dh: tl.tuple = ()
        new_dA: tl.tuple = ()
        for k in tl.static_range(K // 4):
            b_dh = dh[k] + b_dy[:, None] * C[k]
            b_hB += b_dh * B[k]
            dBC += (halve_products(b_dh, b_x, hs[i + 1][k], b_dy, o_l, 16),)
            b_dh *= tl.exp2(b_dt[:, None] * A[k])
            b_da = b_dh * hs[i][k]
            b_hA += b_da * A[k]
            new_dh += (b_dh,)
            new_dA += (dA[k] + b_da * b_dt[:, None],)
        dh, dA = new_dh, new_dA
        b_hB, b_hA = tl.sum(b_hB, 1), tl.sum(b_hA, 1)
        b_v = sum_lanes(dBC, o_l)
        tl.store(q_dBC + t * 2 * N + o_l // 16 * N + o_v, b_v, mask=m_v)
        if SLICES > 1:
            p_sum = q_sums + t * 3 * D + o_d
            m_sum = m_d & (o_all + i_s > 0)
            b_hB += tl.load(p_sum, mask=m_sum, other=0.0)
            b_hA += tl.load(p_sum + D, mask=m_sum, other=0.0)
            tl.store(p_sum, b_hB, mask=m_d)
            tl.store(p_sum + D, b_hA, mask=m_d)
            if q_z is not None:
                b_y += tl.load(p_sum + 2 * D, mask=m_sum, other=0.0)
                tl.store(p_sum + 2 * D, b_y, mask=m_d)
        b_ddt = LN2 * b_hA + u[i] * b_hB
        if BIASED:
            b_ddt *= slope[i]
            b_dbias += tl.where(m_out, b_ddt, 0.0)
        b_dD += tl.where(m_out, b_dy * u[i], 0.0)
        o_out = t * D + o_d
        tl.store(q_du + o_out, b_dy * b_D + b_dt * b_hB, mask=m_out)
        tl.store(q_ddt + o_out, b_ddt, mask=m_out)
        if q_z is not None:
            tl.store(q_dz + o_out, b_dz * (b_y + b_D * u[i]), mask=m_out)
    return dh, dA, b_dD, b_dbias


@triton.jit(do_not_specialize=["batch", "L", "windows"])
def scan_bwd_kernel(
    p_u, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_start, p_saved, p_dy, p_dend, p_sums,
    p_du, p_ddt, p_dA, p_dBC, p_dD, p_dz, p_dbias, p_dstart,
    s_u, s_dt, s_B, s_C, s_z, s_dy, batch, L, D, per, windows,
    N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, TAIL: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    o_l = tl.arange(0, LANES)
    i_p = tl.program_id(0)
    i_g, o_g = i_p // tl.cdiv(per, LANES), i_p % tl.cdiv(per, LANES) * LANES + o_l
    o_d, m_d = i_g * per + o_g, o_g < per
    slices: tl.constexpr = (N + K - 1) // K
    biased: tl.constexpr = p_bias is not None
    b_D = load(p_D, o_d, m_d)
    b_bias = tl.zeros([LANES], dtype=tl.float32)
    if biased:
        b_bias = load(p_bias, o_d, m_d)
    b_dD, b_dbias = tl.zeros([LANES], dtype=tl.float32), tl.zeros([LANES], dtype=tl.float32)
    # where the sums over channels end up, see sum_lanes: of dB in the lower 16 lanes, of dC in the upper
    o_v = o_l % 16 // (16 // K)
    o_v = o_v // 4 * 4 + o_v % 2 * 2 + o_v // 2 % 2
    first = tl.program_id(1).to(tl.int64) * windows
    kept = (tl.cdiv(L, T) - 1) // PARTS
    s_saved = tl.num_programs(0) * slices * K * LANES
    for i_s in range(slices):
        i_n = i_s * K
        m_v = (o_l % (16 // K) == 0) & (i_n + o_v < N)
        A = scale(load_row(p_A, o_d * N, m_d, i_n, N, K), LOG2E)
        dA = scale(A, 0.0)
        for i_w in range(0, tl.minimum(windows, batch - first)):
            i_b = first + i_w
            i_row = i_b * L
            q_u, q_dt, q_dy = p_u + i_row * s_u, p_dt + i_row * s_dt, p_dy + i_row * s_dy
            q_B, q_C = p_B + i_row * s_B + i_g * N, p_C + i_row * s_C + i_g * N
            q_du, q_ddt = p_du + i_row * D, p_ddt + i_row * D
            q_z = None if p_z is None else p_z + i_row * s_z
            q_dz = None if p_z is None else p_dz + i_row * D
            q_sums = None if p_sums is None else p_sums + i_row * 3 * D
            q_start = None if p_start is None else p_start + i_b * D * N
            q_saved = p_saved + i_b * kept * s_saved + (i_p * slices + i_s) * K * LANES
            q_dBC = p_dBC + (i_p.to(tl.int64) * batch * L + i_row) * 2 * N + i_n
            if p_dend is not None:  # noqa: SIM108
                dh = load_row(p_dend + i_b * D * N, o_d * N, m_d, i_n, N, K)
            else:
                dh = scale(A, 0.0)
            if TAIL:
                dh, dA, b_dD, b_dbias = scan_bwd_chunk(
                    dh, dA, b_dD, b_dbias, A, b_D, b_bias, q_start, q_saved,
                    q_u, q_dt, q_B, q_C, q_z, q_dy, q_sums, q_du, q_ddt, q_dBC, q_dz,
                    s_u, s_dt, s_B, s_C, s_z, s_dy, s_saved, D, o_d, m_d, o_l, o_v, m_v, i_s, i_n, L // T,
                    N, K, T, PARTS, TAIL, biased, slices,
                )  # fmt: skip
            for i_r in range(L // T):
                dh, dA, b_dD, b_dbias = scan_bwd_chunk(
                    dh, dA, b_dD, b_dbias, A, b_D, b_bias, q_start, q_saved,
                    q_u, q_dt, q_B, q_C, q_z, q_dy, q_sums, q_du, q_ddt, q_dBC, q_dz,
                    s_u, s_dt, s_B, s_C, s_z, s_dy, s_saved, D, o_d, m_d, o_l, o_v, m_v, i_s, i_n, L // T - 1 - i_r,
                    N, K, T, PARTS, T, biased, slices,
                )  # fmt: skip
            if p_dstart is not None:
                store_row(p_dstart + i_b * D * N, o_d * N, m_d, i_n, dh, N, K)
        store_row(p_dA + tl.program_id(1) * D * N, o_d * N, m_d, i_n, dA, N, K)
    tl.store(p_dD + tl.program_id(1) * D + o_d, b_dD, mask=m_d)
    if biased:
        tl.store(p_dbias + tl.program_id(1) * D + o_d, b_dbias, mask=m_d)


#: most numbers of the state in a lane, and tokens to a chunk; chunks between two states kept, and to one of the forward
STATES, TOKENS, PARTS, MERGE = 16, 3, 2, 2
#: programs that fill the largest device (132 times 12) almost four times over; most tokens of windows that share one
PROGRAMS, TOGETHER = 6144, 160
#: registers are what limits the warps in flight
FORWARD: dict[str, Any] = {"num_warps": 1, "maxnreg": 168, "enable_fp_fusion": True}
BACKWARD: dict[str, Any] = {"num_warps": 1, "maxnreg": 168, "enable_fp_fusion": True}


def _shape(u: Tensor, B: Tensor, merge: int, wide: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid for ``wide`` channels a program, and the sizes of both kernels; T is ``merge`` times a chunk."""
    batch, length, channels = u.shape
    groups, n = B.shape[2], B.shape[3]
    blocks = groups * -(-channels // groups // wide)
    # short windows share a program, which loads A once for all and leaves one partial sum, while programs are plenty
    windows = max(1, min(TOGETHER // length, batch * blocks // PROGRAMS))
    k = 4
    while k < min(n, STATES):
        k *= 2
    sizes = {
        "batch": batch, "L": length, "D": channels, "per": channels // groups, "windows": windows,
        "N": n, "K": k, "T": TOKENS * merge, "TAIL": length % (TOKENS * merge), "PARTS": PARTS // merge,
    }  # fmt: skip
    return (blocks, -(-batch // windows)), sizes


def _rows(x: Any) -> tuple[Any, int]:
    """x [B, L, ...], copied only if its tokens are not contiguous rows at one distance, and that distance."""
    if x is None:
        return None, 0
    size, stride = x.shape, x.stride()
    row = stride[1] if size[1] > 1 else stride[0]
    inner = 1
    for i in range(x.dim() - 1, 1, -1):
        if size[i] > 1 and stride[i] != inner:
            break
        inner *= size[i]
    else:
        if size[0] == 1 or stride[0] == size[1] * row:
            return x, row
    return x.contiguous(), math.prod(size[2:])


def _outputs(u: Tensor, B: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state after the last token, and the states kept for the backward pass (none unless ``save``)."""
    (blocks, _), shape = _shape(u, B, 1, 32)
    kept = (triton.cdiv(shape["L"], shape["T"]) - 1) // PARTS if save else 0
    saved = (shape["batch"], kept, blocks, triton.cdiv(shape["N"], shape["K"]), 32, shape["K"])
    end = (shape["batch"], shape["D"], shape["N"])
    return u.new_empty(u.shape), u.new_empty(end, dtype=torch.float32), u.new_empty(saved, dtype=torch.float32)


def _forward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, bias: Tensor | None,
    start: Tensor | None, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    A, D = A.contiguous(), D.contiguous()
    bias, start = (None if x is None else x.contiguous() for x in (bias, start))
    if u.shape[1] == 1 and not save:
        (u, _), (dt, _), (B, _), (C, _), (z, _) = map(_rows, (u, dt, B, C, z))
        return *scan_token(u, dt, A, B, C, D, z, bias, start), A.new_empty(0)
    y, end, saved = _outputs(u, B, save)
    blocks, n = -(-u.shape[2] // B.shape[2] // 32), B.shape[3]
    wide = 64 if blocks % 2 == 0 and n <= STATES else 32
    grid, shape = _shape(u, B, MERGE, wide)
    # every lane reads all of B and C: converting them beforehand spares each of them that
    (u, s_u), (dt, s_dt), (B, s_B), (C, s_C), (z, s_z) = map(_rows, (u, dt, B.float(), C.float(), z))
    sums = end.new_empty(u.shape) if shape["N"] > shape["K"] else None
    scan_fwd_kernel[grid](
        u, dt, A, B, C, D, z, bias, start, y, end, saved if saved.numel() else None, sums, s_u, s_dt, s_B, s_C, s_z,
        WIDE=wide, **shape, **FORWARD,
    )  # fmt: skip
    return y, end, saved


def _backward(
    dy: Tensor, dend: Tensor | None, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    z: Tensor | None, bias: Tensor | None, start: Tensor | None, saved: Tensor, start_too: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of the nine inputs of the scan; empty for those that are None, and for start unless asked for."""
    (blocks, parts), shape = _shape(u, B, 1, 32)
    batch, length, groups, n = B.shape
    channels, dtype, new = u.shape[2], B.dtype, saved.new_empty
    du, ddt, dz = (u.new_empty(0) if x is None else x.new_empty(x.shape) for x in (u, dt, z))
    dA, dD, dbias = new((parts, channels, n)), new((parts, channels)), new((parts, 0 if bias is None else channels))
    dBC, dstart = new((blocks, batch, length, 2, n)), new((batch, channels, n) if start_too else (0,))
    sums = new((batch, length, 3, channels)) if n > shape["K"] else None
    (u, s_u), (dt, s_dt), (B, s_B), (C, s_C), (z, s_z), (dy, s_dy) = map(_rows, (u, dt, B.float(), C.float(), z, dy))
    scan_bwd_kernel[blocks, parts](
        u, dt, A.contiguous(), B, C, D.contiguous(), z, None if bias is None else bias.contiguous(),
        None if start is None else start.contiguous(), saved, dy, None if dend is None else dend.contiguous(), sums,
        du, ddt, dA, dBC, dD, dz, dbias, dstart if start_too else None, s_u, s_dt, s_B, s_C, s_z, s_dy,
        **shape, **BACKWARD,
    )  # fmt: skip
    dB, dC = dBC.view(groups, -1, batch, length, 2, n).sum(1).permute(3, 1, 2, 0, 4)
    dA, dD, dbias = (
        dA.sum(0).to(A.dtype),
        dD.sum(0).to(D.dtype),
        dbias.sum(0).to(D.dtype if bias is None else bias.dtype),
    )
    # copied in any case: outputs of an operator must not share memory
    return du, ddt, dA, dB.to(dtype, copy=True), dC.to(dtype, copy=True), dD, dz, dbias, dstart


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            y, end, saved = torch.ops.mnemoscope.scan.default(*inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(saved)
        ctx.save_for_backward(*inputs[:-1], saved)
        return y, end, saved

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dend: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        u, *others = ctx.saved_tensors
        dy = torch.zeros_like(u) if dy is None else dy
        grads = torch.ops.mnemoscope.scan_backward.default(dy, dend, u, *others, ctx.needs_input_grad[8])
        return *(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=False)), None


_INPUTS = "Tensor u, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor? z, Tensor? dt_bias, Tensor? start"
_LIBRARY = torch.library.Library("mnemoscope", "FRAGMENT")
_LIBRARY.define(f"scan({_INPUTS}, bool save) -> (Tensor, Tensor, Tensor)")
_GRADIENTS = ", ".join(["Tensor"] * 9)
_LIBRARY.define(f"scan_backward(Tensor dy, Tensor? dend, {_INPUTS}, Tensor saved, bool start_too) -> ({_GRADIENTS})")
_LIBRARY.impl("scan", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("scan_backward", _backward, "CompositeExplicitAutograd")
# behind the key itself: torch.library.register_autograd, or a custom_op, costs each call some 40 us
_LIBRARY.impl("scan", lambda *inputs: _Scan.apply(*inputs), "Autograd")


@torch.library.register_fake("mnemoscope::scan", lib=_LIBRARY)
def _fake_forward(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    if u.shape[1] == 1 and not others[-1]:
        return u.new_empty(u.shape), A.new_empty((len(u), *A.shape), dtype=torch.float32), A.new_empty(0)
    return _outputs(u, B, others[-1])


@torch.library.register_fake("mnemoscope::scan_backward", lib=_LIBRARY)
def _fake_backward(dy: Tensor, dend: Tensor | None, *inputs: Any) -> tuple[Tensor, ...]:
    given = (*inputs[:8], inputs[8] if inputs[10] else None)
    return tuple(dy.new_empty(0) if x is None else x.new_empty(x.shape) for x in given)


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.scan_ref.selective_scan`; the states are float32, ``start`` zeros if None.

    u, dt, z, B and C may be slices of wider tensors along their last dimension: they are read where they are.

    Raises:
        TypeError: a state that is not float32 (the reference serves float64).
        ValueError: no window, no token or no channel.
    """
    exact = A.dtype if start is None else start.dtype
    if exact == torch.float64 or (start is not None and exact != torch.float32):
        raise TypeError(f"the triton scan computes in float32, the state is {exact}; use the reference backend")
    if u.numel() == 0:
        raise ValueError(f"nothing to scan: u [windows, tokens, channels] is {list(u.shape)}")
    inputs = (u, dt, A, B, C, D, z, dt_bias, start)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    y, end, _ = torch.ops.mnemoscope.scan.default(*inputs, save)
    return y, end
