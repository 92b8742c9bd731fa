"""What is wrong with a study file, as an error that names the line and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mnemoscope.errors import ConfigError


def explain(
    error: ValidationError, study: type[BaseModel], path: Path, content: str, within: Sequence[str] = ()
) -> ConfigError:
    """The first error of a study, or of the section of one that lies ``within`` these keys."""
    # a required key that is misspelt is missing and unknown: the second says more
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = [*within, *(str(p) for p in first["loc"])]
    where = ".".join(place) or "the study"
    line = line_of(content, place)
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(study, first["loc"][:-1])
        near = get_close_matches(place[-1], known, n=1)
        remedy = f"Did you mean {near[0]!r}? " if near else ""
        return ConfigError(
            f"unknown key {where!r}{more}", remedy=f"{remedy}Known here: {', '.join(known)}", file=path, line=line
        )
    if first["type"] == "missing":
        return ConfigError(f"missing key {where!r}{more}", remedy="Add it", file=path, line=line)
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{where}: {message}{more}", remedy="Mend that value", file=path, line=line)


def _fields_at(study: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys that a study knows at a place such as ('decoders', 0, 'optimiser')."""
    model = study
    for part in location:
        if isinstance(part, int):
            continue
        annotation: Any = model.model_fields[part].annotation
        nested = [a for a in _flatten(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation] if not arguments else [x for a in arguments for x in _flatten(a)]


def line_of(content: str, place: list[str]) -> int | None:
    """The line that most likely holds ``place``: the key below the innermost table header that there is."""
    lines = content.splitlines()
    wanted = [p for p in place if not p.isdigit()]
    if not wanted:
        return None
    begin, end = 0, len(lines)
    for number, part in enumerate(place):
        if part.isdigit():
            continue
        names = [p for p in place[: number + 1] if not p.isdigit()]
        header = re.compile(r"^\s*\[+\s*" + r"\s*\.\s*".join(map(re.escape, names)) + r"\s*\]+")
        hits = [n for n in range(begin, end) if header.match(lines[n])]
        if hits:
            following = place[number + 1] if number + 1 < len(place) else ""
            chosen = min(int(following) if following.isdigit() else 0, len(hits) - 1)
            begin, end = hits[chosen], [*hits, end][chosen + 1]
    key = re.compile(rf"(^|[\s{{,\"'\[]){re.escape(wanted[-1])}([\s=\]\"',]|$)")
    for number in range(begin, len(lines)):
        if key.search(lines[number].split("#")[0]):
            return number + 1
    return begin + 1
