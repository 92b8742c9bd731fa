"""What is forgotten, claim by claim: `python -m benchmarks.forgotten runs/forgotten docs/results/forgotten.md`.

Reads the runs of ``studies/forgotten/*.toml`` (folders of those names) and writes the page; no number on it is typed by
hand.  Every difference is turned so that plus means that the group is lost more::

    omission   group - base        bits retained, retention, ROUGE-1   base - group

The verdict is the interval's: ``replicated`` if all of it lies on the side that was published, ``opposite`` if all of
it lies on the other, ``not`` if 0 is inside, ``untold`` if there is none.
"""

from __future__ import annotations

import argparse
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from mnemoscope import plugins
from mnemoscope.report import words
from mnemoscope.rundir import RunDir, write_atomically
from mnemoscope.stats.compare import difference
from mnemoscope.stats.estimate import sums

Row = dict[str, Any]

#: metric -> what it is called here, in the order of the page
READINGS = {
    "omission_anywhere": "by bag (lost anywhere)",
    "omission_in_place": "by alignment (lost in place)",
    "bits_retained": "by bits retained",
    "retention": "by retention",
}
PUBLISHED = {"omission_published": "as published: words lost, t-test", "rouge1": "as published: ROUGE-1"}
#: the number of metrics that a run without its `none` twin cannot have does not matter: they are left out
_HEAD = "| data | length | reading | before: effect (interval) | | after the regression | | documents |"


class Compared(NamedTuple):
    """The group of a run that a claim says is lost more, and the base that it is compared with."""

    run: str
    by: str
    group: str
    base: str


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


_ALONE = """\
another decoder would read of the same memories is not in the intervals, and nothing is said here of models of other
sizes.  CoNLL-2003 and the posts of Groenwold et al. are evaluated and not quoted.
"""
_RULES = """\
Published: arXiv 2512.15653, Mamba-130M to 1.4B.  **Plus means: lost more**, by the side that the claim names; so bits
retained, retention and ROUGE-1 are turned round.  Intervals are at 95 % each, over documents (pairs of texts for
dialects).  *Replicated*: all of the interval lies on the published side; *opposite*: all of it on the other; *not*: 0
is inside; *untold*: there is no interval, and why stands in its place.

*Before* is the plain difference.  *After* holds constant the token's frequency in the pretraining text, its surprisal
without memory, place in the window, subwords of its word, whether the window held it before, and the window's length
(less what is itself compared).  *As published* is the published definition and test on our reconstructions: words of
two tokenizers and Student's t over words as if they were independent; ROUGE-1, with our interval, for kinds of text and
dialects.

By bits, what costs more to begin with has more to retain: a group can lose more words and yet be given more bits by the
memory.  Retention divides by what there was.  Of a decoder that reads little of a long window, differences in place are
small because everything is lost from its place.
"""

# ---- rows -----------------------------------------------------------------------------------------------------------


def turned(row: Row, *, swapped: bool = False) -> Row:
    """A row of effects with value, low and high turned so that plus means: the group is lost more."""
    published = row["metric"] == "omission_published"  # no file of score/metrics/
    kept = not published and plugins.load("metric", row["metric"]).direction == "kept"
    if kept == swapped:
        return row
    return {**row, "value": -row["value"], "low": -row["high"], "high": -row["low"]}


def verdict(row: Row | None) -> str:
    """The rule: where the whole interval lies."""
    if row is None or not math.isfinite(row["low"]):
        return "untold"
    return "replicated" if row["low"] > 0 else "opposite" if row["high"] < 0 else "not"


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
    if not (folder / "domains" / "tokens.parquet").exists():
        return
    run = RunDir.open(folder / "domains")
    rows = [s for s in sums(run.path, ["all"], run.study.estimate, [*READINGS, "rouge1"]) if s.key["seed"] == "all"]
    cells = {(s.key["metric"], s.key["length"]): s for s in rows if s.key["condition"] == "memory"}
    lengths = sorted({length for _, length in cells})
    for metric in ("rouge1", *READINGS):
        for shorter, longer in [*pairwise(lengths), (lengths[0], lengths[-1])]:
            a, b = cells[metric, longer], cells[metric, shorter]
            found = difference(a, b, confidence=run.study.estimate.confidence)
            numbers = {c: getattr(found, c) for c in ("value", "low", "high", "n_documents")}
            yield shorter, longer, metric, turned({"metric": metric, "unit": a.key["unit"], **numbers})


# ---- page -----------------------------------------------------------------------------------------------------------


def effect(row: Row | None) -> str:
    if row is None:
        return "–"
    if not math.isfinite(row["low"]):
        why = row["method"].removeprefix("none: ") if row.get("method", "").startswith("none") else "no interval"
        return f"{words.number(row['value'], row['unit'])} ({why})"
    return f"{_signed(row)} ({words.interval(row)})"


def _signed(row: Row) -> str:
    return ("+" if row["value"] > 0 else "") + words.number(row["value"], row["unit"])


