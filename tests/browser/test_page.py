"""The page of a run, as its reader meets it: in Chromium, clicked, typed into, resized, and read."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from synthetic_run import make_run

from mnemoscope import schema
from mnemoscope.config import Study
from mnemoscope.report import catalogue, charts, html
from mnemoscope.stats.estimate import estimate

Open = Callable[..., Any]
HOSTILE = "</script><img src=x onerror=alert(1)>\"'`&\u2028<!--"
#: what a text may hold that acts on its neighbours: direction, marks, controls, an emoji of several characters
STRANGE = [
    "\u202eright to left",
    "שלום עולם",
    "e\u0301\u0323\u0323",
    "\u0301",
    "\x00\x07\x1b[31m",
    "👩‍👩‍👧‍👦",
    "\ufeff\u200b",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """Two decoders, three conditions, dialects, classes of tokens and a certificate: all that a page can show."""
    folder = tmp_path_factory.mktemp("shown")
    made = make_run(folder, documents=24, decoders=("growing", "fixed"), dialect=True, seeds=(0,), resamples=200)
    study = with_classes(folder, made)
    certificate(folder)
    return folder, page_of(folder, study)


def with_classes(folder: Path, study: Study, names: dict[str, str] | None = None) -> Study:
    """The study with the annotation ``kinds``: figures, marks and words; names: what a label is called instead."""
    tokens = pl.read_parquet(folder / "tokens.parquet").unique(["doc_id", "char_start", "char_end"])
    word = pl.col("token").str.strip_prefix("Ġ")
    kind = pl.when(word.str.contains(r"\d")).then(pl.lit("figure"))
    kind = kind.when(~word.str.contains(r"\w")).then(pl.lit("mark")).otherwise(pl.lit("word")).replace(names or {})
    spans = tokens.select("doc_id", "char_start", "char_end", label=kind, window_id=pl.lit(None, pl.String))
    (folder / "annotations").mkdir()
    pq.write_table(spans.to_arrow().cast(schema.arrow("annotations")), folder / "annotations" / "kinds.parquet")
    kinds = [{"name": "kinds", "kind": "file", "argument": "spans.jsonl"}]
    by = {"estimate": {**study.estimate.model_dump(), "by": ["domain", "dialect", "position", "kinds"]}}
    return Study.model_validate({**study.model_dump(), "annotations": kinds, **by})


def certificate(folder: Path) -> None:
    """Of every window, one token in four is certainly lost at fp32."""
    tokens = pl.read_parquet(folder / "tokens.parquet").filter(condition="memory", decoder="growing")
    rows = tokens.with_columns(
        weight=1.0, substitute_id=0, precision=pl.lit("fp32"), equal=pl.col("position") % 4 == 0, differing=0,
        apart=1.0,
        ulps=pl.when(pl.col("position") % 4 == 0).then(0).otherwise(9), substitute_nats=1.0,
    )  # fmt: skip
    wanted = schema.arrow("certificate")
    (folder / "certificate").mkdir()
    pq.write_table(rows.select(wanted.names).to_arrow().cast(wanted), folder / "certificate" / "L.parquet")


def page_of(folder: Path, study: Study, manifest: dict[str, Any] | None = None) -> Study:
    estimate(folder, study)
    html.write(folder, study, manifest or {"device": "a CPU", "stages": {"train": {"seconds": 3, "revision": "f00"}}})
    return study


def saved(page: Any, button: Any) -> list[dict[str, str]]:
    with page.expect_download() as found:
        button.click()
    return list(csv.DictReader(io.StringIO(Path(found.value.path()).read_text(encoding="utf-8"), newline="")))


def shares(page: Any) -> list[int]:
    """What the list of windows says is kept of each."""
    return [int(t.replace("−", "-").removesuffix("\u202f%")) for t in page.locator("#b-list b").all_inner_texts()]


def refs(page: Any, pane: int = 0) -> list[str]:
    return page.locator(".pane").nth(pane).locator(".ref").all_inner_texts()


# ---- what it says


def test_the_first_sentence_rests_on_numbers_that_can_be_opened(run: tuple[Path, Study], opened: Open) -> None:
    """News keeps 0.8 of what there is, mathematics 0.4: planted, and far apart."""
    folder, _ = run
    page = opened(folder / "report.html")
    said = page.locator("h1").inner_text()
    assert re.search(r"After 64 tokens, .* gives back \d+\u202f% of the information in what it read \(\d+ to \d+", said)
    assert "of the kinds of text, mathematics fares worst" in re.sub(r"\s+", " ", said)
    table = page.locator("details", has_text="The numbers of this sentence")
    assert not table.locator("table").is_visible()
    table.locator("summary").click()
    rows = table.locator("tbody tr").all_inner_texts()
    found = pl.read_parquet(folder / "estimates.parquet").filter(
        seed="all", condition="memory", length=64, metric="retention", decoder="growing"
    )
    for row in found.filter(pl.col("by").is_in(["all", "domain"])).iter_rows(named=True):
        name = "the whole" if row["by"] == "all" else f"domain: {row['group']}"
        (line,) = [r for r in rows if r.startswith(f"{name}\t")]
        assert f"\t{100 * row['value']:.1f}\u202f%\t{100 * row['low']:.1f} to {100 * row['high']:.1f}" in line
        assert line.endswith(f"{row['n_tokens']:,} tokens, {row['n_documents']} documents")


def test_the_parts_come_in_the_order_of_the_questions(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    parts = page.locator("main section[id]").evaluate_all("all => all.map(s => s.id)")
    assert parts == ["length", "text", "class", "dialect", "position", "browse", "summary", "method", "every"]
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert "a CPU" in page.locator("#origin").inner_text()


def test_the_floor_is_drawn_below_the_ceiling(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    rows = saved(page, page.locator('[data-csv="omission"]'))
    floor = [r for r in rows if r["series"] == "certainly lost, fp32"]
    assert {r["window length, tokens"] for r in floor} == {"16", "64"}
    assert all(float(r["value"]) == 0.25 for r in floor)
    page.locator("#omission").scroll_into_view_if_needed()
    page.locator("#omission .plot", has_text="certainly lost, fp32").first.wait_for()


# ---- charts


def test_every_chart_gives_its_data_and_its_command(run: tuple[Path, Study], opened: Open) -> None:
    folder, study = run
    page = opened(folder / "report.html")
    tables = [pl.read_parquet(folder / f"{name}.parquet") for name in ("estimates", "curves")]
    names = [d.name for d in study.decoders]
    shown = catalogue.of_run(*tables, names, floor=html._floor(folder, study))
    assert len(shown) > 8
    for chart in shown:
        figure = page.locator(f"figure#{chart.name}")
        rows = saved(page, figure.locator("[data-csv]"))
        expected = charts.data(chart)
        assert list(rows[0]) == expected["columns"]
        told = [["" if v is None else str(v) for v in row] for row in expected["rows"]]
        for mine, theirs in zip([list(r.values()) for r in rows], told, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                assert a == b or float(a) == float(b)
        assert figure.locator("code").last.inner_text() == f"mnemoscope report {folder.name}"


def test_a_command_is_copied(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    button = page.locator("#retention [data-copy]")
    button.click()
    page.locator("#said", has_text="The command is copied").wait_for(state="attached")
    page.locator("#b-search").focus()
    page.keyboard.press("Control+V")
    assert page.locator("#b-search").input_value() == f"mnemoscope report {run[0].name}"
    page.locator("#retention").get_by_text("Copy command").wait_for()


def test_pointing_at_a_chart_tells_value_interval_and_n(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    plot = page.locator("#retention .plot").first
    plot.scroll_into_view_if_needed()
    point = plot.locator(".scatterlayer .point").first
    point.wait_for()
    point.hover(force=True)
    said = plot.locator(".hoverlayer").text_content()
    assert re.search(r"memory: \d+\.\d\u202f%", said)
    assert re.search(r"\d+\.\d\u202f% to \d+\.\d\u202f% \(95\u202f% interval", said)
    assert re.search(r"n = [\d,]+ tokens, 24 documents", said)


def test_tabs_by_keyboard(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    tabs = page.locator("#by-domain [role=tab]")
    assert tabs.all_inner_texts() == ["16 tokens", "64 tokens"]
    assert page.locator("#by-domain-panel-2").is_visible()
    tabs.nth(1).focus()
    page.keyboard.press("ArrowLeft")
    assert tabs.nth(0).get_attribute("aria-selected") == "true"
    assert page.locator("#by-domain-panel-1").is_visible()
    assert not page.locator("#by-domain-panel-2").is_visible()
    page.locator("#by-domain-panel-1 .main-svg").first.wait_for()


# ---- tables


def test_every_estimate_is_filtered_and_saved(run: tuple[Path, Study], opened: Open) -> None:
    folder, _ = run
    page = opened(folder / "report.html")
    controls = page.locator("#estimates-controls")
    controls.get_by_label("metric").select_option(label="nats")
    controls.get_by_label("by").select_option(label="kinds")
    controls.get_by_label("length").select_option(label="16")
    controls.get_by_label("condition").select_option(label="wrong")
    expected = pl.read_parquet(folder / "estimates.parquet").filter(
        metric="nats", by="kinds", length=16, condition="wrong"
    )
    assert page.locator("#estimates-count").inner_text() == f"{expected.height} shown."
    assert page.locator("#estimates-rows tr").count() == expected.height
    rows = saved(page, page.locator('[data-csv="estimates"]'))
    for mine, theirs in zip(rows, expected.iter_rows(named=True), strict=True):
        assert mine["group"] == theirs["group"]
        assert float(mine["value"]) == pytest.approx(theirs["value"], rel=1e-5)
        assert int(mine["n_documents"]) == theirs["n_documents"]


# ---- the windows


def test_a_window_is_shown_token_by_token(run: tuple[Path, Study], opened: Open) -> None:
    """The cells of the first window are the tokens of tokens.parquet, what was written below them; bits in the tip."""
    folder, _ = run
    page = opened(folder / "report.html")
    window = page.locator("#b-about").inner_text().split(" · ")[-1]
    tokens = pl.read_parquet(folder / "tokens.parquet").filter(window_id=window, decoder="growing").sort("position")
    memory, none = tokens.filter(condition="memory"), tokens.filter(condition="none")
    assert refs(page) == [t.removeprefix("Ġ") for t in memory["token"]]
    written = page.locator(".pane .out").all_inner_texts()
    assert written == [w.removeprefix("Ġ") or "∅" for w in memory["written"]]
    bits = (none["nats"] - memory["nats"]).to_numpy() / np.log(2)
    cells = page.locator(".cell")
    for i in (0, 5, 40):
        label = cells.nth(i).get_attribute("aria-label")
        assert f"position {i}" in label
        said = float(re.search(r"([−\d.]+) of [\d.]+ bits kept", label)[1].replace("−", "-"))
        assert said == pytest.approx(bits[i], abs=0.011)
        cells.nth(i).hover()
        assert page.locator("#tip").inner_text() == label
    # colour is not alone in telling them: much kept has a solid bar, much misled a dotted one
    styles = cells.locator(".ref").evaluate_all("all => all.map(e => getComputedStyle(e).borderTopStyle)")
    classes = cells.locator(".ref").evaluate_all("all => all.map(e => e.className)")
    for style, name, kept in zip(styles, classes, bits, strict=True):
        if abs(kept) > 0.3:
            assert style == ("solid" if kept > 0 else "dotted")
        assert ("-3" in name) == (abs(kept) >= 5) or abs(abs(kept) - 5) < 0.02


def test_windows_are_searched_filtered_and_sorted(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    assert page.locator("#b-count").inner_text().startswith("72 of 144 windows")
    found = shares(page)
    assert found == sorted(found)
    assert len(found) == 50
    page.locator("#b-more").click()
    assert len(shares(page)) == 72
    page.locator("#b-order").select_option(label="best kept first")
    found = shares(page)
    assert found == sorted(found, reverse=True)
    page.locator("#b-length").select_option(label="16 tokens")
    assert len(refs(page)) == 16
    page.locator("#b-domain").select_option(label="mathematics")
    assert page.locator("#b-count").inner_text().startswith("24 of 144")
    page.locator("#b-length").select_option(label="all")
    assert page.locator("#b-count").inner_text().startswith("48 of 144")
    page.locator("#b-search").fill("MATHEMATICS-01:64:64")
    assert page.locator("#b-list li").count() == 1
    assert page.locator("#b-about").inner_text().endswith("mathematics-01:64:64")
    page.locator("#b-search").fill("nowhere to be found")
    assert page.locator("#b-count").inner_text() == "No window of this page is so."
    assert not page.locator("#b-about").is_visible()
    page.locator("#b-search").fill("")
    assert page.locator("#b-about").is_visible()


def test_a_class_of_tokens_is_counted_alone(run: tuple[Path, Study], opened: Open) -> None:
    folder, _ = run
    page = opened(folder / "report.html")
    page.locator("#b-class").select_option(label="figure")
    marked = page.locator(".cell.marked .ref").all_inner_texts()
    assert marked
    assert all(re.search(r"\d", m) for m in marked)
    about = page.locator("#b-about").inner_text()
    assert about.startswith("mathematics")  # the others hold no figure
    tokens = pl.read_parquet(folder / "tokens.parquet").filter(
        pl.col("token").str.contains(r"\d"), window_id=about.split(" · ")[-1], decoder="growing"
    )
    memory, none = (tokens.filter(condition=c)["nats"].sum() for c in ("memory", "none"))
    assert shares(page)[0] == pytest.approx(100 * (none - memory) / none, abs=0.6)
    assert f"of {len(marked)} token" in page.locator(".pane .n").inner_text()
    rows = saved(page, page.locator('[data-csv="windows"]'))
    assert {r["domain"] for r in rows} == {"mathematics"}
    assert sum(int(r["tokens counted"]) for r in rows if r["window_id"] == about.split(" · ")[-1]) == len(marked)


def test_conditions_side_by_side(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    for name in ("none", "wrong"):
        page.get_by_role("checkbox", name=name).check()
    assert page.locator(".pane h3").all_inner_texts() == ["memory", "none", "wrong"]
    assert refs(page, 0) == refs(page, 1) == refs(page, 2)
    tops = page.locator(".pane").evaluate_all("all => all.map(p => p.getBoundingClientRect().top)")
    assert len(set(tops)) < 3
    page.get_by_role("checkbox", name="memory").uncheck()
    assert page.locator(".pane h3").all_inner_texts() == ["none", "wrong"]
    page.get_by_role("checkbox", name="none").uncheck()
    page.get_by_role("checkbox", name="wrong").click()  # the last one stays
    assert page.locator(".pane h3").all_inner_texts() == ["wrong"]
    page.locator("#b-decoder").select_option(label="fixed")
    assert page.locator(".pane h3").all_inner_texts() == ["wrong"]


def test_windows_by_keyboard(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    first = page.locator("#b-about").inner_text()
    page.locator("#b-next").focus()
    page.keyboard.press("Enter")
    assert page.locator("#b-place").inner_text() == "2 of 72"
    assert page.locator("#b-about").inner_text() != first
    assert page.locator('#b-list [aria-current="true"]').get_attribute("data-place") == "1"
    page.locator("#b-list button").nth(4).focus()
    page.keyboard.press("Enter")
    assert page.locator("#b-place").inner_text() == "5 of 72"
    page.locator(".cell").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").split("position ")[1].startswith("3,")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.keyboard.press("Tab")  # one stop for all tokens
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    page.locator("#b-texts .text").nth(1).wait_for()


def test_a_window_as_a_table(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    page.locator("#b-details summary").click()
    page.locator("#b-rows tr").nth(63).wait_for(state="attached")
    rows = saved(page, page.get_by_role("button", name="This window, as CSV"))
    assert [r["token"].strip() for r in rows] == refs(page)
    assert {r["kinds"] for r in rows} <= {"figure", "mark", "word"}
    # a text that a spreadsheet would run is text; a number is a number
    assert not [v for r in rows for v in (r["token"], r["written, memory"]) if v[:1] in "=+-@" and len(v) > 1]


# ---- how it looks


def test_light_dark_and_back(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html", color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Light").click()
    light = page.evaluate(colour)
    assert sum(map(int, re.findall(r"\d+", light))) > 700 > 100 > sum(map(int, re.findall(r"\d+", dark)))
    page.reload()
    assert page.evaluate(colour) == light


@pytest.mark.parametrize("width", [390, 768])
def test_nothing_is_wider_than_the_screen(run: tuple[Path, Study], opened: Open, width: int) -> None:
    page = opened(run[0] / "report.html", width=1280)
    for name in ("none", "wrong"):
        page.get_by_role("checkbox", name=name).check()
    page.get_by_text("The numbers of this sentence").click()
    # a condition's name may be longer than its place
    page.locator("#b-conditions label").nth(1).evaluate("label => label.append('random_encoder@memory')")
    page.set_viewport_size({"width": width, "height": 844})
    for plot in page.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    too_wide = "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className)"
    assert page.locator(".plot:visible, .pane, .cells, .controls > *, .tools").evaluate_all(too_wide) == []


def test_printed(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html")
    page.emulate_media(media="print")
    for hidden in (".controls", ".list", ".tools button", "#theme"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator(".pane").first.is_visible()
    assert page.locator(".tools code").first.is_visible()
    assert len(page.pdf()) > 50_000
    assert page.locator("#retention .main-svg").count() > 0  # drawn for paper, though never scrolled to


def test_without_scripts(run: tuple[Path, Study], opened: Open) -> None:
    page = opened(run[0] / "report.html", java_script_enabled=False)
    assert "Browsing and figures need JavaScript" in page.locator("noscript").first.inner_text()
    assert page.locator("#summary table").first.is_visible()
    page.locator("#retention summary").click()
    assert page.locator("#retention tbody tr").first.is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_serious_fault(run: tuple[Path, Study], opened: Open, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="brings axe-core")
    page = opened(run[0] / "report.html", width=width, color_scheme=scheme)
    page.locator("#b-class").select_option(label="figure")
    page.get_by_role("checkbox", name="wrong").check()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.locator("#retention").scroll_into_view_if_needed()
    page.locator("#retention .main-svg").first.wait_for()
    # rows are alike, and each takes axe its time
    page.evaluate(
        "document.querySelectorAll('.data tbody tr:nth-child(n+4), .cell:nth-child(n+20)').forEach(r => r.remove())"
    )
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (v["id"], [(n["html"][:160], n["any"][0]["message"] if n["any"] else "") for n in v["nodes"][:3]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


# ---- texts from outside


def test_hostile_text_changes_nothing_but_itself(tmp_path: Path, opened: Open) -> None:
    """As tokens, reconstructions, names and labels, with a line of a megabyte among them."""
    folder = tmp_path / "a run 'quoted' & <b>"
    long = "x" * 1_000_000
    study = make_run(folder, documents=6, lengths=(16,), seeds=(0,), resamples=50, token=HOSTILE, dialect=True)
    for name in ("tokens", "reconstructions"):
        frame = pl.read_parquet(folder / f"{name}.parquet")
        frame = frame.with_columns(
            domain=pl.col("domain").replace({"news": HOSTILE, "fiction": STRANGE[0], "mathematics": long}),
            source=pl.lit("=cmd|' /C calc'!A0"),
            dialect=pl.col("dialect").replace({"north": HOSTILE, "south": STRANGE[3] + STRANGE[4]}),
        )
        if name == "tokens":
            at = pl.col("position")
            odd = pl.col("written").replace({})
            for i, text in enumerate([*STRANGE, long]):
                odd = pl.when(at == i + 1).then(pl.lit(text)).otherwise(odd)
            # one spells the rest of the character before it
            same = [
                pl.when(at == 12).then(pl.col(c).shift(1)).otherwise(c).alias(c) for c in ("char_start", "char_end")
            ]
            frame = frame.with_columns(
                *same,
                written=odd,
                operation=pl.when(at.is_between(1, 8)).then(pl.lit("substitute")).otherwise("operation"),
            )
        else:
            frame = frame.with_columns(reconstruction=pl.lit(HOSTILE + "".join(STRANGE) + long))
        frame.write_parquet(folder / f"{name}.parquet")
    study = with_classes(folder, study, {"word": HOSTILE, "mark": STRANGE[0] + long})
    page_of(folder, study, {"device": HOSTILE + long, "stages": {STRANGE[0]: {"revision": HOSTILE}}})
    assert (folder / "report.html").stat().st_size < 7e6
    page = opened(folder / "report.html")
    for plot in page.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    # tokens that spell one character are one cell, of the bits of both
    labels = [cell.get_attribute("aria-label") for cell in page.locator(".pane").first.locator(".cell").all()]
    assert [re.search("positions? ([^,:]+)", label)[1] for label in labels] == [
        *map(str, range(11)), "11 to 12", "13", "14", "15"
    ]  # fmt: skip
    assert ", as 2 tokens spell it" in labels[11]
    assert " of 16 tokens in place" in page.locator(".pane .n").first.inner_text()
    # the hostile token stands as itself, and what follows it in its own place
    assert refs(page)[0].replace("\u2028", "") == HOSTILE.replace("\u2028", "‹U+2028›").strip()
    written = page.locator(".pane .out").all_inner_texts()
    assert written[1] == "‹U+202E›right to left"
    assert written[2] == STRANGE[1]
    assert written[4] == "◌\u0301"
    assert written[5] == "␀␇␛[31m"
    assert written[8].startswith("xxx")
    assert written[8].endswith("… (1,000,000 characters)")
    lefts = page.locator(".cell").evaluate_all(
        "all => all.map(c => [c.getBoundingClientRect().top, c.getBoundingClientRect().left])"
    )
    assert lefts == sorted(lefts)
    heads = page.locator("h2").all_inner_texts()
    assert heads == [
        "What is kept as texts grow longer", "By kind of text", "By class of token", "By dialect",
        "By place in the window", "Read the windows", "In numbers", "Method", "Every estimate", "Origin",
    ]  # fmt: skip
    # the filters work with such names, and a spreadsheet gets texts
    assert page.locator("#b-domain").locator("option").count() == 4
    page.locator("#b-domain").select_option(index=3)
    assert page.locator("#b-list li").count() == 6
    page.locator("#b-search").fill("<img src=x")
    assert page.locator("#b-list li").count() == 6
    rows = saved(page, page.locator('[data-csv="windows"]'))
    assert {r["source"] for r in rows} == {"'=cmd|' /C calc'!A0"}
    page.locator("#b-text summary").click()
    page.locator("#b-details summary").click()
    assert page.locator("img").count() == 0
    command = page.locator("#retention [data-copy]").get_attribute("data-copy")
    assert command == "mnemoscope report 'a run '\"'\"'quoted'\"'\"' & <b>'"
    assert json.loads(page.evaluate("JSON.stringify(Object.keys(window).filter(k => k === 'pwned'))")) == []


def test_a_page_that_grows_too_large_holds_fewer_windows(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_run(tmp_path, documents=12, lengths=(16,), seeds=(0,), resamples=50)
    page_of(tmp_path, study)
    whole = (tmp_path / "report.html").stat().st_size
    monkeypatch.setattr(html, "LIMIT", whole - 20_000)
    page_of(tmp_path, study)
    assert (tmp_path / "report.html").stat().st_size <= html.LIMIT
    page = opened(tmp_path / "report.html")
    said = page.locator("#browse").inner_text()
    shown = int(re.search(r"(\d+) of 36 windows: a sample", said)[1])
    assert 0 < shown < 36
    assert page.locator("#b-list li").count() == shown
