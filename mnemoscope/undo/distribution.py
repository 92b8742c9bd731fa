"""How the states of a first layer are distributed after real text, given the last K - 1 tokens that led to them.

Of the state after the token at q, what its last K - 1 steps put in is known but for the older tokens that their
convolutions also saw.  So for each number of the state, with b_j what the step j tokens ago adds and a_j what it leaves
of what was there (older tokens replaced by the mean input)::

    h  =  c_0 b_0 + c_1 a_0 b_1 + ... + c_(K-1) a_0 ... a_(K-2) + c_K  +  s e

The slopes of what was put in are common to a group of neighbouring positions, those of what is left of older tokens and
the constant are each position's own; s is the deviation of the rest at a position, and the covariance of the rests e is
the group's.  All are fitted by least squares, with a ridge.

Symbols as in layer.py; P positions of a group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mnemoscope.errors import RunError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.progress import Progress
from mnemoscope.rundir import replacing, write_atomically
from mnemoscope.types import IntArray
from mnemoscope.undo.layer import FirstLayer, fingerprint, undoable

#: channels whose numbers are looked at: a covariance of so many times d_state numbers is kept for every group
CHANNELS = 256
#: windows that the coefficients are fitted on, and how many go through the layer together
COEFFICIENTS, TOGETHER = 6144, 512
#: positions of a group that each window gives a state for
EACH = 3
ABOUT, NUMBERS = "distribution.json", "distribution.safetensors"


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring positions.

    Attributes:
        first, last: positions, from 0.
        coefficients: [P, M, K + 1].
        deviation: of the rest [P, M].
        covariance: of the rests in their deviations [M, M].
    """

    first: int
    last: int
    coefficients: Tensor
    deviation: Tensor
    covariance: Tensor


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of the first layer's states of one model.

    Attributes:
        model: fingerprint of the layer's weights.
        channels: that are looked at [C].
        frequency: of each token in the text that it was fitted on [V] float64.
        groups: in order; they begin at position K - 1.
        states: that each group was fitted on.
    """

    model: str
    channels: Tensor
    frequency: Tensor
    groups: tuple[Group, ...]
    states: int

    @property
    def longest(self) -> int:
        """Tokens of the longest window that it was fitted for."""
        return self.groups[-1].last + 2

    def at(self, position: int) -> tuple[Group, int]:
        """The group of a position, and its place there; beyond the last one's, the last."""
        position = min(position, self.groups[-1].last)
        group = next(g for g in self.groups if position <= g.last)
        return group, position - group.first

    @staticmethod
    def numbers(adapter: Adapter) -> int:
        """M: how many of a model's numbers are looked at.

        Raises:
            ModelError: the architecture's steps are not undone.
        """
        m = undoable(adapter)
        return min(m.A_log.shape[0], CHANNELS) * int(m.ssm_state_size)

    @classmethod
    def fit(
        cls,
        adapter: Adapter,
        draw: Callable[[np.random.Generator, int, int], IntArray],
        frequency: Tensor,
        longest: int,
        states: int,
        seed: int,
        progress: Progress,
    ) -> Distribution:
        """Args:
        adapter: the model.
        draw: windows of training text: generator, tokens, windows -> int64 [windows, tokens].
        frequency: of each token [V].
        longest: tokens of the longest window that is to be read back.
        states: for each group, at least twice as many as numbers (C N).

        Raises:
            ModelError: the architecture's steps are not undone.
            TextError: no document is long enough.
        """
        rng = np.random.default_rng(seed)
        inner = undoable(adapter).A_log.shape[0]
        channels = torch.from_numpy(rng.permutation(inner)[:CHANNELS].copy())
        layer = FirstLayer(adapter, channels, frequency, torch.float32)
        known = layer.width - 1
        bounds = list(groups_of(known, longest - 2))
        windows = -(-states // EACH)
        first_pass = min(COEFFICIENTS, windows)
        numbers = len(channels) * layer.columns
        sums = [_Sums.zeros(last - first + 1, numbers, known + 2) for first, last in bounds]
        covariances = [torch.zeros(numbers, numbers) for _ in bounds]
        counts = [0] * len(bounds)
        with torch.no_grad(), progress.task("learning states", first_pass + windows, "windows") as bar:

            def batches(count: int, done: int) -> Iterator[IntArray]:
                for first in range(0, count, TOGETHER):
                    bar.at(done + first)
                    yield draw(rng, longest - 1, min(TOGETHER, count - first))

            for ids in batches(first_pass, 0):
                for g, place, x, state in _states(layer, ids, bounds, rng):
                    sums[g].add(place, x, state)
            fitted = [s.solve(known) for s in sums]
            for ids in batches(windows, first_pass):
                rests: list[list[Tensor]] = [[] for _ in bounds]
                for g, place, x, state in _states(layer, ids, bounds, rng):
                    coefficients, deviation = fitted[g][0][place], fitted[g][1][place]
                    rests[g].append((state - (x * coefficients).sum(-1)) / deviation)
                for g, some_rests in enumerate(rests):
                    rest = torch.cat(some_rests)
                    covariances[g].addmm_(rest.T, rest)
                    counts[g] += len(rest)
            bar.at(first_pass + windows)
        found = tuple(Group(*bounds[g], *fitted[g], covariances[g] / counts[g]) for g in range(len(bounds)))
        return cls(fingerprint(adapter), channels, frequency.double(), found, states)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"channels": self.channels, "frequency": self.frequency}
        for i, group in enumerate(self.groups):
            for name in ("coefficients", "deviation", "covariance"):
                tensors[f"{name}.{i}"] = getattr(group, name).contiguous()
        with replacing(folder / NUMBERS) as part:
            save_file(tensors, part)
        about = {"model": self.model, "states": self.states, "groups": [[g.first, g.last] for g in self.groups]}
        write_atomically(folder / ABOUT, json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Distribution:
        """Raises: RunError: there is none, or it is damaged."""
        try:
            about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            tensors = load_file(folder / NUMBERS)
            groups = tuple(
                Group(first, last, *(tensors[f"{name}.{i}"] for name in ("coefficients", "deviation", "covariance")))
                for i, (first, last) in enumerate(about["groups"])
            )
            return cls(about["model"], tensors["channels"], tensors["frequency"], groups, about["states"])
        except Exception as error:  # the libraries raise several kinds, and any means that it is not one
            raise _unreadable(folder, error) from None


def model_of(folder: Path) -> str:
    """Whose states the distribution of a folder is of: a model's fingerprint.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        return str(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: Exception) -> RunError:
    return RunError(
        f"no distribution of states can be read here ({error})",
        remedy="Make it with: mnemoscope undo MODEL --text FILE --out FOLDER",
        file=folder,
    )


def groups_of(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Positions from ``first`` to ``last`` in groups, each a third as long as what comes before it."""
    while first <= last:
        end = min(max(first, first * 4 // 3), last)
        yield first, end
        first = end + 1


def regressors(
    layer: FirstLayer, tokens: Sequence[Tensor], position: int, numbers: Tensor | None = None
) -> list[Tensor]:
    """What h is explained by, but for the constant: K tensors [n, M].

    Args:
        tokens: the last K - 1 up to ``position``, oldest first, each [n] or [1].
        numbers: those that are wanted; None for all.
    """
    known = layer.width - 1
    found: list[Tensor] = []
    left: Tensor | None = None
    for back in range(known):
        decay, added = layer.decay_and_input(seen(layer, tokens, position, back), numbers)
        found.append(added if left is None else left.exp() * added)
        left = decay if left is None else left + decay
    assert left is not None
    return [*found, left.exp()]


def seen(layer: FirstLayer, tokens: Sequence[Tensor], position: int, back: int) -> list[Tensor]:
    """The K tokens that the convolution sees ``back`` steps before ``position``, of which the last K - 1 are known."""
    known = layer.width - 1
    here = []
    for place in range(position - back - known, position - back + 1):
        index = place - (position - known + 1)
        stand_in = layer.unknown if place >= 0 else layer.before
        here.append(tokens[index] if index >= 0 else torch.full_like(tokens[-1][:1], stand_in))
    return here


def _states(
    layer: FirstLayer, ids: IntArray, bounds: Sequence[tuple[int, int]], rng: np.random.Generator
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """States of windows: group, place in it, regressors with the constant [n, M, K + 1], state [n, M]."""
    tokens = torch.from_numpy(ids)
    rows = len(tokens)
    wanted: dict[int, tuple[int, int, Tensor]] = {}
    for g, (first, last) in enumerate(bounds):
        places = last - first + 1
        chosen = rng.random((rows, places)).argsort(1)[:, :EACH]
        for place in range(places):
            found = np.flatnonzero((chosen == place).any(1))
            if found.size:
                wanted[first + place] = g, place, torch.from_numpy(found)
    padded = torch.cat([torch.full((rows, layer.width - 1), layer.before), tokens], 1)
    h = torch.zeros(rows, len(layer.channels) * layer.columns)
    for t in range(tokens.shape[1]):
        decay, added = layer.decay_and_input(list(padded[:, t : t + layer.width].T))
        h = h.mul_(decay.exp_()).add_(added)
        if t in wanted:
            g, place, some = wanted[t]
            ended = list(tokens[some][:, t - layer.width + 2 : t + 1].T)
            known = regressors(layer, ended, t)
            yield g, place, torch.stack([*known, torch.ones_like(known[0])], -1), h[some]


@dataclass(slots=True)
class _Sums:
    """What least squares of a group need, of each position: products of regressors, with the state, and its square."""

    products: Tensor
    with_state: Tensor
    square: Tensor
    count: Tensor

    @classmethod
    def zeros(cls, places: int, numbers: int, terms: int) -> _Sums:
        z = lambda *shape: torch.zeros(shape, dtype=torch.float64)  # noqa: E731
        return cls(z(places, numbers, terms, terms), z(places, numbers, terms), z(places, numbers), z(places))

    def add(self, place: int, x: Tensor, y: Tensor) -> None:
        self.products[place] += torch.einsum("nki,nkj->kij", x, x)
        self.with_state[place] += torch.einsum("nki,nk->ki", x, y)
        self.square[place] += y.square().sum(0)
        self.count[place] += len(y)

    def solve(self, known: int) -> tuple[Tensor, Tensor]:
        """Coefficients [P, M, K + 1] and deviations [P, M] float32."""
        common = torch.linalg.solve(_ridged(self.products.sum(0), 1e-5), self.with_state.sum(0))
        own = self.with_state[..., known:] - (self.products[..., known:, :known] @ common[:, :known, None])[..., 0]
        own = torch.linalg.solve(_ridged(self.products[..., known:, known:], 1e-4), own)
        whole = torch.cat([common[:, :known].expand(len(own), -1, -1), own], -1)
        explained = (whole * (2 * self.with_state - (self.products @ whole[..., None])[..., 0])).sum(-1)
        variance = (self.square - explained).clamp(min=0) / self.count.clamp(min=1)[:, None]
        return whole.float(), (variance.sqrt() + 1e-12).float()


def _ridged(products: Tensor, share: float) -> Tensor:
    diagonal = products.diagonal(dim1=-2, dim2=-1)
    return products + torch.diag_embed(diagonal * share + 1e-14)
