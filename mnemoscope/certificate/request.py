"""The study that a command line asks for: a model and a text, no decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mnemoscope import config, plugins
from mnemoscope.request import checked, whole_numbers


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
    of_windows = whole_numbers(lengths, "--lengths", "64,256")
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
    return checked(values)
