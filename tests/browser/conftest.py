"""Chromium, and a page in it that must say nothing on the console and ask nothing of the network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="drives the browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        own = driver.chromium.executable_path
        found = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), own)
        if not Path(found).exists():
            pytest.skip("no Chromium")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """``opened(file, width=1280, **context)`` -> the page, loaded; what it does wrong fails the test at its end."""
    wrong: list[str] = []
    contexts = []

    def open_page(file: Path, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 844}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        address = file.resolve().as_uri()
        allowed = ("blob:", "data:")
        context.on(
            "request",
            lambda r: (
                None if r.url == address or r.url.startswith(allowed) else wrong.append(f"request: {r.url[:200]}")
            ),
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
