"""The sections of a study file.  Nothing that is measured has a default."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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
    track: str | None = Field(
        default=None, description="send training curves to a tracker too: tensorboard, or another that Accelerate knows"
    )


class Text(Section):
    train: list[Corpus] = Field(default_factory=list)
    measure: list[Corpus] = Field(default_factory=list)


class Windows(Section):
    lengths: Lengths
    tokens_per_length: PositiveInt | None = Field(
        None, description="measure at most this many tokens a length, drawn evenly over documents; none = all windows"
    )
    prefix: Literal["none", "bos"] = "none"
    nested: bool = Field(
        False,
        description="windows of every length are the beginnings of the same passages, which have the longest one: "
        "lengths are paired, and each passage is read once for all of them. tokens_per_length is then that of the "
        "longest; a shorter one has as many windows, of fewer tokens",
    )


class Optimiser(Section):
    """AdamW or Muon, linear warm-up, then constant or cosine."""

    method: Literal["adamw", "muon"] = Field(
        "adamw", description="muon moves the matrices of linear maps its own way, and all else as adamw does"
    )
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


class Evaluate(Section):
    """How often a decoder is measured on text.measure while it is trained: learning.parquet, convergence.parquet."""

    tokens: PositiveInt = Field(
        description="of each length, at most; of the study's windows, drawn evenly over documents"
    )
    times: Annotated[int, Field(ge=2)] = Field(
        description="points, at tokens in geometric progression up to the last; one more is before the first step"
    )
    first: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="share of the training's tokens at the first of them"
    )


class Decoder(Section):
    """One way of making decoders, and the conditions they are measured under."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    recipe: Literal["growing", "fixed", "trained"]
    family: str = Field("native", description="a file in codec/families/: how it starts from a memory")
    options: dict[str, int | float | bool | str] | None = Field(
        None, description="of the family; what is left out is as its file says"
    )
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
    conditions: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]
    lengths: Lengths | None = Field(None, description="of the study's lengths; all if left out")
    weights: str | None = Field(None, description="recipe trained: embedded name, or a folder of trained decoders")
    of: str | None = Field(
        None, description="recipe trained: another decoder of this study, whose weights these are: for another search"
    )
    search: str = Field(
        "greedy",
        description="how what is written back is chosen: a file in codec/search/, such as greedy or beam:4; a path, as "
        "in undo:FOLDER, is relative to the data folder, or to the working folder if there is nothing",
    )
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
    evaluate: Evaluate | None = Field(None, description="learning curves of held-out text; none if left out")

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
            if (self.weights is None) == (self.of is None):
                raise ValueError("recipe 'trained' needs either weights, or of (another decoder of the study)")
            if any(v is not None for v in (self.tokens, self.batch_tokens, self.optimiser, self.evaluate)):
                raise ValueError("recipe 'trained' trains nothing: leave out tokens, batch_tokens, optimiser, evaluate")
            if self.family != "native" or self.options is not None:
                raise ValueError("recipe 'trained' has what its weights were trained as: leave out family and options")
        elif (self.weights, self.of) != (None, None):
            raise ValueError(f"recipe {self.recipe!r} starts from the encoder's weights: leave out weights and of")
        elif None in (self.tokens, self.batch_tokens, self.optimiser):
            raise ValueError(f"recipe {self.recipe!r} needs tokens, batch_tokens and optimiser")
        return self

    def path(self) -> str:
        """The end of the search that is a path; empty if there is none, or no such search."""
        from mnemoscope import plugins

        name, _, argument = self.search.partition(":")
        if not argument or name not in plugins.names("search"):
            return ""
        found = plugins.find("search", name)
        return str(found.path_in(argument)) if hasattr(found, "path_in") else ""

    def searches(self, spell: Callable[[str], str] = os.path.basename) -> str:
        """The search with its path spelt otherwise: without its folder."""
        path = self.path()
        return self.search.removesuffix(path) + spell(path) if path else self.search


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
    guesses: str | None = Field(
        default=None,
        description="decoder whose condition none says what can be guessed without a memory, for those without a none "
        "of their own; it needs their seeds and lengths",
    )


class Effects(Section):
    """The differences between the groups of ``by``: as they are, with other things held constant, and by the published
    test.  They go into effects.parquet."""

    by: str = Field(description="a column (domain, dialect, source), pair, position, or an annotation's name")
    metrics: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)] = Field(
        default_factory=lambda: ["omission_in_place", "bits_retained"], description="files in score/metrics/"
    )
    base: str | None = Field(
        None,
        description="group that the others are compared with; if left out, the largest of all lengths together. Of "
        "position: first, which it is if left out, or last",
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
    def _sensible(self) -> Effects:
        if self.by == "position" and self.base not in (None, "first", "last"):
            raise ValueError("the base of position is 'first' or 'last': its groups differ from length to length")
        if self.by in self.controls:
            raise ValueError(f"what is compared cannot be held constant: leave {self.by!r} out of controls")
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
