"""Our forward pass against Hugging Face's own, over whole sequences without a cache: logits and all gradients."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import tiny
import torch
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

from mnemoscope import plugins

SHAPES: dict[str, list[dict[str, Any]]] = {
    "mamba": [
        {"conv_kernel": 3, "use_bias": True},
        {"conv_kernel": 4, "use_conv_bias": False, "tie_word_embeddings": True},
        {"hidden_size": 20, "expand": 3, "state_size": 16, "residual_in_fp32": False},
    ],
    "falcon_mamba": [
        {"conv_kernel": 3, "use_bias": True},
        {"conv_kernel": 4, "use_conv_bias": False, "mixer_rms_eps": 1e-3},
        {"hidden_size": 20, "expand": 3, "state_size": 16, "layer_norm_epsilon": 1e-2},
    ],
    "mamba2": [
        {"conv_kernel": 3, "use_bias": True},
        {"conv_kernel": 4, "n_groups": 1, "use_conv_bias": False, "tie_word_embeddings": True},
        {"num_heads": 12, "head_dim": 4, "n_groups": 2, "chunk_size": 256, "layer_norm_epsilon": 1e-2},
        {"time_step_limit": (0.01, 0.05), "state_size": 16},
    ],
}

# transformers 5.17 normalised over all groups at once; the authors (``RMSNormGated(group_size=d_ssm // ngroups)``)
# and later versions do it within each group, and so do we
if "group_size" not in inspect.signature(MambaRMSNormGated).parameters:
    SHAPES["mamba2"] = [shape | {"n_groups": 1} for shape in SHAPES["mamba2"]]


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name, shapes in SHAPES.items() for shape in shapes], ids=str
)
def test_logits_and_gradients(name: str, shape: dict[str, Any]) -> None:
    model = tiny.model(name, **shape)
    adapter = plugins.load("memory", name)(model, "reference")
    ids = tiny.ids(3, 11)
    upstream = torch.randn(3, 11, tiny.SIZES["vocab_size"], generator=torch.Generator().manual_seed(2))

    def run(logits: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        gradients = torch.autograd.grad((logits * upstream).sum(), list(model.parameters()))
        return logits, dict(zip((n for n, _ in model.named_parameters()), gradients, strict=True))

    theirs, their_gradients = run(model(ids, use_cache=False).logits)
    ours, our_gradients = run(adapter(ids)[0])
    assert error(theirs, ours) < 1e-4
    for parameter, gradient in their_gradients.items():
        assert gradient.abs().max() > 0, parameter
        assert error(gradient, our_gradients[parameter]) < 1e-4, parameter


def error(expected: torch.Tensor, found: torch.Tensor) -> float:
    return ((expected - found).abs().max() / expected.abs().max()).item()
