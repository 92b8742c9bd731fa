"""For Triton kernels in which a lane of a warp owns a channel: arithmetic, rows of a state, sums over lanes.

A row of up to K numbers of a lane's state is a tuple of K / 4 blocks [32, 4]; in that layout a lane holds whole rows.

Prefixes: p_ pointer, b_ block in registers, o_ offset, m_ mask.
"""

from __future__ import annotations

import triton
import triton.language as tl

LANES = tl.constexpr(32)
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def reciprocal(b_x):
    """1 / x of a positive x, in two instructions where a division takes nine."""
    b_root = tl.rsqrt(b_x)
    return b_root * b_root


@triton.jit
def sigmoid(b_x):
    return reciprocal(1.0 + tl.exp2(tl.minimum(b_x * -LOG2E, 120.0)))


@triton.jit
def softplus(b_x):
    """Softplus and its slope.

    With e = exp(-|x|), log(1 + e) = 2 artanh(e / (2 + e)) keeps its relative precision however small the step, and its
    series in the square of at most 1/3 takes fewer instructions than a logarithm.
    """
    b_e = tl.exp2(tl.abs(b_x) * -LOG2E)
    b_r = reciprocal((1.0 + b_e) * (2.0 + b_e))
    b_s = b_e * (1.0 + b_e) * b_r
    b_q = b_s * b_s
    b_series = 1.0 / 11 + b_q * (1.0 / 13)
    b_series = 1.0 / 9 + b_q * b_series
    b_series = 1.0 / 7 + b_q * b_series
    b_series = 1.0 / 5 + b_q * b_series
    b_series = 1.0 / 3 + b_q * b_series
    b_log = 2.0 * b_s * (1.0 + b_q * b_series)
    return tl.maximum(b_x, 0.0) + b_log, tl.where(b_x < 0.0, b_e, 1.0) * (2.0 + b_e) * b_r


@triton.jit
def load(p, o, m):
    return tl.load(p + o, mask=m, other=0.0).to(tl.float32)


@triton.jit
def load_row(p, o_d, m_d, i_n, N: tl.constexpr, K: tl.constexpr):
    """Numbers i_n to i_n + K of the rows at o_d, beyond N zero: K / 4 blocks [32, 4]."""
    x: tl.tuple = ()
    for k in tl.static_range(0, K, 4):
        o_n = i_n + k + tl.arange(0, 4)
        m = m_d[:, None]
        if N % K:
            m = m & (o_n < N)[None, :]
        x += (load(p, o_d[:, None] + o_n[None, :], m),)
    return x


@triton.jit
def store_row(p, o_d, m_d, i_n, x, N: tl.constexpr, K: tl.constexpr):
    for k in tl.static_range(0, K, 4):
        o_n = i_n + k + tl.arange(0, 4)
        m = m_d[:, None]
        if N % K:
            m = m & (o_n < N)[None, :]
        tl.store(p + o_d[:, None] + o_n[None, :], x[k // 4], mask=m)


@triton.jit
def scale(x, factor):
    out: tl.tuple = ()
    for k in tl.static_range(len(x)):
        out += (x[k] * factor,)
    return out


@triton.jit
def advance(h, A, b_dt, b_x, B):
    """The state after one more token; A is in units of log 2, since exp2 is one instruction."""
    out: tl.tuple = ()
    for k in tl.static_range(len(h)):
        out += (tl.exp2(b_dt[:, None] * A[k]) * h[k] + b_x[:, None] * B[k],)
    return out


@triton.jit
def dot(x, y):
    b_sum = x[0] * y[0]
    for k in tl.static_range(1, len(x)):
        b_sum += x[k] * y[k]
    return tl.sum(b_sum, 1)


@triton.jit
def swap(b_x, o_l, bit):
    """What the lane whose number differs in one bit holds."""
    o_from = o_l ^ bit
    if len(b_x.shape) == 2:
        o_from = tl.broadcast_to(o_from[:, None], b_x.shape)
    return tl.gather(b_x, o_from, 0)


@triton.jit
def halve(b_low, b_high, o_l, bit):
    """Sums over pairs of lanes: of the first block in the lane without the bit, of the second in the one with it."""
    m_high = (o_l & bit) != 0
    if len(b_low.shape) == 2:
        m_high = m_high[:, None]
    return tl.where(m_high, b_high, b_low) + swap(tl.where(m_high, b_low, b_high), o_l, bit)


@triton.jit
def halve_products(b_a, b_x, b_b, b_y, o_l, bit):
    """``halve`` of the products a x and b y, where x and y are a number per lane."""
    m_high = (o_l & bit) != 0
    b_kept, b_given = tl.where(m_high, b_y, b_x), tl.where(m_high, b_x, b_y)
    m_high = m_high[:, None]
    b_given = swap(tl.where(m_high, b_a, b_b) * b_given[:, None], o_l, bit)
    return tl.where(m_high, b_b, b_a) * b_kept[:, None] + b_given


@triton.jit
def sum_lanes(x, o_l):
    """Sums over 16 lanes of J <= 4 blocks [32, 4]: half a sum per lane and level, where reducing each is five.

    Lane l holds the sum of number (column 2 (v % 2) + v // 2 % 2 of block v // 4), v = l % 16 // (4 / J).
    """
    bit: tl.constexpr = 8 // len(x)
    for i in tl.static_range(2):
        if len(x) > 1:
            out: tl.tuple = ()
            for k in tl.static_range(len(x) // 2):
                out += (halve(x[k], x[k + len(x) // 2], o_l, 8 >> i),)
            x = out
    b_even, b_odd = tl.split(tl.reshape(x[0], [LANES, 2, 2]))
    b_first, b_second = tl.split(halve(b_even, b_odd, o_l, bit))
    b_x = halve(b_first, b_second, o_l, bit // 2)
    for i in tl.static_range(2, 4):
        if bit >> i:
            b_x += swap(b_x, o_l, bit >> i)
    return b_x
