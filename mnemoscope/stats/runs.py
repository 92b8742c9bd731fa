"""Finished runs on the same text -> compare.parquet: what the others keep of each class, less what the first keeps.

    runs -> the windows that all have -> sums by document -> difference, paired by document -> Holm in each family

Where all runs cut the text into the same tokens, the same windows are compared, token for token.  Where they do not
(other tokenizers), the same documents are, at the same length in tokens, and what counts tokens counts characters
instead: a token of one run is not a token of the other.  Retention is a ratio of bits, and stays.

Retention and bits retained compare each run with *its own* decoder that had no memory, so they say how much a memory
adds, not whose text is the more probable one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import config, plugins, schema
from mnemoscope.errors import RunError
from mnemoscope.rundir import RunDir, disk_errors
from mnemoscope.score.metrics import Metric
from mnemoscope.score.records import replacing
from mnemoscope.stats.bootstrap import divide
from mnemoscope.stats.compare import difference
from mnemoscope.stats.effects import effect_size
from mnemoscope.stats.estimate import Sums, require_groups, scan, sums

CONDITION = "memory"
_CHARACTERS = (pl.col("char_end") - pl.col("char_start")).cast(pl.Int64)
_PLACE = ["length", "metric", "by", "group"]
#: of a value, what sums of other order may differ by
_ROUNDING = 1e-12


class BitsPerCharacter(Metric):
    """Bits retained a character: as ``bits_retained``, the tokens' characters in place of their number.

    Tokens that share a character of several bytes count it each.  NaN: no token was measured under both conditions.
    """

    name = "bits_per_character"
    unit = "bits/character"
    direction = "kept"
    level = "token"
    paired = True
    numerator = plugins.load("metric", "bits_retained").numerator
    denominator = _CHARACTERS


class OmissionOfCharacters(Metric):
    """The share of characters whose token was lost from its place: ``omission_in_place``, each token weighed by its
    characters.  NaN: no token of the group was measured."""

    name = "omission_of_characters"
    unit = "fraction"
    direction = "lost"
    level = "token"
    numerator = (~pl.col("recovered_in_place")).cast(pl.Float64) * _CHARACTERS
    denominator = _CHARACTERS


class Side(NamedTuple):
    """One of the runs: what it is called here, and the decoder that is compared."""

    name: str
    run: RunDir
    decoder: str

    @property
    def model(self) -> str:
        return self.run.study.model.name if self.run.study.model else ""

    def rows(self, table: str) -> pl.LazyFrame:
        return scan(self.run.path / f"{table}.parquet").filter(pl.col("decoder") == self.decoder)

    def one(self, table: str) -> pl.LazyFrame:
        """What is measured, once: the rows of one seed, under the real memory."""
        rows = self.rows(table).filter(pl.col("condition") == CONDITION)
        return rows.filter(pl.col("seed") == pl.col("seed").min())


class Comparison(NamedTuple):
    """What :func:`compare` found.

    Attributes:
        table: by ``schema.COMPARE``.
        sides: the runs, the first of them the base.
        same_tokens: whether they cut the text into the same tokens.
        notes: what was left out, and why, in sentences.
    """

    table: pl.DataFrame
    sides: list[Side]
    same_tokens: bool
    notes: list[str]


def compare(folders: Sequence[Path], decoders: Sequence[str] = ()) -> Comparison:
    """The differences of every other run from the first, wherever all measured the same text.

    Args:
        folders: run folders whose windows are scored; nothing in them is changed.
        decoders: the decoder to compare, one name for all runs, or one for each; if none, the first that all share,
            or the only one of each.

    Raises:
        RunError: fewer than two runs, a run twice, one that is not scored, nothing in common, or another text.
    """
    sides = _sides(folders, decoders)
    notes: list[str] = []
    alike, same = _in_common(sides, notes)
    _refuse_another_text(sides, alike)
    by = _groups(sides, notes)
    metrics: list[Metric] = [plugins.load("metric", m) for m in ("retention", "bits_retained", "omission_in_place")]
    if not same:
        metrics = [metrics[0], BitsPerCharacter(), OmissionOfCharacters()]
        notes.insert(0, "The runs cut the text into other tokens: paired by document, and counted in characters.")
    found = [_cells(side, sides[0].run.study, by, metrics, alike) for side in sides]
    confidence = sides[0].run.study.estimate.confidence
    rows = [
        _row(sides[0], other, metric, cells[place], found[0][place], confidence)
        for other, cells in zip(sides[1:], found[1:], strict=True)
        for metric in metrics
        for place in cells
        if place[1] == metric.name and place in found[0]
    ]
    measured = {place[1] for cells in found for place in cells}
    for metric in metrics:
        if not all(any(place[1] == metric.name for place in cells) for cells in found) and measured:
            notes.append(f"No {metric.name}: a run has no decoder without memory (condition none).")
    return Comparison(_adjusted(rows), sides, same, notes)


def write(found: Comparison, out: Path) -> Path:
    """Writes ``compare.parquet`` into the folder ``out``, atomically, and returns its path."""
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / "compare.parquet") as part:
            pq.write_table(found.table.to_arrow().cast(schema.arrow("compare")), part)
    return out / "compare.parquet"


class Judgement(NamedTuple):
    """What a margin says of a comparison: rows of ``schema.COMPARE`` that are worse, the worst first; how many rows
    could be judged, and how many had no interval to be judged by."""

    worse: pl.DataFrame
    judged: int
    unjudged: int


def judge(table: pl.DataFrame, metric: Literal["retention", "bits", "omission"], margin: float) -> Judgement:
    """The classes that are worse by more than ``margin``, the whole interval beyond it.

    Args:
        margin: percentage points of retention or omission, or bits a token (or character); not negative.

    Raises:
        RunError: no class of the metric has an interval: nothing can be judged, and nothing may pass.
    """
    mine = table.filter(pl.col("metric").str.starts_with(metric))
    least = margin / 100 if metric != "bits" else margin
    judged = mine.filter(pl.col("low").is_not_nan())
    if judged.is_empty():
        raise RunError(
            f"no class has an interval in {metric}: nothing can be judged",
            remedy="Measure two documents at least, under memory and none, in every run",
        )
    kept = pl.col("direction") == "kept"
    worse = judged.filter((kept & (pl.col("high") < -least)) | (~kept & (pl.col("low") > least)))
    loss = pl.when(kept).then(pl.col("value")).otherwise(-pl.col("value"))
    return Judgement(worse.sort(loss, "by", "group", "length"), judged.height, mine.height - judged.height)


# ---- what is compared -----------------------------------------------------------------------------------------------


def _sides(folders: Sequence[Path], decoders: Sequence[str]) -> list[Side]:
    if len(folders) < 2:
        raise RunError("one run alone is compared with nothing", remedy="Give two runs or more, the base first")
    if len({f.resolve() for f in folders}) < len(folders):
        raise RunError("a run is given twice", remedy="Give each run once")
    if len(decoders) not in (0, 1, len(folders)):
        raise RunError(
            f"{len(decoders)} decoders are named for {len(folders)} runs",
            remedy="Name one for all runs, or one for each, in their order",
        )
    runs = [_open(folder) for folder in folders]
    there = [_measured(run) for run in runs]
    if decoders:
        chosen = list(decoders) * (len(runs) if len(decoders) == 1 else 1)
    else:
        shared = [d for d in there[0] if all(d in some for some in there)]
        if not shared and any(len(some) > 1 for some in there):
            held = "; ".join(f"{run.path}: {', '.join(some)}" for run, some in zip(runs, there, strict=True))
            raise RunError(
                f"no decoder of one name is in all runs, and a run has several ({held})",
                remedy="Say which to compare: --decoder NAME for each run, in their order",
            )
        chosen = [shared[0]] * len(runs) if shared else [some[0] for some in there]
    for run, some, name in zip(runs, there, chosen, strict=True):
        if name not in some:
            raise RunError(f"no decoder {name!r} was measured", remedy=f"There are: {', '.join(some)}", file=run.path)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [Side(*parts) for parts in zip(names, runs, chosen, strict=True)]


def _open(folder: Path) -> RunDir:
    for needed in ("manifest.json", "study.toml", "tokens.parquet", "reconstructions.parquet"):
        if not (folder / needed).exists():
            raise RunError(
                f"it cannot be compared: it has no {needed}",
                remedy="Give a run folder whose windows are scored (mnemoscope run STUDY.toml --out DIR)",
                file=folder,
            )
    return RunDir(folder, config.load(folder / "study.toml"), writes=False)


def _measured(run: RunDir) -> list[str]:
    """The decoders measured under the real memory, in the study's order."""
    rows = scan(run.path / "reconstructions.parquet").filter(pl.col("condition") == CONDITION)
    there = set(rows.select(pl.col("decoder").unique()).collect()["decoder"])
    named = [d.name for d in run.study.decoders if d.name in there]
    if not named:
        raise RunError(
            f"no decoder was measured under the condition {CONDITION!r}", remedy="Add it to the study", file=run.path
        )
    return named


