"""The claims of the paper across a family of models, for the page of benchmarks.forgotten: runs of
``studies/family-*.toml``, which read the same windows, each with decoders of its own, trained alike.

A difference between two models is paired by document and holds decoder seeds as a second level; so are those between
groups of one model's tokens, apart from pairing where the groups share no document.

Models are sizes of each other only within one architecture; one of another stands beside that of the nearest memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.verdicts import COLUMNS, PUBLISHED, READINGS, Row, compared, effect, tallied, verdict
from mnemoscope.config import Model
from mnemoscope.memory.source import find, read_json
from mnemoscope.report import words
from mnemoscope.rundir import RunDir
from mnemoscope.stats.estimate import Sums, sums

METRICS = (*READINGS, "rouge1")
#: lengths that are listed claim by claim; the tallies have all
LISTED = (16, 64, 256)
LONGER = "The longer the window, the more is lost"
_RECENCY = "What was read first is lost more than what was read last (recency)"
#: claim -> group and base, kinds of text
_KINDS = {
    "Mathematics is lost more than news": ("math", "news"),
    "Not asked there: e-mail, which no model saw, is lost more than news": ("email", "news"),
}

_CAUTION = """\
Decoders of every size were trained alike, on the same tokens in the same batches, with the rate scaled to the width:
what differs between sizes is memory **and** decoder.  A larger model has a larger memory to read, and its decoder more
to learn from the same text; with more tokens mamba-mini's reads far more ([best.md](best.md)).  So this asks what
decoders of equal training read out of memories of models of several sizes, and not what the memories lost.  Of three
seeds of each size the luck of training is known badly, so intervals between neighbours are wide: *not* is no proof that
sizes are alike.

By bits a larger model has less to retain: its decoder guesses better without a memory.  So where both keep nearly all,
as of 4 tokens, the larger is given fewer bits by its memory, and has lost nothing more.
"""
_ABREAST = """\
Parameters, memory and pretraining text are alike.  What differs is the architecture **and** its decoder, which begins
as a copy of the model whose memory it reads; and the learning rates, of model and decoder, are those of the width and
were not tuned for the other architecture.  So this compares what is read out of two models that were made alike, and
not what two architectures can keep.  By bits the model that guesses better without a memory has less to retain.
"""

# ---- numbers --------------------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A model of the family.

    Attributes:
        cells: (by, group, metric, length) -> sums under the real memory, seeds pooled.
    """

    run: RunDir
    parameters: int
    architecture: str
    cells: dict[tuple[str, str, str, int], Sums]

    @property
    def name(self) -> str:
        return self.run.study.name.removeprefix("family-")

    @property
    def label(self) -> str:
        return f"{self.name}, {self.parameters / 1e6:.1f} M"

    @property
    def memory(self) -> int:
        """Numbers of it."""
        return int(self.run.manifest["memory"]["numbers"])

    @property
    def confidence(self) -> float:
        return self.run.study.estimate.confidence

    def lengths(self) -> list[int]:
        return sorted({length for *_, length in self.cells})


def members(folders: Iterable[Path]) -> list[Member]:
    """The models of the runs, the smallest first.

    Raises:
        RunError: a folder holds no run.
        ModelError: a run's model is no longer where it was.
        ValueError: a run has decoders of several kinds, so that there is no telling whose reading it is.
    """
    found = (member(RunDir.open(f), ["all", "domain", "position"]) for f in folders)
    return sorted(found, key=lambda m: m.parameters)


def member(run: RunDir, by: Iterable[str]) -> Member:
    """The sums of a run by the groupings named; raises what :func:`members` does."""
    readers = [d.name for d in run.study.decoders if "memory" in d.conditions]
    if len(readers) != 1:
        raise ValueError(f"{run.path}: one decoder should read the memory, and here do {', '.join(readers) or 'none'}")
    found = sums(run.path, by, run.study.estimate, METRICS)
    keyed = ((s.key, s) for s in found if s.key["condition"] == "memory" and s.key["seed"] == "all")
    cells = {(k["by"], k["group"], k["metric"], k["length"]): s for k, s in keyed}
    assert run.study.model is not None  # decoders are refused without one
    return Member(run, int(run.manifest["parameters"]), architecture(run.study.model), cells)


def architecture(model: Model) -> str:
    """As the model's config.json calls it: run folders do not say.

    Raises:
        ModelError: there is no such model.
    """
    source = find(model.name, model.revision)
    file = source.get("config.json")
    if file is None:
        raise source.missing("config.json", "It tells the architecture: put the model back where the run had it")
    return str(read_json(file)["model_type"])


def chain(family: Sequence[Member]) -> list[Member]:
    """The models that differ in size alone: those of the first architecture that has several."""
    of: dict[str, list[Member]] = {}
    for m in family:
        of.setdefault(m.architecture, []).append(m)
    return next((some for some in of.values() if len(some) > 1), list(family[:1]))


class Step(NamedTuple):
    """What a model loses more than another, turned so that plus means so."""

    model: Member
    base: Member
    length: int
    metric: str
    row: Row


