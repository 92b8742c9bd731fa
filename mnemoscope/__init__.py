"""Mnemoscope: what a recurrent language model's fixed-size memory keeps, and what it forgets.

    Document -> Window -> Memory -> Reconstruction -> aligned pair -> token record -> Estimate -> figure, table, report

A frozen model reads a window of text into its memory; a decoder, started from that memory alone, writes the window
back; what comes back wrong was not read out.  See arXiv 2512.15653 for the method and ``docs/`` for what is added.

    >>> import mnemoscope as mn
    >>> study = mn.load_study("study.toml")
    >>> run = mn.run(study, out="runs/mine")
    >>> run.table("estimates")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: public name -> module that holds it; nothing heavy is imported before it is used
_PUBLIC = {
    "load_study": ("mnemoscope.config", "load"),
    "Study": ("mnemoscope.config", "Study"),
    "load_model": ("mnemoscope.memory.load", "load"),
    "run": ("mnemoscope.pipeline", "run"),
    "RunDir": ("mnemoscope.rundir", "RunDir"),
    "MnemoscopeError": ("mnemoscope.errors", "MnemoscopeError"),
}

if TYPE_CHECKING:
    from mnemoscope.config import Study as Study
    from mnemoscope.config import load as load_study
    from mnemoscope.errors import MnemoscopeError as MnemoscopeError
    from mnemoscope.memory.load import load as load_model
    from mnemoscope.pipeline import run as run
    from mnemoscope.rundir import RunDir as RunDir

__all__ = ["MnemoscopeError", "RunDir", "Study", "__version__", "load_model", "load_study", "run"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mnemoscope' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
