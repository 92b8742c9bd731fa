"""What is forgotten, claim by claim: `python -m benchmarks.forgotten runs/forgotten docs/results/forgotten.md --family
runs/family-*`.

Reads the runs of ``studies/forgotten/*.toml`` (folders of those names) and of ``studies/family-*.toml`` (given by name,
any number; see :mod:`benchmarks.sizes`) and writes the page; no number on it is typed by hand.  What the signs and the
verdicts mean: :mod:`benchmarks.verdicts`.

``--beside`` takes folders of the same studies, measured with other models: whether they agree.  Their details are for
pages of their own: `python -m benchmarks.forgotten runs/forgotten-mini-mamba2 docs/results/forgotten-mamba2.md`.
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from benchmarks import sizes
from benchmarks.verdicts import COLUMNS, PUBLISHED, READINGS, Row, effect, tallied, turned, verdict
from mnemoscope import config
from mnemoscope.errors import RunError
from mnemoscope.report import words
from mnemoscope.rundir import RunDir, write_atomically
from mnemoscope.undo.layer import KINDS

#: how the runs' studies were before anything was set otherwise
STUDIES = Path(__file__).parent.parent / "studies" / "forgotten"
#: the page of the family, which those of other models refer to
_MAIN = "forgotten.md"

_HEAD = "| data | length | reading | before: effect (interval) | | after the regression | | documents |"


class Compared(NamedTuple):
    """The group of a run that a claim says is lost more, and the base that it is compared with."""

    run: str
    by: str
    group: str
    base: str

    @property
    def label(self) -> str:
        return f"{self.run}: {self.by}, {self.group} against {self.base}"


class Claim(NamedTuple):
    """Attributes:
    says: what was published, or, if ``ours``, what was never asked there; always that the group is lost more.
    """

    says: str
    compared: tuple[Compared, ...]
    ours: bool = False


_LAST = "last"  # base of positions: the last bin of each length, the group being the first
CLAIMS = (
    Claim("Mathematics is lost more", (
        Compared("domains", "domain", "math", "news"), Compared("domains", "domain", "gsm8k", "news"),
    )),
    Claim("Numbers are lost more", (
        Compared("conll", "pos", "NUM", "NOUN"), Compared("ud-ewt", "pos", "NUM", "NOUN"),
        Compared("ud-gum", "pos", "NUM", "NOUN"), Compared("domains", "numbers", "4 digits", "(unlabelled)"),
        Compared("domains", "mathematics", "number", "(unlabelled)"), Compared("code", "code", "number", "identifier"),
    )),
    Claim("Organisations are lost more", (
        Compared("conll", "entity", "ORG", "O"), Compared("wnut", "entity", "corporation", "O"),
        Compared("sec", "entity", "ORG", "O"),
    )),
    Claim("African American Vernacular English is lost more than Standard American English", (
        Compared("redial", "pair", "aave", "sae"), Compared("groenwold", "pair", "aave", "sae"),
    )),
    Claim("Rare tokens and words are lost more", (
        Compared("domains", "frequency", "10-100 per million", "1000-10000 per million"),
        Compared("ud-ewt", "frequency", "10-100 per million", "1000-10000 per million"),
        Compared("ud-gum", "frequency", "10-100 per million", "1000-10000 per million"),
        Compared("ud-ewt", "word-frequency", "1-10 per million", "1000-10000 per million"),
        Compared("ud-gum", "word-frequency", "1-10 per million", "1000-10000 per million"),
    )),
    Claim("What was read first is lost more than what was read last (recency)", (
        Compared("domains", "position", "first", _LAST),
    )),
    Claim("Not asked there: e-mail, which the model never saw, is lost more than news", (
        Compared("domains", "domain", "email", "news"),
    ), ours=True),
)  # fmt: skip


_NOT_THEREBY = "**What these decoders fail to write back is not thereby forgotten.**"
_ALGEBRA = """\
Up to 64 tokens nearly all of it *is* in the memory: read by algebra, without a trained decoder, nearly every window of
64 tokens comes back whole, of mamba-nano ([bracket.md](bracket.md)) and of mamba-mini ([best.md](best.md)); of windows
of 256 tokens at least the second half, of most that were tried."""
_READ = """\
So a difference between kinds of text, of tokens or of models is one in what decoders read, and no proof that the memory
lost it.  "Lost" below means: not written back.

