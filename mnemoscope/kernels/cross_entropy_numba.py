"""The cross-entropy of a linear map on a CPU, its softmax compiled by Numba where it runs.

Same arguments and results as :mod:`mnemoscope.kernels.cross_entropy_ref`.  Logits are made for some tokens at a time,
in the dtype of the linear map, and the gradient is written over them: no others are ever held.  Those of few tokens are
kept for it, those of many made again.

Symbols as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from mnemoscope.kernels.cross_entropy_ref import balanced
from mnemoscope.kernels.elementary_numba import ONE, ZERO, differentiated, exp, kernel, number, numbers, put, task
from mnemoscope.kernels.precision import of_linear

#: logits held at once
LOGITS = 2**23
#: tokens whose logits are held at once where no gradient is asked for, at most: few enough to stay in a core's cache
TOKENS = 256


@task()
def _nats(logits: Any, target: Any) -> Any:
    """-ln p of the target, ln of the sum of exp, and the first of the largest."""
    # kept apart in 64 lanes so that LLVM makes vectors of it: comparisons may not be reordered as sums may
    best = np.full(64, -np.inf, np.float32)
    whole = len(logits) // 64 * 64
    for i in range(0, whole, 64):
        for j in range(64):
            x = number(logits, i + j)
            best[j] = best[j] if best[j] >= x else x
    top = best[0]
    for j in range(64):
        top = top if top >= best[j] else best[j]
    for i in range(whole, len(logits)):
        x = number(logits, i)
        top = top if top >= x else x
    total = np.float32(0.0)
    for i in range(len(logits)):
        total += exp(number(logits, i) - top)
    at = 0
    while at < len(logits) - 1 and number(logits, at) != top:
        at += 1
    lse = top + np.log(total)
    return lse - number(logits, target), lse, at


@task()
def _gradient(logits: Any, target: Any, lse: Any, up: Any) -> None:
    """(softmax - one-hot) up, over the logits."""
    for i in range(len(logits)):
        # before it is rounded: the largest part of the target's gradient cancels
        put(logits, i, (exp(number(logits, i) - lse) - (ONE if i == target else ZERO)) * up)


@kernel()
def _forward(logits: Any, targets: Any, nats: Any, lse: Any, predicted: Any) -> None:
    for t in prange(len(logits)):
        nats[t], lse[t], predicted[t] = _nats(logits[t], targets[t])


@kernel()
def _backward(logits: Any, targets: Any, lse: Any, dnats: Any) -> None:
    for t in prange(len(logits)):
        _gradient(logits[t], targets[t], lse[t], dnats[t])


def _chunks(tokens: int, most: int) -> list[slice]:
    size = max(1, balanced(tokens, most))
    return [slice(a, min(a + size, tokens)) for a in range(0, tokens, size)]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, learns: bool
    ) -> tuple[Tensor, Tensor]:
        h, w = hidden.detach().to(dtype), weight.detach().to(dtype)
        nats, lse = torch.empty(len(h), dtype=torch.float32), torch.empty(len(h), dtype=torch.float32)
        predicted = torch.empty(len(h), dtype=torch.int64)
        most = LOGITS // len(w)
        chunks = _chunks(len(h), most if learns else min(most, TOKENS))
        for c in chunks:
            logits = torch.mm(h[c], w.t())
            _forward(numbers(logits), *(x.numpy() for x in (targets[c], nats[c], lse[c], predicted[c])))
        ctx.save_for_backward(hidden, weight, targets, lse)
        ctx.dtype = dtype
        ctx.logits = logits if len(chunks) == 1 and learns else None
        ctx.mark_non_differentiable(predicted)
        return nats, predicted

    @staticmethod
    def backward(ctx: Any, dnats: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, lse = ctx.saved_tensors
        h, w = hidden.to(ctx.dtype), weight.to(ctx.dtype)
        dh = torch.empty_like(h, memory_format=torch.contiguous_format)
        dw: Tensor | None = None
        up = dnats.to(torch.float32).contiguous()
        # what is kept is written over: a second gradient makes its own
        kept, ctx.logits = ctx.logits, None
        for c in _chunks(len(h), LOGITS // len(w)):
            logits = torch.mm(h[c], w.t()) if kept is None else kept
            _backward(numbers(logits), *(x.numpy() for x in (targets[c], lse[c], up[c])))
            dh[c] = torch.mm(logits, w)
            part = torch.mm(logits.t(), h[c]).float()
            dw = part if dw is None else dw.add_(part)
        dw = torch.zeros_like(weight) if dw is None else dw.to(weight.dtype)
        return dh.to(hidden.dtype), dw, None, None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.cross_entropy_ref.linear_cross_entropy`.

    Raises:
        TypeError: something is float64 (the reference serves it).
        IndexError: a target is no token of the vocabulary.
    """
    if torch.float64 in (hidden.dtype, weight.dtype):
        raise TypeError("the numba cross-entropy computes in float32; use the reference backend for float64")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
        raise IndexError(f"a target is no token of a vocabulary of {len(weight)}")
    dtype = torch.bfloat16 if of_linear(weight) == torch.bfloat16 else torch.float32
    learns = differentiated(hidden, weight)
    nats, predicted = _LinearCrossEntropy.apply(hidden, weight, targets.contiguous(), dtype, learns)
    return nats, predicted