def _in_common(sides: Sequence[Side], notes: list[str]) -> tuple[pl.DataFrame, bool]:
    """The windows that all runs have, if they hold the same tokens in all; else the documents, by length."""
    windows = [side.one("reconstructions").select("length", "doc_id", "window_id").collect() for side in sides]
    shared = reduce(lambda a, b: a.join(b, on=a.columns, how="semi"), windows)
    spans = [
        side.one("tokens")
        .join(shared.lazy(), on="window_id", how="semi")
        .select("window_id", "position", "char_start", "char_end")
        for side in sides
    ]
    first = spans[0].collect(engine="streaming")
    same = not shared.is_empty() and all(
        first.lazy().join(other, on=first.columns, how="anti").collect(engine="streaming").is_empty()
        for other in spans[1:]
    )
    kept = shared if same else reduce(_documents, (w.select("length", "doc_id").unique() for w in windows))
    if kept.is_empty():
        raise RunError(
            f"the runs have no document in common at any length ({_examples(sides, windows)})",
            remedy="Compare runs that measured the same files, with a length in common",
        )
    what = kept.columns[-1].partition("_")[0].replace("doc", "document")
    for side, some in zip(sides, windows, strict=True):
        rest = some.select(kept.columns).unique().join(kept, on=kept.columns, how="anti").height
        if rest:
            notes.append(
                f"{rest} of {rest + kept.height} {what}s of {side.name} are not in every run and are left out."
            )
    return kept, same


