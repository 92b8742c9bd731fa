"""A memory as few large tensors: the parts that are alike but for their layer, stacked.

Symbols: B windows, P parts of a kind, C channels of a part (its first axis), N columns (all others together).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mnemoscope.memory.memory import Memory, MemorySpec


@dataclass(frozen=True, slots=True)
class Kind:
    """Parts of one name but for the layer (``ssm``, ``conv``, ...), and of one shape.

    Attributes:
        parts: their names, in layer order.
        shape: of one window's part.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]

    @classmethod
    def of(cls, spec: MemorySpec) -> list[Self]:
        """The kinds of a memory, in order of first appearance."""
        found: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        for part in spec.parts:
            found.setdefault((part.name.rsplit(".", 1)[-1], part.shape), []).append(part.name)
        return [cls(name, shape, tuple(parts)) for (name, shape), parts in found.items()]

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def columns(self) -> int:
        return int(torch.Size(self.shape[1:]).numel())

    @property
    def numbers(self) -> tuple[int, int, int]:
        """P, C, N."""
        return len(self.parts), self.channels, self.columns

    def stacked(self, memory: Memory) -> Tensor:
        """[B, P, C, N]."""
        whole = torch.stack([memory[name] for name in self.parts], 1)
        return whole.view(len(whole), *self.numbers)

    def by_channels(self, memory: Memory) -> Tensor:
        """[P, C, B, N], a copy."""
        shape = memory.batch, self.channels, self.columns
        return torch.stack([memory[name].reshape(shape).transpose(0, 1) for name in self.parts])
