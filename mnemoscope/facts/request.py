"""The study that a command line asks for: a model, texts, and the trained decoder that writes its memory back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnemoscope import config
from mnemoscope.errors import ConfigError
from mnemoscope.facts.find import KINDS
from mnemoscope.request import checked, trained, whole_numbers


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
        after = whole_numbers(self.after, "--after", "16,64,256")
        found = trained(self.model, self.decoder)
        if found is None:
            raise ConfigError(
                f"no decoder is shipped with {self.model!r}, and a memory tells nothing by itself",
                remedy="Train one under the conditions memory and none (mnemoscope measure MODEL TEXTS --train TEXTS "
                "..., or mnemoscope run STUDY.toml), then give it: --decoder RUN/checkpoints/NAME",
            )
        found.require(after)
        values = {
            "name": "check",
            "seed": self.seed,
            "model": {"name": self.model},
            "compute": {"device": self.device},
            "text": {"measure": [{"path": path, "text": self.text} for path in self.files]},
            "windows": {"lengths": after},
            "decoders": [
                {"name": "decoder", "recipe": "trained", "weights": found.weights}
                | {"seeds": found.seeds, "conditions": ["memory", "none"]}
            ],
            "estimate": {"by": []},
        }
        return checked(values)
