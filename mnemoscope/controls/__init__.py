"""What the decoder is given.  One file per condition; a control is a condition, so every later step treats real and
control rows alike.

A file exposes ``CONDITION``: a :class:`Condition`, or, where one must be told how much, a class that makes one of its
argument.  A study, and the column ``condition`` of every table, spells them ::

    ssm_only            by its file
    bits:4              with its argument
    bits:4@memory       given to the decoder that was trained under ``memory``, and never saw fewer bits

The first two are measured with a decoder that was trained under the same condition: what it misses, a decoder made for
it misses.  The third trains nothing: a cheap screen, in which a decoder taken by surprise may miss what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from mnemoscope import plugins
from mnemoscope.errors import ConfigError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory
from mnemoscope.types import Window


class Condition(Protocol):
    """One way of handing a memory to a decoder.

    Attributes:
        trained_as: the condition whose decoder is used; its own name if a decoder is trained for it.
        written_as: the condition whose texts these are too: the same decoder is handed the same of the window that is
            read, so it writes the same.  Its own name if it hands over something else.
        reads: whether the encoder has to read anything at all.
    """

    trained_as: str
    written_as: str
    reads: bool

    def windows_to_read(self, windows: Sequence[Window]) -> Sequence[Window]:
        """For each window, in order, the window of the same length that the encoder reads in its stead."""
        ...

    def reader(self, encoder: Adapter, seed: int) -> Adapter:
        """The model that reads: the encoder, or another of its shape; the same object for the same arguments.

        Args:
            seed: of the study.
        """
        ...

    def hand_over(self, memory: Memory, ids: Tensor, seed: int) -> Memory:
        """What the decoder starts from, given what the encoder ended with.  No row of it depends on another.

        Args:
            ids: the windows that were read [B, L] int64.
            seed: of the study.

        Raises:
            ModelError: this architecture's memory does not have what the condition is about.
        """
        ...


class Screen:
    """A condition as a decoder meets it that was trained under another."""

    def __init__(self, condition: Condition, trained_as: str):
        self.condition, self.trained_as = condition, trained_as
        self.written_as, self.reads = f"{condition.written_as}@{trained_as}", condition.reads

    def windows_to_read(self, windows: Sequence[Window]) -> Sequence[Window]:
        return self.condition.windows_to_read(windows)

    def reader(self, encoder: Adapter, seed: int) -> Adapter:
        return self.condition.reader(encoder, seed)

    def hand_over(self, memory: Memory, ids: Tensor, seed: int) -> Memory:
        return self.condition.hand_over(memory, ids, seed)


def read(spelt: str) -> Condition:
    """The condition that a study calls so: ``NAME``, ``NAME:ARGUMENT``, and either with ``@CONDITION``.

    Raises:
        ConfigError: no such file; an argument that is missing, surplus or wrong; a decoder that is not trained, or is
            used anyway.
    """
    own, at, decoder = spelt.partition("@")
    name, colon, argument = own.partition(":")
    found = plugins.find("condition", name)
    if isinstance(found, type):
        condition: Condition = found(argument)
    elif colon:
        raise ConfigError(f"the condition {name!r} takes no argument, and {own!r} gives one", remedy=f"Write {name}")
    else:
        condition = found
    if not at:
        return condition
    if "@" in decoder or read(decoder).trained_as != decoder:
        raise ConfigError(
            f"{spelt!r} asks for a decoder that is never trained", remedy=f"Write {own}@memory, for example"
        )
    if condition.trained_as == decoder:
        raise ConfigError(f"{own!r} is measured with the decoder of {decoder!r} anyway", remedy=f"Write {own}")
    return Screen(condition, decoder)
