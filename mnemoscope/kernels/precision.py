"""In which dtype a linear map is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def of_linear(weight: Tensor) -> torch.dtype:
    """Autocast's dtype where it is on for the weight's device (float64 it leaves alone), else the weight's own."""
    device = weight.device.type
    if weight.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype
