"""Finding a plug-in: one file in one folder, found by its name.

A new architecture is a file in ``memory/``, a condition one in ``controls/``, a metric one in
``score/metrics/``, an annotation one in ``annotate/``, a search one in ``codec/search/``, a family of decoders
one in ``codec/families/``.  The file exposes the plug-in under the attribute named in ``KINDS``; nothing is
registered anywhere, and nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from typing import Any

from mnemoscope.errors import ConfigError

#: kind -> (package that holds the files, attribute that each file exposes)
KINDS: dict[str, tuple[str, str]] = {
    "memory": ("mnemoscope.memory.architectures", "ARCHITECTURE"),
    "condition": ("mnemoscope.controls", "CONDITION"),
    "metric": ("mnemoscope.score.metrics", "METRIC"),
    "search": ("mnemoscope.codec.search", "SEARCH"),
    "annotation": ("mnemoscope.annotate", "ANNOTATION"),
    "family": ("mnemoscope.codec.families", "FAMILY"),
}


def names(kind: str) -> list[str]:
    """Every plug-in of ``kind``, sorted: the public modules of its folder."""
    package = importlib.import_module(KINDS[kind][0])
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load(kind: str, name: str) -> Any:
    """The plug-in ``name`` of ``kind``; for a condition or a search, as it is spelt in a study
    (:func:`mnemoscope.controls.read`, :func:`mnemoscope.codec.search.read`).

    Raises:
        ConfigError: no such plug-in.
    """
    if kind in ("condition", "search"):
        return importlib.import_module(KINDS[kind][0]).read(name)
    return find(kind, name)


def find(kind: str, name: str) -> Any:
    """What the file ``name`` of ``kind`` exposes.

    Raises:
        ConfigError: no such file; the message lists what there is and suggests the nearest.
    """
    package, attribute = KINDS[kind]
    known = names(kind)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"no {kind} named {name!r}",
            remedy=f"{hint}There are: {', '.join(known)}. A new one is one file in {package.replace('.', '/')}/",
        )
    return getattr(importlib.import_module(f"{package}.{name}"), attribute)
