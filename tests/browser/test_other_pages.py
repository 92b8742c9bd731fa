"""The pages of ``mnemoscope compare`` and ``mnemoscope check``: filtered, searched, narrow, hostile, by axe."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_compare import synthetic
from test_report import HOSTILE
from typer.testing import CliRunner

from mnemoscope import cli
from mnemoscope.report import compare
from mnemoscope.stats import runs

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    both = synthetic(folder / "both", documents=24, decoders=("growing", "fixed"))
    copy = Path(shutil.copytree(both, folder / "copy"))
    return compare.write(runs.compare([both, copy], ["growing", "fixed"]), folder)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two texts, one of them hostile, checked after 8 and 16 tokens."""
    folder = tmp_path_factory.mktemp("checked")
    plain = "Then the ship left for Bergen on 3 May 2024 with 214 crates of fish, and came back to port in the rain. "
    (folder / "plain.txt").write_text(plain, encoding="utf-8")
    (folder / "hostile.txt").write_text(
        f"So we met Ada {HOSTILE} in 1812, \u202eright to left\u202c. {plain}", encoding="utf-8"
    )
    command = ["check", "mamba-nano", str(folder / "plain.txt"), str(folder / "hostile.txt"), "--device", "cpu"]
    done = CliRunner().invoke(cli.app, [*command, "--out", str(folder / "run"), "--after", "8,16", "--most", "12"])
    assert done.exit_code == 0, done.output
    return folder / "run"


def test_differences_are_filtered_by_class_and_measure(compared: Path, opened: Open) -> None:
    page = opened(compared)
    rows = page.locator("tr[data-metric]:visible")
    assert {row.get_attribute("data-metric") for row in rows.all()} == {"retention"}
    page.get_by_label("class", exact=True).fill("MATH")
    assert {row.get_attribute("data-group") for row in rows.all()} == {"mathematics"}
    assert page.get_by_role("status").inner_text() == f"{rows.count()} of 36 differences shown"
    page.get_by_label("measure").select_option(label="all")
    assert rows.count() == 3
    page.get_by_label("class", exact=True).fill("no such class")
    assert rows.count() == 0


def test_facts_are_filtered_and_searched(checked: Path, opened: Open) -> None:
    page = opened(checked / "facts.html")
    facts = pl.read_parquet(checked / "facts.parquet")
    shown = page.locator(".facts-list > li:visible")

    def expect(some: pl.DataFrame) -> None:
        assert page.get_by_role("status").inner_text() == f"{some.height} facts shown"
        assert shown.locator("mark").all_inner_texts() == some["fact"].to_list()

    far, near = facts.filter(after=16), facts.filter(after=8)
    expect(far)  # the worst first, as in the table
    page.locator("select[name=after]").select_option("8")
    expect(near)
    page.get_by_label("found as").select_option("numbers")
    expect(near.filter(kind="numbers"))
    page.get_by_label("found as").select_option("")
    page.locator("select[name=after]").select_option("16")
    page.get_by_label("only those that did not come back whole").check()
    expect(far.filter(pl.col("whole") < 1))
    page.get_by_label("only those that did not come back whole").uncheck()
    page.get_by_label("search").fill("HOSTILE.TXT")
    expect(far.filter(pl.col("file").str.ends_with("hostile.txt")))
    page.get_by_label("search").fill("nothing of the kind")
    expect(far.clear())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_pages_keep_to_the_screen_and_axe_finds_no_serious_fault(
    compared: Path, checked: Path, opened: Open, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="brings axe-core")
    for file in (compared, checked / "facts.html"):
        page = opened(file, width=390, color_scheme=scheme, bypass_csp=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        found = axe.Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