def _documents(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    return a.join(b, on=a.columns, how="semi")


def _examples(sides: Sequence[Side], windows: Sequence[pl.DataFrame]) -> str:
    said = [
        f"{side.name}: {some['doc_id'].min()!r} and {some['doc_id'].n_unique() - 1} more, "
        f"lengths {', '.join(map(str, sorted(some['length'].unique())))}"
        for side, some in zip(sides, windows, strict=True)
    ]
    return "; ".join(said)


def _refuse_another_text(sides: Sequence[Side], alike: pl.DataFrame) -> None:
    """Raises RunError if a document's text is not the first run's, wherever their windows overlap."""
    first: dict[str, list[tuple[int, str]]] = {}
    for doc_id, begin, text in _stretches(sides[0], alike):
        first.setdefault(doc_id, []).append((begin, text))
    for side in sides[1:]:
        for doc_id, begin, text in _stretches(side, alike):
            for known_begin, known in first.get(doc_id, ()):
                start, end = max(begin, known_begin), min(begin + len(text), known_begin + len(known))
                for place in range(start, end):
                    if text[place - begin] != known[place - known_begin]:
                        raise RunError(
                            f"document {doc_id!r} has another text in {side.name} than in {sides[0].name}, "
                            f"from character {place} on",
                            remedy="Compare runs on the same files: their inputs are in manifest.json",
                            file=side.run.path,
                        )


def _stretches(side: Side, alike: pl.DataFrame) -> list[tuple[str, int, str]]:
    """(document, first character, text) of the windows that count, in order; of each document those of its longest
    length."""
    start = side.one("tokens").group_by("window_id").agg(pl.col("char_start").min())
    rows = side.one("reconstructions").join(alike.lazy(), on=alike.columns, how="semi").join(start, on="window_id")
    longest = rows.filter(pl.col("length") == pl.col("length").max().over("doc_id"))
    return longest.select("doc_id", "char_start", "reference").collect().sort("doc_id", "char_start").rows()


def _groups(sides: Sequence[Side], notes: list[str]) -> list[str]:
    """The ``estimate.by`` that all studies have, in the order of the first."""
    of_each = [side.run.study.estimate.by for side in sides]
    by = [name for name in of_each[0] if all(name in some for some in of_each)]
    left = sorted({name for some in of_each for name in some} - {*by})
    if left:
        notes.append(f"Classes that only some of the runs have are left out: {', '.join(left)}.")
    for side in sides:
        require_groups(side.run.path, by)
    return ["all", *by]


# ---- numbers --------------------------------------------------------------------------------------------------------


def _cells(
    side: Side, study: config.Study, by: Sequence[str], metrics: Sequence[Metric], alike: pl.DataFrame
) -> dict[tuple[Any, ...], Sums]:
    """(length, metric, by, group) -> sums under the real memory, seeds pooled; position's bins are the first run's."""

    def chosen(table: pl.LazyFrame) -> pl.LazyFrame:
        mine = (pl.col("decoder") == side.decoder) & pl.col("condition").is_in([CONDITION, "none"])
        return table.filter(mine).join(alike.lazy(), on=alike.columns, how="semi")

    found = sums(side.run.path, by, study.estimate, metrics, chosen)
    return {
        tuple(s.key[c] for c in _PLACE): s for s in found if s.key["condition"] == CONDITION and s.key["seed"] == "all"
    }


def _row(base: Side, other: Side, metric: Metric, a: Sums, b: Sums, confidence: float) -> dict[str, Any]:
    found = difference(a, b, confidence=confidence)
    values = [float(divide(s.num.sum(), s.den.sum())) for s in (a, b)]
    if max(abs(found.value), abs(found.low), abs(found.high)) <= _ROUNDING * max(map(abs, values)):
        # the same numbers, added up in another order: no difference, and no p of one
        found = replace(found, value=0.0, low=0.0, high=0.0, p=math.nan)
    size, size_kind = effect_size(metric, a, b, values)
    return {
        **{"run": other.name, "base": base.name, "model": other.model, "base_model": base.model},
        **{"decoder": other.decoder, "base_decoder": base.decoder, "condition": CONDITION},
        **{c: a.key[c] for c in (*_PLACE, "unit")},
        **{"direction": metric.direction, "run_value": values[0], "base_value": values[1]},
        **{c: getattr(found, c) for c in ("value", "low", "high", "p", "n_tokens", "n_documents", "method")},
        **{"confidence": confidence, "size": size, "size_kind": size_kind},
    }


def _adjusted(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The rows with Holm's p of each family, in the order of the schema's columns."""
    from statsmodels.stats.multitest import multipletests

    columns = [c.name for c in schema.COMPARE]
    if not rows:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))
    out = []
    for family in pl.DataFrame(rows, infer_schema_length=None).partition_by("run", "metric", maintain_order=True):
        p = family["p"].to_numpy()
        tested = np.isfinite(p)
        corrected = np.full(len(p), math.nan)
        if tested.any():
            corrected[tested] = multipletests(p[tested], method="holm")[1]
        out.append(family.with_columns(p_adjusted=corrected, family=pl.lit(int(tested.sum()))))
    return pl.concat(out).select(columns)
