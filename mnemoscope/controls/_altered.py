"""What the conditions share that have decoders of their own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mnemoscope.controls.memory import RealMemory
from mnemoscope.errors import ConfigError, ModelError
from mnemoscope.memory.memory import Memory


class Altered(RealMemory):
    """Another memory of the window than its own; a decoder is trained for it.

    Attributes:
        name: as a study spells it, with its argument.
    """

    def __init__(self, name: str):
        self.name = self.trained_as = self.written_as = name


class SomeParts(Altered, ABC):
    """Some parts of the memory as they are; the others zero, as they are before the first token."""

    @abstractmethod
    def keeps(self, part: str) -> bool:
        """Whether a part is handed over; ``part``: its name, ``layers.<i>.<kind>``."""

    def hand_over(self, memory: Memory, ids: Tensor, seed: int) -> Memory:
        self.require(memory)
        return Memory({name: part if self.keeps(name) else torch.zeros_like(part) for name, part in memory.items()})

    def require(self, memory: Memory) -> None:
        """Raises ModelError if the condition names something that the memory does not have."""
        kinds = sorted({kind_of(name) for name in memory})
        if not any(self.keeps(name) for name in memory):
            raise ModelError(
                f"the condition {self.name!r} keeps nothing of a memory whose parts are {', '.join(kinds)}",
                remedy="Leave it out for this architecture",
            )


class SomeLayers(SomeParts):
    """Some layers of the memory."""

    #: the highest layer that the condition names
    highest: int

    def require(self, memory: Memory) -> None:
        last = max(layer_of(name) for name in memory)
        if self.highest > last:
            raise ModelError(
                f"the condition {self.name!r} names a layer that the memory does not have",
                remedy=f"Its layers are 0 to {last}",
            )


def kind_of(part: str) -> str:
    return part.rsplit(".", 1)[-1]


def layer_of(part: str) -> int:
    return int(part.split(".")[1])


def matched(pattern: str, argument: str, name: str, wanted: str, example: str) -> re.Match[str]:
    """The argument, if all of it matches.

    Args:
        wanted: what it must be, in words.
        example: an argument that will do.

    Raises:
        ConfigError: it does not.
    """
    found = re.fullmatch(pattern, argument, re.ASCII)
    if found is None:
        given = f"got {argument!r}" if argument else "has none"
        raise ConfigError(
            f"the condition {name!r} needs {wanted}, and {given}", remedy=f"Write {name}:{example}, for example"
        )
    return found