def steps(family: Sequence[Member]) -> Iterator[Step]:
    """What the smaller loses more: every neighbour and the ends of :func:`chain`, at every length that both have, by
    every reading.

    Raises:
        ValueError: two models did not read the same documents.
    """
    sized = chain(family)
    for smaller, larger in [*pairwise(sized), *([(sized[0], sized[-1])] if len(sized) > 2 else [])]:
        yield from _paired(smaller, larger)


def abreast(family: Sequence[Member]) -> Iterator[Step]:
    """What each model of another architecture loses more than the one of :func:`chain` whose memory is nearest in
    size; raises ValueError as :func:`steps` does."""
    sized = chain(family)
    for m in family:
        if m.architecture != sized[0].architecture:
            yield from _paired(m, min(sized, key=lambda s: abs(s.memory - m.memory)))


def _paired(model: Member, base: Member) -> Iterator[Step]:
    for length in model.lengths():
        for metric in METRICS:
            a, b = (m.cells.get(("all", "all", metric, length)) for m in (model, base))
            if a is None or b is None:
                continue
            if a.documents != b.documents:
                raise ValueError(f"{model.label} and {base.label} did not read the same documents")
            yield Step(model, base, length, metric, compared(a, b, model.confidence))


def longer(member: Member) -> Iterator[tuple[int, int, str, Row]]:
    """(shorter, longer, metric, row): what a longer window loses more, neighbours and the ends."""
    lengths = member.lengths()
    for metric in ("rouge1", *READINGS):
        for shorter, length in [*pairwise(lengths), (lengths[0], lengths[-1])]:
            a, b = (member.cells["all", "all", metric, n] for n in (length, shorter))
            yield shorter, length, metric, compared(a, b, member.confidence)


def kinds(member: Member, group: str, base: str) -> Iterator[tuple[int, str, Row]]:
    """(length, metric, row): what one kind of text loses more than another."""
    yield from _groups(member, "domain", dict.fromkeys(member.lengths(), (group, base)))


def recency(member: Member) -> Iterator[tuple[int, str, Row]]:
    """(length, metric, row): what the first bin of positions loses more than the last."""
    bins: dict[int, tuple[str, str]] = {}
    for n in member.lengths():
        here = {group for by, group, _, length in member.cells if by == "position" and length == n}
        first_to_last = sorted(here, key=lambda b: int(b.split("-")[0]))
        bins[n] = first_to_last[0], first_to_last[-1]
    yield from _groups(member, "position", bins)


def _groups(member: Member, by: str, groups: dict[int, tuple[str, str]]) -> Iterator[tuple[int, str, Row]]:
    for length, pair in groups.items():
        for metric in METRICS:
            a, b = (member.cells.get((by, group, metric, length)) for group in pair)
            if a is not None and b is not None:  # a window metric has no position
                yield length, metric, compared(a, b, member.confidence)


# ---- page -----------------------------------------------------------------------------------------------------------


def summary(family: Sequence[Member]) -> Iterator[str]:
    """The lines of the page's tallies; none without a family."""
    sized = chain(family)
    if len(sized) == 1:
        yield f"| Larger models lose less | {sized[0].name} | | {' | '.join(['not measured yet'] * len(COLUMNS))} |"
    found: dict[str, list[tuple[str, Row]]] = {}
    for s in steps(family):
        ends = s.model is sized[0] and s.base is sized[-1]
        found.setdefault("smallest to largest" if ends else "neighbours", []).append((s.metric, s.row))
    for i, (which, rows) in enumerate(found.items()):
        claim = "|  |  " if i else f"| Larger models lose less | {sized[0].name} to {sized[-1].name} "
        yield f"{claim}| {which} | {tallied(rows)} |"
    beside: dict[str, list[tuple[str, Row]]] = {}
    for s in abreast(family):
        beside.setdefault(f"{s.model.name} loses more than {s.base.name}", []).append((s.metric, s.row))
    for claim, rows in beside.items():
        yield f"| Not asked there: of two architectures, {claim} | both | before | {tallied(rows)} |"


def pretraining(model: Model | None) -> Iterator[str]:
    """How a model was made, if it was made here."""
    if model is not None and Path(model.name).name == "model":
        out = Path(model.name).parent
        yield f"mnemoscope pretrain studies/{out.name}.toml --data DATA --out {out}"


def commands(family: Iterable[Member]) -> Iterator[str]:
    """How the runs were made."""
    for m in family:
        yield from pretraining(m.run.study.model)
        name = m.run.study.name
        yield f"mnemoscope run studies/{name}.toml --data DATA --out runs/{name}"


def page(family: Sequence[Member]) -> Iterator[str]:
    """The sections on sizes and architectures; none without a family."""
    if not family:
        return
    yield "## Larger models lose less\n"
    if len(chain(family)) < 2:
        yield "Not measured yet: there are no two sizes of one architecture.\n"
    else:
        yield "Published: the smaller lost more.  No regression: the model is what varies.\n"
        yield _CAUTION
        yield from _models(family)
        yield (
            "Plus means: the smaller model lost more.  Unmarked is *replicated*; the others say what they are.  "
            "As published: ROUGE-1, with our interval.\n"
        )
        yield from _stepped((f"{s.model.label} to {s.base.label}", s) for s in steps(family))
    yield from _abreast(family)
    if len(family) > 1:
        yield from _claims(family)


