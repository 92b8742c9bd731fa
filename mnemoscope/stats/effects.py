"""Every difference that a study asks for -> effects.parquet: plain, adjusted, in parts, and by the published test.

    [[effects]]  by = "pos"   ->  per decoder, length and metric, a family of comparisons, each kind for itself
        plain      every pair of groups                     jackknife over documents        Holm (1979)
        prior      the same in bits retained: what there was to retain                      Holm
        share      the same in bits retained: the share of it that was                      Holm
        adjusted   every group with the base, controls held constant                        Holm
        paper      every pair of groups, words for tokens   Student's t over 0 and 1        Bonferroni

A family is what one reader would look through for a small p: the comparisons of one kind in one cell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import plugins, schema
from mnemoscope.config import Effects, Study
from mnemoscope.errors import ConfigError, RunError
from mnemoscope.score.metrics import Mean, Metric
from mnemoscope.score.records import replacing
from mnemoscope.stats import covariates, paper
from mnemoscope.stats.bootstrap import divide
from mnemoscope.stats.compare import Difference, difference, parts
from mnemoscope.stats.estimate import UNLABELLED, Sums, annotated, require_groups, sums
from mnemoscope.stats.regress import marginal_effects

Row = dict[str, Any]
_CELL = ("run", "model", "decoder", "condition", "length")
_KINDS = ["plain", "prior", "share", "adjusted", "paper"]
_FAMILY = [*_CELL, "metric", "by", "kind", "controls"]


def require(run_folder: Path, study: Study) -> None:
    """Everything that a study's effects can be refused for before anything is measured.

    Raises:
        ConfigError: an unknown metric; the published test without what it needs.
        RunError: no such group, base, control or words in this run.
    """
    for wanted in study.effects:
        for name in wanted.metrics:
            plugins.load("metric", name)
        covariates.require(run_folder, wanted.controls)
        require_groups(run_folder, [wanted.by, *([wanted.words] if wanted.words else [])], "effects")
        if wanted.base is not None and wanted.by in annotated(run_folder):
            labels = pl.read_parquet(run_folder / "annotations" / f"{wanted.by}.parquet", columns=["label"])["label"]
            _require_base(wanted, {UNLABELLED, *labels.unique()})
        if wanted.words is not None:
            paper.require(run_folder, wanted)
        alone = study.estimate.guesses is None and any("none" not in d.conditions for d in study.decoders)
        if "surprisal" in wanted.controls and alone:
            raise ConfigError(
                "effects control for surprisal, which is measured under the condition 'none'",
                remedy="Add it to the conditions of every decoder, or of one (estimate.guesses), or leave it out",
            )


def effects(run_folder: Path, study: Study) -> None:
    """Writes ``effects.parquet``, atomically, if the study asks for effects.

    Raises:
        RunError: a table is missing, or does not hold what ``[[effects]]`` names.
    """
    if not study.effects:
        return
    rows = [row for wanted in study.effects for row in _of(run_folder, study, wanted)]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if rows:  # two sections of one by, with other controls, ask for the same plain comparisons
        frame = frame.unique([*_FAMILY, "group", "base"], keep="first", maintain_order=True)
    frame = _adjusted(frame, study.estimate.confidence)
    with replacing(run_folder / "effects.parquet") as part:
        pq.write_table(frame.to_arrow().cast(schema.arrow("effects")), part)


def _of(run_folder: Path, study: Study, wanted: Effects) -> Iterator[Row]:
    confidence = study.estimate.confidence
    cells = _cells(run_folder, study, wanted)
    _require_base(wanted, {group for cell in cells.values() for _, group in cell})
    if wanted.base is None and cells:
        wanted = wanted.model_copy(update={"base": _largest(cells.values()) if wanted.by != "position" else "first"})
    for cell in cells.values():
        groups = _ordered(cell, wanted)
        by_metric = {m: {g: cell[m, g] for g in groups if (m, g) in cell} for m in wanted.metrics}
        for name, found in by_metric.items():
            for base, group in combinations([g for g in groups if g in found], 2):
                a, b = found[group], found[base]
                yield _plain(a, b, difference(a, b, confidence=confidence), "plain")
                if name == "bits_retained":
                    bits, kept = ({g: cell[m, g] for g in (group, base)} for m in ("bits_retained", "retention"))
                    both = parts((bits[group], kept[group]), (bits[base], kept[base]), confidence=confidence)
                    for kind, part in both.items():
                        yield _plain(a, b, part, kind)
    if wanted.controls:
        yield from _regressions(run_folder, study, wanted)
    if wanted.words is not None:
        yield from paper.tests(run_folder, wanted, confidence)


def _cells(run_folder: Path, study: Study, wanted: Effects) -> dict[tuple[Any, ...], dict[tuple[str, str], Sums]]:
    """(cell) -> (metric, group) -> sums, under the real memory; nats without memory too, which is the prior's cost."""
    names = {*wanted.metrics, *(["retention"] if "bits_retained" in wanted.metrics else [])}
    cells: dict[tuple[Any, ...], dict[tuple[str, str], Sums]] = {}
    for found in sums(run_folder, [wanted.by], study.estimate, sorted(names)):
        key = found.key
        if found.documents and (key["condition"] == "memory" or (key["condition"], key["metric"]) == ("none", "nats")):
            cells.setdefault(tuple(key[c] for c in _CELL), {})[key["metric"], key["group"]] = found
    return cells


