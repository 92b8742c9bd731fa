"""The causal depthwise convolution with a start state: the slow truth.

y_t = silu(b + sum_k w_k x_{t-K+1+k}),   x_{-1}, x_{-2}, ... taken from the start state
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """One causal convolution and SiLU.

    Args:
        x: [B, L, D].
        weight: [D, K].
        bias: [D] or None.
        start: the K-1 inputs before the first, oldest first [B, D, K-1].

    Returns:
        y [B, L, D] in x's dtype, and the last K-1 inputs [B, D, K-1] in start's dtype.
    """
    width, length = weight.shape[1], x.shape[1]
    past = torch.cat([start.to(x.dtype).transpose(1, 2), x], dim=1)
    w = weight.to(x.dtype)
    y = past[:, :length] * w[:, 0]
    for k in range(1, width):
        y = torch.addcmul(y, past[:, k : k + length], w[:, k])
    if bias is not None:
        y = y + bias.to(x.dtype)
    return F.silu(y), past[:, past.shape[1] - (width - 1) :].transpose(1, 2).to(start.dtype)
