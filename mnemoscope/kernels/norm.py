"""The one place that chooses how a residual sum and the norm that follows it are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from mnemoscope.kernels import norm_ref
from mnemoscope.kernels.scan import choose


def add_norm(
    h: Tensor, y: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.norm_ref.add_norm`, whose arguments and results these are."""
    chosen = choose(backend, h.device.type, torch.promote_types(weight.dtype, torch.float32))
    if chosen == "triton":
        from mnemoscope.kernels import norm_triton

        return norm_triton.add_norm(h, y, weight, eps, out_dtype)
    if chosen == "numba" and h.dtype == torch.float32:
        from mnemoscope.kernels import norm_numba

        return norm_numba.add_norm(h, y, weight, eps, out_dtype)
    return norm_ref.add_norm(h, y, weight, eps, out_dtype)
