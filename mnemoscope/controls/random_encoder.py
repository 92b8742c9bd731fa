"""A model that has learnt nothing reads: the architecture's own initial weights, drawn by the study's seed.

What its memory keeps, the shape of the architecture keeps without training.  The decoder is as ever: the trained
model's weights, trained on.
"""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch

from mnemoscope.controls._altered import Altered
from mnemoscope.memory.adapter import Adapter


class RandomEncoder(Altered):
    def __init__(self) -> None:
        super().__init__("random_encoder")
        self._made: WeakKeyDictionary[Adapter, dict[int, Adapter]] = WeakKeyDictionary()

    def reader(self, encoder: Adapter, seed: int) -> Adapter:
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
