"""The causal depthwise convolution and SiLU in Triton, with a start state and gradients to it.

Same arguments and results as :mod:`mnemoscope.kernels.conv_ref`, for kernels of two to four taps; sums are float32.
All tokens of all windows stand in one row, of which a program owns BD channels of PER tokens: a part of a long window,
or several short ones.  It walks them in order with the last inputs in registers, four tokens at a time, and loads the
next four meanwhile.

Prefixes: p_ pointer, b_ block in registers, o_ offset, m_ mask, i_ program or loop index.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mnemoscope.kernels.token_triton import conv_token

TAPS = (2, 3, 4)
#: channels of a program, four a thread; more would need more registers than there are
CHANNELS = 128
#: programs, of one warp each, that a large GPU holds at once: 16 and 12 of each of 132 multiprocessors
FORWARD_PROGRAMS, BACKWARD_PROGRAMS = 2112, 1584
#: tokens of a program at least
LEAST = 8


@triton.jit
def _columns(rest, shift, WIDTH: tl.constexpr, BD: tl.constexpr):
    """Where the numbers of four columns lie in channels' rows [rest, WIDTH], and which are there.

    The last column is number WIDTH - 1 + shift of a row.  Neighbouring threads take neighbouring numbers, since threads
    that took their own channels' would each touch other sectors of memory.
    """
    o = tl.arange(0, 4 * BD)
    # shifted, not divided: Triton sees no fours of neighbours then, which it would give to one thread
    o_d, o_k = o >> 2, o & 3
    return o_d * WIDTH + o_k, (o_d < rest) & (o_k >= 4 - WIDTH - shift) & (o_k < 4 - shift)


@triton.jit
def _load_columns(p, rest, shift, WIDTH: tl.constexpr, BD: tl.constexpr):
    """Four columns of rows [rest, WIDTH], 0 where there is none."""
    o, m = _columns(rest, shift, WIDTH, BD)
    b = tl.load(p + (WIDTH - 4 + shift) + o, mask=m, other=0.0).to(tl.float32)
    b_even, b_odd = tl.split(tl.reshape(b, [BD, 2, 2]))
    b_0, b_2 = tl.split(b_even)
    b_1, b_3 = tl.split(b_odd)
    return b_0, b_1, b_2, b_3


@triton.jit
def _store_columns(p, rest, b_0, b_1, b_2, b_3, WIDTH: tl.constexpr, BD: tl.constexpr):
    """The last WIDTH of four columns to rows [rest, WIDTH]."""
    o, m = _columns(rest, 0, WIDTH, BD)
    b = tl.reshape(tl.join(tl.join(b_0, b_2), tl.join(b_1, b_3)), [4 * BD])
    tl.store(p + (WIDTH - 4) + o, b.to(p.dtype.element_ty), mask=m)


@triton.jit
def _there(m_d, t, first, last):
    """Which channels are there, none unless first <= t < last."""
    # comparing per channel keeps the mask a block of booleans, which the interpreter insists on
    b_t = t + tl.zeros_like(m_d).to(tl.int32)
    return m_d & (b_t >= first) & (b_t < last)


@triton.jit
def _load(p, t, m_d, row, last):
    """Token t of rows [L, D], 0 from the last on."""
    return tl.load(p + t * row, mask=_there(m_d, t, t, last), other=0.0)


@triton.jit
def _recent(p_x, p_start, t, rest, m_d, row, K: tl.constexpr, BD: tl.constexpr):
    """The three inputs before time t, oldest first, from the start state [D, K-1] before the first."""
    b_x0 = tl.load(p_x + (t - 3) * row, mask=_there(m_d, t, 3, t + 1), other=0.0)
    b_x1 = tl.load(p_x + (t - 2) * row, mask=_there(m_d, t, 2, t + 1), other=0.0)
    b_x2 = tl.load(p_x + (t - 1) * row, mask=_there(m_d, t, 1, t + 1), other=0.0)
    b_s0, b_s1, b_s2 = tl.zeros([BD], tl.float32), tl.zeros([BD], tl.float32), tl.zeros([BD], tl.float32)
    if t < 3:
        _, b_s0, b_s1, b_s2 = _load_columns(p_start, rest, t, K - 1, BD)
    return b_x0.to(tl.float32) + b_s0, b_x1.to(tl.float32) + b_s1, b_x2.to(tl.float32) + b_s2


@triton.jit
def _pre(b_w0, b_w1, b_w2, b_w3, b_bias, b_x0, b_x1, b_x2, b_x3, K: tl.constexpr):
    """What the SiLU is of; taps that are not there must not turn inputs that are not finite into NaN."""
    b = b_bias + b_w3 * b_x3 + b_w2 * b_x2
    if K > 2:
        b += b_w1 * b_x1
    if K > 3:
        b += b_w0 * b_x0
    return b


@triton.jit
def _sigmoid(b):
    """1 / (1 + exp(-b)) to about 3 units in the last place; a division would take more than all the taps."""
    b_root = tl.rsqrt(1.0 + tl.exp2(b * -1.4426950408889634))
    return b_root * b_root


@triton.jit
def conv_fwd_kernel(
    p_x, p_w, p_bias, p_start, p_y, p_end, window, row, TOKENS, L, D, PER,
    ALIGN: tl.constexpr, K: tl.constexpr, BD: tl.constexpr, FULL: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    i_d = tl.program_id(0) * BD
    rest = D - i_d
    if FULL:
        rest = BD
    o_d = tl.arange(0, BD)
    m_d = o_d < rest
    o_d += i_d
    b_w0, b_w1, b_w2, b_w3 = _load_columns(p_w + i_d * K, rest, 0, K, BD)
    b_bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    begin = tl.program_id(1) * PER
    stop = tl.minimum(begin + PER, TOKENS)
    row = tl.cast(row, tl.int64) * ALIGN
    y_row = tl.cast(D, tl.int64)
    for i_b in range(begin // L, tl.cdiv(stop, L)):
        first, last = tl.maximum(begin - i_b * L, 0), tl.minimum(stop - i_b * L, L)
        i_window = tl.cast(i_b, tl.int64)
        q_x = p_x + i_window * window * ALIGN + o_d
        q_y = p_y + i_window * L * D + o_d
        q_start = p_start + (i_window * D + i_d) * (K - 1)
        b_n0 = _load(q_x, first + 0, m_d, row, last)
        b_n1 = _load(q_x, first + 1, m_d, row, last)
        b_n2 = _load(q_x, first + 2, m_d, row, last)
        b_n3 = _load(q_x, first + 3, m_d, row, last)
        b_x0, b_x1, b_x2 = _recent(q_x, q_start, first, rest, m_d, row, K, BD)
        for t in range(first, last, 4):
            b_x3, b_x4, b_x5, b_x6 = b_n0.to(tl.float32), b_n1.to(tl.float32), b_n2.to(tl.float32), b_n3.to(tl.float32)
            b_n0 = _load(q_x, t + 4, m_d, row, last)
            b_n1 = _load(q_x, t + 5, m_d, row, last)
            b_n2 = _load(q_x, t + 6, m_d, row, last)
            b_n3 = _load(q_x, t + 7, m_d, row, last)
            b = _pre(b_w0, b_w1, b_w2, b_w3, b_bias, b_x0, b_x1, b_x2, b_x3, K)
            tl.store(q_y + t * y_row, (b * _sigmoid(b)).to(p_y.dtype.element_ty), mask=m_d)
            if t + 1 < last:
                b = _pre(b_w0, b_w1, b_w2, b_w3, b_bias, b_x1, b_x2, b_x3, b_x4, K)
                tl.store(q_y + (t + 1) * y_row, (b * _sigmoid(b)).to(p_y.dtype.element_ty), mask=m_d)
            if t + 2 < last:
                b = _pre(b_w0, b_w1, b_w2, b_w3, b_bias, b_x2, b_x3, b_x4, b_x5, K)
                tl.store(q_y + (t + 2) * y_row, (b * _sigmoid(b)).to(p_y.dtype.element_ty), mask=m_d)
            if t + 3 < last:
                b = _pre(b_w0, b_w1, b_w2, b_w3, b_bias, b_x3, b_x4, b_x5, b_x6, K)
                tl.store(q_y + (t + 3) * y_row, (b * _sigmoid(b)).to(p_y.dtype.element_ty), mask=m_d)
            b_x0, b_x1, b_x2 = b_x4, b_x5, b_x6
        if last == L:
            b_x0, b_x1, b_x2 = _recent(q_x, q_start, L, rest, m_d, row, K, BD)
            _store_columns(p_end + (i_window * D + i_d) * (K - 1), rest, b_x0, b_x0, b_x1, b_x2, K - 1, BD)


@triton.jit
def _dpre(
    t, last, b_w0, b_w1, b_w2, b_w3, b_bias, b_x0, b_x1, b_x2, b_x3, b_dy, b_dw0, b_dw1, b_dw2, b_dw3, b_db,
    K: tl.constexpr,
):  # fmt: skip
    """Gradient to what the SiLU of token t is of, and the weight's with it if the token is own."""
    b = _pre(b_w0, b_w1, b_w2, b_w3, b_bias, b_x0, b_x1, b_x2, b_x3, K)
    b_sig = _sigmoid(b)
    b_p = b_dy.to(tl.float32) * (b_sig + b * (b_sig - b_sig * b_sig))
    b_own = tl.where(t < last, b_p, 0.0)
    b_dw0 += b_own * b_x0
    b_dw1 += b_own * b_x1
    b_dw2 += b_own * b_x2
    b_dw3 += b_own * b_x3
    b_db += b_own
    return b_p, b_dw0, b_dw1, b_dw2, b_dw3, b_db


