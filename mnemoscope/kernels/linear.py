"""A linear map of something that is needed beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        return x.view_as(x), F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, dx: Tensor, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wanted, learns = ctx.needs_input_grad
        rows = dy.reshape(-1, dy.shape[-1]).to(weight.dtype)
        return (
            torch.addmm(dx.reshape(-1, x.shape[-1]), rows, weight).view(x.shape) if wanted else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if learns else None,
        )


def linear_beside(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """x and ``F.linear(x, weight)``, for whatever takes both: the gradient that comes back to x itself is where that
    of the map begins to add up, instead of being added to it afterwards, which takes longer than the map.

    Args:
        x: [..., I].
        weight: [O, I].

    Returns:
        x as it is, and [..., O].
    """
    # torch.compile does not trace through the other, and has its own way of adding gradients up
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x, F.linear(x, weight)
    # autocast would cast it within, where its gradient is not cast back
    return _Beside.apply(x, weight.to(x.dtype))  # type: ignore[no-any-return, no-untyped-call]
