"""The one place that chooses how the cross-entropy of a linear map is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from mnemoscope.kernels import cross_entropy_ref
from mnemoscope.kernels.scan import choose


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.cross_entropy_ref.linear_cross_entropy`, whose arguments and results these are."""
    chosen = choose(backend, hidden.device.type, torch.promote_types(weight.dtype, torch.float32))
    if chosen == "triton":
        from mnemoscope.kernels import cross_entropy_triton

        return cross_entropy_triton.linear_cross_entropy(hidden, weight, targets)
    if chosen == "numba":
        from mnemoscope.kernels import cross_entropy_numba

        return cross_entropy_numba.linear_cross_entropy(hidden, weight, targets)
    return cross_entropy_ref.linear_cross_entropy(hidden, weight, targets)
