"""A memory: the named parts of a model's state after a window, and what each of them is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a memory.  ``shape`` is that of one window, without the batch."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numbers(self) -> int:
        return int(torch.Size(self.shape).numel())

    @property
    def bytes(self) -> int:
        return self.numbers * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class MemorySpec:
    """What a model's memory is made of, in the order of its layers."""

    parts: tuple[Part, ...]

    @property
    def numbers(self) -> int:
        return sum(p.numbers for p in self.parts)

    @property
    def bytes(self) -> int:
        return sum(p.bytes for p in self.parts)

    def zeros(self, batch: int, device: torch.device) -> Memory:
        """Memories of zeros, of ``batch`` windows."""
        return Memory({p.name: torch.zeros(batch, *p.shape, dtype=p.dtype, device=device) for p in self.parts})


class Memory(Mapping[str, Tensor]):
    """Named tensors ``layers.<i>.<part>`` [B, ...], batch first.  Immutable: every method gives a new one."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Tensor]):
        self._parts = dict(parts)

    def __getitem__(self, name: str) -> Tensor:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def batch(self) -> int:
        """Number of windows, B."""
        return next(iter(self._parts.values())).shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> Memory:
        """The memory with ``function`` applied to every part."""
        return Memory({name: function(part) for name, part in self._parts.items()})

    def zeros_like(self) -> Memory:
        return self.map(torch.zeros_like)

    def detach(self) -> Memory:
        return self.map(Tensor.detach)

    def rows(self, index: Tensor) -> Memory:
        """The memories of some windows.  ``index``: int64 [b] or bool [B]."""
        return self.map(lambda part: part[index])


def together(memories: Sequence[Memory]) -> Memory:
    """The memories of all their windows, in order."""
    return Memory({name: torch.cat([m[name] for m in memories]) for name in memories[0]})
