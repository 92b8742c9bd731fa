"""A run folder -> one self-contained page, readable without a network, and figures for paper.

The template escapes every text; data for its script go through :func:`embedded`, which no text can break out of.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from markupsafe import Markup

from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.report import browser, catalogue, charts, figures, words
from mnemoscope.report.opening import lede, opening, spoken_of
from mnemoscope.report.templates import render
from mnemoscope.rundir import write_atomically
from mnemoscope.stats import certain, compare
from mnemoscope.stats.bracket import KEPT_AT

Row = dict[str, Any]

#: bytes of a page, at most: windows are left out, and the page says so
LIMIT = 14_500_000
_SUMMARY = ("retention", "omission_in_place", "omission_anywhere", "exact")
#: columns of the table of every estimate, in the order in which the page's script reads them
_LISTED = (
    *("decoder", "condition", "seed", "metric", "length", "by", "group"),
    *("value", "low", "high", "n_tokens", "n_documents", "unit", "method"),
)
#: likewise of every difference
_DIFFERENCES = (
    *("decoder", "condition", "length", "kind", "controls", "metric", "by", "group", "base", "value", "low", "high"),
    *("p", "p_adjusted", "family", "size", "size_kind", "n_tokens", "n_documents", "unit", "method"),
)
_NUMBERS = {"length", "value", "low", "high", "p", "p_adjusted", "family", "size", "n_tokens", "n_documents"}


def write(run_folder: Path, study: Study, manifest: Row) -> Path:
    """Writes ``figures/*.svg|png`` and ``report.html``, each atomically, and returns the page's path.

    Raises:
        RunError: there are no estimates yet.
    """
    estimates = _readable(_table(run_folder, "estimates"))
    curves = _table(run_folder, "curves") if (run_folder / "curves.parquet").exists() else None
    decoders = [d.name for d in study.decoders if d.name in set(estimates["decoder"])]
    effects = _readable(_table(run_folder, "effects")) if (run_folder / "effects.parquet").exists() else None
    convergence = _table(run_folder, "convergence") if (run_folder / "convergence.parquet").exists() else None
    # one that was made before the study's classes changed is of other classes
    bracketed = "finished" in manifest.get("stages", {}).get("bracket", {})
    tables = [_readable(_table(run_folder, name)) if bracketed else None for name in ("bracket", "floors")]
    floor = _floor(run_folder, study)
    shown = catalogue.of_run(estimates, curves, decoders, effects, convergence, floor, *tables)
    for chart in shown:
        for kind, content in figures.paper(chart).items():
            write_atomically(run_folder / "figures" / f"{chart.name}.{kind}", content)
    page = run_folder / "report.html"
    windows = browser.nothing(decoders)
    named = [a.name for a in study.annotations]
    if study.report.texts:
        windows = browser.payload(run_folder, decoders, study.seed, named)
    text = _render(run_folder, study, manifest, estimates, effects, shown, decoders, windows, tables[0])
    excess = len(text.encode()) - LIMIT
    if excess > 0 and windows["windows"]:
        room = max(len(embedded(windows["windows"]).encode()) - excess, 0)
        windows = browser.payload(run_folder, decoders, study.seed, named, round(0.9 * room))
        text = _render(run_folder, study, manifest, estimates, effects, shown, decoders, windows, tables[0])
    write_atomically(page, text)
    return page


def _readable(frame: pl.DataFrame) -> pl.DataFrame:
    """With names of groups that are no longer than one can read."""
    groups = [c for c in ("group", "base") if c in frame.columns]
    names = words.names(sorted({g for c in groups for g in frame[c].unique()}))
    return frame.with_columns(pl.col(c).replace(names) for c in groups)


def _floor(run_folder: Path, study: Study) -> pl.DataFrame | None:
    """What is certainly lost by the run's tables ``certificate/``, at the precision of the model; None if there are
    none.

    Raises:
        RunError: they are of another model.
    """
    if study.model is None or not any((run_folder / "certificate").glob("*.parquet")):
        return None
    e = study.estimate
    found = certain.shares(run_folder, seed=study.seed, confidence=e.confidence, resamples=e.resamples)
    others = set(found["model"]) - {study.model.name}
    if others:
        raise RunError(
            f"the certificate is of {', '.join(map(repr, sorted(others)))}, and the run of {study.model.name!r}",
            remedy="Take it away, or make one of this model: mnemoscope certify --help",
            file=run_folder / "certificate",
        )
    kept = found.filter(condition=KEPT_AT.get(study.model.dtype, ""))
    return kept if kept.height else None


def _table(run_folder: Path, name: str) -> pl.DataFrame:
    file = run_folder / f"{name}.parquet"
    if not file.exists():
        raise RunError(f"no table {name!r} yet", remedy="Run the stages before 'report' first", file=file)
    frame = pl.from_arrow(pq.read_table(file))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _render(
    run_folder: Path,
    study: Study,
    manifest: Row,
    estimates: pl.DataFrame,
    effects: pl.DataFrame | None,
    shown: list[charts.Chart],
    decoders: list[str],
    windows: Row,
    bracket: pl.DataFrame | None,
) -> str:
    from plotly.offline import get_plotlyjs

    data = {chart.name: (chart, charts.rows(chart)) for chart in shown}
    # the page reads these blocks; every other text of the template is escaped by it
    blocks = {
        "figures": {c.name: [figures.page(c, p) | {"tab": p.tab} for p in c.panels] for c in shown},
        "points": {c.name: charts.data(c) for c in shown},
        "windows": {k: windows[k] for k in ("decoders", "classes", "windows")},
        "estimates": _listed(estimates, _LISTED),
        **({} if effects is None else {"effects": _listed(effects, _DIFFERENCES)}),
    }
    return render(
        "template.html",
        study=study,
        name=words.clipped(study.name, 200),
        folder=shlex.quote(words.clipped(run_folder.name, 200)),
        opening=opening(estimates, study, decoders, bracket),
        lede=lede(
            estimates,
            decoders,
            {d.name: d.searches() for d in study.decoders if d.of in decoders[:1]},
            None if bracket is None else spoken_of(bracket),
        ),
        tables=[summary(estimates, decoder) for decoder in decoders],
        given={c: words.given(c) for c in sorted(set(estimates["condition"])) if words.given(c)},
        metrics=[(m, words.name(m)) for m in _SUMMARY],
        differences=_differences(run_folder, study, estimates, decoders),
        effects=0 if effects is None else effects.height,
        sections=[(s, [data[c.name] for c in s.charts]) for s in catalogue.sections(shown)],
        charts=data,
        browser={k: windows[k] for k in ("cap", "of", "seeds")} | {"shown": len(windows["windows"])},
        estimates=estimates.height,
        confidence=f"{100 * study.estimate.confidence:g}",
        resamples=study.estimate.resamples,
        stages=_stages(manifest),
        facts=[(key, words.clipped(value, 2_000)) for key, value in _facts(manifest)],
        digest=study.digest(),
        few=_few_documents(estimates),
        blocks={key: embedded(value) for key, value in blocks.items()},
        plotly=Markup(get_plotlyjs().replace("</", r"<\/")),
    )


def embedded(value: Any) -> Markup:
    """JSON to stand in a ``<script type="application/json">``: no ``<``, ``>``, ``&`` or line separator in it, whatever
    the texts hold.

    Raises:
        ValueError: a NaN, which JSON has not.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


# ---- tables ---------------------------------------------------------------------------------------------------------


def summary(estimates: pl.DataFrame, decoder: str) -> Row:
    """The decoder's table: lengths, each with its conditions, each with a cell per metric of ``_SUMMARY``."""
    mine = estimates.filter(seed="all", by="all", decoder=decoder)
    order = [c for c in charts.ROLES if c in set(mine["condition"])]
    order += sorted(set(mine["condition"]) - set(order))
    lengths = []
    for length in mine["length"].unique().sort():
        rows = []
        for condition in order:
            found = {r["metric"]: r for r in mine.filter(length=length, condition=condition).iter_rows(named=True)}
            if found:
                rows.append((condition, [_cell(found.get(m)) for m in _SUMMARY]))
        lengths.append((length, rows))
    return {"decoder": decoder, "lengths": lengths}


def _cell(row: Row | None) -> Row:
    if row is None:
        return {"value": "–", "interval": "", "n": ""}
    return {
        "value": words.number(row["value"], row["unit"]),
        "interval": words.interval(row),
        "n": words.counted(row),
    }


def _differences(run_folder: Path, study: Study, estimates: pl.DataFrame, decoders: list[str]) -> list[Row]:
    """The first decoder less each other one, under the real memory, at each length."""
    metric = "retention" if "retention" in set(estimates["metric"]) else "omission_in_place"
    out = []
    for other in decoders[1:]:
        found = compare.between(run_folder, study, metric, {"decoder": decoders[0]}, {"decoder": other})
        for row in found.iter_rows(named=True):
            if row["condition"] != "memory":
                continue
            row["unit"] = "fraction"
            points = {k: words.number(row[k], "fraction").replace(words.PERCENT, "") for k in ("value", "low", "high")}
            verdict = "no difference seen"
            if row["low"] > 0 or row["high"] < 0:
                better = (row["low"] > 0) == (metric == "retention")
                verdict = f"{decoders[0] if better else other} reads more"
            elif row["low"] != row["low"]:
                verdict = "not enough documents"
            out.append(
                {**row, **points, "first": decoders[0], "other": other, "verdict": verdict, "n": words.counted(row)}
            )
    return out


def _listed(frame: pl.DataFrame, columns: tuple[str, ...]) -> Row:
    """A table whole, texts by their place in a list: ``{"columns", "numbers", "texts", "rows"}``; null for NaN."""
    texts: dict[str, int] = {}

    def packed(value: Any) -> Any:
        if isinstance(value, str):
            return texts.setdefault(value, len(texts))
        return None if value != value else (float(f"{value:.6g}") if isinstance(value, float) else value)

    rows = [[packed(v) for v in row] for row in frame.select(columns).rows()]
    numbers = [c for c in columns if c in _NUMBERS]
    return {"columns": columns, "numbers": numbers, "texts": list(texts), "rows": rows}


def _few_documents(estimates: pl.DataFrame) -> int | None:
    """The number of documents behind the totals, if it is too small for their intervals to be trusted."""
    least = estimates.filter(by="all", seed="all")["n_documents"].min()
    return least if isinstance(least, int) and least < 20 else None


# ---- foot -----------------------------------------------------------------------------------------------------------


def _stages(manifest: Row) -> list[Row]:
    return [
        {
            "name": name,
            "seconds": f"{facts.get('seconds', float('nan')):,.1f} s",
            "finished": facts.get("finished", "not finished"),
            "revision": facts.get("revision", "") or "–",
        }
        for name, facts in manifest.get("stages", {}).items()
    ]


def _facts(manifest: Row) -> list[tuple[str, str]]:
    """The manifest, less its stages, as names and texts; versions are those of the last stage."""
    out: list[tuple[str, str]] = []

    def flatten(name: str, value: Any) -> None:
        if isinstance(value, dict):
            if any(isinstance(v, dict | list) for v in value.values()):
                for key, inner in value.items():
                    flatten(f"{name} {key}".strip(), inner)
            else:
                out.append((name, ", ".join(f"{k} {v}" for k, v in value.items())))
        elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
            for i, inner in enumerate(value):
                flatten(f"{name} {i + 1}", inner)
        else:
            out.append((name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))

    for key, value in manifest.items():
        if key != "stages":
            flatten(key, value)
    last: Row = next(reversed(manifest.get("stages", {}).values()), {})
    if "versions" in last:
        flatten("versions", last["versions"])
    return [(name.replace("_", " "), text) for name, text in out]
