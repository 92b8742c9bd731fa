"""The page: nothing breaks out of it, nothing is fetched, and its numbers are the estimates'."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from synthetic_run import make_run

from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.report import browser, catalogue, charts, figures, groups, html, markdown, words
from mnemoscope.report.figures._drawn import spread_out
from mnemoscope.stats import effects
from mnemoscope.stats.estimate import estimate

#: see tests/conftest.py
PRINTED = True
HOSTILE = "</script><img src=x onerror=alert(1)>\"'`&\u2028<!--"


class Page(HTMLParser):
    """Tags with their attributes, visible text, and the contents of scripts by id (or by place)."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id") or f"{tag}-{len(self.tags)}"
            self.scripts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._inside] += data
        else:
            self.text += data

    def data(self, name: str) -> Any:
        return json.loads(self.scripts[f"data-{name}"])


def made(folder: Path, manifest: dict[str, Any] | None = None, **options: Any) -> tuple[Study, Page]:
    study = make_run(folder, **({"resamples": 100} | options))
    estimate(folder, study)
    return study, written(folder, study, manifest)


def written(folder: Path, study: Study, manifest: dict[str, Any] | None = None) -> Page:
    return Page(html.write(folder, study, manifest or {}).read_text(encoding="utf-8"))


@pytest.fixture
def unprinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No files for paper, which take most of the time."""
    monkeypatch.setattr(figures, "paper", lambda chart: {})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study, Page]:
    """Two decoders, three conditions, dialects: everything that a page can show."""
    folder = tmp_path_factory.mktemp("full")
    manifest = {
        "study": "digest",
        "device": "CPU, <2> cores",
        "memory": {"numbers": 73, "bytes": 292},
        "inputs": [{"name": "a.jsonl", "sha256": "abc"}],
        "stages": {"train": {"seconds": 61.5, "revision": "f00", "versions": {"torch": "2"}, "finished": "2026-01-01"}},
    }
    study, page = made(folder, manifest, decoders=("growing", "fixed"), dialect=True)
    return folder, study, page


def estimates_of(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "estimates.parquet")


# ---- escaping


def test_no_text_breaks_out(tmp_path: Path) -> None:
    """A hostile text as token, domain, document, source and in the manifest is text, in markup and in data."""
    study = make_run(tmp_path, token=HOSTILE, lengths=(16,), seeds=(0,), resamples=100)
    for name in ("tokens", "reconstructions"):
        file = tmp_path / f"{name}.parquet"
        frame = pl.read_parquet(file)
        hostile = pl.when(pl.col("domain") == "news").then(pl.lit(HOSTILE)).otherwise("domain").alias("domain")
        frame.with_columns(hostile, source=pl.lit(HOSTILE)).write_parquet(file)
    estimate(tmp_path, study)
    page = written(tmp_path, study, {"device": HOSTILE, "stages": {HOSTILE: {"revision": HOSTILE}}})
    tags = {tag for tag, _ in page.tags}
    assert "img" not in tags
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert sum(tag == "script" for tag, _ in page.tags) == 8
    assert HOSTILE in page.text
    window = page.data("windows")["windows"][0]
    assert HOSTILE in "".join(window["pieces"])
    assert HOSTILE in page.data("estimates")["texts"]
    for name in ("data-windows", "data-estimates", "data-figures", "data-points"):
        assert not re.search("[<>&\u2028\u2029]", page.scripts[name])
    # plotly reads some HTML in labels: there the text is escaped once more
    labels = page.data("figures")["by-domain"][0]["layout"]["yaxis"]["ticktext"]
    assert not any("<" in label for label in labels)


def test_embedded_data_survive_the_journey() -> None:
    value = {"a": HOSTILE, "b": [None, 1.5, "\u2029"]}
    assert json.loads(str(html.embedded(value))) == value
    with pytest.raises(ValueError, match="JSON"):
        html.embedded(float("nan"))


# ---- nothing from outside


def test_nothing_is_fetched(full: tuple[Path, Study, Page]) -> None:
    _, _, page = full
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")
        assert "src" not in attributes
        assert "srcset" not in attributes
        href = attributes.get("href")
        assert href is None or href.startswith("#")
    policy = next(a for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none';")
    styles = "".join(v for k, v in page.scripts.items() if k.startswith("style"))
    assert "url(" not in styles
    assert "@import" not in styles


def test_the_page_is_small(full: tuple[Path, Study, Page]) -> None:
    assert (full[0] / "report.html").stat().st_size < 12e6


# ---- numbers


def test_the_headline_is_the_estimate(full: tuple[Path, Study, Page]) -> None:
    folder, _, page = full
    row = estimates_of(folder).row(
        by_predicate=(pl.col("metric") == "retention")
        & (pl.col("by") == "all")
        & (pl.col("seed") == "all")
        & (pl.col("condition") == "memory")
        & (pl.col("length") == 64)
        & (pl.col("decoder") == "growing"),
        named=True,
    )
    low, high = (round(100 * row[end]) for end in ("low", "high"))
    sentence = (
        f"After 64 tokens, mamba-nano’s memory gives back {100 * row['value']:.0f}\u202f% of the information "
        f"in what it read ({low} to {high}\u202f%)"
    )
    assert sentence in re.sub(r"\s+", " ", page.text.replace("\u202f", "~")).replace("~", "\u202f")
    assert "2,304 tokens, 12 documents" in page.text


def test_every_estimate_is_on_the_page_with_interval_and_n(full: tuple[Path, Study, Page]) -> None:
    folder, _, page = full
    data = page.data("estimates")
    columns = data["columns"]
    found = []
    for row in data["rows"]:
        cells = dict(zip(columns, row, strict=True))
        found.append({c: v if c in data["numbers"] else data["texts"][v] for c, v in cells.items()})
    table = estimates_of(folder)
    assert len(found) == table.height
    for mine, theirs in zip(found, table.iter_rows(named=True), strict=True):
        for column in columns:
            expected = theirs[column]
            assert mine[column] == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)


def test_the_summary_shows_interval_and_n(full: tuple[Path, Study, Page]) -> None:
    folder, _, page = full
    total = estimates_of(folder).filter(seed="all", by="all", metric="omission_in_place")
    assert total.height == 2 * 2 * 3
    for row in total.iter_rows(named=True):
        assert f"{words.number(row['value'], 'fraction')}{words.interval(row)}{words.counted(row)}" in page.text


def test_every_figure_has_its_numbers_files_and_command(full: tuple[Path, Study, Page]) -> None:
    folder, study, page = full
    names = set(page.data("figures"))
    by_length = {"retention", "omission", "decoders", "rouge", "domain-length", "dialect-length"}
    assert names == by_length | {"by-domain", "by-dialect", "by-position", "learning"}
    for name in names:
        assert {t for t, a in page.tags if a.get("id") == name} == {"figure"}
        svg = (folder / "figures" / f"{name}.svg").read_text()
        assert "<svg" in svg
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"figures/{name}.svg" in page.text
    assert page.text.count(f"mnemoscope report {folder.name}") >= len(names)
    shown = catalogue.of_run(estimates_of(folder), pl.read_parquet(folder / "curves.parquet"), ["growing", "fixed"])
    for chart in shown:
        for point in charts.rows(chart):
            assert f"{point['value']}{point['interval']}{point['note']}" in page.text
    assert "growing reads more" in page.text
    assert {d.name for d in study.decoders} == set(page.data("windows")["decoders"])


def test_the_foot_tells_the_origin(full: tuple[Path, Study, Page]) -> None:
    _, study, page = full
    for fact in (study.digest(), "CPU, <2> cores", "61.5 s", "f00", "torch 2", "abc", "numbers 73, bytes 292"):
        assert fact in page.text


# ---- the windows


def test_the_browser_holds_the_tokens_of_the_tables(full: tuple[Path, Study, Page]) -> None:
    """Pieces make up the window's text, costs are the nats in bits, and letters are the operations."""
    folder, _, page = full
    tokens = pl.read_parquet(folder / "tokens.parquet")
    texts = pl.read_parquet(folder / "reconstructions.parquet")
    for window in page.data("windows")["windows"][:5]:
        cell = {"window_id": window["window_id"], "decoder": "growing", "condition": "memory", "seed": 0}
        mine = tokens.filter(**cell).sort("position")
        run = window["runs"]["growing/memory"]
        assert "".join(window["pieces"]) == texts.filter(**cell)["reference"].item()
        assert run["text"] == texts.filter(**cell)["reconstruction"].item()
        assert run["cost"] == pytest.approx((mine["nats"] / 0.6931 * 100).to_list(), abs=1)
        assert [o.lower() for o in run["ops"]] == [o[0] for o in mine["operation"]]


