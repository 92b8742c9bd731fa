"""Mamba (Gu & Dao 2023), Hugging Face's ``mamba``.

Hugging Face's own forward ignores the SSM state when several tokens follow a cache, so the mixer is computed here, on
its parameters, with a scan that starts from a state.  Symbols as in ``_selective.py``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mnemoscope.kernels.conv import causal_conv
from mnemoscope.kernels.linear import linear_beside
from mnemoscope.kernels.scan import selective_scan
from mnemoscope.memory.architectures._selective import SelectiveAdapter


class MambaAdapter(SelectiveAdapter):
    model_type = "mamba"
    config_class = "MambaConfig"
    model_class = "MambaForCausalLM"

    @property
    def scan_channels(self) -> int:
        return int(self.model.config.intermediate_size)

    @property
    def conv_channels(self) -> int:
        return self.scan_channels

    def mix(self, mixer: Any, x: Tensor, A: Tensor, conv: Tensor, ssm: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        rank, n = mixer.time_step_rank, mixer.ssm_state_size
        u, z = mixer.in_proj(x).chunk(2, dim=-1)
        u, conv = causal_conv(u, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, conv, backend=self.scan)
        u, narrow = linear_beside(u, mixer.x_proj.weight)
        dt, B, C = narrow.split([rank, n, n], dim=-1)
        dt, B, C = self.normalise(mixer, dt, B, C)
        # the bias of dt_proj is added inside the scan, in the scan's precision
        dt = F.linear(dt, mixer.dt_proj.weight)
        y, ssm = selective_scan(
            u,
            dt,
            A,
            B.unsqueeze(2),
            C.unsqueeze(2),
            mixer.D,
            z,
            mixer.dt_proj.bias,
            ssm,
            backend=self.scan,
        )
        return mixer.out_proj(y), conv, ssm

    def normalise(self, mixer: Any, dt: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mamba uses dt [B, L, R], B and C [B, L, N] as they are."""
        return dt, B, C


ARCHITECTURE = MambaAdapter
