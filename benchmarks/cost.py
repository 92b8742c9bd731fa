"""What an auto-encoder step costs at least: floating-point operations, bytes; and how measured costs grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Shape:
    """A Mamba of width d; as its authors have it, d_inner is 2 d and the rank of dt is d / 16, rounded up."""

    width: int
    layers: int
    vocabulary: int
    states: int = 16
    taps: int = 4

    @property
    def inner(self) -> int:
        return 2 * self.width

    @property
    def rank(self) -> int:
        return -(-self.width // 16)

    def products(self) -> list[tuple[int, int, int]]:
        """Linear maps of the model: inputs, outputs, how many of them; the head last."""
        return [
            (self.width, 2 * self.inner, self.layers),
            (self.inner, self.rank + 2 * self.states, self.layers),
            (self.rank, self.inner, self.layers),
            (self.inner, self.width, self.layers),
            (self.width, self.vocabulary, 1),
        ]

    @property
    def head_flops(self) -> int:
        """Of one token's logits."""
        return 2 * self.width * self.vocabulary

    @property
    def body_flops(self) -> int:
        """Of one token's way through all layers; matrix products only."""
        return sum(2 * i * o * n for i, o, n in self.products()[:-1])

    @property
    def parameters(self) -> int:
        """The embedding is the head; per layer the maps, dt's bias, A, D, the convolution, the norm."""
        per_layer = self.inner * (1 + self.states + 1 + self.taps + 1) + self.width
        return self.head_flops // 2 + self.body_flops // 2 + self.layers * per_layer + self.width

    @property
    def autoencoder_flops(self) -> int:
        """Of one encoded token: the encoder's forward pass without a head, the decoder's forward and backward."""
        return self.body_flops + 3 * (self.body_flops + self.head_flops)

    def autoencoder_bytes(self, length: int, windows: int) -> int:
        """Least traffic of one step outside the matrix products, bf16 activations, fp32 residuals and states.

        A forward pass moves 36 d bytes a token and layer (convolution 8 d, scan 16 d, sum and norm 12 d), a backward
        pass 56 d; the loss reads and writes bf16 logits; AdamW moves 30 bytes a parameter; states are written and read.
        """
        tokens = length * windows
        passes = tokens * self.layers * self.width * (2 * 36 + 56)
        states = 2 * 4 * windows * self.layers * self.inner * (self.states + self.taps)
        return passes + tokens * 4 * self.vocabulary + 30 * self.parameters + states

    def decoding_flops(self) -> int:
        return self.body_flops + self.head_flops


MAMBA_130M = Shape(768, 24, 50280)
MAMBA_1_4B = Shape(2048, 48, 50280)
SMALL = Shape(256, 8, 4096)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """p of cost = c size^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
