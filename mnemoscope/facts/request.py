"""The study that a command line asks for: a model, texts, and the trained decoder that writes its memory back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mnemoscope import config, zoo
from mnemoscope.errors import ConfigError, ModelError
from mnemoscope.facts.find import KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be checked.

    Attributes:
        model: embedded name, folder, or hub name.
        files: files, folders or globs.
        after: numbers of tokens, rising, with commas between them.
        decoder: a folder of trained decoders, or a run that holds one; None: the one shipped with the model.
        kinds: of facts, ``KIND`` or ``KIND:ARGUMENT``, a file in annotate/.
        most: facts at each of ``after``, drawn evenly over documents; None: all.
        text: field of a record that holds the text.
    """

    model: str
    files: Sequence[str]
    after: str
    decoder: Path | None = None
    kinds: Sequence[str] = KINDS
    most: int | None = None
    text: str = "text"
    seed: int = 0
    device: str = "auto"

    def study(self) -> config.Study:
        """Raises: ConfigError, ModelError: there is no decoder, or none for so many tokens, or an option is wrong."""
        try:
            after = [int(part) for part in self.after.split(",")]
        except ValueError:
            raise ConfigError(
                f"--after takes whole numbers with commas between them, not {self.after!r}", remedy="Such as 16,64,256"
            ) from None
        folder, weights = decoder_of(
            self.model,
            self.decoder,
            "Train one under the conditions memory and none (mnemoscope run STUDY.toml --out RUN; studies/ has "
            "examples), then give it: --decoder RUN/checkpoints/NAME",
        )
        decoder = about(folder)
        longest = max(decoder["lengths"])
        if max(after) > longest:
            raise ConfigError(
                f"this decoder was trained on windows of at most {longest} tokens: after {max(after)} a fact that is "
                "missing may be lost to it alone",
                remedy=f"Ask for at most {longest}, or train a decoder on longer windows",
                file=folder,
            )
        values = {
            "name": "check",
            "seed": self.seed,
            "model": {"name": self.model},
            "compute": {"device": self.device},
            "text": {"measure": [{"path": path, "text": self.text} for path in self.files]},
            "windows": {"lengths": after},
            "decoders": [
                {"name": "decoder", "recipe": "trained", "weights": weights}
                | {"seeds": decoder["seeds"], "conditions": ["memory", "none"]}
            ],
            "estimate": {"by": []},
        }
        try:
            made = config.Study.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{where}: {message}", remedy="Mend that option") from None
        return config.resolve(made, Path.cwd())


def decoder_of(model: str, given: Path | None, otherwise: str) -> tuple[Path, str]:
    """A folder of trained decoders, and how a study names it.

    Args:
        given: the folder, or a run that holds one; None: the decoder that is shipped with the model.
        otherwise: what to do where none is shipped.

    Raises:
        ConfigError: none is shipped.
        ModelError: there is not exactly one.
    """
    if given is None:
        shipped = zoo.folder() / model / "decoders"
        if (shipped / "decoder.json").exists():
            return shipped, model
        raise ConfigError(
            f"no decoder is shipped with {model!r}, and a memory tells nothing by itself", remedy=otherwise
        )
    places = [p.parent for pattern in ("", "*/", "checkpoints/*/") for p in given.glob(f"{pattern}decoder.json")]
    if len(places) != 1:
        held = f"several: {', '.join(map(str, sorted(places)))}" if places else "none"
        raise ModelError(
            f"one folder of trained decoders is wanted here, and there are {held}",
            remedy="Give RUN/checkpoints/NAME of a run whose decoders are trained (mnemoscope train RUN)",
            file=given,
        )
    return places[0], str(places[0].absolute())


def about(folder: Path) -> dict[str, Any]:
    """What a folder of trained decoders says of itself, with its lengths and seeds."""
    file = folder / "decoder.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not (found["lengths"] and found["seeds"]):
            raise ValueError("no lengths or seeds")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"damaged ({error})", remedy="Train these decoders anew", file=file) from None
    return found
