"""The one place that chooses how a causal convolution is computed."""

from __future__ import annotations

from torch import Tensor

from mnemoscope.kernels import conv_ref
from mnemoscope.kernels.scan import choose


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.conv_ref.causal_conv`; Triton and Numba take kernels of 2 to 4 taps."""
    chosen = choose(backend, x.device.type, start.dtype)
    if not 2 <= weight.shape[1] <= 4:
        chosen = "reference"
    if chosen == "triton":
        from mnemoscope.kernels import conv_triton

        return conv_triton.causal_conv(x, weight, bias, start)
    if chosen == "numba":
        from mnemoscope.kernels import conv_numba

        return conv_numba.causal_conv(x, weight, bias, start)
    return conv_ref.causal_conv(x, weight, bias, start)
