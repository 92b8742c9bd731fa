"""How a decoder's text is chosen.  One file per search; a decoder of a study names it, ``search = "beam:8"``.

A file exposes ``SEARCH``: a :class:`Search`, or, where one must be told how much, a class that makes one of its
argument; where that ends with a path, the class says so (:class:`Located`).  A search changes what is written back, and
so what is counted as omitted; the nats are the decoder's, and no search changes them.
"""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

from mnemoscope import plugins
from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.errors import ConfigError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory


class Search(Protocol):
    """One way of choosing what is written from a memory.

    Attributes:
        follows: whether it writes the window wherever the decoder's most likely tokens are the window's own.
    """

    follows: bool

    def write(self, writer: Writer, memory: Memory, length: int, judge: Judge) -> list[Reconstruction]:
        """Writes windows, each to EOS or ``2 * length`` tokens.  Windows do not influence one another.

        Args:
            writer: of the decoder.
            memory: of B windows of ``length`` tokens, as it is handed over.
            judge: of such memories.
        """
        ...


@runtime_checkable
class Particular(Protocol):
    """A search that serves some models only; asked before any long work."""

    def require(self, encoder: Adapter) -> None:
        """Raises: ConfigError, ModelError: it reads no memories of this model."""
        ...


class Located(Protocol):
    """A class of searches whose argument holds a path, which a study gives from its data folder."""

    @classmethod
    def path_in(cls, argument: str) -> str:
        """The end of the argument that is a path."""
        ...


@runtime_checkable
class Slow(Protocol):
    """A search that takes seconds a window: on a CPU each thread writes its own, and progress is told after each.

    Attributes:
        together: how many windows it is given at once, at most.
    """

    together: int


def read(spelt: str) -> Search:
    """The search that a study calls so: ``NAME``, or ``NAME:ARGUMENT``.

    Raises:
        ConfigError: no such file; an argument that is missing, surplus or wrong.
    """
    name, colon, argument = spelt.partition(":")
    found = plugins.find("search", name)
    if isinstance(found, type):
        made: Search = found(argument)
        return made
    if colon:
        raise ConfigError(f"the search {name!r} takes no argument, and {spelt!r} gives one", remedy=f"Write {name}")
    plain: Search = found
    return plain


def counts(pattern: str, argument: str, name: str, wanted: str, example: str) -> list[int | None]:
    """The groups of the pattern in an argument as numbers, None for one that is left out.

    Args:
        wanted: what the argument must be, in words.
        example: one that will do.

    Raises:
        ConfigError: it is something else.
    """
    found = re.fullmatch(pattern, argument, re.ASCII)
    if found is None:
        given = f"got {argument!r}" if argument else "has none"
        raise ConfigError(
            f"the search {name!r} needs {wanted}, and {given}", remedy=f"Write {name}:{example}, for example"
        )
    return [None if group is None else int(group) for group in found.groups()]
