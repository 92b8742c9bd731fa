"""Which decoders a study trains, and where their weights lie.

A folder of trained decoders::

    decoder.json                      recipe, lengths, family and its options, and the encoder they belong to
    seed-0/memory.safetensors         recipe growing: one for all lengths
    seed-0/memory-L64.safetensors     recipe fixed: one a length
    seed-0/none.safetensors           the twin that was trained without a memory
    seed-0/bits-8.safetensors         trained under the condition bits:8
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model

from mnemoscope import config, plugins, trained, zoo
from mnemoscope.codec.decoder import Decoder
from mnemoscope.errors import ConfigError, ModelError
from mnemoscope.rundir import file_name
from mnemoscope.train.plan import Plan, fixed, growing

log = logging.getLogger(__name__)

#: steps for each length below which a training has hardly begun: AdamW's mean of squared gradients looks back on as
#: many, 1 / (1 - 0.95)
STEPS = 20


@dataclass(frozen=True, slots=True)
class Job:
    """One decoder to train.

    Attributes:
        condition: the condition that it is trained under (``trained_as`` of those it is measured under).
        length: the one length of recipe ``fixed``; None for all of ``lengths``.
    """

    decoder: config.Decoder
    seed: int
    condition: str
    lengths: tuple[int, ...]
    length: int | None

    @property
    def name(self) -> str:
        return f"seed-{self.seed}/{self.condition}" + ("" if self.length is None else f"-L{self.length}")

    def weights(self, root: Path) -> Path:
        return root / self.decoder.name / f"{file_name(self.name)}.safetensors"

    @property
    def steps(self) -> int:
        """How many steps the decoder's tokens are enough for.  Recipe ``fixed`` shares them equally among its lengths:
        both recipes cost the same."""
        d = self.decoder
        assert d.tokens is not None
        assert d.batch_tokens is not None
        return d.tokens // (1 if self.length is None else len(self.lengths)) // d.batch_tokens

    def plan(self, study_seed: int) -> Plan:
        """Raises: ConfigError: it would end before it has met each of its lengths, which it could then not read."""
        d = self.decoder
        assert d.batch_tokens is not None
        assert d.optimiser is not None
        if self.length is None:
            assert d.growth is not None
            assert d.balance is not None
            lengths = growing(self.lengths, self.steps, d.growth, (study_seed, self.seed), d.shares)
            plan = Plan(lengths, d.batch_tokens, d.optimiser, d.checkpoint_every, d.balance)
        else:
            plan = Plan(fixed(self.length, self.steps), d.batch_tokens, d.optimiser, d.checkpoint_every)
        wanted = self.lengths if self.length is None else (self.length,)
        if never := sorted(set(wanted) - set(plan.lengths.tolist())):
            named = ", ".join(map(str, never))
            raise ConfigError(
                f"{self._told}, and never on windows of {named} tokens", remedy=f"{self._more}; or leave out lengths"
            )
        return plan

    @property
    def caution(self) -> str:
        """What to say of a training of hardly any steps; else empty."""
        if self.steps >= STEPS * (len(self.lengths) if self.length is None else 1):
            return ""
        return (
            f"{self._told}: hardly a beginning, and what it does not recover tells nothing of the memory. {self._more}"
        )

    @property
    def _told(self) -> str:
        d = self.decoder
        steps = "1 step" if self.steps == 1 else f"{self.steps:,} steps"
        each = "" if self.length is None else " for each length"
        return f"decoder {d.name!r} would be trained for {steps} of {d.batch_tokens:,} tokens{each}"

    @property
    def _more(self) -> str:
        d = self.decoder
        assert d.batch_tokens is not None
        least = STEPS * len(self.lengths) * d.batch_tokens
        return f"Raise its tokens from {d.tokens:,} to {least:,} at least ({STEPS} steps a length), better to millions"


def lengths_of(decoder: config.Decoder, study: config.Study) -> tuple[int, ...]:
    assert study.windows is not None
    return tuple(decoder.lengths or study.windows.lengths)


def jobs(study: config.Study) -> list[Job]:
    """Every training that the study asks for, in the order in which it is done."""
    found = []
    for decoder in study.decoders:
        if decoder.recipe == "trained":
            continue
        under = sorted({plugins.load("condition", c).trained_as for c in decoder.conditions})
        lengths = lengths_of(decoder, study)
        for seed in decoder.seeds:
            for condition in under:
                for length in lengths if decoder.recipe == "fixed" else [None]:
                    found.append(Job(decoder, seed, condition, lengths, length))
    return found


def describe(folder: Path, decoder: config.Decoder, lengths: Sequence[int], encoder: str, origin: str) -> None:
    """Writes ``decoder.json``.

    Args:
        encoder: digest of the study's encoder.
        origin: see :class:`mnemoscope.codec.decoder.Decoder`.
    """
    about = trained.About(
        recipe=decoder.recipe,
        lengths=list(lengths),
        encoder=encoder,
        seeds=decoder.seeds,
        family=decoder.family,
        options=decoder.options or {},
        origin=origin,
    )
    trained.write(folder, about)


def family_of(decoder: config.Decoder, checkpoints: Path) -> tuple[str, dict[str, Any]]:
    """The family of a study's decoder, and its options: the study's, or those that trained weights were trained with.

    Raises:
        ModelError: there are no such weights, or what is said of them is damaged.
    """
    if decoder.recipe != "trained":
        return decoder.family, decoder.options or {}
    folder = folder_of(decoder, checkpoints)
    about = trained.read(folder)
    try:
        plugins.load("family", about.family).Options.model_validate(about.options)
    except (ConfigError, ValidationError) as error:
        raise trained.damaged(folder, " ".join(str(error).split())) from None
    return about.family, about.options


def require_origin(decoder: config.Decoder, checkpoints: Path, origin: str) -> None:
    """Refuses trained decoders that began as another model than the one that is there under its name now."""
    if decoder.recipe != "trained":
        return
    folder = folder_of(decoder, checkpoints)
    if trained.read(folder).origin != origin:
        raise ModelError(
            "these decoders began as another model than the one that is called so now",
            remedy="Put that model back, or train new ones",
            file=trained.file_of(folder),
        )


def source(decoder: config.Decoder, study: config.Study) -> config.Decoder:
    """The decoder whose weights a decoder has: another of the study (``of``), or itself."""
    return next((d for d in study.decoders if d.name == decoder.of), decoder)


def folder_of(decoder: config.Decoder, checkpoints: Path) -> Path:
    """Where the weights of a study's decoder lie that has its own (:func:`source`): the run's checkpoints, the package,
    or a folder.

    Raises:
        ModelError: recipe ``trained`` names no such folder.
    """
    if decoder.weights is None:
        return checkpoints / decoder.name
    embedded = zoo.folder() / decoder.weights / "decoders"
    folder = embedded if embedded.is_dir() else Path(decoder.weights)
    if not trained.file_of(folder).exists():
        raise ModelError(
            f"no trained decoders at {decoder.weights!r}",
            remedy="Give an embedded name (mamba-nano), or RUN/checkpoints/NAME of an earlier run",
            file=folder,
        )
    return folder


def check(decoder: config.Decoder, checkpoints: Path, encoder: str, study: config.Study) -> None:
    """Refuses trained decoders that belong to another encoder or lack a seed, before any long work.

    Args:
        encoder: digest of the study's encoder.

    Raises:
        ModelError: they do.
        ConfigError: they are another decoder's of the study, which is not trained under some condition.
    """
    if decoder.recipe != "trained":
        return
    other = source(decoder, study)
    if other.recipe != "trained":
        under = {plugins.load("condition", c).trained_as for c in other.conditions}
        lacking = [c for c in decoder.conditions if plugins.load("condition", c).trained_as not in under]
        if lacking:
            raise ConfigError(
                f"decoder {decoder.name!r} is {other.name!r}, which no condition trains for {', '.join(lacking)}",
                remedy=f"Add it to the conditions of {other.name!r}, or leave it out",
            )
        return
    folder = folder_of(other, checkpoints)
    found = trained.read(folder)
    if found.encoder != encoder:
        raise ModelError(
            "these decoders were trained for another encoder",
            remedy="Name the encoder that they were trained for, or train new ones",
            file=trained.file_of(folder),
        )
    lengths = lengths_of(decoder, study)
    if unlearnt := trained.beyond(found.lengths, lengths):
        log.warning("decoder %s %s", decoder.name, unlearnt)
    for seed in decoder.seeds:
        for condition in decoder.conditions:
            for length in lengths:
                _require_whole(find(folder, seed, plugins.load("condition", condition).trained_as, length))


def _require_whole(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise ModelError(f"not weights that we read ({error})", remedy="Fetch or train them again", file=file) from None


def find(folder: Path, seed: int, condition: str, length: int) -> Path:
    """The weights for a length: those of that length alone, else those for all.

    Raises:
        ModelError: there are none.
    """
    choices = [
        folder / f"seed-{seed}" / f"{file_name(condition)}{suffix}.safetensors" for suffix in (f"-L{length}", "")
    ]
    for file in choices:
        if file.exists():
            return file
    raise ModelError(
        f"no decoder for condition {condition!r}, seed {seed}, {length} tokens",
        remedy="Train it first (mnemoscope train), or leave it out of the study",
        file=choices[1],
    )


def load_weights(decoder: Decoder, file: Path) -> None:
    """Puts trained weights into a decoder, which keeps its dtype.

    Raises:
        ModelError: they do not fit.
    """
    try:
        load_model(decoder, str(file), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"these weights are not this encoder's decoder ({error})", remedy="Train this decoder anew", file=file
        ) from None
