"""The selective scan in Triton: sequential in time, the state in registers, recomputed for the backward pass.

Same arguments and results as :mod:`mnemoscope.kernels.scan_ref`.  A program is one warp, each of its lanes owns one
channel, and two neighbours share the states of their two (:mod:`mnemoscope.kernels.triton_lanes`), so that nothing per
channel is computed twice.  Of a state of more than K = 16 numbers, slices of K are walked one after the other, whose
sums over the state add up in memory.  The program walks through the tokens of some windows, T tokens at a time.

The forward pass asks for the tokens of a chunk while it works on the one before, and keeps the state before every chunk
of the backward pass, which computes the states of a chunk again and holds them while it walks back.  Sums over channels
(gradients of B and C) and over windows (of A, D, dt_bias) are written as partial sums and added afterwards, so that
results do not depend on the order in which programs finish.

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
    both,
    dot,
    join,
    load,
    load_kept,
    load_row,
    row_at,
    row_within,
    scale,
    sigmoid,
    softplus,
    store_kept,
    store_row,
    sum_lanes,
    summed,
    turn,
)


@triton.jit(do_not_specialize=["tokens"])
def lay_kernel(
    p_B, p_C, p_both, tokens, s_B: tl.constexpr, s_C: tl.constexpr, G: tl.constexpr, N: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """B and C side by side for every token and group, in the dtype of ``p_both``."""
    o_t = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    o = tl.arange(0, WIDE)[None, :]
    m, is_C = (o_t < tokens) & (o < 2 * N * G), o // N % 2 == 1
    o_n = o // (2 * N) * N + o % N
    b_B = tl.load(p_B + o_t * s_B + o_n, mask=m & (o // N % 2 == 0), other=0.0)
    b_C = tl.load(p_C + o_t * s_C + o_n, mask=m & is_C, other=0.0)
    tl.store(p_both + o_t * (2 * N * G) + o, tl.where(is_C, b_C, b_B), mask=m)


@triton.jit
def ask(q_u, q_dt, q_z, first, o_d, m_d, L, s_u: tl.constexpr, s_dt: tl.constexpr, s_z: tl.constexpr, T: tl.constexpr):
    """u, dt and z of T tokens, those before L, in their own dtype: whatever is computed of them waits for them."""
    q_u, q_dt = q_u + first * s_u + o_d, q_dt + first * s_dt + o_d
    if q_z is not None:
        q_z += first * s_z + o_d
    u: tl.tuple = ()
    dt: tl.tuple = ()
    z: tl.tuple = ()
    for i in tl.static_range(T):
        m = m_d & (o_d * 0 + first + i < L)
        u += (tl.load(q_u + i * s_u, mask=m, other=0.0),)
        dt += (tl.load(q_dt + i * s_dt, mask=m, other=0.0),)
        if q_z is not None:
            z += (tl.load(q_z + i * s_z, mask=m, other=0.0),)
    return u, dt, z


@triton.jit
def scan_fwd_chunk(
    h, A, b_D, b_bias, u, dt, z, q_BC, q_y, q_sums, q_saved, s_saved, o_d, m_d, o_l, o_turn, m_n, i_s, i_n, i_c, L,
    s_BC: tl.constexpr, D: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, KEPT: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """The first ``TOKENS`` of the T tokens of chunk ``i_c``, of which u, dt and z are; the state after them."""
    o_all = o_l * 0  # every lane reads the same
    first = i_c * T
    # from here on to each token is a distance that the compiler knows
    q_y += first * D + o_d
    if q_sums is not None:
        q_sums += first * D + o_d
    q_BC = row_at(q_BC + first * s_BC, o_all, None, i_n, K, o_turn)
    y: tl.tuple = ()
    kept: tl.tuple = ()
    for i in tl.static_range(TOKENS):
        b_u, b_dt = u[i].to(tl.float32), dt[i].to(tl.float32)
        if b_bias is not None:
            b_dt, _ = softplus(b_dt + b_bias)
        h = advance(h, A, both(b_dt, o_l), both(b_dt * b_u, o_l), load_row(q_BC, m_n, i * s_BC))
        b_y = dot(h, load_row(q_BC, m_n, i * s_BC + N), o_l)
        if q_sums is not None:
            b_y += load(q_sums, i * D, m_d & (o_all + i_s > 0))
            tl.store(q_sums + i * D, b_y, mask=m_d)
        b_y += b_D * b_u
        if len(z) > 0:
            b_z = z[i].to(tl.float32)
            b_y = b_y * b_z * sigmoid(b_z)
        y += (b_y,)
        if (i + 1) % KEPT == 0:
            kept += (h,)
    # after the loads of all tokens, which must not wait for these
    for i in tl.static_range(TOKENS):
        tl.store(q_y + i * D, y[i], mask=m_d)
    if q_saved is not None:
        for i in tl.static_range(TOKENS // KEPT):
            there = (first + (i + 1) * KEPT < L).to(tl.int32)  # none after the last token
            store_kept(q_saved + (i_c * (T // KEPT) + i) * s_saved, o_l, kept[i], there, K)
    return h


@triton.jit(do_not_specialize=["batch", "L", "windows"])
def scan_fwd_kernel(
    p_u, p_dt, p_A, p_BC, p_D, p_z, p_bias, p_start, p_y, p_end, p_saved, p_sums, batch, L, windows,
    s_u: tl.constexpr, s_dt: tl.constexpr, s_BC: tl.constexpr, s_z: tl.constexpr, D: tl.constexpr, PER: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, TAIL: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    o_l = tl.arange(0, LANES)
    i_p = tl.program_id(0)
    i_g, o_g = i_p // tl.cdiv(PER, LANES), i_p % tl.cdiv(PER, LANES) * LANES + o_l
    o_d, m_d, o_other, m_other = i_g * PER + o_g, o_g < PER, i_g * PER + (o_g ^ 1), (o_g ^ 1) < PER
    o_turn = turn(o_l, K)
    slices: tl.constexpr = (N + K - 1) // K
    kept = (L - 1) // KEPT
    s_saved = tl.num_programs(0).to(tl.int64) * slices * K * LANES
    b_D = load(p_D, o_d, m_d)
    b_bias = None if p_bias is None else load(p_bias, o_d, m_d)
    first = tl.program_id(1).to(tl.int64) * windows
    for i_s in range(slices):
        i_n = i_s * K
        m_h, m_n = row_within(m_d, m_other, i_n, N, K, o_turn), row_within(o_l >= 0, None, i_n, N, K, o_turn)
        A = scale(load_row(row_at(p_A, o_d * N, o_other * N, i_n, K, o_turn), m_h), LOG2E)
        for i_w in range(0, tl.minimum(windows, batch - first)):
            i_b = first + i_w
            i_row = i_b * L
            q_u, q_dt, q_y, q_BC = p_u + i_row * s_u, p_dt + i_row * s_dt, p_y + i_row * D, p_BC + i_row * s_BC
            q_BC += i_g * 2 * N
            q_z = None if p_z is None else p_z + i_row * s_z
            q_sums = None if p_sums is None else p_sums + i_row * D
            q_saved = None
            if p_saved is not None:
                q_saved = p_saved + i_b * kept * s_saved + (i_p * slices + i_s) * K * LANES
            if p_start is not None:
                h = load_row(row_at(p_start + i_b * D * N, o_d * N, o_other * N, i_n, K, o_turn), m_h)
            else:
                h = scale(A, 0.0)
            u, dt, z = ask(q_u, q_dt, q_z, 0, o_d, m_d, L, s_u, s_dt, s_z, T)
            for i_c in range(L // T):
                # for the tokens of the next chunk before this one is worked on
                new_u, new_dt, new_z = ask(q_u, q_dt, q_z, (i_c + 1) * T, o_d, m_d, L, s_u, s_dt, s_z, T)
                h = scan_fwd_chunk(
                    h, A, b_D, b_bias, u, dt, z, q_BC, q_y, q_sums, q_saved, s_saved, o_d, m_d, o_l, o_turn, m_n, i_s,
                    i_n, i_c, L, s_BC, D, N, K, T, KEPT, T,
                )  # fmt: skip
                u, dt, z = new_u, new_dt, new_z
            if TAIL:
                h = scan_fwd_chunk(
                    h, A, b_D, b_bias, u, dt, z, q_BC, q_y, q_sums, q_saved, s_saved, o_d, m_d, o_l, o_turn, m_n, i_s,
                    i_n, L // T, L, s_BC, D, N, K, T, KEPT, TAIL,
                )  # fmt: skip
            store_row(row_at(p_end + i_b * D * N, o_d * N, o_other * N, i_n, K, o_turn), h, m_h)


@triton.jit
def scan_bwd_chunk(
    dh, dA, b_dD, b_dbias, A, b_D, b_bias, q_start, q_saved, s_saved,
    q_u, q_dt, q_BC, q_z, q_dy, q_sums, q_du, q_ddt, q_dBC, q_dz,
    o_d, o_other, m_d, o_l, o_turn, m_h, m_n, m_v, i_s, i_n, i_c, L,
    s_u: tl.constexpr, s_dt: tl.constexpr, s_BC: tl.constexpr, s_z: tl.constexpr, s_dy: tl.constexpr, D: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, TOKENS: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """Back over the first ``TOKENS`` of the T tokens of chunk ``i_c``.

    Returns the gradients of the state before them, and the sums so far of those of A, D and dt_bias.
    """
    n: tl.constexpr = K // 8
    o_all = o_l * 0  # every lane reads the same, in its order
    first = i_c * T
    # from here on to each token is a distance that the compiler knows
    q_u, q_dt, q_dy = q_u + o_d, q_dt + o_d, q_dy + first * s_dy + o_d
    q_du, q_ddt, q_dBC = q_du + first * D + o_d, q_ddt + first * D + o_d, q_dBC + first * 2 * N
    if q_z is not None:
        q_z, q_dz = q_z + first * s_z + o_d, q_dz + first * D + o_d
    # what takes longest to come is asked for first
    u: tl.tuple = ()
    dt: tl.tuple = ()
    dy: tl.tuple = ()
    z: tl.tuple = ()
    for i in tl.static_range(TOKENS):
        u += (tl.load(q_u + first * s_u + i * s_u, mask=m_d, other=0.0),)
        dt += (tl.load(q_dt + first * s_dt + i * s_dt, mask=m_d, other=0.0),)
        dy += (tl.load(q_dy + i * s_dy, mask=m_d, other=0.0),)
        if q_z is not None:
            z += (tl.load(q_z + i * s_z, mask=m_d, other=0.0),)
    if i_c > 0:
        h = load_kept(q_saved + (i_c - 1) * s_saved, o_l, K)
    elif q_start is not None:
        h = load_row(row_at(q_start, o_d * N, o_other * N, i_n, K, o_turn), m_h)
    else:
        h = scale(A, 0.0)
    if SLICES > 1:
        q_sums += first * 3 * D + o_d
    q_BC = row_at(q_BC + first * s_BC, o_all, None, i_n, K, o_turn)
    hs: tl.tuple = (h,)
    steps: tl.tuple = ()
    slope: tl.tuple = ()
    for i in tl.static_range(TOKENS):
        b_dt = dt[i].to(tl.float32)
        if b_bias is not None:
            b_dt, b_slope = softplus(b_dt + b_bias)
            slope += (b_slope,)
        b_x = b_dt * u[i].to(tl.float32)
        hs += (advance(hs[i], A, both(b_dt, o_l), both(b_x, o_l), load_row(q_BC, m_n, i * s_BC)),)
        steps += (b_dt,)
    m_out = m_d & (o_all + i_s == SLICES - 1)
    for i in tl.static_range(TOKENS - 1, -1, -1):
        b_dt, b_u, b_dy = steps[i], u[i].to(tl.float32), dy[i].to(tl.float32)
        # always dt, which the compiler cannot know: it would keep the exponentials from above, in registers that cost
        # more than to compute them again
        b_dt = tl.where(o_all + (first + i) < L, b_dt, 0.0)
        B, C = load_row(q_BC, m_n, i * s_BC), load_row(q_BC, m_n, i * s_BC + N)
        if q_z is not None:
            b_z = z[i].to(tl.float32)
            b_gate = sigmoid(b_z)
            b_dz = b_dy * b_gate * (1.0 + b_z * (1.0 - b_gate))
            b_dy = b_dy * b_z * b_gate
            b_y = dot(hs[i + 1], C, o_l)
        dts, xs, dys = both(b_dt, o_l), both(b_dt * b_u, o_l), both(b_dy, o_l)
        # the sums over the state that du and ddt need
        hB: tl.tuple = ()
        hA: tl.tuple = ()
        dB: tl.tuple = ()
        dC: tl.tuple = ()
        new_dh: tl.tuple = ()
        new_dA: tl.tuple = ()
        for j in tl.static_range(2):
            b_hB, b_hA = tl.zeros([LANES, 4], dtype=tl.float32), tl.zeros([LANES, 4], dtype=tl.float32)
            for k in tl.static_range(n):
                b_dh = dh[j * n + k] + dys[j][:, None] * C[k]
                b_hB += b_dh * B[k]
                dB += (b_dh * xs[j][:, None],)
                dC += (hs[i + 1][j * n + k] * dys[j][:, None],)
                b_dh *= tl.exp2(dts[j][:, None] * A[j * n + k])
                b_da = b_dh * hs[i][j * n + k]
                b_hA += b_da * A[j * n + k]
                new_dh += (b_dh,)
                new_dA += (dA[j * n + k] + b_da * dts[j][:, None],)
            hB += (tl.sum(b_hB, 1),)
            hA += (tl.sum(b_hA, 1),)
        dh, dA = new_dh, new_dA
        b_hB, b_hA = join(hB[0], hB[1], o_l), join(hA[0], hA[1], o_l)
        tl.store(q_dBC + i * 2 * N, sum_lanes(dB, dC, o_l), mask=m_v)
        if SLICES > 1:
            m_sum = m_d & (o_all + i_s > 0)
            b_hB += load(q_sums, 3 * i * D, m_sum)
            b_hA += load(q_sums, (3 * i + 1) * D, m_sum)
            tl.store(q_sums + 3 * i * D, b_hB, mask=m_d)
            tl.store(q_sums + (3 * i + 1) * D, b_hA, mask=m_d)
            if q_z is not None:
                b_y += load(q_sums, (3 * i + 2) * D, m_sum)
                tl.store(q_sums + (3 * i + 2) * D, b_y, mask=m_d)
        b_ddt = LN2 * b_hA + b_u * b_hB
        if b_bias is not None:
            b_ddt *= slope[i]
            b_dbias += tl.where(m_out, b_ddt, 0.0)
        b_dD += tl.where(m_out, b_dy * b_u, 0.0)
        tl.store(q_du + i * D, b_dy * b_D + b_dt * b_hB, mask=m_out)
        tl.store(q_ddt + i * D, b_ddt, mask=m_out)
        if q_z is not None:
            tl.store(q_dz + i * D, b_dz * (b_y + b_D * b_u), mask=m_out)
    return dh, dA, b_dD, b_dbias


@triton.jit(do_not_specialize=["batch", "L", "windows"])
def scan_bwd_kernel(
    p_u, p_dt, p_A, p_BC, p_D, p_z, p_bias, p_start, p_saved, p_dy, p_dend, p_sums,
    p_du, p_ddt, p_dBC, p_dz, p_dshared, p_dstart, batch, L, windows,
    s_u: tl.constexpr, s_dt: tl.constexpr, s_BC: tl.constexpr, s_z: tl.constexpr, s_dy: tl.constexpr, D: tl.constexpr,
    PER: tl.constexpr, N: tl.constexpr, K: tl.constexpr, T: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    o_l = tl.arange(0, LANES)
    i_p = tl.program_id(0)
    i_g, o_g = i_p // tl.cdiv(PER, LANES), i_p % tl.cdiv(PER, LANES) * LANES + o_l
    o_d, m_d, o_other, m_other = i_g * PER + o_g, o_g < PER, i_g * PER + (o_g ^ 1), (o_g ^ 1) < PER
    slices: tl.constexpr = (N + K - 1) // K
    b_D = load(p_D, o_d, m_d)
    b_bias = None if p_bias is None else load(p_bias, o_d, m_d)
    b_dD, b_dbias = tl.zeros([LANES], dtype=tl.float32), tl.zeros([LANES], dtype=tl.float32)
    o_turn = turn(o_l, K)
    i_of, o_n, m_first = summed(o_l, K)
    first = tl.program_id(1).to(tl.int64) * windows
    q_dshared = p_dshared + tl.program_id(1) * (N + (1 if p_bias is None else 2)) * D
    kept = (L - 1) // T
    s_saved = tl.num_programs(0).to(tl.int64) * slices * K * LANES
    for i_s in range(slices):
        i_n = i_s * K
        m_v = m_first & (i_n + o_n < N)
        m_h, m_n = row_within(m_d, m_other, i_n, N, K, o_turn), row_within(o_l >= 0, None, i_n, N, K, o_turn)
        A = scale(load_row(row_at(p_A, o_d * N, o_other * N, i_n, K, o_turn), m_h), LOG2E)
        dA = scale(A, 0.0)
        for i_w in range(0, tl.minimum(windows, batch - first)):
            i_b = first + i_w
            i_row = i_b * L
            q_u, q_dt, q_dy, q_BC = p_u + i_row * s_u, p_dt + i_row * s_dt, p_dy + i_row * s_dy, p_BC + i_row * s_BC
            q_BC += i_g * 2 * N
            q_du, q_ddt = p_du + i_row * D, p_ddt + i_row * D
            q_z = None if p_z is None else p_z + i_row * s_z
            q_dz = None if p_z is None else p_dz + i_row * D
            q_sums = None if p_sums is None else p_sums + i_row * 3 * D
            q_start = None if p_start is None else p_start + i_b * D * N
            q_saved = p_saved + i_b * kept * s_saved + (i_p * slices + i_s) * K * LANES
            q_dBC = p_dBC + (i_p.to(tl.int64) * batch * L + i_row) * 2 * N + i_n + (i_of * N + o_n)
            if p_dend is not None:
                dh = load_row(row_at(p_dend + i_b * D * N, o_d * N, o_other * N, i_n, K, o_turn), m_h)
            else:
                dh = scale(A, 0.0)
            if TAIL:
                dh, dA, b_dD, b_dbias = scan_bwd_chunk(
                    dh, dA, b_dD, b_dbias, A, b_D, b_bias, q_start, q_saved, s_saved,
                    q_u, q_dt, q_BC, q_z, q_dy, q_sums, q_du, q_ddt, q_dBC, q_dz,
                    o_d, o_other, m_d, o_l, o_turn, m_h, m_n, m_v, i_s, i_n, L // T, L,
                    s_u, s_dt, s_BC, s_z, s_dy, D, N, K, T, TAIL, slices,
                )  # fmt: skip
            for i_r in range(L // T):
                dh, dA, b_dD, b_dbias = scan_bwd_chunk(
                    dh, dA, b_dD, b_dbias, A, b_D, b_bias, q_start, q_saved, s_saved,
                    q_u, q_dt, q_BC, q_z, q_dy, q_sums, q_du, q_ddt, q_dBC, q_dz,
                    o_d, o_other, m_d, o_l, o_turn, m_h, m_n, m_v, i_s, i_n, L // T - 1 - i_r, L,
                    s_u, s_dt, s_BC, s_z, s_dy, D, N, K, T, T, slices,
                )  # fmt: skip
            if p_dstart is not None:
                store_row(row_at(p_dstart + i_b * D * N, o_d * N, o_other * N, i_n, K, o_turn), dh, m_h)
        store_row(row_at(q_dshared, o_d * N, o_other * N, i_n, K, o_turn), dA, m_h)
    tl.store(q_dshared + N * D + o_d, b_dD, mask=m_d)
    if p_bias is not None:
        tl.store(q_dshared + (N + 1) * D + o_d, b_dbias, mask=m_d)


#: most numbers of the state that are walked at once; tokens to a chunk of the backward pass; such chunks to one of the
#: forward pass
STATES, TOKENS, MERGE = 16, 2, 2
#: programs that fill the largest device (132 times 12) almost four times over; most tokens of windows that share one
PROGRAMS, TOGETHER = 6144, 160
#: registers, which limit the warps in flight: of the forward pass over whole chunks, where some tokens are left over,
#: and of the backward pass; as timed, since what the assembler makes of a number is not to be foreseen
WHOLE, REST, BACK = 168, 128, 168
OPTIONS: dict[str, Any] = {"num_warps": 1, "enable_fp_fusion": True}
#: numbers of B and C that a program lays together
NUMBERS = 1024


def _shape(u: Tensor, groups: int, n: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid, and what both kernels are told."""
    batch, length, channels = u.shape
    blocks = groups * -(-channels // groups // 32)
    # short windows share a program, which loads A once for all and leaves one partial sum, while programs are plenty
    windows = max(1, min(TOGETHER // length, batch * blocks // PROGRAMS))
    k = 8
    while k < min(n, STATES):
        k *= 2
    sizes = {
        "batch": batch, "L": length, "windows": windows, "D": channels, "PER": channels // groups,
        "s_BC": groups * 2 * n, "N": n, "K": k,
    }  # fmt: skip
    return (blocks, -(-batch // windows)), sizes


def _chunks(length: int, tokens: int) -> dict[str, int]:
    """Chunks of so many tokens, and one of what remains."""
    return {"T": tokens, "TAIL": length % tokens}


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


def _lay_together(B: Tensor, C: Tensor, both: Tensor) -> None:
    """Into ``both`` [B, L, G, 2, N] float32.  Every lane reads all of both: converting them beforehand spares each of
    them that, and from one to the other is a distance that the compiler knows."""
    (B, s_B), (C, s_C) = _rows(B), _rows(C)
    batch, length, groups, _, n = both.shape
    wide = triton.next_power_of_2(2 * groups * n)
    rows = max(1, NUMBERS // wide)
    lay_kernel[(triton.cdiv(batch * length, rows),)](
        B, C, both, batch * length, s_B=s_B, s_C=s_C, G=groups, N=n, ROWS=rows, WIDE=wide, num_warps=4
    )


def _between(dtype: torch.dtype) -> torch.dtype:
    """In which dtype one kernel leaves for another what comes of inputs in ``dtype``.  Reading and writing it takes
    time: bfloat16 stays so, and is rounded no more than the inputs were; float16 has no room for a state."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def _outputs(u: Tensor, B: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, the state after the last token, B and C as the kernels read them, and the states kept for the backward pass,
    none unless ``save``."""
    batch, length, groups, n = B.shape
    (blocks, _), shape = _shape(u, groups, n)
    kept = (length - 1) // TOKENS if save else 0
    saved = (batch, kept, blocks, triton.cdiv(n, shape["K"]), 32, shape["K"])
    y, end = u.new_empty(u.shape), u.new_empty((batch, u.shape[2], n), dtype=torch.float32)
    return y, end, end.new_empty((batch, length, groups, 2, n)), end.new_empty(saved, dtype=_between(u.dtype))


def _forward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, bias: Tensor | None,
    start: Tensor | None, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    A, D = A.contiguous(), D.contiguous()
    bias, start = (None if x is None else x.contiguous() for x in (bias, start))
    if u.shape[1] == 1 and not save:
        (u, _), (dt, _), (B, _), (C, _), (z, _) = map(_rows, (u, dt, B, C, z))
        return *scan_token(u, dt, A, B, C, D, z, bias, start), A.new_empty(0), A.new_empty(0)
    y, end, both, saved = _outputs(u, B, save)
    _lay_together(B, C, both)
    groups, n = B.shape[2:]
    grid, shape = _shape(u, groups, n)
    (u, s_u), (dt, s_dt), (z, s_z) = map(_rows, (u, dt, z))
    sums = end.new_empty(u.shape) if shape["N"] > shape["K"] else None
    chunks = _chunks(u.shape[1], TOKENS * MERGE)
    registers = REST if chunks["TAIL"] else WHOLE
    scan_fwd_kernel[grid](
        u, dt, A, both, D, z, bias, start, y, end, saved if saved.numel() else None, sums,
        s_u=s_u, s_dt=s_dt, s_z=s_z, KEPT=TOKENS, **shape, **chunks, **OPTIONS, maxnreg=registers,
    )  # fmt: skip
    return y, end, both, saved


def _backward(
    dy: Tensor, dend: Tensor | None, u: Tensor, dt: Tensor, A: Tensor, D: Tensor, z: Tensor | None,
    bias: Tensor | None, start: Tensor | None, both: Tensor, saved: Tensor, dtype: torch.dtype, start_too: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of u, dt, B and C side by side in ``dtype``, z, of what windows share (A, then D, then dt_bias if there
    is one; float32) and of start; empty for those that are None, and for start unless asked for."""
    batch, length, groups, _, n = both.shape
    (blocks, parts), shape = _shape(u, groups, n)
    channels, new = u.shape[2], both.new_empty
    du, ddt, dz = (u.new_empty(0) if x is None else x.new_empty(x.shape) for x in (u, dt, z))
    dshared = new((parts, (n + (1 if bias is None else 2)) * channels))
    dBC = new((blocks, batch, length, 2, n), dtype=_between(dtype))
    dstart = new((batch, channels, n) if start_too else (0,))
    sums = new((batch, length, 3, channels)) if n > shape["K"] else None
    (u, s_u), (dt, s_dt), (z, s_z), (dy, s_dy) = map(_rows, (u, dt, z, dy))
    scan_bwd_kernel[blocks, parts](
        u, dt, A.contiguous(), both, D.contiguous(), z, None if bias is None else bias.contiguous(),
        None if start is None else start.contiguous(), saved, dy, None if dend is None else dend.contiguous(), sums,
        du, ddt, dBC, dz, dshared, dstart if start_too else None,
        s_u=s_u, s_dt=s_dt, s_z=s_z, s_dy=s_dy, **shape, **_chunks(length, TOKENS), **OPTIONS, maxnreg=BACK,
    )  # fmt: skip
    dBC = dBC.view(groups, -1, batch, length, 2, n).sum(1).permute(1, 2, 0, 3, 4)
    return du, ddt, dBC.to(dtype, memory_format=torch.contiguous_format), dz, dshared.sum(0), dstart


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            y, end, both, saved = torch.ops.mnemoscope.scan.default(*inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(both, saved)
        u, dt, A, B, _, *others, _ = inputs
        ctx.save_for_backward(u, dt, A, *others, both, saved)
        ctx.dtype = B.dtype
        return y, end, both, saved

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dend: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        u, _, A, D, _, bias, *_ = inputs = ctx.saved_tensors
        dy = torch.zeros_like(u) if dy is None else dy
        found = torch.ops.mnemoscope.scan_backward.default(dy, dend, *inputs, ctx.dtype, ctx.needs_input_grad[8])
        du, ddt, dBC, dz, dshared, dstart = found
        dB, dC = dBC.unbind(3)
        dA, dD, dbias = dshared.split([A.numel(), D.numel(), 0 if bias is None else D.numel()])
        dA, dD = dA.view_as(A).to(A.dtype), dD.to(D.dtype)
        grads = du, ddt, dA, dB, dC, dD, dz, None if bias is None else dbias.to(bias.dtype), dstart
        return *(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=False)), None


_INPUTS = "Tensor u, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor? z, Tensor? dt_bias, Tensor? start"
_LIBRARY = torch.library.Library("mnemoscope", "FRAGMENT")
_LIBRARY.define(f"scan({_INPUTS}, bool save) -> (Tensor, Tensor, Tensor, Tensor)")
_LIBRARY.define(
    "scan_backward(Tensor dy, Tensor? dend, Tensor u, Tensor dt, Tensor A, Tensor D, Tensor? z, Tensor? dt_bias,"
    " Tensor? start, Tensor both, Tensor saved, ScalarType dtype, bool start_too)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.impl("scan", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("scan_backward", _backward, "CompositeExplicitAutograd")
# behind the key itself: torch.library.register_autograd, or a custom_op, costs each call some 40 us
_LIBRARY.impl("scan", lambda *inputs: _Scan.apply(*inputs), "Autograd")


@torch.library.register_fake("mnemoscope::scan", lib=_LIBRARY)
def _fake_forward(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if u.shape[1] == 1 and not others[-1]:
        end = A.new_empty((len(u), *A.shape), dtype=torch.float32)
        return u.new_empty(u.shape), end, A.new_empty(0), A.new_empty(0)
    return _outputs(u, B, others[-1])


@torch.library.register_fake("mnemoscope::scan_backward", lib=_LIBRARY)
def _fake_backward(
    dy: Tensor, dend: Tensor | None, u: Tensor, dt: Tensor, A: Tensor, D: Tensor, z: Tensor | None,
    bias: Tensor | None, start: Tensor | None, both: Tensor, saved: Tensor, dtype: torch.dtype, start_too: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    du, ddt, dz = (u.new_empty(0) if x is None else x.new_empty(x.shape) for x in (u, dt, z))
    dshared = both.new_empty(A.numel() + D.numel() * (1 if bias is None else 2))
    dstart = both.new_empty((len(u), *A.shape) if start_too else (0,))
    return du, ddt, both.new_empty(both.shape, dtype=dtype), dz, dshared, dstart


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

    u, dt and z may be slices of wider tensors along their last dimension: they are read where they are.

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
    y, end, *_ = torch.ops.mnemoscope.scan.default(*inputs, save)
    return y, end