CoNLL-2003 and the posts of Groenwold et al. are evaluated and not quoted.
"""
_RULES = """\
Published: arXiv 2512.15653, Mamba-130M to 1.4B.  **Plus means: lost more**, by the side that the claim names; so bits
retained, retention and ROUGE-1 are turned round.  Intervals are at 95 % each, over documents (pairs of texts for
dialects) and, as a second level, decoder seeds.  *Replicated*: all of the interval lies on the published side;
*opposite*: all of it on the other; *not*: 0 is inside; *untold*: there is no interval, and why stands in its place.

*Before* is the plain difference.  *After* holds constant the token's frequency in the pretraining text, its surprisal
without memory, place in the window, subwords of its word, whether the window held it before, and the window's length
(less what is itself compared).  *As published* is the published definition and test on our reconstructions, of the
first decoder seed: words of two tokenizers and Student's t over words as if they were independent; ROUGE-1, of all
seeds and with our interval, for kinds of text, dialects, lengths and sizes.

By bits, what costs more to begin with has more to retain: a group can lose more words and yet be given more bits by the
memory.  Retention divides by what there was.  Of a decoder that reads little of a long window, differences in place are
small because everything is lost from its place.
"""

# ---- rows -----------------------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """What is asked of every model alike.

    Attributes:
        of: what is compared.
        place: length of the windows, or two of them.
        when: before or after the regression.
    """

    claim: str
    of: str
    place: str
    metric: str
    when: str


class Measured(NamedTuple):
    """The studies of ``studies/forgotten``, as far as they were measured with a model.

    Attributes:
        answers: turned; None where the regression has none.
    """

    folder: Path
    runs: list[RunDir]
    answers: dict[Question, Row | None]

    @property
    def model(self) -> str:
        return ", ".join(self.architectures())

    def architectures(self) -> dict[str, str]:
        """Of each model, by what it is called; one as a rule."""
        models = (r.study.model for r in self.runs)
        return {_called(m.name): sizes.architecture(m) for m in models if m is not None}

    def sized(self) -> str:
        """The model with its parameters and architecture."""
        kinds = ", ".join(self.architectures().values())
        return f"{self.model} ({kinds}) has {self.runs[0].manifest['parameters']:,} parameters"

    def missing(self) -> list[str]:
        """Studies that are not measured yet."""
        return sorted({c.run for claim in CLAIMS for c in claim.compared} - {r.path.name for r in self.runs})


def _called(model: str) -> str:
    """runs/pretrain-mini/model is called mini, as in its family."""
    path = Path(model)
    return path.parent.name.removeprefix("pretrain-") if path.name == "model" else model


def measured(folder: Path) -> Measured:
    """What there is in a folder of runs, whatever else lies there.

    Raises:
        RunError: none of the studies was measured there.
    """
    runs = [
        RunDir.open(folder / file.stem)
        for file in sorted(STUDIES.glob("*.toml"))
        if (folder / file.stem / "effects.parquet").exists()
    ]
    if not runs:
        raise RunError("no run here has effects", remedy="Run some of studies/forgotten", file=folder)
    return Measured(folder, runs, dict(_answers(folder)))


def _answers(folder: Path) -> Iterator[tuple[Question, Row | None]]:
    for shorter, longer, metric, row in drops(folder):
        yield Question(sizes.LONGER, "domains: all text", f"{shorter} to {longer}", metric, "before"), row
    for claim in CLAIMS:
        for wanted in claim.compared:
            for length, metric, plain, adjusted in tests(folder, wanted):
                asked = Question(claim.says, wanted.label, str(length), metric, "before")
                yield asked, plain
                if metric in READINGS:
                    yield asked._replace(when="after"), adjusted


def effects(folder: Path, wanted: Compared) -> Iterator[Row]:
    """The rows of a comparison under the real memory, turned; a pair of groups may stand the other way round."""
    if not (folder / wanted.run / "effects.parquet").exists():
        return
    table = (
        pl.read_parquet(folder / wanted.run / "effects.parquet")
        .filter(by=wanted.by, condition="memory")
        .filter(pl.col("kind").is_in(["plain", "adjusted", "paper"]))
    )
    for length in sorted(set(table["length"])):
        group, base = wanted.group, wanted.base
        here = table.filter(length=length)
        if base == _LAST:
            bins = sorted({*here["group"], *here["base"]}, key=lambda b: int(b.split("-")[0]))
            group, base = bins[0], bins[-1]
        for row in here.iter_rows(named=True):
            if (row["group"], row["base"]) == (group, base):
                yield turned(row)
            elif (row["group"], row["base"]) == (base, group):
                yield turned(row, swapped=True)


def tests(folder: Path, wanted: Compared) -> Iterator[tuple[int, str, Row, Row | None]]:
    """(length, metric, plain or published row, adjusted row)."""
    rows = {(r["length"], r["metric"], r["kind"]): r for r in effects(folder, wanted)}
    for length in sorted({length for length, *_ in rows}):
        for metric in (*PUBLISHED, *READINGS):
            plain = rows.get((length, metric, "paper" if metric == "omission_published" else "plain"))
            if plain is not None:
                yield length, metric, plain, rows.get((length, metric, "adjusted"))


def drops(folder: Path) -> Iterator[tuple[int, int, str, Row]]:
    """(shorter, longer, metric, row): what a longer window loses more, of all text of the run ``domains``."""
    if (folder / "domains" / "effects.parquet").exists():
        yield from sizes.longer(sizes.member(RunDir.open(folder / "domains"), ["all"]))


# ---- page -----------------------------------------------------------------------------------------------------------


def page(
    main: Measured, beside: Sequence[Measured], family: Sequence[sizes.Member], command: str, name: str
) -> Iterator[str]:
    """The lines of the page, whose file has this name."""
    every = [main, *beside]
    models = [m.model for m in every]
    seeds = {s for m in every for r in m.runs for d in r.study.decoders for s in d.seeds}
    yield f"# What is forgotten, claim by claim{'' if family or beside else f': {main.model}'}\n"
    of_family = " and of the family of models" if family else ""
    yield f"Made by `{command}` from the runs of `studies/forgotten/*.toml`{of_family}:\n"
    yield "```"
    yield from dict.fromkeys(_commands(every, family))
    yield f"{command}\n```\n"
    some = f"{words.count(len(models), 'model')} ({', '.join(models)}), {words.count(len(seeds), 'decoder seed')}"
    if len(seeds) > 1:
        yield f"**{some}**: intervals hold the luck of the training of the decoder, as far as so few tell it."
    else:
        yield f"**{some}**: what another decoder would read of the same memories is not in the intervals."
    for m in every:
        if missing := m.missing():
            yield f"Not measured yet of {m.model}: {', '.join(missing)}."
    if beside:
        yield (
            f"What is told claim by claim is of {main.model}; details of {', '.join(models[1:])} are elsewhere "
            "([results](README.md))."
        )
    yield from _referred(family, name)
    yield from _read(every, family)
    yield f"## How to read it\n\n{_RULES}"
    yield from _summary(every, family)
    for other in beside:
        yield from _agreement(main, other)
    yield from _by_length(main)
    yield from sizes.page(family)
    for claim in CLAIMS:
        yield from _claim(main, claim)
    yield from _costs([*main.runs, *(m.run for m in family)])


def _referred(family: Sequence[sizes.Member], name: str) -> Iterator[str]:
    """Where sizes and architectures are told of."""
    if len(family) > 1:
        sized = sizes.chain(family)
        millions = f"{sized[0].parameters / 1e6:.1f} to {sized[-1].parameters / 1e6:.1f} M parameters"
        links = "[Larger models](#larger-models-lose-less) and [every size](#does-the-claim-hold-at-every-size)"
        others = [m.label for m in family if m.architecture != sized[0].architecture]
        beside = f"; [another architecture](#another-architecture-of-the-same-size): {'; '.join(others)}"
        yield f"{links}: {words.count(len(sized), 'model')} of {millions}{beside if others else ''}.\n"
    elif name == _MAIN:
        yield "Nothing is said here of models of other sizes.\n"
    else:
        yield f"Of other models and sizes, and whether they agree: [{_MAIN}]({_MAIN}).\n"


def _read(every: Sequence[Measured], family: Sequence[sizes.Member]) -> Iterator[str]:
    """What is known of the memories without these decoders."""
    of = {name: kind for m in every for name, kind in m.architectures().items()}
    of |= {m.name: m.architecture for m in family}
    yield _NOT_THEREBY
    if set(of.values()) & set(KINDS):
        yield _ALGEBRA
    if unread := [f"{name} ({kind})" for name, kind in of.items() if kind not in KINDS]:
        yield (
            f"Nobody has read the memory of {', '.join(unread)} by algebra ([undo.md](../undo.md)): what its decoders "
            "fail to write back may be in it or not."
        )
    yield _READ


def _commands(every: Sequence[Measured], family: Sequence[sizes.Member]) -> Iterator[str]:
    """How the runs were made, and the models and decoders that they were given."""
    yield from sizes.commands(family)
    for run in (r for m in every for r in m.runs):
        yield from sizes.pretraining(run.study.model)
        for folder in (Path(d.weights).parent for d in run.study.decoders if d.weights is not None):
            if folder.name == "checkpoints":
                of = folder.parent
                yield f"mnemoscope run studies/{of.name}.toml --data DATA --out {of}"
    yield "mnemoscope count 'DATA/pretrain/*.jsonl.zst' --out runs/forgotten/counts.parquet --tokens mamba-nano --words"
    for run in (r for m in every for r in m.runs):
        given = ["mnemoscope", "run", f"studies/forgotten/{run.path.name}.toml", *settings(run)]
        yield shlex.join([*given, "--data", "DATA", "--out", str(run.path)])


def settings(run: RunDir) -> list[str]:
    """Model and decoders that are not the ones of the study's file, as options of ``mnemoscope run``."""
    asked, made = config.load(STUDIES / f"{run.path.name}.toml"), run.study
    found = []
    if made.model is not None and asked.model is not None and made.model.name != asked.model.name:
        found.append(f"model.name={made.model.name}")
    weights = {d.name: d.weights for d in asked.decoders}
    found += [f"decoders.{d.name}.weights={d.weights}" for d in made.decoders if d.weights != weights.get(d.name)]
    return [word for setting in found for word in ("--set", setting)]


