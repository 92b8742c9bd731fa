"""Values of a study that are not its file's: ``KEY=VALUE``, as ``--set`` takes them."""

from __future__ import annotations

import datetime
import tomllib
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from mnemoscope.config.dump import bare
from mnemoscope.config.explain import Change, types_at
from mnemoscope.errors import ConfigError


def change(values: dict[str, Any], given: str, study: type[BaseModel]) -> Change:
    """Sets one of a study's values, in place; sections on the way to it that are not there are made.

    Args:
        values: of the file, not checked.
        given: ``KEY=VALUE``.  KEY has dots between its parts, as in TOML; a part that chooses from a list is the name
            of what is chosen, or its number from 0.  VALUE is TOML, or else text.
        study: the schema, which says what is a list.

    Raises:
        ConfigError: no KEY=VALUE, or KEY leads nowhere; whether there is such a key, and such a value of it, the schema
            is asked later.
    """
    option = f"--set {given}"
    keys, text = _split(given)
    if not keys:
        raise ConfigError(
            f"{option}: not KEY=VALUE, with KEY as in TOML",
            remedy="Such as --set model.name=my-model or --set 'decoders.0.seeds=[0, 1]'",
        )
    at: Any = values
    place: list[str] = []
    made: list[str] = []
    for number, key in enumerate(keys):
        where = ".".join(map(bare, keys[:number]))
        chosen: str | int = key
        if isinstance(at, list):
            chosen = _choose(at, key, where, option)
        elif not isinstance(at, dict):
            raise ConfigError(f"{option}: {where} is {at!r}, which has no keys", remedy=f"Set {where} itself")
        place.append(str(chosen))
        if number == len(keys) - 1:
            at[chosen] = _value(text)
            break
        if isinstance(at, dict) and key not in at:
            if {list, tuple} & set(types_at(study, place)):
                whole = ".".join(map(bare, keys[: number + 1]))
                raise ConfigError(
                    f"{option}: the study has no {whole} to choose from",
                    remedy=f"Write them into the file, or set all of {whole} to a list",
                )
            at[key] = {}
            made = made or [*place]
        at = at[chosen]
    return Change(option, tuple(made or place))


def _split(given: str) -> tuple[list[str], str]:
    """The parts of KEY, and VALUE; no parts if TOML has no such key."""
    parts = given.split("=")
    # the first = ends the key, unless it is in quotes there
    for number in range(1, len(parts)):
        keys = _keys("=".join(parts[:number]))
        if keys:
            return keys, "=".join(parts[number:])
    return [], ""


def _keys(spelt: str) -> list[str]:
    try:
        at: Any = tomllib.loads(f"{spelt} = 0")
    except tomllib.TOMLDecodeError:
        return []
    keys = []
    while isinstance(at, dict) and len(at) == 1:
        ((key, at),) = at.items()
        keys.append(key)
    return keys if at == 0 else []


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # more lines are more keys; and a study has no dates, but a model's revision may be called after one
    if len(read) > 1 or isinstance(read["value"], datetime.date | datetime.time):
        return text
    return read["value"]


def _choose(items: list[Any], key: str, where: str, option: str) -> int:
    """The index of what is called so, or has this number."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if key in names:
        return names.index(key)
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    there = [name if isinstance(name, str) else str(index) for index, name in enumerate(names)]
    near = get_close_matches(key, there, n=1)
    hint = f"Did you mean {bare(near[0])}? " if near else ""
    raise ConfigError(
        f"{option}: there is no {bare(key)} in {where}",
        remedy=f"{hint}There are: {', '.join(map(bare, there))}" if there else f"{where} is empty: set all of it",
    )