def test_pieces_of_shared_characters_and_gaps() -> None:
    """Three byte tokens of one character: the first shows it, the others nothing, and they are one; a gap goes to the
    later token."""
    cut = browser.pieces("a €b", [5, 7, 7, 7, 8], [6, 8, 8, 8, 9])
    assert cut == ["a", " €", "", "", "b"]
    assert browser.wholes(cut) == [range(1), range(1, 4), range(4, 5)]
    assert browser.wholes(["", "", "a"]) == [range(2), range(2, 3)]  # whatever comes first begins one


def test_what_is_written_for_a_character_of_several_tokens_is_one_text() -> None:
    """ö is the bytes c3 b6, spelt Ã and ¶; ü is c3 bc; of a character that is cut short U+FFFD is left."""
    tokens = ["G", "Ã", "¶", "t"]
    for written, shown in (
        (tokens, [0, 0, 0, 0]),
        (["g", "Ã", "¼", "t"], ["g", "ü", "", 0]),
        (["G", "Ã", "", "t"], [0, "\ufffd", "", 0]),
        (["G", "", "", "Ġ"], [0, "", "", " "]),
    ):
        assert browser._written({"token": tokens, "written": written}, ["G", "ö", "", "t"]) == shown


def test_windows_are_capped_by_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, lengths=(16,), documents=12, windows=3)
    monkeypatch.setattr(browser, "BUDGET", 20_000)
    found = browser.payload(tmp_path, ["growing"], seed=1)
    cap = found["cap"]
    assert 1 < cap < 12
    assert found["of"] == 36
    assert sorted(w["domain"] for w in found["windows"]) == sorted(["fiction", "mathematics", "news"] * cap)
    assert 0.4 * browser.BUDGET < len(json.dumps(found["windows"], ensure_ascii=False)) <= browser.BUDGET
    ids = [w["window_id"] for w in found["windows"]]
    assert [w["window_id"] for w in browser.payload(tmp_path, ["growing"], seed=1)["windows"]] == ids
    assert [w["window_id"] for w in browser.payload(tmp_path, ["growing"], seed=2)["windows"]] != ids


