"""A study file: TOML in, a checked ``Study`` out.  An unknown key is an error that names its line.

Nothing that is measured has a default: lengths, token budgets, seeds and conditions stand in the study.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mnemoscope.errors import ConfigError

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
#: tables hold it as int32
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _rising(lengths: list[int]) -> list[int]:
    if sorted(set(lengths)) != lengths:
        raise ValueError("lengths must rise and not repeat")
    return lengths


def _distinct(names: list[Any]) -> list[Any]:
    if len(set(names)) != len(names):
        raise ValueError("one of them is given twice")
    return names


Lengths = Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(_rising)]


#: of the recipe growing, unless a study says otherwise (measured in docs/notebook.md)
GROWTH, BALANCE = 0.25, 0.5


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Corpus(Section):
    """A set of documents, and the fields of a record that hold what we need; ``a.b`` is field b of the object a."""

    path: str | None = Field(None, description="file, folder or glob; relative to the data folder")
    dataset: str | None = Field(None, description="Hugging Face dataset name, instead of path")
    dataset_config: str | None = Field(None, description="configuration of the dataset")
    split: str | None = Field(None, description="split of the dataset")
    dataset_files: str | None = Field(
        None, description="file or glob in the dataset's repository that is the split, where the library finds it not"
    )
    text: str = Field("text", description="field that holds the text (ignored for plain text, and beside tokens)")
    tokens: str | None = Field(None, description="field that lists a sentence's tokens; text is built from them")
    space_after: str | None = Field(
        None, description="field that says of each token whether a space follows; one follows each if left out"
    )
    doc_id: str | None = Field(
        None,
        description="field that names the document; else file and line do. Records of tokens that follow each other "
        "and share it are one document",
    )
    domain: str | None = Field(None, description="field that holds the domain")
    domain_name: str | None = Field(None, description="one domain for the whole corpus, instead of a field")
    source: str | None = Field(None, description="field that holds the source; else the file's name is it")
    dialect: str | None = Field(None, description="field that holds the dialect")
    dialect_name: str | None = Field(None, description="one dialect for the whole corpus, instead of a field")
    pair: str | None = Field(
        None,
        description="field that names a pair: texts that say the same in several dialects, in a corpus each; they are "
        "called <pair>/<dialect>, and are one unit of resampling",
    )
    control: Literal["shuffled", "random"] | None = Field(
        None,
        description="measure control text instead: each document's tokens in shuffled order, or random ones in their "
        "stead. Its documents are called <doc_id>/<control>",
    )
    where: dict[str, str] = Field(default_factory=dict, description="only records whose fields have these values")
    first: PositiveInt | None = Field(None, description="only so many records, the first of those that where admits")
    records_per_document: PositiveInt | None = Field(
        None,
        description="where a corpus of tokens does not say which sentences are one document: so many that follow each "
        "other are taken as one",
    )
    weight: PositiveFloat = Field(1.0, description="how often training draws from it, relative to its tokens")

    @model_validator(mode="after")
    def _one_origin(self) -> Corpus:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give exactly one of path and dataset")
        if self.dataset is None and self.dataset_files is not None:
            raise ValueError("dataset_files is about a dataset: leave it out")
        if self.dataset is not None and self.split is None:
            raise ValueError("a dataset needs its split")
        if self.space_after is not None and self.tokens is None:
            raise ValueError("space_after is about tokens: give tokens, or leave it out")
        if self.records_per_document is not None and (self.tokens is None or self.doc_id is not None):
            raise ValueError("records_per_document is for sentences of tokens without doc_id: leave it out")
        if self.domain is not None and self.domain_name is not None:
            raise ValueError("give domain (a field) or domain_name (a name), not both")
        if self.dialect is not None and self.dialect_name is not None:
            raise ValueError("give dialect (a field) or dialect_name (a name), not both")
        if self.pair is not None and (self.doc_id is not None or (self.dialect or self.dialect_name) is None):
            raise ValueError("pair names the documents, by their dialect: leave out doc_id, and give a dialect")
        if self.pair is not None and self.control is not None:
            raise ValueError("control text says nothing, and so no two say the same: leave out pair or control")
        return self


class Model(Section):
    """The encoder: an embedded model, a hub name, or a folder."""

    name: str
    revision: str | None = None
    tokenizer: str | None = Field(None, description="hub name or folder, where the model brings none of its own")
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"


class Compute(Section):
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    mixed_precision: Literal["no", "bf16"] = "no"
    scan: Literal["auto", "reference", "numba", "triton"] = "auto"
    batch_tokens: PositiveInt = Field(default=8192, description="tokens in a measuring batch; no number depends on it")


class Text(Section):
    train: list[Corpus] = Field(default_factory=list)
    measure: list[Corpus] = Field(default_factory=list)


class Windows(Section):
    lengths: Lengths
    tokens_per_length: PositiveInt | None = Field(
        None, description="measure at most this many tokens a length, drawn evenly over documents; none = all windows"
    )
    prefix: Literal["none", "bos"] = "none"


class Optimiser(Section):
    """AdamW, linear warm-up, then constant or cosine."""

    learning_rate: PositiveFloat
    warmup: Fraction = Field(0.02, description="share of the steps")
    schedule: Literal["constant", "cosine"] = "cosine"
    final: Fraction = Field(0.1, description="learning rate at the end of the cosine, as a share of the peak")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    clip: PositiveFloat = Field(1.0, description="largest norm of the gradient")

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("betas"), list):
            values = {**values, "betas": tuple(values["betas"])}
        return values


class Decoder(Section):
    """One way of making decoders, and the conditions they are measured under."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    recipe: Literal["growing", "fixed", "trained"]
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
    conditions: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]
    lengths: Lengths | None = Field(None, description="of the study's lengths; all if left out")
    weights: str | None = Field(None, description="recipe trained: embedded name, or a folder of trained decoders")
    tokens: PositiveInt | None = Field(None, description="window tokens of training in all, over all lengths")
    batch_tokens: PositiveInt | None = Field(None, description="window tokens in a step")
    growth: Fraction | None = Field(
        None, description=f"recipe growing: share of the training after which all lengths are in; {GROWTH} if left out"
    )
    shares: Annotated[list[PositiveFloat], Field(min_length=1)] | None = Field(
        None, description="recipe growing: shares of the lengths, shortest first, once all are in; k for the k-th"
    )
    balance: Fraction | None = Field(
        None,
        description="recipe growing: 0 sums nats over the lengths, 1 their logarithms, so that short windows, nearly "
        f"solved, are not drowned by long ones (train.plan.Plan); {BALANCE} if left out",
    )
    optimiser: Optimiser | None = None
    checkpoint_every: PositiveInt = Field(200, description="steps")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_growing(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("recipe") == "growing":
            values = {"growth": GROWTH, "balance": BALANCE} | values
        return values

    @model_validator(mode="after")
    def _whole(self) -> Decoder:
        given = [name for name in ("growth", "shares", "balance") if getattr(self, name) is not None]
        if given and self.recipe != "growing":
            raise ValueError(f"recipe {self.recipe!r} has no {', '.join(given)}: leave it out")
        if self.recipe == "trained":
            if self.weights is None:
                raise ValueError("recipe 'trained' needs weights")
            if any(v is not None for v in (self.tokens, self.batch_tokens, self.optimiser)):
                raise ValueError("recipe 'trained' trains nothing: leave out tokens, batch_tokens and optimiser")
        elif self.weights is not None:
            raise ValueError(f"recipe {self.recipe!r} starts from the encoder's weights: leave out weights")
        elif None in (self.tokens, self.batch_tokens, self.optimiser):
            raise ValueError(f"recipe {self.recipe!r} needs tokens, batch_tokens and optimiser")
        return self


class Annotation(Section):
    """Labels for the measured text; estimates can be made by them (estimate.by)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    kind: str = Field(description="a file in annotate/")
    argument: str = Field(
        "",
        description="what the annotation is made with: a field's name, a file's path, ...; a path is relative to the "
        "data folder, or to the working folder if there is nothing",
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="labels to be called otherwise, such as NNP = 'NOUN'; spans of one that becomes '' are left out",
    )
    domains: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)] | None = Field(
        None, description="only documents of these domains; all if left out"
    )

    def path(self) -> str:
        """The end of the argument that is a file's path; empty if there is none, or no such kind of annotation."""
        from mnemoscope import plugins

        known = self.kind in plugins.names("annotation")
        return str(plugins.load("annotation", self.kind).path_in(self.argument)) if known else ""


class Estimates(Section):
    by: Annotated[list[str], AfterValidator(_distinct)] = Field(default_factory=lambda: ["domain", "position"])
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resamples: PositiveInt = 2000
    position_bins: PositiveInt = 16


class Effects(Section):
    """The differences between the groups of ``by``: as they are, with other things held constant, and by the published
    test.  They go into effects.parquet."""

    by: str = Field(description="a column (domain, dialect, source), pair, position, or an annotation's name")
    metrics: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)] = Field(
        default_factory=lambda: ["omission_in_place", "bits_retained"], description="files in score/metrics/"
    )
    base: str | None = Field(
        None,
        description="group that the others are compared with; the largest if left out. Of position: first or last",
    )
    controls: Annotated[list[str], AfterValidator(_distinct)] = Field(
        default_factory=list,
        description="what a regression holds constant beside the window's length: surprisal, position, subwords, "
        "repetition, a column, or an annotation, whose labels may be numbers; no regression if left out",
    )
    words: str | None = Field(
        None, description="annotation whose spans are the words of the published test; no such test if left out"
    )
    sentences: Literal["punkt", "untrained"] = Field(
        "punkt", description="how the published test cuts reconstructions into sentences (score/published.py)"
    )

    @model_validator(mode="after")
    def _base_of_position(self) -> Effects:
        if self.by == "position" and self.base not in (None, "first", "last"):
            raise ValueError("the base of position is 'first' or 'last': its groups differ from length to length")
        return self


