"""The study that a command line asks for: a model and a text, no decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mnemoscope import config, plugins
from mnemoscope.errors import ConfigError


def study(
    model: str,
    text: Sequence[str],
    lengths: str,
    tokens_per_length: int,
    *,
    name: str = "certificate",
    domain: str | None = None,
    annotations: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
) -> config.Study:
    """A study of what is there without any decoder.

    Args:
        model: embedded name, folder, or hub name.
        text: files, folders or globs.
        lengths: of windows in tokens, rising, with commas between them.
        tokens_per_length: at most so many tokens' worth of windows at each length.
        name: of the study.
        domain: field of a record that holds the domain.
        annotations: ``KIND`` or ``KIND:ARGUMENT``, a file in annotate/ and what it is made with; named after the kind.

    Raises:
        ConfigError: a length that is no number, lengths that do not rise, an unknown annotation, one given twice.
    """
    try:
        of_windows = [int(part) for part in lengths.split(",")]
    except ValueError:
        raise ConfigError(
            f"lengths are whole numbers with commas between them, not {lengths!r}", remedy="For example: 64,256"
        ) from None
    named = [a.partition(":")[::2] for a in annotations]
    for kind, _ in named:
        plugins.load("annotation", kind)
    by = ["domain"] if domain else []
    values: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "model": {"name": model},
        "compute": {"device": device},
        "text": {"measure": [{"path": path} | ({"domain": domain} if domain else {}) for path in text]},
        "windows": {"lengths": of_windows, "tokens_per_length": tokens_per_length},
        "annotations": [{"name": kind, "kind": kind, "argument": argument} for kind, argument in named],
        "estimate": {"by": [*by, *(kind for kind, _ in named)]},
    }
    return config.resolve(validated(values), Path.cwd())


def validated(values: dict[str, Any]) -> config.Study:
    """The study that ``values`` say; what is wrong with them is one option's fault.

    Raises:
        ConfigError: something is.
    """
    try:
        return config.Study.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {message}", remedy="Mend that option") from None
