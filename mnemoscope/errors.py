"""The one family of errors that Mnemoscope raises on purpose.

Every message says what is wrong, where (file and line where there is one), and what to do about it.
The command line prints these without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

from pathlib import Path


class MnemoscopeError(Exception):
    """Base of every expected failure.

    Args:
        problem: what is wrong, naming the thing.
        remedy: what the user can do about it.
        file: the file it was found in.
        line: 1-based line in ``file``.
    """

    exit_code = 2

    def __init__(self, problem: str, *, remedy: str, file: str | Path | None = None, line: int | None = None):
        self.problem, self.remedy, self.file, self.line = problem, remedy, file, line
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        super().__init__(f"{where}{problem}. {remedy}")


class ConfigError(MnemoscopeError):
    """The study file is not one we can run."""


class TextError(MnemoscopeError):
    """A corpus cannot be read, or holds nothing to measure."""


class ModelError(MnemoscopeError):
    """A model cannot be loaded, or is not one we may trust."""


class ContinuityError(ModelError):
    """The model's memory does not carry what it has read: reading a+b differs from reading b after a."""

    exit_code = 3


class RunError(MnemoscopeError):
    """A run folder cannot be used: another study's, incomplete, or no room left."""


class CountError(MnemoscopeError):
    """Counts cannot be made, read, or asked for."""