def _largest(cells: Iterable[dict[tuple[str, str], Sums]]) -> str:
    """The group of most units over all cells, so that every length has the same base; of several, the first by name."""
    units: Counter[str] = Counter()
    for cell in cells:
        for group in {group for _, group in cell}:
            units[group] += max(found.units for (_, g), found in cell.items() if g == group)
    return min(units, key=lambda g: (-units[g], g))


def _ordered(cell: dict[tuple[str, str], Sums], wanted: Effects) -> list[str]:
    """The groups of a cell, the base first, if it is there, then by name."""
    groups = {group for _, group in cell}
    return sorted(groups, key=lambda g: (g != _base(wanted, groups), g))


def _base(wanted: Effects, groups: Iterable[str]) -> str | None:
    """The group that the others are compared with, if the study names one or it was chosen."""
    if wanted.by != "position" or wanted.base is None:
        return wanted.base
    return sorted(groups, key=lambda g: int(g.split("-")[0]))[0 if wanted.base == "first" else -1]


def _require_base(wanted: Effects, groups: set[str]) -> None:
    """Raises RunError if no token, at any length, is of the base."""
    if groups and _base(wanted, groups) not in (None, *groups):
        raise RunError(
            f"effects by {wanted.by!r} compare with {wanted.base!r}, which no token is",
            remedy=f"There are: {', '.join(sorted(groups))}",
        )


def _plain(a: Sums, b: Sums, found: Difference, kind: str) -> Row:
    metric: Metric = plugins.load("metric", a.key["metric"])
    values = [float(divide(s.num.sum(), s.den.sum())) for s in (a, b)]
    size, size_kind = effect_size(metric, a, b, values) if kind == "plain" else (math.nan, "")
    return {
        **{c: a.key[c] for c in (*_CELL, "metric", "unit", "by", "group")},
        "base": b.key["group"],
        **_numbers(found, kind, values[0], values[1], size, size_kind),
    }


def _numbers(
    found: Difference, kind: str, group_value: float, base_value: float, size: float, size_kind: str, controls: str = ""
) -> Row:
    return {
        "kind": kind,
        "controls": controls,
        "group_value": group_value,
        "base_value": base_value,
        **{c: getattr(found, c) for c in ("value", "low", "high", "p", "n_tokens", "n_documents", "method")},
        "size": size,
        "size_kind": size_kind,
    }