# ---- runs that lack something


@pytest.mark.usefixtures("unprinted")
def test_one_condition_only(tmp_path: Path) -> None:
    _, page = made(tmp_path, conditions=("memory",), lengths=(16,))
    assert "memory loses" in page.text
    assert "retention" not in page.data("figures")


@pytest.mark.usefixtures("unprinted")
def test_no_real_memory_at_all(tmp_path: Path) -> None:
    _, page = made(tmp_path, conditions=("none",), lengths=(16,), seeds=(0,))
    assert "What mamba-nano’s memory keeps." in page.text
    assert "Nothing was measured under the real memory" in page.text


@pytest.mark.usefixtures("unprinted")
def test_who_guesses_for_others_is_named(tmp_path: Path) -> None:
    study, page = made(tmp_path, lengths=(16,), seeds=(0,))
    assert "guesses there" not in page.text
    lent = study.estimate.model_copy(update={"guesses": "lender"})
    assert "what decoder lender guesses there" in written(tmp_path, study.model_copy(update={"estimate": lent})).text


@pytest.mark.usefixtures("unprinted")
def test_one_document(tmp_path: Path) -> None:
    _, page = made(tmp_path, documents=1, lengths=(16,), seeds=(0,))
    assert "no interval: one document" in page.text
    assert "1 document only" in page.text