def page(folder: Path, command: str) -> Iterator[str]:
    runs = [RunDir.open(f) for f in sorted(folder.iterdir()) if (f / "effects.parquet").exists()]
    models = sorted({r.study.model.name for r in runs if r.study.model})
    seeds = sorted({s for r in runs for d in r.study.decoders for s in d.seeds})
    yield "# What is forgotten, claim by claim\n"
    yield f"Made by `{command}` from the runs of `studies/forgotten/*.toml`:\n"
    counts = "--out runs/forgotten/counts.parquet --tokens mamba-nano --words"
    yield f"```\nmnemoscope count 'DATA/pretrain/*.jsonl.zst' {counts}"
    for run in runs:
        yield f"mnemoscope run studies/forgotten/{run.path.name}.toml --data DATA --out runs/forgotten/{run.path.name}"
    yield f"{command}\n```\n"
    alone = f"{words.count(len(models), 'model')} ({', '.join(models)}), {words.count(len(seeds), 'decoder seed')}"
    yield f"**{alone}**: what"
    yield _ALONE
    yield f"## How to read it\n\n{_RULES}"
    yield from _summary(folder)
    yield from _by_length(folder)
    for claim in CLAIMS:
        yield from _claim(folder, claim)
    yield from _costs(runs)


def _summary(folder: Path) -> Iterator[str]:
    """How many of the tests of a claim fell out how, by reading."""
    yield "## In short\n"
    yield "Comparisons (data sets and lengths) by verdict: replicated / not / opposite, and untold if any.\n"
    columns = [*READINGS.values(), "as published"]
    yield "| claim | | " + " | ".join(columns) + " |"
    yield "| --- " * (len(columns) + 2) + "|"
    fallen: dict[str, Counter[str]] = {}
    for *_, metric, row in drops(folder):
        fallen.setdefault(READINGS.get(metric, "as published"), Counter())[verdict(row)] += 1
    yield f"| The longer the window, the more is lost | before | {_tallies(fallen, columns)} |"
    yield f"| Larger models lose less | | {' | '.join(['not measured yet'] * len(columns))} |"
    for claim in CLAIMS:
        both: dict[str, dict[str, Counter[str]]] = {"before": {}, "after": {}}
        for wanted in claim.compared:
            for _, metric, plain, adjusted in tests(folder, wanted):
                column = READINGS.get(metric, "as published")
                both["before"].setdefault(column, Counter())[verdict(plain)] += 1
                if metric in READINGS:
                    both["after"].setdefault(column, Counter())[verdict(adjusted)] += 1
        for when, tallies in both.items():
            yield f"| {claim.says if when == 'before' else ''} | {when} | {_tallies(tallies, columns)} |"
    yield ""


def _tallies(fallen: dict[str, Counter[str]], columns: Iterable[str]) -> str:
    def one(tally: Counter[str] | None) -> str:
        if not tally:
            return "–"
        known = " / ".join(str(tally[v]) for v in ("replicated", "not", "opposite"))
        return known + (f" (+ {tally['untold']} untold)" if tally["untold"] else "")

    return " | ".join(one(fallen.get(c)) for c in columns)


def _by_length(folder: Path) -> Iterator[str]:
    yield "## The longer the window, the more is lost\n"
    yield "Published: lost more.  No regression: the length is what varies.\n"
    yield "| lengths | reading | effect (interval) | | documents |"
    yield "| --- | --- | --- | --- | ---: |"
    for shorter, longer, metric, row in drops(folder):
        name = {**READINGS, **PUBLISHED}[metric]
        yield f"| {shorter} to {longer} | {name} | {effect(row)} | {verdict(row)} | {row['n_documents']:,} |"
    yield "\n## Larger models lose less\n\nNot measured yet: these runs are of one model.\n"


def _claim(folder: Path, claim: Claim) -> Iterator[str]:
    yield f"## {claim.says}\n"
    yield ("Published: nothing; plus means lost more.\n" if claim.ours else "Published: lost more.\n")
    yield _HEAD
    yield "| --- " * 7 + "| ---: |"
    for wanted in claim.compared:
        if not (folder / wanted.run / "effects.parquet").exists():
            yield f"| {wanted.run}: {wanted.by}, {wanted.group} against {wanted.base} | | not measured yet | | | | | |"
        for length, metric, plain, adjusted in tests(folder, wanted):
            name = {**READINGS, **PUBLISHED}[metric]
            after = (effect(adjusted), verdict(adjusted)) if metric in READINGS else ("–", "")
            yield (
                f"| {wanted.run}: {plain['by']}, {wanted.group} against {wanted.base} | {length} | {name} "
                f"| {effect(plain)} | {verdict(plain)} | {after[0]} | {after[1]} | {plain['n_documents']:,} |"
            )
    yield ""


def _costs(runs: list[RunDir]) -> Iterator[str]:
    yield "## What the runs took\n"
    yield "| run | documents | windows | tokens, all conditions | seconds | code |"
    yield "| --- | ---: | ---: | ---: | ---: | --- |"
    for run in runs:
        manifest = run.manifest
        windows = pl.scan_parquet(run.path / "reconstructions.parquet")
        n = windows.select(pl.len(), pl.col("doc_id").n_unique(), pl.col("length").sum()).collect().row(0)
        seconds = sum(s.get("seconds", 0.0) for s in manifest["stages"].values())
        revision = manifest["stages"]["reconstruct"].get("revision", "")[:12]
        yield f"| {run.path.name} | {n[1]:,} | {n[0]:,} | {n[2]:,} | {seconds:,.0f} | `{revision}` |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("page", type=Path, help="Markdown file to write")
    given = parser.parse_args()
    command = shlex.join(["python", "-m", "benchmarks.forgotten", str(given.runs), str(given.page)])
    write_atomically(given.page, "\n".join(page(given.runs, command)))


if __name__ == "__main__":
    main()
