"""A study file: TOML in, a checked ``Study`` out.  An unknown key is an error that names its line, or the
``--set`` that it comes from.

Nothing that is measured has a default: lengths, token budgets, seeds and conditions stand in the study.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from mnemoscope.config.change import change
from mnemoscope.config.dump import dump
from mnemoscope.config.explain import Source, explain
from mnemoscope.config.sections import (
    Annotation,
    Compute,
    Corpus,
    Decoder,
    Effects,
    Estimates,
    Evaluate,
    Model,
    Optimiser,
    Pretrain,
    Report,
    Section,
    Seed,
    Text,
    Windows,
)
from mnemoscope.errors import ConfigError

__all__ = [
    "Annotation",
    "Compute",
    "Corpus",
    "Decoder",
    "Effects",
    "Estimates",
    "Evaluate",
    "Model",
    "Optimiser",
    "Pretrain",
    "Report",
    "Section",
    "Seed",
    "Study",
    "Text",
    "Windows",
    "dump",
    "load",
    "resolve",
]


class Study(Section):
    """Everything that decides a run's numbers."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: Seed
    model: Model | None = None
    compute: Compute = Field(default_factory=Compute)
    text: Text
    windows: Windows | None = None
    decoders: list[Decoder] = Field(default_factory=list)
    annotations: list[Annotation] = Field(default_factory=list)
    estimate: Estimates = Field(default_factory=Estimates)
    effects: list[Effects] = Field(default_factory=list)
    report: Report = Field(default_factory=Report)
    pretrain: Pretrain | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if "pair" in [*self.estimate.by, *(e.by for e in self.effects)] and not any(c.pair for c in self.text.measure):
            raise ValueError("by 'pair': name the field of pairs in text.measure (pair = ...)")
        self._refuse_differing()
        if any(c.control for c in self.text.train):
            raise ValueError("control text is measured, not trained on: leave control out of text.train")
        if self.annotations and any(c.control for c in self.text.measure):
            raise ValueError("annotations are of text as it stands: measure control text in a study of its own")
        if self.annotations:
            self._refuse_names()
        if len({d.name for d in self.decoders}) != len(self.decoders):
            raise ValueError("two decoders share a name")
        if self.decoders:
            if self.windows is None or self.model is None:
                raise ValueError("decoders need the sections [model] and [windows]")
            for d in self.decoders:
                extra = set(d.lengths or []) - set(self.windows.lengths)
                if extra:
                    raise ValueError(f"decoder {d.name!r} has lengths that the study has not: {sorted(extra)}")
                lengths = d.lengths or self.windows.lengths
                if d.shares is not None and len(d.shares) != len(lengths):
                    raise ValueError(f"decoder {d.name!r} has {len(d.shares)} shares for {len(lengths)} lengths")
                self._refuse_strangers(d)
        if self.estimate.guesses is not None:
            self._refuse_a_lender_without(self.estimate.guesses)
        return self

    def _refuse_names(self) -> None:
        """Refuses annotations that share a name, or have one of something else."""
        from mnemoscope.schema import TABLES

        taken = {"all", "pair", "group", *(c.name for c in TABLES["tokens"])}
        for name in [a.name for a in self.annotations]:
            if name in taken:
                raise ValueError(f"an annotation cannot be called {name!r}, which is another's name: give it another")
            taken.add(name)

    def _refuse_differing(self) -> None:
        """Refuses effects by the same groups that ask for different comparisons: every two groups are compared once."""
        of_by: dict[str, Effects] = {}
        for e in self.effects:
            other = of_by.setdefault(e.by, e)
            for key in ("base", "words", "sentences"):
                if getattr(e, key) != getattr(other, key):
                    raise ValueError(f"two effects by {e.by!r} differ in {key}: give both the same")

    def _refuse_strangers(self, decoder: Decoder) -> None:
        """Refuses weights of another decoder of the study (``of``) that are not there."""
        if decoder.of is None:
            return
        other = next((d for d in self.decoders if d.name == decoder.of), None)
        if other is None or other.of is not None:
            there = ", ".join(d.name for d in self.decoders if d.of is None) or "no decoder with weights of its own"
            raise ValueError(f"decoder {decoder.name!r} is of {decoder.of!r}: there is {there}")
        for what, extra in self._lacking(decoder, other):
            raise ValueError(f"decoder {decoder.name!r} has {what} that {other.name!r} has not: {extra}")

    def _refuse_a_lender_without(self, lender: str) -> None:
        """Refuses a decoder that guesses for others (``estimate.guesses``) and cannot for all that they are."""
        other = next((d for d in self.decoders if d.name == lender and "none" in d.conditions), None)
        if other is None:
            there = ", ".join(d.name for d in self.decoders if "none" in d.conditions) or "none"
            raise ValueError(f"estimate.guesses: no decoder {lender!r} with the condition none; there is {there}")
        for decoder in self.decoders:
            for what, extra in self._lacking(decoder, other) if "none" not in decoder.conditions else []:
                raise ValueError(
                    f"estimate.guesses: decoder {decoder.name!r} has {what} that {lender!r}, which guesses for it, "
                    f"has not: {extra}"
                )

    def _lacking(self, decoder: Decoder, other: Decoder) -> list[tuple[str, list[int]]]:
        """What a decoder has and another has not, of which it needs the same."""
        assert self.windows is not None
        every = self.windows.lengths
        seeds = set(decoder.seeds) - set(other.seeds)
        lengths = set(decoder.lengths or every) - set(other.lengths or every)
        return [(what, sorted(extra)) for what, extra in (("seeds", seeds), ("lengths", lengths)) if extra]

    def former_digests(self, *, analysis: bool = True) -> set[str]:
        """What :meth:`digest` was while the path of a search was in it as it was spelt: from the working folder, or
        from the root."""
        return {self._digest(analysis, spelt) for spelt in (os.path.relpath, str)}

    def digest(self, *, analysis: bool = True) -> str:
        """SHA-256 of what decides the numbers; without ``analysis``, of what decides what is trained and measured:
        annotations, estimates and effects can be made anew from that.

        The device, its batches, the scan's backend, the tracker and what the page shows are not in it, nor the folder
        of a corpus, of an annotation's file or of a search's path: the content of files is hashed in the manifest.  Nor
        are values that are the default's, so that a key that a later version adds leaves the digests of earlier runs as
        they are.
        """
        return self._digest(analysis, os.path.basename)

    def _digest(self, analysis: bool, spelt: Callable[[str], str]) -> str:
        content = self.model_dump(
            mode="json",
            exclude={"compute": {"device", "batch_tokens", "scan", "track"}, "report": True},
            exclude_defaults=True,
        )
        if not analysis:
            content = {k: v for k, v in content.items() if k not in ("annotations", "estimate", "effects")}
        for corpora in content.get("text", {}).values():
            for corpus in corpora:
                if "path" in corpus:
                    corpus["path"] = Path(corpus["path"]).name
        for decoder, held in zip(self.decoders, content.get("decoders", []), strict=True):
            if decoder.path():
                held["search"] = decoder.searches(spelt)
        if analysis:
            for annotation, held in zip(self.annotations, content.get("annotations", []), strict=True):
                path = annotation.path()
                if path:
                    held["argument"] = held["argument"].removesuffix(path) + os.path.basename(path)
        content = {k: v for k, v in content.items() if v != {}}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load(path: str | Path, *, data: str | Path | None = None, changes: Sequence[str] = ()) -> Study:
    """Reads and checks a study.

    Args:
        path: the TOML file.
        data: folder that the corpora's relative paths start from; else ``$MNEMOSCOPE_DATA``, else the study's folder.
        changes: values instead of the file's, in their order: ``KEY=VALUE``, as ``--set`` takes them
            (:func:`mnemoscope.config.change.change`).

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type; with file and line, or the change that it
            comes from, and remedy.
    """
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such study", remedy="Give the path of a TOML file", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", remedy="Save it as UTF-8 text", file=path) from None
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigError(
            f"not TOML: {error}", remedy="Mend that line", file=path, line=int(line[1]) if line else None
        ) from None
    source = Source(path, content, [change(values, given, Study) for given in changes])
    root = Path(data or os.environ.get("MNEMOSCOPE_DATA") or path.parent)
    try:
        return _checked(values, source, root)
    except ConfigError as error:
        raise _with_changes(error, source, root) from None