def _summary(every: Sequence[Measured], family: Sequence[sizes.Member]) -> Iterator[str]:
    """How many of the tests of a claim fell out how, by model and reading."""
    yield "## In short\n"
    yield "Comparisons (data sets and lengths) by verdict: replicated / not / opposite, and untold if any.\n"
    yield "| claim | model | | " + " | ".join(COLUMNS) + " |"
    yield "| --- " * (len(COLUMNS) + 3) + "|"
    for claim in (sizes.LONGER, *(c.says for c in CLAIMS)):
        for i, m in enumerate(every):
            for j, when in enumerate(("before",) if claim == sizes.LONGER else ("before", "after")):
                found = [(q.metric, row) for q, row in m.answers.items() if (q.claim, q.when) == (claim, when)]
                yield f"| {'' if i or j else claim} | {'' if j else m.model} | {when} | {tallied(found)} |"
        if claim == sizes.LONGER:
            yield from sizes.summary(family)
    yield ""


def _agreement(main: Measured, other: Measured) -> Iterator[str]:
    """Whether two models answer alike, and in full where they contradict each other."""
    pairs = {q: (row, other.answers[q]) for q, row in main.answers.items() if q in other.answers}
    fallen = {q: (verdict(a), verdict(b)) for q, (a, b) in pairs.items()}
    fallen = {q: both for q, both in fallen.items() if "untold" not in both}
    yield f"### Do {main.model} and {other.model} agree?\n"
    yield (
        "Comparisons (data set, length and reading) of which both have an interval.  *Opposite sides*: both intervals "
        "are away from 0, and not on the same side; of the rest, one is *not*.  Both models read the same texts, so "
        "what they agree about was not found twice: a text that is hard is so for both.  "
        f"{main.sized()} and {other.sized()}, each with decoders of its own: a difference is not of one thing alone.\n"
    )
    yield "| claim | | comparisons | same verdict | opposite sides |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for claim in (*dict.fromkeys(q.claim for q in fallen), "All"):
        here = {q: both for q, both in fallen.items() if claim in (q.claim, "All")}
        for i, when in enumerate(dict.fromkeys(q.when for q in here)):
            tally = Counter(_alike(*both) for q, both in here.items() if q.when == when)
            cells = f"{tally.total()} | {tally['same']} | {tally['opposite sides']}"
            yield f"| {'' if i else claim} | {when} | {cells} |"
    yield ""
    against = [q for q, both in fallen.items() if _alike(*both) == "opposite sides"]
    if not against:
        yield "They are on opposite sides of nothing.\n"
        return
    yield f"On opposite sides (plus means: lost more; {main.model}, then {other.model}):\n"
    yield f"| claim | data | length | reading | | {main.model} | {other.model} |"
    yield "| --- " * 7 + "|"
    for q in against:
        both = " | ".join(effect(row) for row in pairs[q])
        yield f"| {q.claim} | {q.of} | {q.place} | {_reading(q.metric)} | {q.when} | {both} |"
    yield ""


