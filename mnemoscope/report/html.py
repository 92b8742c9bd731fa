"""A run folder -> one self-contained page, readable without a network, and figures for paper.

The template escapes every text; data for its script go through :func:`embedded`, which no text can break out of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.report import browser, catalogue, charts, figures, words
from mnemoscope.rundir import write_atomically
from mnemoscope.stats import compare

Row = dict[str, Any]

_SUMMARY = ("retention", "omission_in_place", "omission_anywhere", "exact")
#: columns of the table of every estimate, in the order in which the page's script reads them
_LISTED = (
    *("decoder", "condition", "seed", "metric", "length", "by", "group"),
    *("value", "low", "high", "n_tokens", "n_documents", "unit", "method"),
)


def write(run_folder: Path, study: Study, manifest: Row) -> Path:
    """Writes ``figures/*.svg|png`` and ``report.html``, each atomically, and returns the page's path.

    Raises:
        RunError: there are no estimates yet.
    """
    estimates = _table(run_folder, "estimates")
    curves = _table(run_folder, "curves") if (run_folder / "curves.parquet").exists() else None
    decoders = [d.name for d in study.decoders if d.name in set(estimates["decoder"])]
    effects = _table(run_folder, "effects") if (run_folder / "effects.parquet").exists() else None
    convergence = _table(run_folder, "convergence") if (run_folder / "convergence.parquet").exists() else None
    shown = catalogue.of_run(estimates, curves, decoders, effects, convergence)
    for chart in shown:
        for kind, content in figures.paper(chart).items():
            write_atomically(run_folder / "figures" / f"{chart.name}.{kind}", content)
    page = run_folder / "report.html"
    write_atomically(page, _render(run_folder, study, manifest, estimates, effects, shown, decoders))
    return page


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
) -> str:
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("mnemoscope", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    windows = browser.payload(run_folder, decoders, study.seed) if study.report.texts else browser.nothing(decoders)
    return environment.get_template("template.html").render(
        study=study,
        folder=run_folder.name,
        headline=headline(estimates, study, decoders),
        lede=lede(estimates, decoders),
        tables=[summary(estimates, decoder) for decoder in decoders],
        given={c: words.given(c) for c in sorted(set(estimates["condition"])) if words.given(c)},
        metrics=[(m, words.name(m)) for m in _SUMMARY],
        differences=_differences(run_folder, study, estimates, decoders),
        effects=_effects(effects),
        charts=[(chart, charts.rows(chart)) for chart in shown],
        browser={k: windows[k] for k in ("cap", "of", "seeds")} | {"shown": len(windows["windows"])},
        estimates=estimates.height,
        confidence=f"{100 * study.estimate.confidence:g}",
        resamples=study.estimate.resamples,
        stages=_stages(manifest),
        facts=_facts(manifest),
        digest=study.digest(),
        few=_few_documents(estimates),
        figures_data=embedded({c.name: [figures.page(c, p) | {"tab": p.tab} for p in c.panels] for c in shown}),
        windows_data=embedded({k: windows[k] for k in ("decoders", "windows")}),
        estimates_data=embedded(_listed(estimates)),
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


# ---- in words -------------------------------------------------------------------------------------------------------


def _find(estimates: pl.DataFrame, **key: Any) -> Row | None:
    """The estimate of a key, seeds pooled; None if there is none or it is NaN."""
    for row in estimates.filter(seed="all", **key).head(1).iter_rows(named=True):
        return row if row["value"] == row["value"] else None
    return None


def headline(estimates: pl.DataFrame, study: Study, decoders: list[str]) -> Row:
    """What this memory keeps, in one sentence of parts: ``before``, ``value``, ``after``, ``interval``, ``n``, and
    ``measure``, which is retention, or omission where nothing was measured without memory, or empty."""
    model = study.model.name if study.model else "the model"
    longest = sorted(set(estimates["length"]), reverse=True)
    for metric in ("retention", "omission_in_place"):
        for length in longest:
            for decoder in decoders:
                cell = {"by": "all", "condition": "memory", "decoder": decoder, "length": length}
                row = _find(estimates, metric=metric, **cell)
                if row is None:
                    continue
                verb = "keeps" if metric == "retention" else "loses"
                of = "of the information" if metric == "retention" else "of the tokens from their place"
                return {
                    "before": f"Of {words.count(length, 'token')}, {model}’s memory {verb}",
                    "value": words.number(row["value"], row["unit"], 0),
                    "after": of,
                    "interval": words.interval(row, 0),
                    "n": words.counted(row),
                    "measure": metric,
                }
    return {"before": f"What {model}’s memory keeps", "value": "", "after": "", "interval": "", "n": "", "measure": ""}


def lede(estimates: pl.DataFrame, decoders: list[str]) -> list[list[str]]:
    """A few sentences that say the rest.  Each is in parts: text, then interval and n of the number it ends with, then
    text, and so on."""
    pooled = estimates.filter(pl.col("seed") == "all", pl.col("condition") == "memory", pl.col("value").is_not_nan())
    first = pooled.filter(pl.col("decoder").is_in(decoders[:1]))
    if first.is_empty():
        return []
    out = []
    kept = first.filter(metric="retention", by="all").sort("length")
    if kept.height > 1:
        row = kept.row(0, named=True)
        out.append([f"Of {words.count(row['length'], 'token')} it keeps {_value(row)}", words.aside(row), "."])
    length = max(first["length"])
    cell = {"by": "all", "decoder": decoders[0], "length": length, "metric": "omission_in_place"}
    lost, guessed = (_find(estimates, condition=c, **cell) for c in ("memory", "none"))
    if lost:
        sentence = [
            f"Written back from the memory alone, {words.count(length, 'token')} lose {_value(lost)}",
            words.aside(lost),
            " from their place",
        ]
        if guessed:
            sentence[-1] += f"; with no memory at all, {_value(guessed)}"
            sentence += [words.aside(guessed), ""]
        sentence[-1] += "."
        out.append(sentence)
    domains = first.filter(metric="retention", by="domain", length=length).sort("value", "group")
    if domains.height > 1:
        worst, best = domains.row(0, named=True), domains.row(-1, named=True)
        out.append(
            [
                f"Best kept is {best['group']}, {_value(best)}",
                words.aside(best),
                f"; worst is {worst['group']}, {_value(worst)}",
                words.aside(worst),
                ".",
            ]
        )
    return out


def _value(row: Row) -> str:
    return words.number(row["value"], row["unit"])


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


def _effects(effects: pl.DataFrame | None) -> list[Row]:
    """Every difference with its family's p, as texts."""
    return [] if effects is None else [words.effect(row) for row in effects.iter_rows(named=True)]


def _listed(estimates: pl.DataFrame) -> Row:
    """Every estimate, texts by their place in a list: ``{"columns", "texts", "rows"}``."""
    texts: dict[str, int] = {}

    def packed(value: Any) -> Any:
        if isinstance(value, str):
            return texts.setdefault(value, len(texts))
        return None if value != value else (float(f"{value:.6g}") if isinstance(value, float) else value)

    numbers = {"length", "value", "low", "high", "n_tokens", "n_documents"}
    rows = [[packed(v) for v in row] for row in estimates.select(_LISTED).rows()]
    return {"columns": _LISTED, "numbers": sorted(numbers), "texts": list(texts), "rows": rows}


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