def _is_share(metric: Metric) -> bool:
    """Whether a metric is the mean of one 0 or 1 a token."""
    return isinstance(metric, Mean) and metric.level == "token" and metric.unit == "fraction"


def _h(p: float, q: float) -> float:
    """Cohen's h of two shares: 0.2 is small, 0.5 middling, 0.8 large."""
    return 2 * math.asin(math.sqrt(min(max(p, 0), 1))) - 2 * math.asin(math.sqrt(min(max(q, 0), 1)))


def effect_size(metric: Metric, a: Sums, b: Sums, values: list[float]) -> tuple[float, str]:
    """Of the metric's ``values`` on two sides, with its kind, as in ``schema.EFFECTS``; NaN, empty if there is none."""
    if _is_share(metric):
        return _h(*values), "h"
    if min(len(s.documents) for s in (a, b)) < 2:
        return math.nan, ""
    spread = [divide(s.num, s.den).var(ddof=1) for s in (a, b)]
    pooled = math.sqrt(sum(spread) / 2)
    return ((values[0] - values[1]) / pooled, "d") if pooled > 0 else (math.nan, "")


# ---- regression -----------------------------------------------------------------------------------------------------


def _regressions(run_folder: Path, study: Study, wanted: Effects) -> Iterator[Row]:
    """The adjusted effects of every token metric."""
    loaded: list[Metric] = [plugins.load("metric", name) for name in wanted.metrics]
    metrics = [m for m in loaded if m.level == "token"]
    for cell in covariates.cells(run_folder, study, wanted, metrics) if metrics else ():
        names = set(cell.group.tolist())
        base = str(_base(wanted, names))
        for metric in metrics:
            if metric.name not in cell.outcomes:
                continue
            found = marginal_effects(
                cell.outcomes[metric.name],
                cell.group,
                cell.controls,
                cell.documents,
                base=base,
                logistic=_is_share(metric),
                confidence=study.estimate.confidence,
                weights=cell.weights[metric.name],
            )
            for group, effect in found.items():
                share = _is_share(metric) and math.isfinite(effect.group_value)
                size = _h(effect.group_value, effect.base_value) if share else math.nan
                numbers = _numbers(
                    effect.difference,
                    "adjusted",
                    effect.group_value,
                    effect.base_value,
                    size,
                    "h" if share else "",
                    ", ".join(wanted.controls),
                )
                numbers["method"] += cell.note
                names_of = {"metric": metric.name, "unit": metric.unit, "by": wanted.by, "group": group, "base": base}
                yield {**cell.key, **names_of, **numbers}


# ---- families -------------------------------------------------------------------------------------------------------


def _adjusted(rows: pl.DataFrame, confidence: float) -> pl.DataFrame:
    """The rows with ``p_adjusted``, ``family`` and ``confidence``, columns as in the schema."""
    from statsmodels.stats.multitest import multipletests

    columns = [c.name for c in schema.EFFECTS]
    if rows.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))
    out = []
    for family in rows.partition_by(_FAMILY, maintain_order=True):
        p = family["p"].to_numpy()
        tested = np.isfinite(p)
        corrected = np.full(len(p), np.nan)
        size = int(tested.sum())
        if family["kind"][0] == "paper":
            size = len(p)  # as published, every comparison counts, whether there was a p or not
            corrected = np.minimum(1, p * size)
        elif size:
            corrected[tested] = multipletests(p[tested], method="holm")[1]
        out.append(family.with_columns(p_adjusted=corrected, family=pl.lit(size)))
    kind = pl.col("kind").replace_strict(_KINDS, range(len(_KINDS)))
    names = ("decoder", "length", "by"), ("metric", "condition", "base", "group", "controls")
    whole = pl.concat(out).with_columns(confidence=pl.lit(confidence))
    return whole.sort(*names[0], kind, *names[1]).select(columns)
