"""For Triton kernels in which a warp owns 32 channels, a lane one: arithmetic, rows of a state, sums over lanes.

Two neighbouring lanes share the states of their two channels: each holds one half of both, so that what is read of B
and C, and what is summed up over channels, is half as much as if each held the whole state of its own.  A lane's part
of up to K numbers a channel is a tuple of K / 4 blocks [32, 4]: those of its own channel, then those of its
neighbour's.  In that layout a lane holds whole rows of a block.

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
def row_at(p, o_own, o_other, i_n, K: tl.constexpr, o_turn):
    """Where a lane's half of numbers i_n to i_n + K lies, in its own channel's row and its neighbour's (None: it has no
    use for that): K / 8 blocks [32, 4] each.

    Block k is the one whose number differs from k in the bits of ``o_turn``.
    """
    o_n = i_n + tl.arange(0, LANES) % 2 * (K // 2)
    q: tl.tuple = ()
    for k in tl.static_range(K // 8):
        q += (p + ((o_own + o_n + (o_turn ^ k) * 4)[:, None] + tl.arange(0, 4)[None, :]),)
    if o_other is not None:
        for k in tl.static_range(K // 8):
            q += (p + ((o_other + o_n + (o_turn ^ k) * 4)[:, None] + tl.arange(0, 4)[None, :]),)
    return q


@triton.jit
def row_within(m_own, m_other, i_n, N: tl.constexpr, K: tl.constexpr, o_turn):
    """Which of them there are: those of channels that there are, and not beyond N."""
    o_n = i_n + tl.arange(0, LANES) % 2 * (K // 2)
    m: tl.tuple = ()
    for k in tl.static_range(K // 8):
        m_k = m_own[:, None]
        if N % K:
            m_k = m_k & ((o_n + (o_turn ^ k) * 4)[:, None] + tl.arange(0, 4)[None, :] < N)
        m += (m_k,)
    if m_other is not None:
        for k in tl.static_range(K // 8):
            m_k = m_other[:, None]
            if N % K:
                m_k = m_k & ((o_n + (o_turn ^ k) * 4)[:, None] + tl.arange(0, 4)[None, :] < N)
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
def load_kept(p, o_l, K: tl.constexpr):
    """What ``store_kept`` has laid there."""
    x: tl.tuple = ()
    for k in tl.static_range(K // 4):
        o_k = (o_l * K + k * 4)[:, None] + tl.arange(0, 4)[None, :]
        x += (tl.load(p + o_k).to(tl.float32),)
    return x


@triton.jit
def store_kept(p, o_l, x, there, K: tl.constexpr):
    """A lane's K numbers, as it has them, for the same lane of another kernel; none unless ``there``."""
    for k in tl.static_range(K // 4):
        o_k = (o_l * K + k * 4)[:, None] + tl.arange(0, 4)[None, :]
        # comparing blocks keeps masks blocks of booleans
        tl.store(p + o_k, x[k], mask=o_k * 0 + there > 0)


@triton.jit
def scale(x, factor):
    out: tl.tuple = ()
    for k in tl.static_range(len(x)):
        out += (x[k] * factor,)
    return out


@triton.jit
def advance(h, A, dt, x, B):
    """The state after one more token; A is in units of log 2, since exp2 is one instruction.

    Args:
        dt, x: of a lane's own channel and of its neighbour's, see ``both``.
    """
    n: tl.constexpr = len(B)
    out: tl.tuple = ()
    for k in tl.static_range(len(h)):
        out += (tl.exp2(dt[k // n][:, None] * A[k]) * h[k] + x[k // n][:, None] * B[k % n],)
    return out


@triton.jit
def dot(x, y, o_l):
    """The sum over the state of products with y, which both channels share: its own channel's in every lane."""
    n: tl.constexpr = len(y)
    b_own, b_other = x[0] * y[0], x[n] * y[0]
    for k in tl.static_range(1, n):
        b_own += x[k] * y[k]
        b_other += x[n + k] * y[k]
    return join(tl.sum(b_own, 1), tl.sum(b_other, 1), o_l)


@triton.jit
def swap(b_x, o_l, bit):
    """What the lane whose number differs in one bit holds."""
    o_from = o_l ^ bit
    if len(b_x.shape) == 2:
        o_from = tl.broadcast_to(o_from[:, None], b_x.shape)
    return tl.gather(b_x, o_from, 0)


@triton.jit
def both(b_x, o_l):
    """A number of a lane's own channel, and its neighbour's of the other."""
    return (b_x, swap(b_x, o_l, 1))


@triton.jit
def join(b_own, b_other, o_l):
    """Of sums over a lane's halves of two channels the sum over both halves of its own."""
    return b_own + swap(b_other, o_l, 1)


@triton.jit
def halve(b_low, b_high, o_l, bit):
    """Sums over pairs of lanes: of the first block in the lane without the bit, of the second in the one with it."""
    m_high = (o_l & bit) != 0
    if len(b_low.shape) == 2:
        m_high = m_high[:, None]
    return tl.where(m_high, b_high, b_low) + swap(tl.where(m_high, b_low, b_high), o_l, bit)


@triton.jit
def turn(o_l, K: tl.constexpr):
    """The order of a lane's K / 8 blocks in which ``sum_lanes`` adds them up."""
    return (o_l >> 4) & (K // 8 - 1)


@triton.jit
def sum_lanes(x, y, o_l):
    """Sums over all channels of two rows, one number of one of them to a lane: half a number per lane and level, where
    reducing each is four.

    Their blocks lie in the order of ``turn``: a lane gives the second of them to the lane that differs in the next bit,
    and keeps the first, with nothing to choose.  Which sum a lane ends up with: ``summed``.
    """
    n: tl.constexpr = len(x) // 2
    b_x, b_y = x[0] + x[n], y[0] + y[n]
    if n == 2:
        b_x += swap(x[1] + x[n + 1], o_l, 16)
        b_y += swap(y[1] + y[n + 1], o_l, 16)
    b_even, b_odd = tl.split(tl.reshape(halve(b_x, b_y, o_l, 8), [LANES, 2, 2]))
    b_first, b_second = tl.split(halve(b_even, b_odd, o_l, 4))
    b_x = halve(b_first, b_second, o_l, 2)
    if n == 1:
        b_x += swap(b_x, o_l, 16)
    return b_x


@triton.jit
def summed(o_l, K: tl.constexpr):
    """A lane's sum after ``sum_lanes``: of which row, of which number; and whether no lane before has the same."""
    o_n = o_l % 2 * (K // 2) + turn(o_l, K) * 4 + o_l // 2 % 2 * 2 + o_l // 4 % 2
    return o_l // 8 % 2, o_n, (o_l < 16) | (K == 16)