@triton.jit
def _dinput(
    p_dend, t, L, o_d, m_d, b_w0, b_w1, b_w2, b_w3, b_p0, b_p1, b_p2, b_p3, K: tl.constexpr, HAS_DEND: tl.constexpr
):
    """Gradient to input t - 3, from those of tokens t - 3 to t and from the end state's."""
    b = b_w3 * b_p0 + b_w2 * b_p1 + b_w1 * b_p2 + b_w0 * b_p3
    if HAS_DEND:  # noqa: SIM102 - one is known to the compiler
        if t >= L:
            b_t = t - L + (K - 4) + tl.zeros_like(o_d)
            m = m_d & (b_t >= 0) & (b_t < K - 1)
            b += tl.load(p_dend + o_d * (K - 1) + b_t, mask=m, other=0.0).to(tl.float32)
    return b


@triton.jit
def conv_bwd_kernel(
    p_x, p_w, p_bias, p_start, p_dy, p_dend, p_dx, p_dstart, p_dparam, window, row, TOKENS, L, D, PER,
    ALIGN: tl.constexpr, K: tl.constexpr, BD: tl.constexpr, FULL: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_DEND: tl.constexpr, HAS_DSTART: tl.constexpr,
):  # fmt: skip
    i_d = tl.program_id(0) * BD
    rest = D - i_d
    if FULL:
        rest = BD
    o_d = tl.arange(0, BD)
    m_d = o_d < rest
    o_d += i_d
    b_w0, b_w1, b_w2, b_w3 = _load_columns(p_w + i_d * K, rest, 0, K, BD)
    b_bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_dw0, b_dw1 = tl.zeros([BD], dtype=tl.float32), tl.zeros([BD], dtype=tl.float32)
    b_dw2, b_dw3 = tl.zeros([BD], dtype=tl.float32), tl.zeros([BD], dtype=tl.float32)
    b_db = tl.zeros([BD], dtype=tl.float32)
    begin = tl.program_id(1) * PER
    stop = tl.minimum(begin + PER, TOKENS)
    row = tl.cast(row, tl.int64) * ALIGN
    y_row = tl.cast(D, tl.int64)
    for i_b in range(begin // L, tl.cdiv(stop, L)):
        first, last = tl.maximum(begin - i_b * L, 0), tl.minimum(stop - i_b * L, L)
        # the three tokens after the last also depend on its inputs
        top = tl.minimum(last + 3, L)
        i_window = tl.cast(i_b, tl.int64)
        q_x = p_x + i_window * window * ALIGN + o_d
        q_dy = p_dy + i_window * L * D + o_d
        q_dx = p_dx + i_window * L * D + o_d
        q_dend = p_dend
        if HAS_DEND:
            q_dend = p_dend + i_window * D * (K - 1)
        b_p0, b_p1 = tl.zeros([BD], dtype=tl.float32), tl.zeros([BD], dtype=tl.float32)
        b_p2 = tl.zeros([BD], dtype=tl.float32)
        b_n0, b_g0 = _load(q_x, first + 0, m_d, row, top), _load(q_dy, first + 0, m_d, y_row, top)
        b_n1, b_g1 = _load(q_x, first + 1, m_d, row, top), _load(q_dy, first + 1, m_d, y_row, top)
        b_n2, b_g2 = _load(q_x, first + 2, m_d, row, top), _load(q_dy, first + 2, m_d, y_row, top)
        b_n3, b_g3 = _load(q_x, first + 3, m_d, row, top), _load(q_dy, first + 3, m_d, y_row, top)
        b_x0, b_x1, b_x2 = _recent(q_x, p_start + (i_window * D + i_d) * (K - 1), first, rest, m_d, row, K, BD)
        for t in range(first, last + 3, 4):
            b_x3, b_x4, b_x5, b_x6 = b_n0.to(tl.float32), b_n1.to(tl.float32), b_n2.to(tl.float32), b_n3.to(tl.float32)
            b_dy0, b_dy1, b_dy2, b_dy3 = b_g0, b_g1, b_g2, b_g3
            b_n0, b_g0 = _load(q_x, t + 4, m_d, row, top), _load(q_dy, t + 4, m_d, y_row, top)
            b_n1, b_g1 = _load(q_x, t + 5, m_d, row, top), _load(q_dy, t + 5, m_d, y_row, top)
            b_n2, b_g2 = _load(q_x, t + 6, m_d, row, top), _load(q_dy, t + 6, m_d, y_row, top)
            b_n3, b_g3 = _load(q_x, t + 7, m_d, row, top), _load(q_dy, t + 7, m_d, y_row, top)
            b_p3, b_dw0, b_dw1, b_dw2, b_dw3, b_db = _dpre(
                t, last, b_w0, b_w1, b_w2, b_w3, b_bias, b_x0, b_x1, b_x2, b_x3, b_dy0,
                b_dw0, b_dw1, b_dw2, b_dw3, b_db, K,
            )  # fmt: skip
            b_d0 = _dinput(q_dend, t, L, o_d, m_d, b_w0, b_w1, b_w2, b_w3, b_p0, b_p1, b_p2, b_p3, K, HAS_DEND)
            tl.store(q_dx + (t - 3) * y_row, b_d0.to(p_dx.dtype.element_ty), mask=_there(m_d, t - 3, first, last))
            b_p4, b_dw0, b_dw1, b_dw2, b_dw3, b_db = _dpre(
                t + 1, last, b_w0, b_w1, b_w2, b_w3, b_bias, b_x1, b_x2, b_x3, b_x4, b_dy1,
                b_dw0, b_dw1, b_dw2, b_dw3, b_db, K,
            )  # fmt: skip
            b_d1 = _dinput(q_dend, t + 1, L, o_d, m_d, b_w0, b_w1, b_w2, b_w3, b_p1, b_p2, b_p3, b_p4, K, HAS_DEND)
            tl.store(q_dx + (t - 2) * y_row, b_d1.to(p_dx.dtype.element_ty), mask=_there(m_d, t - 2, first, last))
            b_p5, b_dw0, b_dw1, b_dw2, b_dw3, b_db = _dpre(
                t + 2, last, b_w0, b_w1, b_w2, b_w3, b_bias, b_x2, b_x3, b_x4, b_x5, b_dy2,
                b_dw0, b_dw1, b_dw2, b_dw3, b_db, K,
            )  # fmt: skip
            b_d2 = _dinput(q_dend, t + 2, L, o_d, m_d, b_w0, b_w1, b_w2, b_w3, b_p2, b_p3, b_p4, b_p5, K, HAS_DEND)
            tl.store(q_dx + (t - 1) * y_row, b_d2.to(p_dx.dtype.element_ty), mask=_there(m_d, t - 1, first, last))
            b_p6, b_dw0, b_dw1, b_dw2, b_dw3, b_db = _dpre(
                t + 3, last, b_w0, b_w1, b_w2, b_w3, b_bias, b_x3, b_x4, b_x5, b_x6, b_dy3,
                b_dw0, b_dw1, b_dw2, b_dw3, b_db, K,
            )  # fmt: skip
            b_d3 = _dinput(q_dend, t + 3, L, o_d, m_d, b_w0, b_w1, b_w2, b_w3, b_p3, b_p4, b_p5, b_p6, K, HAS_DEND)
            tl.store(q_dx + t * y_row, b_d3.to(p_dx.dtype.element_ty), mask=_there(m_d, t, first, last))
            if HAS_DSTART:  # noqa: SIM102
                if t == 0:  # inputs -3 to -1 are the start state's
                    q_dstart = p_dstart + (i_window * D + i_d) * (K - 1)
                    _store_columns(q_dstart, rest, b_d0, b_d0, b_d1, b_d2, K - 1, BD)
            b_x0, b_x1, b_x2 = b_x4, b_x5, b_x6
            b_p0, b_p1, b_p2 = b_p4, b_p5, b_p6
    # one row of parts: the weight's [D, K], then the bias's [D]
    q_dparam = p_dparam + tl.program_id(1) * D * (K + HAS_BIAS)
    _store_columns(q_dparam + i_d * K, rest, b_dw0, b_dw1, b_dw2, b_dw3, K, BD)
    if HAS_BIAS:
        tl.store(q_dparam + D * K + o_d, b_db, mask=m_d)


def _shares(x: Tensor, programs: int) -> tuple[tuple[int, int], dict[str, int]]:
    """A grid of about so many programs, over channels and over tokens, and the kernels' sizes."""
    windows, length, d = x.shape
    bd = min(CHANNELS, triton.next_power_of_2(d))
    blocks, tokens = triton.cdiv(d, bd), windows * length
    per = max(LEAST, triton.cdiv(tokens, max(1, programs // blocks)))
    # what all strides are multiples of decides how much a thread loads at once; of itself Triton knows 16 only
    align = math.gcd(x.stride(0), x.stride(1), 16)
    strides = {"window": x.stride(0) // align, "row": x.stride(1) // align, "ALIGN": align}
    sizes = strides | {"TOKENS": tokens, "L": length, "D": d, "PER": per, "BD": bd, "FULL": d % bd == 0}
    return (blocks, max(1, triton.cdiv(tokens, per))), sizes


def _rows(x: Tensor) -> Tensor:
    """The same with neighbouring channels neighbours in memory; parts of a linear map's result are so already."""
    return x if x.stride(-1) == 1 else x.contiguous()


@torch.library.custom_op(
    "mnemoscope::causal_conv",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor start) -> (Tensor, Tensor)",
)
def _causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    x, weight, start = _rows(x), weight.contiguous(), start.contiguous()
    if x.shape[1] == 1 and len(x):
        return conv_token(x, weight, bias, start)
    y, end = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(start)
    grid, sizes = _shares(x, FORWARD_PROGRAMS)
    conv_fwd_kernel[grid](
        x, weight, bias, start, y, end, **sizes, K=weight.shape[1], HAS_BIAS=bias is not None, num_warps=1
    )  # fmt: skip
    return y, end


@_causal_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), start.new_empty(start.shape)


@torch.library.custom_op(
    "mnemoscope::causal_conv_backward",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor start, Tensor dy, Tensor? dend, bool start_too)"
    " -> (Tensor, Tensor, Tensor)",
)
def _causal_conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor, dy: Tensor, dend: Tensor | None, start_too: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dweight and dbias in one row in float32, and dstart (nothing unless asked for)."""
    x, weight, start, dy = _rows(x), weight.contiguous(), start.contiguous(), dy.contiguous()
    dend = None if dend is None else dend.contiguous()
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dstart = torch.empty_like(start) if start_too else start.new_empty(0)
    grid, sizes = _shares(x, BACKWARD_PROGRAMS)
    parameters = weight.numel() + (0 if bias is None else bias.numel())
    dparam = torch.empty(grid[1], parameters, dtype=torch.float32, device=x.device)
    conv_bwd_kernel[grid](
        x, weight, bias, start, dy, dend, dx, dstart, dparam, **sizes, K=weight.shape[1], HAS_BIAS=bias is not None,
        HAS_DEND=dend is not None, HAS_DSTART=start_too, num_warps=1,
    )  # fmt: skip
    return dx, dparam.sum(0), dstart


@_causal_conv_backward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor, dy: Tensor, dend: Tensor | None, start_too: bool
) -> tuple[Tensor, Tensor, Tensor]:
    parameters = weight.numel() + (0 if bias is None else bias.numel())
    dparam = x.new_empty(parameters, dtype=torch.float32)
    return x.new_empty(x.shape), dparam, start.new_empty(start.shape if start_too else (0,))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    # a gradient that does not come must not become zeros that are read
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor | None, dend: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, start = ctx.saved_tensors
    if dy is None:
        if dend is None:
            return None, None, None, None
        dy = torch.zeros_like(x)
    start_too = ctx.needs_input_grad[3]
    dx, dparam, dstart = _causal_conv_backward(x, weight, bias, start, dy, dend, start_too)
    dweight = dparam[: weight.numel()].view(weight.shape).to(weight.dtype)
    dbias = None if bias is None else dparam[weight.numel() :].to(bias.dtype)
    return dx, dweight, dbias, dstart if start_too else None


_causal_conv.register_autograd(_backward, setup_context=_setup)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.conv_ref.causal_conv`; x may be a part of the channels of a larger tensor.

    Raises:
        TypeError: something is float64 (the reference serves it).
        ValueError: no token, or fewer than two or more than four taps (the reference serves them).
    """
    if torch.float64 in (x.dtype, weight.dtype, start.dtype):
        raise TypeError("the triton convolution computes in float32; use the reference backend for float64")
    if weight.shape[1] not in TAPS:
        raise ValueError(f"the triton convolution has 2 to 4 taps, not {weight.shape[1]}; use the reference backend")
    if x.shape[1] == 0:
        raise ValueError(f"a convolution needs at least one token, got x {tuple(x.shape)}")
    y, end = _causal_conv(x, weight, bias, start)
    return y, end