@pytest.mark.usefixtures("unprinted")
def test_nan_estimates_are_dashes(tmp_path: Path) -> None:
    study = make_run(tmp_path, lengths=(16,), seeds=(0,), resamples=100)
    file = tmp_path / "tokens.parquet"
    pl.read_parquet(file).with_columns(nats=pl.lit(float("nan"), pl.Float32)).write_parquet(file)
    estimate(tmp_path, study)
    page = written(tmp_path, study)
    assert "memory loses" in page.text  # omission speaks where retention cannot
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    assert page.data("windows")["windows"][0]["runs"]["growing/memory"]["cost"] == [None] * 16


@pytest.mark.usefixtures("unprinted")
def test_without_curves_and_without_estimates(tmp_path: Path) -> None:
    study = make_run(tmp_path, lengths=(16,), seeds=(0,), resamples=100)
    with pytest.raises(RunError, match="estimates"):
        html.write(tmp_path, study, {})
    estimate(tmp_path, study)
    (tmp_path / "curves.parquet").unlink()
    assert "learning" not in written(tmp_path, study).data("figures")


# ---- words and labels


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.523, "fraction", "52.3\u202f%"),
        (-0.1, "fraction", "−10.0\u202f%"),
        (-0.0001, "fraction", "0.0\u202f%"),
        (1.5, "nats/token", "1.50"),
        (float("nan"), "fraction", "–"),
    ],
)
def test_numbers(value: float, unit: str, expected: str) -> None:
    assert words.number(value, unit) == expected


def test_labels_keep_their_distance_and_their_order() -> None:
    """Ends at 0, 1, 2 and 50 with a gap of 10: the three make a block around their middle, 1, or, where nothing may lie
    below 0, from 0 up; five labels in a room for three stand evenly."""
    assert spread_out([1.0, 0.0, 50.0, 2.0], 10, -100, 100) == [1.0, -9.0, 50.0, 11.0]
    assert spread_out([1.0, 0.0, 50.0, 2.0], 10, 0, 50) == [10.0, 0.0, 50.0, 20.0]
    assert spread_out([3.0, 3.0, 3.0, 3.0, 3.0], 10, 0, 20) == pytest.approx([0, 5, 10, 15, 20])
    assert spread_out([], 10, 0, 50) == []


def test_the_same_chart_gives_the_same_file(full: tuple[Path, Study, Page]) -> None:
    folder, _, _ = full
    chart = catalogue.of_run(estimates_of(folder), None, ["growing", "fixed"])[0]
    assert figures.paper(chart) == figures.paper(chart)


def test_markdown_tables_hold_values_intervals_and_n(full: tuple[Path, Study, Page], tmp_path: Path) -> None:
    folder, study, _ = full
    page = markdown.write(folder, study, {"command": "mnemoscope run a.toml"}, tmp_path / "results.md").read_text()
    shown = pl.read_parquet(folder / "estimates.parquet").filter(
        pl.col("seed") == "all", pl.col("by") == "all", pl.col("condition") == "memory", pl.col("metric") == "retention"
    )
    assert shown.height > 1
    for row in shown.iter_rows(named=True):
        cell = f"{words.number(row['value'], row['unit'])} ({words.interval(row)}) <sub>{words.counted(row)}</sub>"
        assert cell in page
    figures_linked = re.findall(r"\]\((results/[^)]*)\)", page)
    assert figures_linked
    assert all((tmp_path / f).exists() for f in figures_linked)


# ---- differences


def test_differences_are_on_the_page_and_in_the_tables(tmp_path: Path, unprinted: None) -> None:
    """Every row of effects.parquet, as text; a chart with both kinds; the page escapes a hostile group."""
    made = make_run(tmp_path, documents=30, lengths=(16,), resamples=100)
    for name in ("tokens", "reconstructions"):
        file = tmp_path / f"{name}.parquet"
        frame = pl.read_parquet(file)
        frame.with_columns(pl.col("domain").replace({"fiction": HOSTILE})).write_parquet(file)
    asked = [{"by": "domain", "base": "news", "controls": ["surprisal"], "metrics": ["nats", "omission_in_place"]}]
    study = Study.model_validate({**made.model_dump(), "effects": asked})
    estimate(tmp_path, study)
    effects.effects(tmp_path, study)
    page = written(tmp_path, study)
    assert "img" not in {tag for tag, _ in page.tags}
    table = pl.read_parquet(tmp_path / "effects.parquet")
    assert table.height == 3 * 3 + 2 * 2
    data = page.data("effects")
    listed = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    assert len(listed) == table.height
    for mine, theirs in zip(listed, table.iter_rows(named=True), strict=True):
        for column, value in mine.items():
            said = value if column in data["numbers"] else data["texts"][value]
            expected = None if theirs[column] != theirs[column] else theirs[column]
            assert said == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)
    (chart,) = groups.of_effects(table)
    assert {s.label for p in chart.panels for s in p.series} == {"as it is", "controls held constant"}
    assert {p.x for panel in chart.panels for s in panel.series for p in s.points} == {HOSTILE, "mathematics"}
    assert "effects-domain" in page.data("figures")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "x.svg").write_text("<svg/>")
    text = markdown.write(tmp_path, study, {}, tmp_path / "page.md").read_text(encoding="utf-8")
    assert "## Differences by domain, 16 tokens, decoder `growing`" in text
    assert text.count("| adjusted (surprisal) |") == 4


