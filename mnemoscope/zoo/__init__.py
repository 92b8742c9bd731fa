"""What ships with the package: models, a corpus, the demo's study.  Data; the functions say where it lies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def folder() -> Path:
    """Where all of it lies."""
    return Path(str(resources.files("mnemoscope.zoo")))


def study(name: str) -> Path:
    """The file of an embedded study."""
    return folder() / "studies" / f"{name}.toml"