def _checked(values: dict[str, Any], source: Source, root: Path) -> Study:
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise explain(error, Study, source) from None
    resolved = resolve(study, root)
    _check_plugins(study, resolved, root, source)
    _check_families(study, source)
    return resolved


def _with_changes(error: ConfigError, source: Source, root: Path) -> ConfigError:
    """The error of a changed study; where the changes do not agree with the rest of the file, no line is to blame."""
    if error.file is None or not source.changes:
        return error
    try:
        _checked(tomllib.loads(source.content), source._replace(changes=()), root)
    except ConfigError as own:
        if own.problem == error.problem:
            return error
    given = " ".join(c.option for c in source.changes)
    return ConfigError(f"with {given}: {error.problem}", remedy=error.remedy, file=source.path)


def resolve(study: Study, root: Path) -> Study:
    """The study with its corpora's paths made absolute from ``root``, and its annotations' and searches' from there, or
    from the working folder if there is nothing."""

    def absolute(corpus: Corpus) -> Corpus:
        if corpus.path is None or corpus.path.startswith("embedded:"):
            return corpus
        return corpus.model_copy(update={"path": str((root / Path(corpus.path).expanduser()).absolute())})

    def found(path: str) -> str:
        given = Path(path).expanduser()
        return str((root / given if (root / given).exists() else given).absolute())

    def located(annotation: Annotation) -> Annotation:
        path = annotation.path()
        if not path:
            return annotation
        return annotation.model_copy(update={"argument": annotation.argument.removesuffix(path) + found(path)})

    text = study.text.model_copy(
        update={
            "train": [absolute(c) for c in study.text.train],
            "measure": [absolute(c) for c in study.text.measure],
        }
    )
    decoders = [d.model_copy(update={"search": d.searches(found)}) for d in study.decoders]
    return study.model_copy(
        update={"text": text, "annotations": [located(a) for a in study.annotations], "decoders": decoders}
    )


