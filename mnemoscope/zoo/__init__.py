"""What ships with the package: models, a corpus, the demo's study.  Data; the one function says where a study lies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def study(name: str) -> Path:
    """The file of an embedded study."""
    return Path(str(resources.files("mnemoscope.zoo"))) / "studies" / f"{name}.toml"
