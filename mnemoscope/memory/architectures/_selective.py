"""What Mamba, FalconMamba and Mamba-2 share: a stack of residual blocks, each with one convolution and one scan.

Symbols: B windows, L tokens, d width, D channels (d_inner), N d_state, K d_conv, R rank of dt.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from mnemoscope.kernels.cross_entropy import linear_cross_entropy
from mnemoscope.kernels.norm import add_norm
from mnemoscope.kernels.precision import of_linear
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory, MemorySpec, Part


class SelectiveAdapter(Adapter):
    """Reads through ``model.backbone``: embeddings, layers of norm + mixer, norm_f; and ``model.lm_head``."""

    @property
    @abstractmethod
    def scan_channels(self) -> int:
        """Channels of the scan, D."""

    @property
    @abstractmethod
    def conv_channels(self) -> int:
        """Channels of the convolution."""

    @abstractmethod
    def mix(self, mixer: Any, x: Tensor, A: Tensor, conv: Tensor, ssm: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """One mixer: x [B, L, d], conv [B, conv_channels, K-1], ssm [B, D, N] -> y [B, L, d] and the two states.

        A is minus the exponential of the mixer's A_log, in the dtype of the states; no ssm stands for zeros.
        """

    @property
    def state_dtype(self) -> torch.dtype:
        """States are kept in float32, or float64 where the parameters are; exp and sums need it."""
        return torch.promote_types(next(self.model.parameters()).dtype, torch.float32)

    def spec(self) -> MemorySpec:
        config = self.model.config
        parts: list[Part] = []
        for i in range(config.num_hidden_layers):
            parts.append(Part(f"layers.{i}.ssm", (self.scan_channels, config.state_size), self.state_dtype))
            parts.append(Part(f"layers.{i}.conv", (self.conv_channels, config.conv_kernel - 1), self.state_dtype))
        return MemorySpec(tuple(parts))

    def hidden(self, ids: Tensor, start: Memory | None) -> tuple[Tensor, Memory]:
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"ids must be [B, L] with L > 0, got {tuple(ids.shape)}")
        if start is not None and start.batch != len(ids):
            # kernels read as many windows as the state has
            raise ValueError(f"{len(ids)} windows cannot be read from {start.batch} memories")
        backbone = self.model.backbone
        h = backbone.embeddings(ids)
        if self.model.config.residual_in_fp32:
            h = h.to(self.state_dtype)
        # of all layers at once: a token's step of a small model is as long as its kernels are many
        rates = -torch.stack([layer.mixer.A_log for layer in backbone.layers]).to(self.state_dtype).exp()
        before: list[tuple[Tensor, Tensor | None]]
        if start is None:
            taps = self.model.config.conv_kernel
            no_conv = torch.zeros(len(ids), self.conv_channels, taps - 1, dtype=self.state_dtype, device=h.device)
            before = [(no_conv, None)] * len(rates)
        else:
            before = [(start[f"layers.{i}.conv"], start[f"layers.{i}.ssm"]) for i in range(len(rates))]
        y: Tensor | None = None
        end: dict[str, Tensor] = {}

        def read(norm: Any) -> tuple[Tensor, Tensor]:
            """The stream with what the last block added, and what a linear map takes of it."""
            return add_norm(h, y, norm.weight, norm.variance_epsilon, of_linear(norm.weight), backend=self.scan)

        for i, layer in enumerate(backbone.layers):
            h, x = read(layer.norm)
            y, conv, ssm = self.mix(layer.mixer, x, rates[i], *before[i])
            end[f"layers.{i}.ssm"], end[f"layers.{i}.conv"] = ssm, conv
        return read(backbone.norm_f)[1], Memory(end)

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.lm_head(hidden.to(self.model.lm_head.weight.dtype))

    def cross_entropy(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return linear_cross_entropy(hidden, self.model.lm_head.weight, targets, backend=self.scan)
