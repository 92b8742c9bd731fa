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
def row_at(p, o_d, i_n, K: tl.constexpr, o_turn):
    """Where numbers i_n to i_n + K of the rows at o_d lie: K / 4 blocks [32, 4].

    In block k of a lane is that block of the row whose number differs from k in the bits of ``o_turn``.
    """
    q: tl.tuple = ()
    for k in tl.static_range(K // 4):
        o_k = o_d + i_n + (o_turn ^ k) * 4
        q += (p + (o_k[:, None] + tl.arange(0, 4)[None, :]),)
    return q


@triton.jit
def row_within(m_d, i_n, N: tl.constexpr, K: tl.constexpr, o_turn):
    """Which of them there are: those of lanes that have a channel, and not beyond N."""
    m: tl.tuple = ()
    for k in tl.static_range(K // 4):
        m_k = m_d[:, None]
        if N % K:
            o_k = i_n + (o_turn ^ k) * 4
            m_k = m_k & (o_k[:, None] + tl.arange(0, 4)[None, :] < N)
        m += (m_k,)
    return m


@triton.jit
def load_row(q, m, step: tl.constexpr = 0):
    """Numbers ``step`` beyond those at q, where m allows, else zero.  A step known to the compiler costs nothing."""
    x: tl.tuple = ()
    for k in tl.static_range(len(q)):
        x += (load(q[k], step, m[k]),)
    return x


@triton.jit
def store_row(q, x, m):
    for k in tl.static_range(len(q)):
        tl.store(q[k], x[k], mask=m[k])


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
def turn(o_l, K: tl.constexpr):
    """The order of a lane's K / 4 blocks in which ``sum_lanes`` adds them up."""
    return (o_l >> (5 - K // 8)) & (K // 4 - 1)


@triton.jit
def sum_lanes(x, y, o_l):
    """Sums over all lanes of two rows, one number of one of them to a lane: half a number per lane and level, where
    reducing each is five.

    Their blocks lie in the order of ``turn``: a lane gives the second half of them to the lane that differs in the next
    bit, and keeps the first, with nothing to choose.  Which sum a lane ends up with: ``summed``.
    """
    n: tl.constexpr = len(x)
    for i in tl.static_range(2):
        if n >> i > 1:
            new_x: tl.tuple = ()
            new_y: tl.tuple = ()
            for k in tl.static_range((n >> i) // 2):
                new_x += (x[k] + swap(x[k + (n >> i) // 2], o_l, 16 >> i),)
                new_y += (y[k] + swap(y[k + (n >> i) // 2], o_l, 16 >> i),)
            x, y = new_x, new_y
    b_even, b_odd = tl.split(tl.reshape(halve(x[0], y[0], o_l, 4), [LANES, 2, 2]))
    b_first, b_second = tl.split(halve(b_even, b_odd, o_l, 2))
    b_x = halve(b_first, b_second, o_l, 1)
    if n < 4:
        b_x += swap(b_x, o_l, 8)
    if n < 2:
        b_x += swap(b_x, o_l, 16)
    return b_x


@triton.jit
def summed(o_l, K: tl.constexpr):
    """A lane's sum after ``sum_lanes``: of which row, of which number; and whether no lane before has the same."""
    o_n = turn(o_l, K) * 4 + o_l % 2 * 2 + o_l // 2 % 2
    return o_l // 4 % 2, o_n, (o_l & (128 // K - 8)) == 0