def test_differences_by_place_are_shown_at_every_length(tmp_path: Path) -> None:
    """Each length has places of its own, and so a base of its own; more controls are a line of their own."""
    made = make_run(tmp_path)
    asked = [
        {"by": "position", "base": "last", "metrics": ["nats"], "controls": c} for c in (["surprisal"], ["domain"])
    ]
    study = Study.model_validate({**made.model_dump(), "effects": asked})
    effects.effects(tmp_path, study)
    (chart,) = groups.of_effects(pl.read_parquet(tmp_path / "effects.parquet"))
    assert chart.tabs == ["16 tokens", "64 tokens"]
    assert [p.title.rpartition(" ")[2] for p in chart.panels] == ["14-15", "56-63"]
    for panel in chart.panels:
        assert [s.label for s in panel.series] == ["as it is", "with domain held", "with surprisal held"]
        assert len({s.colour for s in panel.series}) == 3
    assert chart.caption.startswith("Each group less one;")


def test_differences_that_are_not_known_are_not_drawn(tmp_path: Path) -> None:
    """At one length, and at all; and where nothing was measured under the real memory."""
    study = Study.model_validate(
        {**make_run(tmp_path).model_dump(), "effects": [{"by": "domain", "metrics": ["nats"]}]}
    )
    effects.effects(tmp_path, study)
    found = pl.read_parquet(tmp_path / "effects.parquet")
    unknown = pl.when(pl.col("length") == 16, pl.col("kind") == "plain").then(math.nan).otherwise("value")
    (chart,) = groups.of_effects(found.with_columns(value=unknown))
    assert chart.tabs == ["64 tokens"]
    assert groups.of_effects(found.with_columns(value=math.nan)) == []
    assert groups.of_effects(found.with_columns(condition=pl.lit("none"))) == []


def test_a_point_without_a_bar_says_why(tmp_path: Path) -> None:
    """Two documents a group, and more columns than that."""
    study = Study.model_validate(
        {**make_run(tmp_path, documents=6).model_dump(), "effects": [{"by": "domain", "controls": ["surprisal"]}]}
    )
    effects.effects(tmp_path, study)
    (chart,) = groups.of_effects(pl.read_parquet(tmp_path / "effects.parquet"))
    assert chart.band == "95\u202f% interval by documents"  # nothing is resampled for a difference
    assert "A point without a bar has no interval, which is not a narrow one: 6 documents for" in chart.caption


def test_small_p_are_not_nothing() -> None:
    assert [words.p_value(p) for p in (float("nan"), 1e-9, 0.012, 1.0)] == ["–", "< 0.0001", "0.0120", "1.0000"]


def test_conditions_in_words() -> None:
    assert words.given("memory") == words.given("wrong") == words.given("own_file") == ""
    assert words.given("layers:0-5") == "the memory of layers 0 to 5 only, counted from 0"
    assert words.given("bits:4") == "the memory with 4 bits a number"
    screened = words.given("noise:0.1@memory")
    assert screened.startswith(
        "the memory with Gaussian noise of 0.1 times its standard deviation, given to the decoder"
    )
    assert screened.endswith("trained under memory")
    assert words.given("wrong@ssm_only") == "wrong, given to the decoder that was trained under ssm_only"
