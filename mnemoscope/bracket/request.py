"""The study that a command line asks for: a model, a text, the decoders and searches that read its memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnemoscope import config, plugins
from mnemoscope.certificate import request
from mnemoscope.errors import ConfigError
from mnemoscope.request import BATCH_TOKENS, Trained, checked, trained

#: as how a decoder's text is chosen, unless one says otherwise: the last lets the encoder itself be the judge
SEARCHES = ("greedy", "beam:4", "reencode:4:16")
#: points of a learning curve, and the first of them as a share of the training
_POINTS, _FIRST = 8, 0.01
#: tokens of a step, at most; and steps that there are to be at least, where steps of BATCH_TOKENS allow it
_STEP, _STEPS = 32768, 500
_NONE = (
    "Give a trained one (--decoder RUN/checkpoints/NAME), or have one trained here: --tokens N --learning-rate R "
    "--train FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Decoders to be trained here, by the recipe ``growing``, with memory and without.

    Attributes:
        tokens: of windows, for each family.
        rate: the learning rate's peak.
        text: files, folders or globs; not those that are measured.
        families: files in codec/families/.
    """

    tokens: int
    rate: float
    text: Sequence[str]
    families: Sequence[str] = ("native",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be bracketed.

    Attributes:
        model: embedded name, folder, or hub name.
        text: files, folders or globs.
        lengths: of windows in tokens, rising, with commas between them.
        tokens_per_length: at most so many tokens' worth of windows at each length.
        decoders: folders of trained decoders, or runs that hold one each.
        training: decoders to train; without these and ``decoders``, the one shipped with the model is taken.
        searches: files in codec/search/; each decoder writes by each.
        domain, annotations, seed, device: as of :func:`mnemoscope.certificate.request.study`.
    """

    model: str
    text: Sequence[str]
    lengths: str
    tokens_per_length: int
    decoders: Sequence[Path] = ()
    training: Training | None = None
    searches: Sequence[str] = SEARCHES
    domain: str | None = None
    annotations: Sequence[str] = field(default_factory=tuple)
    seed: int = 0
    device: str = "auto"

    def study(self) -> config.Study:
        """Raises: ConfigError, ModelError: there is no decoder, or an option is wrong."""
        if not self.searches or len(set(self.searches)) < len(self.searches):
            raise ConfigError("a search is given twice, or none", remedy="Give each once, e.g. --search greedy")
        for search in self.searches:
            plugins.load("search", search)
        parts: dict[str, Any] = {"name": "bracket", "domain": self.domain, "annotations": self.annotations}
        parts |= {"seed": self.seed, "device": self.device}
        plain = request.study(self.model, self.text, self.lengths, self.tokens_per_length, **parts)
        assert plain.windows is not None
        given: list[Path | None] = [*self.decoders]
        if not given and self.training is None:
            given = [None]
        found = [self._there(folder) for folder in given]
        for one in found:
            one.require(plain.windows.lengths)
        names = [f"decoder-{i + 1}" if len(found) > 1 else "decoder" for i in range(len(found))]
        decoders: list[dict[str, Any]] = [
            {"name": name, "recipe": "trained", "weights": of.weights, "seeds": of.seeds}
            for name, of in zip(names, found, strict=True)
        ]
        decoders += [self._trained(family, plain.windows.lengths[-1]) for family in self._families()]
        every = [d for one in decoders for d in self._searched(one)]
        by = ["position", *plain.estimate.by]
        values = plain.model_dump(mode="json", exclude_defaults=True)
        values |= {"decoders": every, "estimate": {"by": by}}
        if self.training:
            domain = {"domain": self.domain} if self.domain else {}
            values["text"]["train"] = [{"path": path} | domain for path in self.training.text]
        return checked(values)

    def _there(self, folder: Path | None) -> Trained:
        found = trained(self.model, folder)
        if found is None:
            raise ConfigError(
                f"no decoder is shipped with {self.model!r}, and a memory tells nothing by itself", remedy=_NONE
            )
        return found

    def _families(self) -> Sequence[str]:
        if self.training is None:
            return ()
        if not self.training.text:
            raise ConfigError(
                "there is no text to train a decoder on", remedy="Give --train FILE, not what is measured"
            )
        for family in self.training.families:
            plugins.load("family", family)
        return self.training.families

    def _trained(self, family: str, longest: int) -> dict[str, Any]:
        assert self.training is not None
        tokens = self.training.tokens
        evaluate = {"tokens": self.tokens_per_length, "times": _POINTS, "first": _FIRST}
        return {
            **{"name": family, "recipe": "growing", "family": family, "seeds": [self.seed], "tokens": tokens},
            "batch_tokens": max(longest, BATCH_TOKENS, min(_STEP, tokens // _STEPS)),
            "optimiser": {"learning_rate": self.training.rate},
            "evaluate": evaluate,
        }

    def _searched(self, one: dict[str, Any]) -> list[dict[str, Any]]:
        """A decoder by its first search, and the same one by each other."""
        name, conditions = one["name"], ["memory"]
        first = one | {"search": self.searches[0], "conditions": [*conditions, "none"]}
        others = [
            {"name": f"{name}.{_named(search)}", "recipe": "trained", "of": name, "seeds": one["seeds"]}
            | {"search": search, "conditions": conditions}
            for search in self.searches[1:]
        ]
        return [first, *others]


def _named(search: str) -> str:
    """A search as a part of a decoder's name: a folder's path is one too."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", search)
