"""Figures of a paper: the same runs give the same bytes, what lacks data is named, and the published numbers stand only
beside what is measured as they were."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from synthetic_run import make_run
from typer.testing import CliRunner

from mnemoscope import cli, config
from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.report import catalogue, export, figures, groups, published, tables, words
from mnemoscope.report.charts import Chart, Panel, Point, Series, band
from mnemoscope.rundir import RunDir
from mnemoscope.stats.estimate import estimate

#: see tests/conftest.py
PRINTED = True
NAN = float("nan")


def made(folder: Path, *, parameters: int = 1_900_000, name: str = "made", **options: Any) -> Path:
    """A run folder with estimates."""
    folder.mkdir(parents=True)
    study = make_run(folder, **({"resamples": 50, "seeds": (0,), "documents": 6, "windows": 1} | options))
    study = Study.model_validate({**study.model_dump(), "name": name})
    estimate(folder, study)
    (folder / "study.toml").write_text(config.dump(study))
    stages = {"reconstruct": {"revision": "f00", "finished": "2026-01-01"}}
    manifest = {"study": study.digest(), "name": name, "stages": stages, "parameters": parameters}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "one", dialect=True)


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, export.Made]:
    out = tmp_path_factory.mktemp("figures")
    return out, export.write([run], out)


# ---- one command


def test_every_figure_has_its_files_and_the_rest_is_named(written: tuple[Path, export.Made]) -> None:
    out, found = written
    assert found.figures == ["length", "domain-length", "dialect-length", "by-position"]
    assert set(found.absent) == {"size", "pos", "entity", "surprisal", "frequency"}
    kinds = ("svg", "pdf", "md", "tex")
    assert {p.name for p in out.iterdir()} == {"index.md", *(f"{n}.{k}" for n in found.figures for k in kinds)}
    index = (out / "index.md").read_text()
    assert all(f"`{name}` takes {takes}" in index for name, takes in found.absent.items())


def test_the_same_run_gives_the_same_bytes_and_stays_as_it_is(
    run: Path, written: tuple[Path, export.Made], tmp_path: Path
) -> None:
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.iterdir()}
    export.write([run], tmp_path)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.iterdir()} == before
    for file in written[0].iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_fonts_are_embedded_and_nothing_says_when(written: tuple[Path, export.Made]) -> None:
    pdf = (written[0] / "length.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType; Type 3 fonts have no file
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    svg = (written[0] / "length.svg").read_text()
    assert "<text" not in svg  # outlines, not names of fonts
    assert "<dc:date>" not in svg


def test_the_command(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "paper", lambda chart, kinds: dict.fromkeys(kinds, b""))
    result = CliRunner().invoke(cli.app, ["figures", str(run), "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "no size  takes runs of models of two sizes or more" in result.output
    assert (tmp_path / "length.pdf").exists()


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no manifest\.json"):
        export.write([tmp_path], tmp_path / "out")
    with pytest.raises(RunError, match="given twice"):
        export.write([run, run / ".." / run.name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- several runs


def test_models_go_by_names_that_tell_them_apart() -> None:
    assert export.label("runs/pretrain-mini/model", 15_237_664) == "pretrain-mini, 15.2\u202fM"
    assert export.label("state-spaces/mamba-1.4b-hf", 1_372_178_432) == "mamba-1.4b-hf, 1.37\u202fB"
    assert export.label("model", 0) == "model"


def source(name: str, label: str, parameters: int, texts: str, estimates: pl.DataFrame) -> catalogue.Source:
    return catalogue.Source(name, label, parameters, texts, ["growing"], estimates)


@pytest.fixture(scope="module")
def estimates(run: Path) -> pl.DataFrame:
    return RunDir(run, config.load(run / "study.toml"), writes=False).table("estimates")


def test_sizes_are_lines_of_one_chart_the_smallest_first(estimates: pl.DataFrame) -> None:
    runs = [source("b", "big, 9 M", 9_000_000, "t", estimates), source("a", "small, 2 M", 2_000_000, "t", estimates)]
    shown, absent = catalogue.of_runs(runs)
    assert "size" not in absent
    chart = next(c for c in shown if c.name == "size")
    assert chart.band == "95\u202f% interval, documents resampled"
    several = estimates.with_columns(method=pl.lit("bootstrap, 3 decoder seeds as a second level"))
    assert band(several) == chart.band + ", decoder seeds as a second level"
    ours = [p for p in chart.panels if "published" not in p.title]
    assert [p.scale for p in ours] == ["retention", "omission_in_place", "rouge1"]
    assert all([s.label for s in p.series] == ["small, 2 M", "big, 9 M"] for p in ours)
    assert chart.panels[-1].scale == "rouge1"  # so that published and ours have one axis
    position = next(c for c in shown if c.name == "by-position")
    assert [s.label for s in position.panels[0].series] == ["small, 2 M", "big, 9 M"]


def test_runs_on_other_texts_are_not_compared(estimates: pl.DataFrame) -> None:
    runs = [source("a", "small", 2_000_000, "t", estimates), source("b", "big", 9_000_000, "u", estimates)]
    shown, absent = catalogue.of_runs(runs)
    assert "size" in absent
    assert [c.name for c in shown][:2] == ["length-a", "length-b"]
    assert [c.title for c in shown][:2] == [
        "What is kept and lost, by length (a)",
        "What is kept and lost, by length (b)",
    ]


def test_one_model_twice_on_the_same_texts_is_told_apart(estimates: pl.DataFrame) -> None:
    shown, absent = catalogue.of_runs([source(n, "same", 2_000_000, "t", estimates) for n in "ab"])
    assert "size" in absent
    assert next(c for c in shown if c.name == "length").tabs == ["same (a)", "same (b)"]


def test_charts_by_group_show_the_longest_windows(estimates: pl.DataFrame) -> None:
    shown, _ = catalogue.of_runs([source("a", "one", 1, "t", estimates)])
    assert next(c for c in shown if c.name == "by-position").tabs == ["64 tokens"]


# ---- groups


def rows(by: str, of: dict[str, tuple[float, int]], metric: str, length: int = 256) -> pl.DataFrame:
    """Estimates under the real memory: group -> value, n."""
    key = {"by": by, "metric": metric, "unit": "fraction", "length": length, "condition": "memory", "line": "memory"}
    rest = {"low": NAN, "high": NAN, "confidence": 0.95, "n_documents": 2}
    return pl.DataFrame([{**key, "group": g, "value": v, "n_tokens": n, **rest} for g, (v, n) in of.items()])


def test_bins_rise_and_what_has_no_label_is_left_out() -> None:
    """As the annotations name them; of frequencies, what was never seen is the rarest."""
    names = ["8+ bits", "0-1 bits", "(unlabelled)", "1-8 bits"]
    assert groups._bins(names) == {"0-1 bits": "0–1", "1-8 bits": "1–8", "8+ bits": "8+"}
    often = ["100000-1e+06 per million", "unseen", "0.1-1 per million", "1000-10000 per million"]
    short = ["unseen", "0.1–1", "1k–10k", "100k–1M"]
    assert list((groups._bins(often) or {}).values()) == short
    assert groups._bins(["2 digits", "3 digits", "7+ digits"]) is None
    assert groups._bins(["news", "wiki"]) is None
    assert groups._bins(["0-1 bits", "1-10 per million"]) is None


def test_bins_are_lines_over_their_names() -> None:
    of = {"8+ bits": (0.1, 5), "0-1 bits": (0.9, 5), "(unlabelled)": (0.5, 5), "1-8 bits": (0.4, 5)}
    chart = groups.by_group("surprisal", rows("surprisal", of, "retention"), {"memory": "#000000"})
    panel = chart.panels[0]
    assert (chart.kind, chart.x_label, panel.names) == ("lines", "surprisal, bits", ("0–1", "1–8", "8+"))
    assert [(p.x, p.value) for p in panel.series[0].points] == [(0, 0.9), (1, 0.4), (2, 0.1)]
    # perplexity of a passage is not a token's surprisal: beside ours, on an axis of its own
    assert [p.x_label for p in chart.panels] == ["", "perplexity of the passage"]
    shorter = groups.by_group("surprisal", rows("surprisal", of, "retention", 64), {"memory": "#000000"})
    assert len(shorter.panels) == 1


def test_losses_by_position_are_shares_of_all() -> None:
    """10 tokens of which half are lost and 20 of which a quarter: 5 and 5, half each."""
    of = {"128-255": (0.25, 20), "0-127": (0.5, 10)}
    (panel,) = groups.by_group("position", rows("position", of, "omission_anywhere"), {"memory": "#000000"}).panels
    (line,) = panel.series  # two bins are not the published sixteen
    assert [(p.x, p.value) for p in line.points] == [(63.5, 0.5), (191.5, 0.5)]
    assert "2 documents" in line.points[0].note
    sixteen = {f"{16 * i}-{16 * i + 15}": (0.5, 10) for i in range(16)}
    (panel,) = groups.by_group("position", rows("position", sixteen, "omission_anywhere"), {"memory": "#000000"}).panels
    assert [s.label for s in panel.series] == ["memory", "published, Mamba 130M"]
    assert all(sum(p.value for p in s.points) == pytest.approx(1) for s in panel.series)


def test_published_rates_lie_beside_the_published_measure_only() -> None:
    """Without the published test there is nothing to lay them beside; with it, each class has its own n: of 3, 4 and 5
    words, every two together have 7, 8 and 9."""
    own = rows("pos", {"NOUN": (0.3, 9), "NUM": (0.5, 9), "ZZZ": (0.4, 9)}, "omission_in_place")
    without = groups.by_group("pos", own, {"memory": "#000000"})
    assert [p.scale for p in without.panels] == ["omission_in_place"]
    assert "not comparable" in without.caption
    key = {"by": "pos", "kind": "paper", "condition": "memory", "line": "memory", "length": 256}
    pairs = [("NUM", "NOUN", 0.5, 0.3, 7), ("ZZZ", "NOUN", 0.4, 0.3, 8), ("ZZZ", "NUM", 0.4, 0.5, 9)]
    columns = ("group", "base", "group_value", "base_value", "n_tokens")
    effects = pl.DataFrame([{**key, **dict(zip(columns, pair, strict=True))} for pair in pairs])
    chart = groups.by_group("pos", own, {"memory": "#000000"}, effects)
    panel = chart.panels[-1]
    assert panel.scale == "omission_published"
    assert {(p.x, p.value, p.note) for p in panel.series[0].points} == {
        ("NOUN", 0.3, "3 words"),
        ("NUM", 0.5, "4 words"),
        ("ZZZ", 0.4, "5 words"),
    }
    assert [s.label for s in panel.series[1:]] == ["published, Mamba 130M", "published, Mamba 1.4B"]
    assert {p.x: p.value for p in panel.series[1].points} == {"NOUN": pytest.approx(0.34), "NUM": pytest.approx(0.515)}
    assert published.omission("pos", 64, ["NOUN"]) == []
    assert published.omission("mathematics", 256, ["NOUN"]) == []


def test_published_curves_are_fractions_without_intervals() -> None:
    panels = [p for by in ("length", "domain", "dialect") for p in published.rouge(by)]
    points = [p for panel in panels for s in panel.series for p in s.points]
    assert len(points) == 7 * (4 + 2 * 9 + 2 * 2)
    assert all(0 < p.value <= 1 and p.low != p.low for p in points)
    assert all("published" in panel.title for panel in panels)
    assert all(int(p.note.split()[0]) >= 10 for p in published.by_perplexity("").series[0].points)


# ---- tables


def chart(points: list[Point], unit: str = "fraction", label: str = "a_b & 50 %|\\") -> Chart:
    panel = Panel("100 % {kept}", "s", unit, [Series(label, "#000000", points)])
    return Chart("n", "T_1", "C#", "dots", "", [panel], "95 % interval")


def test_tables_hold_value_interval_and_n() -> None:
    one = chart([Point("low|$x", 0.25, 0.2, 0.3, "2,304 tokens, 1 document"), Point("b^", NAN, NAN, NAN, "0 tokens")])
    markdown = "\n".join(tables.markdown(one))
    assert "| low\\|$x | 25.0\u202f% (20.0 to 30.0) <sub>2,304 tokens, 1 document</sub> |" in markdown
    assert "| b^ | – <sub>0 tokens</sub> |" in markdown
    latex = tables.latex(one)
    assert r" & a\_b \& 50 \%\textbar{}\textbackslash{} \\" in latex
    assert (
        "low\\textbar{}\\$x & 25.0 \\\\\n & {\\scriptsize [20.0 to 30.0]} \\\\\n & {\\scriptsize 2,304 / 1} \\\\"
        in latex
    )
    assert r"b\textasciicircum{} & -- \\" in latex
    assert (
        r"\caption{T\_1: 100 \% \{kept\}, percent. C\# In brackets: 95 \% interval. Below: tokens / documents.}"
        in latex
    )


@pytest.mark.parametrize("file", ["length", "domain-length", "dialect-length", "by-position"])
def test_latex_is_balanced(written: tuple[Path, export.Made], file: str) -> None:
    """Braces and environments close, and every row has as many cells as the head."""
    text = (written[0] / f"{file}.tex").read_text()
    bare = re.sub(r"\\[{}&%$#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.isascii()
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    for table in bare.split(r"\toprule")[1:]:
        lines = [x for x in table.split(r"\bottomrule")[0].splitlines() if x.endswith(r"\\")]
        assert len({line.count("&") for line in lines}) == 1


def test_every_point_is_in_the_tables(run: Path, written: tuple[Path, export.Made], estimates: pl.DataFrame) -> None:
    text = (written[0] / "length.md").read_text()
    for row in estimates.filter(by="all", seed="all", metric="retention", condition="memory").iter_rows(named=True):
        ends = words.interval(row).replace(words.PERCENT, "")
        assert f"{words.number(row['value'], row['unit'])} ({ends}) <sub>{words.counted(row)}</sub>" in text


def test_n_is_summed_up_in_the_caption() -> None:
    notes = ["2,304 tokens, 1 document", "16 tokens, 1 document", "5 tokens, 1 document"]
    assert words.spans(notes) == "5 to 2,304 tokens, 1 document"
    assert words.spans([]) == ""
    assert chart([Point("a", 0.5, NAN, NAN, "5 tokens")]).intervals == ""


# ---- drawing


def _texts(axes: Any) -> list[str]:
    return [t.get_text() for t in axes.texts]


@pytest.mark.parametrize("many", [3, 12])
def test_labels_lie_within_the_panel(many: int) -> None:
    """However many lines end at one value."""
    lines = [
        Series(f"line {i}", "#0072B2", [Point(4.0, 0.9, NAN, NAN, ""), Point(8.0, 0.5, NAN, NAN, "")])
        for i in range(many)
    ]
    one = Chart("n", "T", "C", "lines", "x", [Panel("p", "s", "fraction", lines)], "", (4.0, 8.0))
    (axes,) = figures.draw(one).axes
    assert len(_texts(axes)) == many
    low, high = axes.get_ylim()
    places = sorted(t.xyann[1] for t in axes.texts)
    assert low - 1e-9 <= places[0]
    assert places[-1] <= high + 1e-9
    assert min(b - a for a, b in pairwise(places)) > 0.05 * (high - low)


@pytest.mark.parametrize("kind", ["lines", "dots"])
@pytest.mark.parametrize("label", ["a\x00\x1b[31m\r\n\tb", "\\frac{$x_{$", '<b>&"--><!-- ', "x" * 10_000])
def test_any_label_makes_a_whole_file(kind: Any, label: str) -> None:
    """Well-formed SVG, whatever a name holds; its own place is all that it takes."""
    places: tuple[Any, Any] = (4, 8) if kind == "lines" else (label, "other")
    series = Series(label, "#0072B2", [Point(x, 0.5, 0.4, 0.6, "9 tokens") for x in places])
    chart = Chart(
        "x", "title", "caption", kind, "tokens", [Panel(label[:80], "s", "fraction", [series])], "band", (4, 8)
    )
    root = ElementTree.fromstring(figures.paper(chart, ("svg",))["svg"])
    width = float(root.attrib["width"].removesuffix("pt"))
    assert width < 800
    layout = figures.page(chart, chart.panels[0])["layout"]
    assert layout["margin"]["r"] + layout["margin"]["l"] < 350


def test_panels_are_two_abreast_and_the_legend_is_below() -> None:
    panels = [
        Panel(f"p{i}", "s", "fraction", [Series("a", "#0072B2", [Point("g", 0.5, 0.4, 0.6, "")])]) for i in range(3)
    ]
    figure = figures.draw(Chart("n", "T", "C", "dots", "", panels, ""))
    assert len(figure.axes) == 4
    assert not figure.axes[3].axison
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a"]
    assert all(axes.get_legend() is None for axes in figure.axes)
