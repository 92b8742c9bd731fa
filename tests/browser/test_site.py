"""The site of the documentation: built strictly, without a dead link, and read in Chromium without another machine."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import mnemoscope

ROOT = Path(mnemoscope.__file__).parent.parent
MAIN = [
    "index",
    "start",
    "method",
    "reading",
    "numbers",
    "guide",
    "extending",
    "results/index",
    "results/speed",
    "commands",
    "api",
]
#: what there is of colours
DARK = ["index", "guide", "extending", "api"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def build(configuration: Path, out: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("material", reason="the site's theme")
    pytest.importorskip("mkdocstrings", reason="the site's reference")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(configuration), "-d", str(out)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def opened(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """``opened(page, width, scheme)``; a word on the console or a request elsewhere fails the test at its end."""
    wrong: list[str] = []
    contexts = []

    def open_page(name: str, width: int = 1280, scheme: str = "light") -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        context.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url))
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{address}{name}.html")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def test_a_dead_link_an_anchor_and_a_page_that_is_not_in_the_menu_fail_the_build(tmp_path: Path) -> None:
    """By the settings of the site itself."""
    ours = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Here\n\n[no page](gone.md), [no part](#gone)\n")
    (tmp_path / "docs/alone.md").write_text("# Alone\n")
    small = {key: ours[key] for key in ("site_name", "strict", "validation")} | {"nav": ["index.md"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(small))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    for said in ("'gone.md'", "'#gone'", "alone.md"):
        assert said in done.stderr


def test_nothing_of_it_is_asked_of_another_machine(site: Path) -> None:
    """Links may lead elsewhere; scripts, styles, fonts and pictures may not."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\ssrc=\"?(https?:[^\">\s]+)", text)
        asked += re.findall(
            r"<link\b[^>]*rel=\"?(?:stylesheet|preconnect|icon)\"?[^>]*href=\"?(https?:[^\">\s]+)", text
        )
        assert not asked, page


def test_the_reference_is_made_of_docstrings(opened: Callable[..., Any]) -> None:
    page = opened("api")
    for name in ("mnemoscope.pipeline.run", "mnemoscope.request.Measure", "mnemoscope.annotate.Annotator"):
        assert page.locator(f"[id='{name}']").count() == 1, name
    assert "the same call after an interruption goes on where it stopped" in page.inner_text("main")


def test_search_finds_a_page(opened: Callable[..., Any]) -> None:
    page = opened("index")
    page.get_by_role("textbox", name="Search").click()
    page.keyboard.type("prequential")
    found = page.locator(".md-search-result__link").first
    found.wait_for()
    found.click()
    page.wait_for_url("**/searches.html*")


@pytest.mark.parametrize("name", ["index", "method", "numbers"])
def test_a_phone_shows_the_whole_width(name: str, opened: Callable[..., Any]) -> None:
    page = opened(name, width=390)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.locator("main img").count() == 0 or page.locator("main img").first.bounding_box()["width"] <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(scheme: str, opened: Callable[..., Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="brings axe-core")
    # but for its colours the dark page is the light one
    names, options = (MAIN, None) if scheme == "light" else (DARK, {"runOnly": ["color-contrast"]})
    for name in names:
        page = opened(name, scheme=scheme)
        # rows and examples are alike, and each takes axe its time
        alike = (
            "tbody tr:nth-child(n+6), .doc-children .doc-object:nth-child(n+3), article > .doc-object:nth-of-type(n+4)"
        )
        page.evaluate(f"document.querySelectorAll('{alike}').forEach(r => r.remove())")
        found = axe.Axe().run(page, options=options).response["violations"]
        serious = [
            (v["id"], [(n["html"][:160], n["any"][0]["message"] if n["any"] else "") for n in v["nodes"][:3]])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], name
