"""A language model from nothing, for ``mnemoscope pretrain``: packed documents, next-token loss.

Symbols: B windows, T context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from mnemoscope import plugins
from mnemoscope.errors import ConfigError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.text.tokens import TokenStore
from mnemoscope.types import IntArray


class LanguageModel(nn.Module):
    """Reads ids [B, T] from an empty memory; gives -ln p of ids[:, 1:], [B, T - 1] float32."""

    def __init__(self, adapter: Adapter):
        super().__init__()
        self.adapter = adapter

    def forward(self, ids: Tensor) -> Tensor:
        hidden, _ = self.adapter.hidden(ids[:, :-1], None)
        targets = ids[:, 1:]
        nats, _ = self.adapter.cross_entropy(hidden.flatten(0, 1), targets.flatten())
        return nats.view_as(targets)


def new_model(architecture: str, shape: dict[str, Any], vocabulary: int, end_of_text: int, seed: int) -> Adapter:
    """An adapter over a freshly initialised model.

    Raises:
        ConfigError: the architecture's configuration knows no such field, or refuses a value.
    """
    adapter_class = plugins.load("memory", architecture)
    config_class = getattr(transformers, adapter_class.config_class)
    unknown = set(shape) - set(config_class().to_dict())
    if unknown:
        raise ConfigError(
            f"pretrain.shape: {adapter_class.config_class} has no {', '.join(sorted(unknown))}",
            remedy="See the configuration's documentation in transformers",
        )
    try:
        config = config_class(
            **shape,
            vocab_size=vocabulary,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
            pad_token_id=end_of_text,
        )
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"pretrain.shape: {' '.join(str(error).split())}", remedy="Mend that value") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, adapter_class.model_class)(config)
    adapter: Adapter = adapter_class(model)
    return adapter


class Packed:
    """Documents one after another, each followed by the end-of-text token; windows start anywhere."""

    def __init__(self, store: TokenStore, end_of_text: int):
        self.tokens = np.insert(store.tokens, store.starts[1:], end_of_text)

    def draw(self, rng: np.random.Generator, length: int, count: int) -> IntArray:
        """int64 [count, length + 1]: ``length`` targets each."""
        begin = rng.integers(0, len(self.tokens) - length, size=count)
        return np.lib.stride_tricks.sliding_window_view(self.tokens, length + 1)[begin].astype(np.int64)


@torch.no_grad()
def held_out_nats(model: LanguageModel, store: TokenStore, context: int, budget: int, batch: int) -> tuple[float, int]:
    """Mean -ln p a token over documents cut into windows of ``context``, and the number of tokens behind it.

    A window's first token is given, not predicted, and not counted.

    Args:
        budget: tokens at most.
    """
    device = model.adapter.device
    windows = [
        store.tokens[s : s + context]
        for a, b in zip(store.starts[:-1], store.starts[1:], strict=True)
        for s in range(int(a), int(b) - context + 1, context)
    ]
    # evenly over the documents, whatever their order
    windows = windows[:: max(1, -(-len(windows) * context // budget))]
    total, count = 0.0, 0
    for i in range(0, len(windows), batch):
        ids = torch.from_numpy(np.stack(windows[i : i + batch]).astype(np.int64)).to(device)
        nats = model(ids)
        total, count = total + nats.double().sum().item(), count + nats.numel()
    return total / count if count else float("nan"), count
