"""The scan of heads that share a rate, a step and a skip (Mamba-2), and the one place that chooses how it is computed.

Structured state-space duality (Dao & Gu 2024, section 6) turns it into matrix products over chunks of tokens, for which
public kernels exist; otherwise :func:`selective_scan` computes it with the shared numbers repeated over each head.

Symbols: B windows, L tokens, H heads of P channels, G groups of heads sharing B and C, N numbers of a channel's state.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from mnemoscope.kernels.scan import selective_scan

log = logging.getLogger(__name__)


def ssd(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    start: Tensor | None,
    *,
    chunk: int,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Per head: h = exp(dt A) h + dt u B, y = h C + D u.

    Args:
        u: input [B, L, H, P].
        dt: steps [B, L, H], positive, in the dtype of the states.
        A: rates [H], negative, in the dtype of the states.
        B, C: input and output maps [B, L, G, N].
        D: skip [H].
        start: state before the first token [B, H P, N], zeros if None.
        chunk: tokens to a chunk that the model was trained with; public kernels take no more.
        backend: of the scan.  ``auto`` takes mamba-ssm's chunked kernels or flash-linear-attention's for half-precision
            inputs on a CUDA device, where they are installed: their products round to the precision of the inputs.
            Anything else, and any other input, is for :func:`selective_scan`.

    Returns:
        y [B, L, H, P] in u's dtype, and the state after the last token [B, H P, N].
    """
    chunked = _chunked() if backend == "auto" and u.is_cuda and u.dtype in (torch.bfloat16, torch.float16) else None
    if chunked is not None:
        # the state is kept as the scan keeps it: channels of all heads in one dimension
        before = None if start is None else start.unflatten(1, u.shape[2:])
        y, end = chunked(u, dt, A, B, C, D, before, min(chunk, max(16, 1 << (u.shape[1] - 1).bit_length())))
        return y.to(u.dtype), end.to(A.dtype).flatten(1, 2)
    heads, p, n = u.shape[2], u.shape[3], B.shape[3]
    over_head = [x.repeat_interleave(p, dim=-1) for x in (dt, A, D)]
    y, end = selective_scan(
        u.flatten(2),
        over_head[0],
        over_head[1].unsqueeze(1).expand(heads * p, n),
        B,
        C,
        over_head[2],
        None,
        None,
        start,
        backend=backend,
    )
    return y.unflatten(2, (heads, p)), end


def _mamba_ssm(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, start: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    y, end = mamba_chunk_scan_combined(
        u, dt, A, B, C, chunk, D=D.to(A.dtype), initial_states=start, return_final_states=True
    )
    return y, end


def _flash_linear_attention(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, start: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    from fla.ops.simple_gla import chunk_simple_gla

    # gated linear attention with queries C, keys B, values dt u and one decay a head is the same recurrence
    repeats = u.shape[2] // B.shape[2]
    values = (dt.unsqueeze(-1) * u).to(u.dtype)
    B, C = (x.repeat_interleave(repeats, dim=2) for x in (B, C))
    before = None if start is None else start.mT.contiguous()
    y, end = chunk_simple_gla(
        C, B, values, dt * A, scale=1.0, initial_state=before, output_final_state=True, chunk_size=min(chunk, 64)
    )
    return y + D.to(u.dtype)[:, None] * u, end.mT


_Chunked = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, int], tuple[Tensor, Tensor]]

#: public kernels by the package that they come in, the faster first (docs/results/speed.md)
CHUNKED: dict[str, _Chunked] = {"mamba_ssm": _mamba_ssm, "fla": _flash_linear_attention}


# torch.compile takes what it gives for granted
@torch.compiler.assume_constant_result
@cache
def _chunked() -> _Chunked | None:
    """The first of them that is installed and right on this machine; logged once."""
    for package, kernels in CHUNKED.items():
        if importlib.util.find_spec(package) is None:
            continue
        try:
            error = _probe(kernels)
        except Exception as reason:  # whatever another library raises, and it does: fla, for versions of Triton
            log.warning("%s's chunked kernels do not run here and are left alone: %s", package, reason)
            continue
        if error <= TOLERANCE:
            log.info("scan of heads in half precision: %s's chunked kernels", package)
            return kernels
        log.warning("%s's chunked kernels are off by %.1e here and are left alone", package, error)
    log.info("scan of heads in half precision: ours, for no chunked kernels serve (mamba-ssm, flash-linear-attention)")
    return None


#: relative error of a probe, twice the rounding of bfloat16
TOLERANCE = 2**-7


def _probe(kernels: _Chunked) -> float:
    """Relative error of outputs, final state and input gradients beside our scan's, the larger; on a few tokens."""
    new = torch.Generator("cuda").manual_seed(0)

    def randn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(*shape, generator=new, device="cuda", dtype=dtype)

    heads, p, n = 2, 64, 64
    u, B, C, start = randn(2, 19, heads, p), randn(2, 19, 1, n), randn(2, 19, 1, n), randn(2, heads, p, n)
    dt, A, D = (randn(*shape, dtype=torch.float32).abs() for shape in ((2, 19, heads), (heads,), (heads,)))
    found = []
    with torch.enable_grad(), torch.autocast("cuda", enabled=False):
        for exact in (False, True):
            leaves = [x.detach().clone().requires_grad_() for x in (u, start.float())]
            if exact:
                y, end = ssd(leaves[0].float(), dt, -A, B.float(), C.float(), D, leaves[1].flatten(1, 2), chunk=64)
            else:
                y, end = kernels(leaves[0], dt, -A, B, C, D, leaves[1], 64)
            y, end = y.float().flatten(), end.float().flatten()
            found.append([y, end, *(g.float().flatten() for g in torch.autograd.grad(y.sum() + end.sum(), leaves))])
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True))