def _check_plugins(study: Study, resolved: Study, root: Path, source: Source) -> None:
    """Refuses conditions and searches that are not there, and searches whose folder is not, as ``resolved`` has it."""
    from mnemoscope import plugins

    for number, (decoder, at) in enumerate(zip(study.decoders, resolved.decoders, strict=True)):
        named = [("condition", ["conditions", str(i)], c, c) for i, c in enumerate(decoder.conditions)]
        for kind, key, spelt, full in (*named, ("search", ["search"], decoder.search, at.search)):
            try:
                plugins.load(kind, full)
            except ConfigError as error:
                whence = f". A relative path starts from {root}, else from {Path.cwd()}" if full != spelt else ""
                place = ["decoders", str(number), *key, spelt]
                problem = f"decoder {decoder.name!r}: {error.problem}"
                raise source.error(problem, f"{error.remedy}{whence}", place) from None


def _check_families(study: Study, source: Source) -> None:
    from mnemoscope import plugins

    for number, decoder in enumerate(study.decoders):
        place = ["decoders", str(number)]
        try:
            family = plugins.load("family", decoder.family)
        except ConfigError as error:
            problem = f"decoder {decoder.name!r}: {error.problem}"
            raise source.error(problem, error.remedy, [*place, "family"]) from None
        try:
            family.Options.model_validate(decoder.options or {})
        except ValidationError as error:
            raise explain(error, family.Options, source, [*place, "options"]) from None
