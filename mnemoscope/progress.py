"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Task(Protocol):
    """One bar."""

    def at(self, done: float, note: str = "") -> None:
        """``done`` of the task's total; ``note`` is shown beside it."""
        ...


class Progress(Protocol):
    """Somebody who listens: the command line, or nobody."""

    def task(self, what: str, total: float, unit: str) -> AbstractContextManager[Task]:
        """A bar for ``total`` units of work."""
        ...

    def say(self, line: str) -> None:
        """One line worth reading."""
        ...


class _SilentTask:
    def at(self, done: float, note: str = "") -> None:
        pass


class Silent:
    """Nobody listens."""

    def task(self, what: str, total: float, unit: str) -> AbstractContextManager[Task]:
        return nullcontext(_SilentTask())

    def say(self, line: str) -> None:
        pass