def _abreast(family: Sequence[Member]) -> Iterator[str]:
    """The section on models of another architecture, if there are any."""
    found = list(abreast(family))
    if not found:
        return
    yield "## Another architecture of the same size\n"
    yield "Published: nothing.  No regression: the model is what varies.\n"
    pairs = {s.model.name: (s.model, s.base) for s in found}
    for pair in pairs.values():
        made = (
            f"{m.name} ({m.architecture}) of {m.parameters:,} parameters and a memory of {m.memory:,} numbers"
            for m in pair
        )
        yield f"{' beside '.join(made)}.\n"
    yield _ABREAST
    plus = "; ".join(f"{model.name} lost more than {base.name}" for model, base in pairs.values())
    yield (
        f"Plus means: {plus}.  Unmarked: all of the interval is above 0; *opposite*: all of it below; *not*: 0 is "
        "inside.  As published: ROUGE-1, with our interval.\n"
    )
    yield from _stepped((f"{s.model.label} against {s.base.label}", s) for s in found)


def _stepped(found: Iterable[tuple[str, Step]]) -> Iterator[str]:
    yield _head("models", "tokens")
    rows: dict[tuple[str, int], dict[str, Row]] = {}
    for models, s in found:
        rows.setdefault((models, s.length), {})[s.metric] = s.row
    yield from _listed(rows)


def _models(family: Sequence[Member]) -> Iterator[str]:
    """What there is of each model, and what it keeps."""
    lengths = family[0].lengths()
    for metric, said in (("retention", "Retention"), ("omission_anywhere", "Tokens lost anywhere")):
        yield f"{said}, with the numbers of the memory beside:\n"
        yield "| model | architecture | parameters | memory | " + " | ".join(map(str, lengths)) + " |"
        yield "| --- | --- " + "| ---: " * (len(lengths) + 2) + "|"
        for m in family:
            found = m.run.table("estimates").filter(by="all", seed="all", condition="memory", metric=metric)
            of_length = {row["length"]: row for row in found.iter_rows(named=True)}
            cells = [
                f"{words.number(r['value'], r['unit'])} ({words.interval(r)})"
                for r in map(of_length.__getitem__, lengths)
            ]
            of_model = f"| {m.run.study.name} | {m.architecture} | {m.parameters:,} | {m.memory:,} "
            yield f"{of_model}| {' | '.join(cells)} |"
        yield ""


def _claims(family: Sequence[Member]) -> Iterator[str]:
    """Whether what is said of one model holds of each."""
    found: dict[str, list[tuple[Member, list[tuple[Any, str, Row]]]]] = {
        LONGER: [(m, [(f"{a} to {b}", metric, row) for a, b, metric, row in longer(m)]) for m in family],
        **{claim: [(m, list(kinds(m, *groups))) for m in family] for claim, groups in _KINDS.items()},
        _RECENCY: [(m, list(recency(m))) for m in family],
    }
    yield "## Does the claim hold at every size?\n"
    yield (
        "The same runs, before any regression.  First all lengths by verdict: replicated / not / opposite, and untold "
        f"if any; then the lengths {', '.join(map(str, LISTED))} in full.\n"
    )
    yield "| claim | model | " + " | ".join(COLUMNS) + " |"
    yield "| --- " * (len(COLUMNS) + 2) + "|"
    for claim, of_models in found.items():
        for i, (m, rows) in enumerate(of_models):
            yield f"| {claim if i == 0 else ''} | {m.label} | {tallied((metric, row) for _, metric, row in rows)} |"
    yield ""
    for claim, of_models in found.items():
        yield f"### {claim}\n"
        yield _head("model", "tokens")
        table: dict[tuple[str, Any], dict[str, Row]] = {}
        for m, rows in of_models:
            ends = f"{m.lengths()[0]} to {m.lengths()[-1]}"
            for place, metric, row in rows:
                if place in LISTED or place == ends:
                    table.setdefault((m.label, place), {})[metric] = row
        yield from _listed(table)


def _head(of: str, place: str) -> str:
    readings = [READINGS.get(m, PUBLISHED.get(m)) for m in METRICS]
    return f"| {of} | {place} | " + " | ".join(map(str, readings)) + " | documents |\n" + "| --- " * 7 + "| ---: |"


def _listed(table: dict[tuple[str, Any], dict[str, Row]]) -> Iterator[str]:
    for (of, place), rows in table.items():
        cells = [_marked(rows.get(metric)) for metric in METRICS]
        n = max(row["n_documents"] for row in rows.values())
        yield f"| {of} | {place} | {' | '.join(cells)} | {n:,} |"
    yield ""


def _marked(row: Row | None) -> str:
    """An effect with its verdict, unless it is replicated."""
    said = {"replicated": "", "untold": ""}.get(verdict(row), f" *{verdict(row)}*")
    return effect(row) + said
