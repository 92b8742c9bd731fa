"""The cross-entropy of a linear map, its softmax in Triton.

Same arguments and results as :mod:`mnemoscope.kernels.cross_entropy_ref`.  Logits are made for some tokens at a time,
in the dtype of the linear map, and made again for the gradient, which is written over them: no others are ever held.
A program owns the logits of one token (forward), or BV of them (backward).

Symbols as there.  Prefixes: p_ pointer, b_ block in registers, o_ offset, m_ mask, i_ program or loop index.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mnemoscope.kernels.cross_entropy_ref import balanced
from mnemoscope.kernels.precision import of_linear

#: bytes of logits held at once
BYTES = 2**30
#: logits of a block at most
BLOCK = 4096


@triton.jit
def softmax_fwd_kernel(p_logits, p_target, p_nats, p_lse, p_top, V, BV: tl.constexpr):
    i_t = tl.program_id(0).to(tl.int64)
    b_max = tl.full([], float("-inf"), tl.float32)
    b_sum = tl.zeros([], tl.float32)
    b_top = tl.zeros([], tl.int32)
    for i in range(0, V, BV):
        o_v = i + tl.arange(0, BV)
        b = tl.load(p_logits + i_t * V + o_v, mask=o_v < V, other=float("-inf")).to(tl.float32)
        b_new, b_at = tl.max(b, axis=0, return_indices=True)
        # only what is greater moves it: the first of equals stays, and a NaN cannot lead out of the vocabulary
        b_top = tl.where(b_new > b_max, i + b_at, b_top)
        b_new = tl.maximum(b_max, b_new)
        b_sum = b_sum * tl.exp(b_max - b_new) + tl.sum(tl.exp(b - b_new), axis=0)
        b_max = b_new
    b_lse = b_max + tl.log(b_sum)
    b_target = tl.load(p_target + i_t)
    # no token of the vocabulary has no probability
    there = (b_target >= 0) & (b_target < V)
    b_logit = tl.load(p_logits + i_t * V + b_target, mask=there, other=float("nan")).to(tl.float32)
    tl.store(p_nats + i_t, b_lse - b_logit)
    tl.store(p_lse + i_t, b_lse)
    tl.store(p_top + i_t, b_top.to(tl.int64))


@triton.jit
def softmax_bwd_kernel(p_logits, p_target, p_lse, p_dnats, V, BV: tl.constexpr):
    """(softmax - one-hot) dnats, over the logits."""
    i_t = tl.program_id(0).to(tl.int64)
    o_v = tl.program_id(1) * BV + tl.arange(0, BV)
    p = p_logits + i_t * V + o_v
    b = tl.load(p, mask=o_v < V, other=0.0).to(tl.float32)
    b = tl.exp(b - tl.load(p_lse + i_t))
    b = tl.where(o_v == tl.load(p_target + i_t), b - 1.0, b) * tl.load(p_dnats + i_t)
    tl.store(p, b.to(p_logits.dtype.element_ty), mask=o_v < V)


def _block(vocabulary: int) -> tuple[int, int]:
    """Logits of a block, and its warps."""
    bv = min(BLOCK, triton.next_power_of_2(vocabulary))
    return bv, min(8, max(1, bv // 512))


def _buffer(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Where a chunk's logits go [tokens, V].  Chunks of 16 tokens' multiples begin where Triton's kernels load best."""
    tokens = balanced(len(hidden), BYTES // (len(weight) * dtype.itemsize))
    return hidden.new_empty(triton.cdiv(tokens, 16) * 16, len(weight), dtype=dtype)


@torch.library.custom_op(
    "mnemoscope::linear_cross_entropy",
    mutates_args=(),
    schema="(Tensor hidden, Tensor weight, Tensor targets, ScalarType dtype) -> (Tensor, Tensor, Tensor)",
)
def _linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """nats, predicted, and ln of the sum of exp of the logits, which are computed in ``dtype``."""
    tokens, vocabulary = len(hidden), len(weight)
    nats, lse = (hidden.new_empty(tokens, dtype=torch.float32) for _ in range(2))
    predicted = targets.new_empty(tokens)
    hidden, weight, targets = hidden.to(dtype), weight.to(dtype), targets.contiguous()
    buffer = _buffer(hidden, weight, dtype)
    bv, warps = _block(vocabulary)
    for a in range(0, tokens, max(1, len(buffer))):
        b = min(a + len(buffer), tokens)
        logits = torch.mm(hidden[a:b], weight.t(), out=buffer[: b - a])
        softmax_fwd_kernel[(b - a,)](
            logits, targets[a:b], nats[a:b], lse[a:b], predicted[a:b], vocabulary, BV=bv, num_warps=warps
        )
    return nats, predicted, lse


@_linear_cross_entropy.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    nats, lse = (hidden.new_empty(hidden.shape[0], dtype=torch.float32) for _ in range(2))
    return nats, targets.new_empty(hidden.shape[0]), lse


@torch.library.custom_op(
    "mnemoscope::linear_cross_entropy_backward",
    mutates_args=(),
    schema="(Tensor hidden, Tensor weight, Tensor targets, Tensor lse, Tensor dnats, ScalarType dtype)"
    " -> (Tensor, Tensor)",
)
def _linear_cross_entropy_backward(
    hidden: Tensor, weight: Tensor, targets: Tensor, lse: Tensor, dnats: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """dhidden and dweight; the latter's chunks are added in float32."""
    tokens, vocabulary = len(hidden), len(weight)
    h, w, targets, dnats = hidden.to(dtype), weight.to(dtype), targets.contiguous(), dnats.contiguous()
    dh = torch.empty_like(h, memory_format=torch.contiguous_format)
    dw: Tensor | None = None
    buffer = _buffer(h, w, dtype)
    bv, warps = _block(vocabulary)
    for a in range(0, tokens, max(1, len(buffer))):
        b = min(a + len(buffer), tokens)
        logits = torch.mm(h[a:b], w.t(), out=buffer[: b - a])
        softmax_bwd_kernel[(b - a, triton.cdiv(vocabulary, bv))](
            logits, targets[a:b], lse[a:b], dnats[a:b], vocabulary, BV=bv, num_warps=warps
        )
        torch.mm(logits, w, out=dh[a:b])
        part = torch.mm(logits.t(), h[a:b])
        dw = part.float() if dw is None else dw.add_(part)
    dw = torch.zeros_like(weight) if dw is None else dw.to(weight.dtype)
    return dh.to(hidden.dtype), dw


@_linear_cross_entropy_backward.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, lse: Tensor, dnats: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return hidden.new_empty(hidden.shape), weight.new_empty(weight.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, weight, targets, ctx.dtype = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(hidden, weight, targets, output[2])


def _backward(
    ctx: Any, dnats: Tensor | None, _: Tensor | None, __: Tensor | None
) -> tuple[Tensor | None, Tensor | None, None, None]:
    if dnats is None:
        return None, None, None, None
    return *_linear_cross_entropy_backward(*ctx.saved_tensors, dnats, ctx.dtype), None, None


_linear_cross_entropy.register_autograd(_backward, setup_context=_setup)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.cross_entropy_ref.linear_cross_entropy`.

    Raises:
        TypeError: something is float64 (the reference serves it).
    """
    if torch.float64 in (hidden.dtype, weight.dtype):
        raise TypeError("the triton cross-entropy computes in float32; use the reference backend for float64")
    nats, predicted, _ = _linear_cross_entropy(hidden, weight, targets, of_linear(weight))
    return nats, predicted