class Report(Section):
    texts: bool = Field(
        default=True, description="whether the page shows windows of the text; false where none may be quoted"
    )


class Pretrain(Section):
    """A language model from nothing: its tokenizer, shape and training.  For ``mnemoscope pretrain``."""

    architecture: str
    shape: dict[str, int | float | bool | str] = Field(description="fields of the architecture's configuration")
    tokenizer: str | None = Field(
        None, description="embedded model, folder or hub name whose tokenizer it takes, instead of learning one"
    )
    vocabulary: Annotated[int, Field(gt=256)] | None = Field(
        None, description="size of the byte-level BPE that is learnt, special tokens included"
    )
    tokenizer_bytes: PositiveInt | None = Field(
        None, description="bytes of training text that the tokenizer learns from"
    )
    context: PositiveInt
    tokens: PositiveInt
    batch_tokens: PositiveInt
    optimiser: Optimiser
    checkpoint_every: PositiveInt = 500
    held_out_tokens: PositiveInt = Field(description="tokens of text.measure on which the final loss is measured")

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Pretrain:
        learnt = (self.vocabulary, self.tokenizer_bytes)
        if self.tokenizer is None and None in learnt:
            raise ValueError("give tokenizer (one that exists), or vocabulary and tokenizer_bytes (to learn one)")
        if self.tokenizer is not None and learnt != (None, None):
            raise ValueError("a tokenizer that exists is taken as it is: leave out vocabulary and tokenizer_bytes")
        return self


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
        if any(c.control for c in self.text.train):
            raise ValueError("control text is measured, not trained on: leave control out of text.train")
        if self.annotations and any(c.control for c in self.text.measure):
            raise ValueError("annotations are of text as it stands: measure control text in a study of its own")
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
        return self

    def digest(self, *, analysis: bool = True) -> str:
        """SHA-256 of what decides the numbers; without ``analysis``, of what decides what is trained and measured:
        annotations, estimates and effects can be made anew from that.

        The device, its batches, the scan's backend and what the page shows are not in it, nor the folder of a corpus or
        of an annotation's file: the content of files is hashed in the manifest.  Nor are values that are the default's,
        so that a key that a later version adds leaves the digests of earlier runs as they are.
        """
        content = self.model_dump(
            mode="json",
            exclude={"compute": {"device", "batch_tokens", "scan"}, "report": True},
            exclude_defaults=True,
        )
        if not analysis:
            content = {k: v for k, v in content.items() if k not in ("annotations", "estimate", "effects")}
        for corpora in content.get("text", {}).values():
            for corpus in corpora:
                if "path" in corpus:
                    corpus["path"] = Path(corpus["path"]).name
        if analysis:
            for annotation, held in zip(self.annotations, content.get("annotations", []), strict=True):
                path = annotation.path()
                if path:
                    held["argument"] = held["argument"].removesuffix(path) + os.path.basename(path)
        content = {k: v for k, v in content.items() if v != {}}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load(path: str | Path, *, data: str | Path | None = None) -> Study:
    """Reads and checks a study.

    Args:
        path: the TOML file.
        data: folder that the corpora's relative paths start from; else ``$MNEMOSCOPE_DATA``, else the study's folder.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type; with file, line and remedy.
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
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise _explain(error, path, content) from None
    _check_conditions(study, path, content)
    root = Path(data or os.environ.get("MNEMOSCOPE_DATA") or path.parent)
    return resolve(study, root)


def resolve(study: Study, root: Path) -> Study:
    """The study with its corpora's paths made absolute from ``root``, and its annotations' from there, or from the
    working folder if there is nothing."""

    def absolute(corpus: Corpus) -> Corpus:
        if corpus.path is None or corpus.path.startswith("embedded:"):
            return corpus
        return corpus.model_copy(update={"path": str((root / Path(corpus.path).expanduser()).absolute())})

    def located(annotation: Annotation) -> Annotation:
        path = annotation.path()
        if not path:
            return annotation
        given = Path(path).expanduser()
        found = root / given if (root / given).exists() else given
        argument = annotation.argument.removesuffix(path) + str(found.absolute())
        return annotation.model_copy(update={"argument": argument})

    text = study.text.model_copy(
        update={
            "train": [absolute(c) for c in study.text.train],
            "measure": [absolute(c) for c in study.text.measure],
        }
    )
    return study.model_copy(update={"text": text, "annotations": [located(a) for a in study.annotations]})


def _check_conditions(study: Study, path: Path, content: str) -> None:
    from mnemoscope import plugins

    for decoder in study.decoders:
        for condition in decoder.conditions:
            try:
                plugins.load("condition", condition)
            except ConfigError as error:
                raise ConfigError(
                    f"decoder {decoder.name!r}: {error.problem}",
                    remedy=error.remedy,
                    file=path,
                    line=_line_of(content, [condition]),
                ) from None


def _explain(error: ValidationError, path: Path, content: str) -> ConfigError:
    # a required key that is misspelt is missing and unknown: the second says more
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = [str(p) for p in first["loc"]]
    where = ".".join(place) or "the study"
    line = _line_of(content, place)
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        near = get_close_matches(place[-1], known, n=1)
        remedy = f"Did you mean {near[0]!r}? " if near else ""
        return ConfigError(
            f"unknown key {where!r}{more}", remedy=f"{remedy}Known here: {', '.join(known)}", file=path, line=line
        )
    if first["type"] == "missing":
        return ConfigError(f"missing key {where!r}{more}", remedy="Add it", file=path, line=line)
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{where}: {message}{more}", remedy="Mend that value", file=path, line=line)


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """The keys that a study knows at a place such as ('decoders', 0, 'optimiser')."""
    model: type[BaseModel] = Study
    for part in location:
        if isinstance(part, int):
            continue
        annotation: Any = model.model_fields[part].annotation
        nested = [a for a in _flatten(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation] if not arguments else [x for a in arguments for x in _flatten(a)]


def _line_of(content: str, place: list[str]) -> int | None:
    """The line that most likely holds ``place``: walks the keys and the table headers in order of the file."""
    lines = content.splitlines()
    wanted = [p for p in place if not p.isdigit()]
    if not wanted:
        return None
    ordinal = next((int(p) for p in place if p.isdigit()), 0)
    start = 0
    for depth in range(len(wanted), 0, -1):
        header = re.compile(r"^\s*\[+\s*" + r"\s*\.\s*".join(map(re.escape, wanted[:depth])) + r"\s*\]+")
        hits = [n for n, text in enumerate(lines) if header.match(text)]
        if hits:
            start = hits[min(ordinal, len(hits) - 1)]
            break
    key = re.compile(rf"(^|[\s{{,\"'\[]){re.escape(wanted[-1])}([\s=\]\"',]|$)")
    for number in range(start, len(lines)):
        if key.search(lines[number].split("#")[0]):
            return number + 1
    return start + 1


def dump(study: Study) -> str:
    """The study as TOML text, every default written out; ``load`` of it gives the same study."""
    out: list[str] = []

    def scalar(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{bare(k)} = {scalar(v)}" for k, v in value.items() if v is not None) + " }"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(scalar(v) for v in value) + "]"
        # what JSON writes is TOML too, but for the character DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    def bare(key: str) -> str:
        return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else scalar(key)

    def table(values: dict[str, Any], name: str) -> None:
        for key, value in values.items():
            if value is None or isinstance(value, dict) or _is_tables(value):
                continue
            out.append(f"{bare(key)} = {scalar(value)}")
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


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
