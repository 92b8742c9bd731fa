"""The cross-entropy of a linear map, some tokens at a time: the slow truth.

Symbols: T tokens, d width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: logits held at once
LOGITS = 2**26


def balanced(tokens: int, at_once: int) -> int:
    """Tokens of a chunk, for as few chunks as hold ``at_once`` each, all but the last alike."""
    chunks = -(-tokens // max(1, at_once))
    return -(-tokens // max(1, chunks))


def of_head(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """As :func:`linear_cross_entropy`, for any map ``head`` from [..., d] to logits [..., V]."""
    nats, predicted = [], []
    size = max(1, balanced(len(targets), LOGITS // vocabulary))
    # the logits of a whole batch would be its largest tensor by far
    for h, target in zip(hidden.split(size), targets.split(size), strict=True):
        logits = head(h)
        nats.append(F.cross_entropy(logits.float(), target, reduction="none"))
        predicted.append(logits.detach().argmax(-1))
    return torch.cat(nats), torch.cat(predicted)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """-ln p of each target under softmax(hidden weight^T), and the most likely token.

    Args:
        hidden: [T, d].
        weight: [V, d].
        targets: [T] int64, each below V.

    Returns:
        nats [T] float32 with gradients to hidden and weight, predicted [T] int64, the first of equals.
    """
    return of_head(lambda h: F.linear(h, weight), hidden, targets, len(weight))
