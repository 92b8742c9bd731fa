"""Tiny models with unequal sizes, so that a swapped axis shows, and with every parameter away from its start value."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers

from mnemoscope import plugins
from mnemoscope.memory.adapter import Adapter

#: no two sizes that could be mistaken for each other are equal; a configuration takes what it knows of these
SIZES: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 24,
    "state_size": 5,
    "num_hidden_layers": 3,
    "conv_kernel": 4,
    "time_step_rank": 7,
    "num_heads": 6,
    "head_dim": 8,
    "n_groups": 3,
    "chunk_size": 4,
    "tie_word_embeddings": False,
}


def configuration(model_type: str, **changes: Any) -> Any:
    """The tiny configuration of an architecture, with ``changes``."""
    config_class = getattr(transformers, plugins.load("memory", model_type).config_class)
    known = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{k: v for k, v in (SIZES | changes).items() if k in known})


def model(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny random language model of Hugging Face, float32, in evaluation mode."""
    config = configuration(model_type, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = getattr(transformers, plugins.load("memory", model_type).model_class)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            # biases, skips and norms start at 0 or 1, where a forgotten one would not be seen
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made


def adapter(model_type: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Adapter:
    """The adapter of :func:`model`, with the reference scan."""
    return plugins.load("memory", model_type)(model(model_type, seed, **changes).to(dtype), "reference")


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random token ids [rows, length]."""
    return torch.randint(SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))
