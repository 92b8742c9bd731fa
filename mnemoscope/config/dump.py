"""A study as TOML text."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel


def dump(study: BaseModel) -> str:
    """The study as TOML text, every default written out; ``load`` of it gives the same study."""
    out: list[str] = []

    def table(values: dict[str, Any], name: str) -> None:
        for key, value in values.items():
            if value is None or isinstance(value, dict) or _is_tables(value):
                continue
            out.append(f"{bare(key)} = {_scalar(value)}")
        for key, value in values.items():
            full = f"{name}.{key}" if name else key
            if isinstance(value, dict):
                out.append(f"\n[{full}]")
                table(value, full)
            elif _is_tables(value):
                for item in value:
                    out.append(f"\n[[{full}]]")
                    table(item, full)

    table(study.model_dump(mode="json"), "")
    return "\n".join(out) + "\n"


def bare(key: str) -> str:
    """A key as TOML has it: in quotes where it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _scalar(key)


def _scalar(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{bare(k)} = {_scalar(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_scalar(v) for v in value) + "]"
    # what JSON writes is TOML too, but for the character DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
