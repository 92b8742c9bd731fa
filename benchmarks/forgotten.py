"""What is forgotten, claim by claim: `python -m benchmarks.forgotten runs/forgotten docs/results/forgotten.md --family
runs/family-*`.

Reads the runs of ``studies/forgotten/*.toml`` (folders of those names) and of ``studies/family-*.toml`` (given by name,
any number; see :mod:`benchmarks.sizes`) and writes the page; no number on it is typed by hand.  What the signs and the
verdicts mean: :mod:`benchmarks.verdicts`.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from benchmarks import sizes
from benchmarks.verdicts import COLUMNS, PUBLISHED, READINGS, Row, effect, tallied, turned, verdict
from mnemoscope.report import words
from mnemoscope.rundir import RunDir, write_atomically

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


_READ = """\
**What these decoders fail to write back is not thereby forgotten.**  Up to 64 tokens nearly all of it *is* in the
memory: read by algebra, without a trained decoder, nearly every window of 64 tokens comes back whole, of mamba-nano
([bracket.md](bracket.md)) and of mamba-mini ([best.md](best.md)); of windows of 256 tokens at least the second half, of
most that were tried.  So a difference between kinds of text, of tokens or of models is one in what decoders read, and
no proof that the memory lost it.  "Lost" below means: not written back.

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
    if (folder / "domains" / "tokens.parquet").exists():
        yield from sizes.longer(sizes.member(RunDir.open(folder / "domains"), ["all"]))


# ---- page -----------------------------------------------------------------------------------------------------------


def page(folder: Path, family: Sequence[sizes.Member], command: str) -> Iterator[str]:
    runs = [RunDir.open(f) for f in sorted(folder.iterdir()) if (f / "effects.parquet").exists()]
    models = sorted({r.study.model.name for r in runs if r.study.model})
    seeds = sorted({s for r in runs for d in r.study.decoders for s in d.seeds})
    yield "# What is forgotten, claim by claim\n"
    yield f"Made by `{command}` from the runs of `studies/forgotten/*.toml` and of the family of models:\n"
    yield "```"
    yield from sizes.commands(family)
    yield (
        "mnemoscope count 'DATA/pretrain/*.jsonl.zst' --out runs/forgotten/counts.parquet --tokens mamba-nano --words"
    )
    for run in runs:
        yield f"mnemoscope run studies/forgotten/{run.path.name}.toml --data DATA --out runs/forgotten/{run.path.name}"
    yield f"{command}\n```\n"
    some = f"{words.count(len(models), 'model')} ({', '.join(models)}), {words.count(len(seeds), 'decoder seed')}"
    if len(seeds) > 1:
        yield f"**{some}**: intervals hold the luck of the training of the decoder, as far as so few tell it."
    else:
        yield f"**{some}**: what another decoder would read of the same memories is not in the intervals."
    if len(family) > 1:
        sized = f"{family[0].parameters / 1e6:.1f} to {family[-1].parameters / 1e6:.1f} M parameters"
        yield (
            f"[Larger models](#larger-models-lose-less) and [every size](#does-the-claim-hold-at-every-size): "
            f"{words.count(len(family), 'model')} of {sized}.\n"
        )
    else:
        yield "Nothing is said here of models of other sizes.\n"
    yield _READ
    yield f"## How to read it\n\n{_RULES}"
    yield from _summary(folder, family)
    yield from _by_length(folder)
    yield from sizes.page(family)
    for claim in CLAIMS:
        yield from _claim(folder, claim)
    yield from _costs([*runs, *(m.run for m in family)])


def _summary(folder: Path, family: Sequence[sizes.Member]) -> Iterator[str]:
    """How many of the tests of a claim fell out how, by reading."""
    yield "## In short\n"
    yield "Comparisons (data sets and lengths) by verdict: replicated / not / opposite, and untold if any.\n"
    yield "| claim | | " + " | ".join(COLUMNS) + " |"
    yield "| --- " * (len(COLUMNS) + 2) + "|"
    of_lengths = tallied((metric, row) for *_, metric, row in drops(folder))
    yield f"| The longer the window, the more is lost | before | {of_lengths} |"
    yield from sizes.summary(family)
    for claim in CLAIMS:
        found = [test for wanted in claim.compared for test in tests(folder, wanted)]
        yield f"| {claim.says} | before | {tallied((metric, plain) for _, metric, plain, _ in found)} |"
        after = [(metric, adjusted) for _, metric, _, adjusted in found if metric in READINGS]
        yield f"|  | after | {tallied(after)} |"
    yield ""


def _by_length(folder: Path) -> Iterator[str]:
    yield "## The longer the window, the more is lost\n"
    yield "Published: lost more.  No regression: the length is what varies.\n"
    yield "| lengths | reading | effect (interval) | | documents |"
    yield "| --- | --- | --- | --- | ---: |"
    for shorter, longer, metric, row in drops(folder):
        name = {**READINGS, **PUBLISHED}[metric]
        yield f"| {shorter} to {longer} | {name} | {effect(row)} | {verdict(row)} | {row['n_documents']:,} |"
    yield ""


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
    yield "Decoders of the family are trained in its runs, the others are given theirs; `code` measured.\n"
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
    given = parser.parse_args()
    command = ["python", "-m", "benchmarks.forgotten", str(given.runs), str(given.page)]
    if given.family:
        command += ["--family", *map(str, given.family)]
    family = sizes.members(given.family)
    write_atomically(given.page, "\n".join(page(given.runs, family, shlex.join(command))))


if __name__ == "__main__":
    main()
