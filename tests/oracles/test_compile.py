"""The Triton kernels are operators: what PyTorch does with a model, it does through them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native

pytest.importorskip("triton")


def gradients(decoder: Native, loss: Callable[[Tensor], Tensor], ids: Tensor) -> list[Tensor]:
    """The loss and the gradients of all parameters that it reaches."""
    decoder.zero_grad(set_to_none=True)
    value = loss(ids)
    value.backward()
    return [value.detach(), *(p.grad for p in decoder.parameters() if p.grad is not None)]


def test_compiled_whole_and_checkpointed() -> None:
    """One graph without a break, and activations computed again, give the numbers of the eager model bit for bit."""
    encoder = tiny.adapter("mamba", num_hidden_layers=1)
    encoder.scan = "triton"
    decoder = Native.from_encoder(encoder, 0, 0)
    ids = tiny.ids(2, 2)
    memory = encode(encoder, ids)

    def loss(ids: Tensor) -> Tensor:
        nats: Tensor = decoder(memory, ids)[0]
        return nats.mean()

    expected = gradients(decoder, loss, ids)
    compiled = gradients(decoder, torch.compile(loss, backend="aot_eager", fullgraph=True), ids)
    again = gradients(decoder, lambda x: checkpoint(loss, x, use_reentrant=False), ids)
    assert len(expected) == len(compiled) == len(again) > 10
    for one, other, third in zip(expected, compiled, again, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
