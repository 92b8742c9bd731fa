"""A model that has learnt nothing reads: the architecture's own initial weights, drawn by the study's seed.

What its memory keeps, the shape of the architecture keeps without training.  The decoder is as ever: the trained
model's weights, trained on.
"""

from __future__ import annotations

import copy
from threading import Lock
from weakref import WeakKeyDictionary

import torch

from mnemoscope.controls._altered import Altered
from mnemoscope.memory.adapter import Adapter


class RandomEncoder(Altered):
    def __init__(self) -> None:
        super().__init__("random_encoder")
        self._made: WeakKeyDictionary[Adapter, dict[int, Adapter]] = WeakKeyDictionary()
        # batches are measured side by side, and PyTorch's seed is one for all threads
        self._lock = Lock()

    def reader(self, encoder: Adapter, seed: int) -> Adapter:
        with self._lock:
            made = self._made.setdefault(encoder, {})
            if seed not in made:
                made[seed] = untrained(encoder, seed)
            return made[seed]


def untrained(encoder: Adapter, seed: int) -> Adapter:
    """A model of the encoder's architecture, shape, dtype and device, as its library initialises it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = type(encoder.model)(copy.deepcopy(encoder.model.config))
    model.to(device=encoder.device, dtype=next(encoder.parameters()).dtype)
    return type(encoder)(model, encoder.scan).eval().requires_grad_(False)


CONDITION = RandomEncoder()
