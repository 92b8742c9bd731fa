"""What a training does at every step, decided before the first: window lengths and learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnemoscope import config
from mnemoscope.errors import RunError
from mnemoscope.types import IntArray

#: nats a target below which a length counts as solved
FLOOR = 1e-4


@dataclass(frozen=True, slots=True)
class Plan:
    """A training, step by step.

    Attributes:
        lengths: window length of each optimiser step, int64 [steps].
        batch_tokens: window tokens in a step; a step has max(1, batch_tokens // length) windows.
        balance: a step's gradient is divided by (its nats a target + FLOOR) ** balance: at 0 the training minimises
            the sum over lengths of their nats, at 1 that of their logarithms.
    """

    lengths: IntArray
    batch_tokens: int
    optimiser: config.Optimiser
    checkpoint_every: int
    balance: float = 0.0

    @property
    def steps(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Window tokens of all steps together."""
        return sum(self.windows(step) * int(self.lengths[step]) for step in range(self.steps))

    def windows(self, step: int) -> int:
        return max(1, self.batch_tokens // int(self.lengths[step]))

    def require_shares(self, processes: int) -> None:
        """Raises RunError unless every step has a window for every process."""
        longest = int(self.lengths.max())
        windows = max(1, self.batch_tokens // longest)
        if windows < processes:
            raise RunError(
                f"a step of {windows} windows of {longest} tokens cannot be shared by {processes} processes",
                remedy="Raise batch_tokens or start fewer processes",
            )

    def points(self, times: int, first: float) -> list[int]:
        """Numbers of steps after which a training is looked at: 0, and those at which the tokens seen first reach
        ``times`` numbers in geometric progression from ``first`` of all to all; fewer where two fall on one step."""
        seen = np.cumsum([self.windows(step) * int(self.lengths[step]) for step in range(self.steps)])
        # less than a token less: roots are rounded
        steps = np.searchsorted(seen, seen[-1] * np.geomspace(first, 1.0, times) * (1 - 1e-9)) + 1
        return sorted({0, *steps.tolist()})

    def learning_rate(self, step: int) -> float:
        """Linear warm-up to the peak, then constant or a cosine to ``final`` times the peak."""
        o = self.optimiser
        warmup = max(1, round(o.warmup * self.steps))
        if step < warmup:
            return o.learning_rate * (step + 1) / warmup
        if o.schedule == "constant":
            return o.learning_rate
        done = (step - warmup) / max(1, self.steps - warmup)
        return o.learning_rate * (o.final + (1 - o.final) * 0.5 * (1 + math.cos(math.pi * done)))


def growing(
    lengths: Sequence[int], steps: int, growth: float, seed: tuple[int, ...], shares: Sequence[float] | None = None
) -> IntArray:
    """Window lengths of the recipe ``growing``: one decoder for all lengths.

    For the first ``growth`` of the steps the longest length in play rises through ``lengths``; half of these steps take
    that longest one, the others any that is in play.  After it all are in play with their ``shares``; by default the
    k-th shortest has k: long windows are harder, and what is learnt on them serves the short ones.  A decoder learns to
    read a memory on windows so short that it can succeed, and keeps it as they grow (docs/notebook.md).
    """
    rng = np.random.default_rng([*seed, 1])
    ladder = np.asarray(lengths, dtype=np.int64)
    rising = round(growth * steps)
    longest = np.minimum(np.arange(steps) * len(ladder) // max(1, rising), len(ladder) - 1)
    in_play = (rng.random(steps) * (longest + 1)).astype(np.int64)
    edges = np.cumsum(np.arange(1, len(ladder) + 1) if shares is None else shares)
    by_share = np.searchsorted(edges, rng.random(steps) * edges[-1], side="right")
    take_longest = rng.random(steps) < 0.5
    return ladder[np.where(np.arange(steps) >= rising, by_share, np.where(take_longest, longest, in_play))]


def fixed(length: int, steps: int) -> IntArray:
    """Window lengths of the recipe ``fixed``, the paper's: one decoder a length."""
    return np.full(steps, length, dtype=np.int64)