def _alike(one: str, other: str) -> str:
    return "same" if one == other else "one is not" if "not" in (one, other) else "opposite sides"


def _reading(metric: str) -> str:
    return {**READINGS, **PUBLISHED}[metric]


def _by_length(main: Measured) -> Iterator[str]:
    yield f"## {sizes.LONGER}\n"
    found = [(q, row) for q, row in main.answers.items() if q.claim == sizes.LONGER]
    if not found:
        yield "Not measured yet.\n"
        return
    yield "Published: lost more.  No regression: the length is what varies.\n"
    yield "| lengths | reading | effect (interval) | | documents |"
    yield "| --- | --- | --- | --- | ---: |"
    for q, row in found:
        assert row is not None  # None stands for a regression
        said = f"{effect(row)} | {verdict(row)} | {row['n_documents']:,}"
        yield f"| {q.place} | {_reading(q.metric)} | {said} |"
    yield ""


def _claim(main: Measured, claim: Claim) -> Iterator[str]:
    yield f"## {claim.says}\n"
    yield ("Published: nothing; plus means lost more.\n" if claim.ours else "Published: lost more.\n")
    yield _HEAD
    yield "| --- " * 7 + "| ---: |"
    for wanted in claim.compared:
        if wanted.run in main.missing():
            yield f"| {wanted.label} | | not measured yet | | | | | |"
        asked = (claim.says, wanted.label, "before")
        for q, plain in ((q, row) for q, row in main.answers.items() if (q.claim, q.of, q.when) == asked):
            assert plain is not None  # None stands for a regression
            adjusted = main.answers.get(q._replace(when="after"))
            after = (effect(adjusted), verdict(adjusted)) if q.metric in READINGS else ("–", "")
            yield (
                f"| {wanted.label} | {q.place} | {_reading(q.metric)} "
                f"| {effect(plain)} | {verdict(plain)} | {after[0]} | {after[1]} | {plain['n_documents']:,} |"
            )
    yield ""


