"""FalconMamba (Zuo et al. 2024), Hugging Face's ``falcon_mamba``: Mamba with RMS norms on dt, B and C."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mnemoscope.memory.architectures.mamba import MambaAdapter


class FalconMambaAdapter(MambaAdapter):
    model_type = "falcon_mamba"
    config_class = "FalconMambaConfig"
    model_class = "FalconMambaForCausalLM"

    def normalise(self, mixer: Any, dt: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eps: float = mixer.rms_eps

        def norm(x: Tensor) -> Tensor:
            exact = torch.promote_types(x.dtype, torch.float32)
            return nn.functional.rms_norm(x.to(exact), (x.shape[-1],), eps=eps).to(x.dtype)

        return norm(dt), norm(B), norm(C)


ARCHITECTURE = FalconMambaAdapter
