"""What is said of a folder of trained decoders, in its ``decoder.json``: written when they are trained, read by whoever
takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from mnemoscope.errors import ModelError
from mnemoscope.rundir import write_atomically


class About(BaseModel):
    """What the decoders of a folder have in common.

    Attributes:
        recipe: how they were trained; nothing hangs on it any more.
        lengths: in tokens, of the windows that they have learnt to read.
        encoder: digest of the encoder that they belong to.
        seeds: of their trainings.
        family, options: a file in codec/families/ and what it is made with; there were none before there was a second.
        origin: digest of the model that they began as, empty if that is the encoder.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    recipe: str = ""
    lengths: Annotated[list[PositiveInt], Field(min_length=1)]
    encoder: str
    seeds: Annotated[list[int], Field(min_length=1)]
    family: str = "native"
    options: dict[str, Any] = {}
    origin: str = ""


def file_of(folder: Path) -> Path:
    return folder / "decoder.json"


def write(folder: Path, about: About) -> None:
    write_atomically(file_of(folder), about.model_dump_json(indent=1))


def read(folder: Path) -> About:
    """Raises: ModelError: it is damaged."""
    try:
        return About.model_validate_json(file_of(folder).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(folder, ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from None


def damaged(folder: Path, problem: str) -> ModelError:
    return ModelError(f"damaged ({problem})", remedy="Train these decoders anew", file=file_of(folder))


def beyond(learnt: Sequence[int], lengths: Sequence[int]) -> str:
    """What to say of a decoder where windows are shorter or longer than all that it has learnt to read; else empty."""
    least, most = min(learnt), max(learnt)
    others = ", ".join(str(length) for length in lengths if not least <= length <= most)
    if not others:
        return ""
    return f"was trained on windows of {least} to {most} tokens: what is missing after {others} may be lost to it alone"
