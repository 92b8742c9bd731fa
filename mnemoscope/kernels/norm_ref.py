"""Residual sum and root-mean-square norm (Zhang & Sennrich 2019): the slow truth.

h' = h + y,   x_i = w_i h'_i / sqrt(eps + mean_j h'_j^2)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def add_norm(h: Tensor, y: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What a block adds to the residual stream, and what the next block reads of it.

    Args:
        h: the residual stream [..., d].
        y: what is added to it [..., d], of no wider dtype; None for nothing.
        weight: [d].

    Returns:
        h' [..., d] in h's dtype, and x [..., d] in ``out_dtype``, computed in at least float32.
    """
    h = h if y is None else h + y
    exact = torch.promote_types(torch.promote_types(h.dtype, weight.dtype), torch.float32)
    return h, F.rms_norm(h.to(exact), weight.shape, weight.to(exact), eps).to(out_dtype)
