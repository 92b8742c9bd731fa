"""What is wrong with a study, as an error that names the line, or the option, and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_origin

from pydantic import BaseModel, ValidationError

from mnemoscope.errors import ConfigError


class Change(NamedTuple):
    """A value of a study that is not the file's.

    Attributes:
        option: as it was asked for: ``--set KEY=VALUE``.
        place: of what it made or replaced: the key itself, or the outermost section that the file lacked.
    """

    option: str
    place: tuple[str, ...]


class Source(NamedTuple):
    """Where a study's values are from: its file, and what was changed of them."""

    path: Path
    content: str
    changes: Sequence[Change] = ()

    def change_of(self, place: Sequence[str]) -> Change | None:
        """The last change that made what is at a place; None: it is the file's."""
        return next((c for c in reversed(self.changes) if tuple(place[: len(c.place)]) == c.place), None)

    def error(self, problem: str, remedy: str, place: list[str]) -> ConfigError:
        """What is wrong at a place."""
        change = self.change_of(place)
        if change is not None:
            return ConfigError(f"{change.option}: {problem}", remedy=remedy)
        return ConfigError(problem, remedy=remedy, file=self.path, line=line_of(self.content, place))


def explain(error: ValidationError, study: type[BaseModel], source: Source, within: Sequence[str] = ()) -> ConfigError:
    """The first error of a study, or of the section of one that lies ``within`` these keys."""
    # a required key that is misspelt is missing and unknown: the second says more
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = [*within, *(str(p) for p in first["loc"])]
    where = ".".join(place) or "the study"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        section = next(iter(_models(types_at(study, first["loc"][:-1]))), None)
        known = [] if section is None else list(section.model_fields)
        near = get_close_matches(place[-1], known, n=1)
        remedy = f"Did you mean {near[0]!r}? " if near else ""
        return source.error(f"unknown key {where!r}{more}", f"{remedy}Known here: {', '.join(known)}", place)
    if first["type"] == "missing":
        return source.error(f"missing key {where!r}{more}", "Add it", place)
    message = first["msg"].removeprefix("Value error, ")
    remedy = "Mend that value"
    if first["type"].endswith("_type") and source.change_of(place) is not None:
        # a shell takes the quotes away, and what is then no TOML is text
        if first["type"] == "string_type":
            remedy = f"Quote what is text: --set '{where}=\"...\"'"
        elif isinstance(first["input"], str):
            remedy = "It was read as text: give TOML in single quotes, such as '[\"a\", \"b\"]', '[0, 1]', 3 or true"
    return source.error(f"{where}: {message}{more}", remedy, place)


def types_at(study: type[BaseModel], place: Sequence[str | int]) -> list[Any]:
    """The types that a study may have at a place such as ('decoders', 0, 'optimiser'), those that they hold included;
    none where it knows no such key."""
    types: list[Any] = [study]
    for part in place:
        if isinstance(part, str) and not part.isdigit():
            field = next((m.model_fields[part] for m in _models(types) if part in m.model_fields), None)
            types = [] if field is None else _flatten(field.annotation)
    return types


def _models(types: Sequence[Any]) -> list[type[BaseModel]]:
    return [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]


def _flatten(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [get_origin(annotation) or annotation, *(x for a in arguments for x in _flatten(a))]


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
