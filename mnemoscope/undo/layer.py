"""The first layer of a Mamba as a function of tokens, of a part of its channels.

Symbols: V vocabulary, D channels, C of them that are looked at, N d_state, K d_conv, R rank of dt; M = C N numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope.errors import ConfigError, ModelError
from mnemoscope.memory.adapter import Adapter

#: architectures whose first layer is one
KINDS = ("mamba", "falcon_mamba")


class FirstLayer:
    """Symbols as at the top of the file; beside the vocabulary there are two more tokens.

    Args:
        adapter: the model; its parameters are copied, on the CPU.
        channels: which are looked at, int64 [C].
        frequency: of each token in text [V], whose mean is the input of a token that is not known.
        dtype: that it computes in.

    Attributes:
        unknown, before: ids of a token that is not known, and of nothing: a place before the first token.

    Raises:
        ModelError: the architecture's first layer is another function.
    """

    def __init__(self, adapter: Adapter, channels: Tensor, frequency: Tensor, dtype: torch.dtype):
        self._adapter, self._mixer = adapter, undoable(adapter)
        # in float64, whatever they are rounded to in the end
        exact = lambda x: x.detach().cpu().double()  # noqa: E731
        backbone, m = adapter.model.backbone, self._mixer
        norm, embedded = backbone.layers[0].norm, exact(backbone.embeddings.weight)
        normal = embedded * (embedded.square().mean(1, keepdim=True) + norm.variance_epsilon).rsqrt()
        share = frequency.double() / frequency.double().sum()
        inputs = (normal * exact(norm.weight)) @ exact(m.in_proj.weight).chunk(2)[0].T
        bias = exact(m.in_proj.bias).chunk(2)[0] if m.in_proj.bias is not None else 0.0
        inputs = inputs + bias
        inputs = torch.cat([inputs, (share @ inputs).unsqueeze(0), torch.zeros_like(inputs[:1])])
        self.unknown, self.before = len(inputs) - 2, len(inputs) - 1
        conv = exact(m.conv1d.weight).squeeze(1)
        self.inputs = inputs[:-2].to(dtype)
        self.taps = [(inputs * tap).to(dtype) for tap in conv.T]
        zero = torch.zeros(len(conv), dtype=torch.float64)
        self.conv_bias = (exact(m.conv1d.bias) if m.conv1d.bias is not None else zero).to(dtype)
        self.x_proj, self.channels = exact(m.x_proj.weight).to(dtype), channels
        self.dt_weight = exact(m.dt_proj.weight)[channels].to(dtype)
        self.dt_bias = exact(m.dt_proj.bias)[channels].to(dtype)
        self.A = -torch.exp(exact(m.A_log))[channels].to(dtype)
        self.width = len(self.taps)
        self.rank, self.columns = m.time_step_rank, m.ssm_state_size

    def steps(self, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What a step does after its last K tokens, given oldest first, each [n] or [1] int64.

        Returns:
            step size [n, C], step size times input [n, C], and B [n, N].
        """
        if all(len(token) == 1 and int(token) == self.unknown for token in tokens[:-1]):
            size, scaled, B = self._after_unknown
            return size[tokens[-1]], scaled[tokens[-1]], B[tokens[-1]]
        return self._steps(tokens)

    @cached_property
    def _after_unknown(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of every token after unknown ones: asked for again and again."""
        unknown = torch.tensor([self.unknown])
        return self._steps([*[unknown] * (self.width - 1), torch.arange(len(self.inputs) + 2)])

    def _steps(self, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        u = self.conv_bias
        for tap, token in zip(self.taps, tokens, strict=True):
            u = u + tap[token]
        u = F.silu(u)
        dt, B, C = F.linear(u, self.x_proj).split([self.rank, self.columns, self.columns], -1)
        dt, B, _ = self._adapter.normalise(self._mixer, dt, B, C)  # type: ignore[operator]
        size = F.softplus(F.linear(dt, self.dt_weight) + self.dt_bias)
        return size, size * u[:, self.channels], B

    def decay_and_input(self, tokens: Sequence[Tensor], numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logarithm of what a step leaves of each number of the state, and what it adds: each [n, M], or of some
        ``numbers`` alone."""
        size, scaled, B = self.steps(tokens)
        if numbers is None:
            return (size.unsqueeze(-1) * self.A).flatten(1), (scaled.unsqueeze(-1) * B.unsqueeze(1)).flatten(1)
        channel, column = numbers // self.columns, numbers % self.columns
        return size[:, channel] * self.A[channel, column], scaled[:, channel] * B[:, column]


def undoable(adapter: Adapter) -> Any:
    """The mixer of a model's first layer.

    Raises:
        ModelError: the architecture's steps are not undone.
    """
    if adapter.model_type not in KINDS:
        raise ModelError(
            f"steps of {adapter.model_type!r} are not undone",
            remedy=f"Name a model of one of these architectures: {', '.join(KINDS)}",
        )
    return adapter.model.backbone.layers[0].mixer


def fingerprint(adapter: Adapter) -> str:
    """Of the weights that the first layer's memory depends on."""
    digest = hashlib.sha256()
    backbone = adapter.model.backbone
    for module in (backbone.embeddings, backbone.layers[0]):
        for name, weight in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)} ".encode())
            digest.update(weight.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def require(adapter: Adapter, made_for: str) -> None:
    """
    Args:
        made_for: the fingerprint of the model whose states a distribution is of.

    Raises:
        ModelError: the architecture's steps are not undone.
        ConfigError: the distribution is another model's.
    """
    undoable(adapter)
    if fingerprint(adapter) != made_for:
        raise ConfigError(
            "the distribution of states is of another model's first layer than the one that read",
            remedy="Make it with: mnemoscope undo MODEL --text FILE --out FOLDER",
        )
