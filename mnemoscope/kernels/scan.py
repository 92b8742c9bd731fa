"""The one place that chooses how a selective scan is computed."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

import torch
from torch import Tensor

from mnemoscope.kernels import scan_ref

log = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "numba", "triton")


# torch.compile takes what it gives for granted: neither its log nor its look at what is installed can be traced
@torch.compiler.assume_constant_result
def choose(backend: str, device_type: str, exact: torch.dtype) -> str:
    """The backend used for a request; logged once for each.

    ``auto`` takes Triton for float32 states on a CUDA device, Numba for those on a CPU, else the reference.

    Raises:
        ValueError: an unknown backend.
        RuntimeError: Triton was asked for and is not installed.
    """
    return _choose(backend, device_type, exact)


@cache
def _choose(backend: str, device_type: str, exact: torch.dtype) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"unknown scan backend {backend!r}; there are: {', '.join(BACKENDS)}")
    have_triton = importlib.util.find_spec("triton") is not None
    if backend == "triton" and not have_triton:
        raise RuntimeError("the triton backend needs the package triton: pip install triton")
    if backend == "auto":
        fitting = {"cuda": "triton" if have_triton else "reference", "cpu": "numba"}
        chosen = fitting.get(device_type, "reference") if exact == torch.float32 else "reference"
    else:
        chosen = backend
    log.info("selective scan on %s (%s): %s", device_type, exact, chosen)
    return chosen


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    start: Tensor | None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """See :func:`mnemoscope.kernels.scan_ref.selective_scan`, whose arguments and results these are.

    Without ``start`` it is zeros in A's dtype, which Triton need not read.
    """
    chosen = choose(backend, u.device.type, A.dtype if start is None else start.dtype)
    if chosen == "triton":
        from mnemoscope.kernels import scan_triton

        return scan_triton.selective_scan(u, dt, A, B, C, D, z, dt_bias, start)
    if start is None:
        start = A.new_zeros(len(u), *A.shape)
    if chosen == "numba":
        from mnemoscope.kernels import scan_numba

        return scan_numba.selective_scan(u, dt, A, B, C, D, z, dt_bias, start)
    return scan_ref.selective_scan(u, dt, A, B, C, D, z, dt_bias, start)