def _costs(runs: list[RunDir]) -> Iterator[str]:
    yield "## What the runs took\n"
    yield "Runs of `studies/family-*.toml` train their decoders, the others are given theirs; `code` measured.\n"
    yield "| run | documents | windows | at most of a length | tokens, all decoders | seconds | measured on | code |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"
    for run in runs:
        manifest = run.manifest
        windows = pl.scan_parquet(run.path / "reconstructions.parquet")
        n = windows.select(pl.len(), pl.col("doc_id").n_unique(), pl.col("length").sum()).collect().row(0)
        seconds = sum(s.get("seconds", 0.0) for s in manifest["stages"].values())
        made = manifest["stages"]["reconstruct"]
        of = f"{made.get('device', '')} | `{made.get('revision', '')[:12]}`"
        most = run.study.windows.tokens_per_length if run.study.windows else 0
        yield f"| {run.path.name} | {n[1]:,} | {n[0]:,} | {most:,} | {n[2]:,} | {seconds:,.0f} | {of} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("page", type=Path, help="Markdown file to write")
    parser.add_argument("--family", type=Path, nargs="*", default=[], metavar="RUN", help="runs of models of sizes")
    parser.add_argument(
        "--beside", type=Path, nargs="*", default=[], metavar="RUNS", help="folders of the runs with other models"
    )
    given = parser.parse_args()
    command = ["python", "-m", "benchmarks.forgotten", str(given.runs), str(given.page)]
    for option in ("family", "beside"):
        if folders := getattr(given, option):
            command += [f"--{option}", *map(str, folders)]
    family = sizes.members(given.family)
    beside = [measured(folder) for folder in given.beside]
    lines = page(measured(given.runs), beside, family, shlex.join(command), given.page.name)
    write_atomically(given.page, "\n".join(lines))


if __name__ == "__main__":
    main()
