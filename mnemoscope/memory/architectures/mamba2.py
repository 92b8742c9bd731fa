"""Mamba-2 (Dao & Gu 2024), Hugging Face's ``mamba2``.

A head of P channels shares one A, one D and one dt, so the recurrence is Mamba's with those repeated over the head
(:mod:`mnemoscope.kernels.ssd`).
Symbols as in ``_selective.py``; H heads of P channels (D = H P), G groups of heads sharing B and C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope.kernels.conv import causal_conv
from mnemoscope.kernels.ssd import ssd
from mnemoscope.memory.architectures._selective import SelectiveAdapter


class Mamba2Adapter(SelectiveAdapter):
    model_type = "mamba2"
    config_class = "Mamba2Config"
    model_class = "Mamba2ForCausalLM"

    @property
    def scan_channels(self) -> int:
        config = self.model.config
        return int(config.num_heads * config.head_dim)

    @property
    def conv_channels(self) -> int:
        config = self.model.config
        return int(self.scan_channels + 2 * config.n_groups * config.state_size)

    def mix(self, mixer: Any, x: Tensor, A: Tensor, conv: Tensor, ssm: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        heads, p, groups, n = mixer.num_heads, mixer.head_dim, mixer.n_groups, mixer.ssm_state_size
        inner = heads * p
        projected = mixer.in_proj(x)
        gate, mixed, dt = projected.split([inner, inner + 2 * groups * n, heads], dim=-1)
        mixed, conv = causal_conv(mixed, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, conv, backend=self.scan)
        u, B, C = mixed.split([inner, groups * n, groups * n], dim=-1)
        dt = F.softplus(dt.to(A.dtype) + mixer.dt_bias.to(A.dtype))
        low, high = mixer.time_step_limit
        dt = dt.clamp(low, high)

        y, ssm = ssd(
            u.unflatten(-1, (heads, p)),
            dt,
            A,
            B.unflatten(-1, (groups, n)),
            C.unflatten(-1, (groups, n)),
            mixer.D,
            ssm,
            chunk=self.model.config.chunk_size,
            backend=self.scan,
        )
        y = y.flatten(2)
        return mixer.out_proj(gated_norm(y, gate, mixer.norm, groups).to(x.dtype)), conv, ssm


def gated_norm(y: Tensor, gate: Tensor, norm: Any, groups: int) -> Tensor:
    """RMS norm of y silu(gate) [B, L, D] within each of ``groups`` groups of channels; Mamba-2, section 7.2."""
    weight: Tensor = norm.weight
    exact = torch.promote_types(y.dtype, torch.float32)
    gated = (y.to(exact) * F.silu(gate.to(exact))).unflatten(-1, (groups, -1))
    eps: float = norm.variance_epsilon
    return F.rms_norm(gated, (gated.shape[-1],), eps=eps).flatten(-2).to(y.dtype) * weight


ARCHITECTURE = Mamba2Adapter
