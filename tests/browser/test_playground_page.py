"""The playground as its users meet it: started by the command, in Chromium, and by whoever sends it something else."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from mnemoscope import cli
from mnemoscope.errors import ConfigError, RunError

TEXT = "On 7 March 1904 Ada Quill paid 312 crowns for a grey horse in Varna, and on 9 March she sold it for 340. "


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where ``mnemoscope playground`` says it listens; ended by Ctrl-C, which is no failure."""
    pytest.importorskip("starlette", reason="starlette")
    command = [sys.executable, "-m", "mnemoscope.cli", "playground", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        line = child.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line + child.stderr.read()
        yield found[0]
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=20)[1]
        assert said == "loading the model and its decoders ...\n"
        assert child.returncode == 0


class Page:
    """A page that may say nothing on its console, and ask nobody but its own server."""

    def __init__(self, chromium: Any, address: str, **options: Any):
        self.page = chromium.new_page(viewport={"width": 1200, "height": 900}, **options)
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.faults.append(str(e)))
        self.page.on("dialog", lambda d: self.faults.append(d.message))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.open(address)

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.wait()

    def wait(self, state: str = "done") -> None:
        self.page.wait_for_selector(f"body[data-state={state}]")

    def after(self, act: Any, state: str = "done") -> None:
        """Waits for what an act brings about; the page waits a moment before it asks."""
        self.page.evaluate("document.body.dataset.state = 'acting'")
        act()
        self.wait(state)

    def type(self, text: str, field: str = "#text") -> None:
        self.after(lambda: self.page.fill(field, text))

    def slide(self, position: int) -> None:
        set_to = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }"
        self.after(lambda: self.page.locator("#position").evaluate(set_to, str(position)))

    def tokens(self, of: str = "#tokens") -> list[str]:
        return list(self.page.locator(f"{of} > li > bdi").all_text_contents())

    def shown(self) -> dict[str, Any]:
        """All that a link has to bring back."""
        texts = {i: self.page.text_content(i) for i in ("#finding", "#written", "#place", "#noticed", "#tokens")}
        return texts | {i: self.page.input_value(i) for i in ("#text", "#length", "#condition", "#position")}

    def close(self) -> None:
        address = urlsplit(self.page.url)
        self.page.close()
        assert self.faults == []
        assert {urlsplit(u).netloc for u in self.asked} == {address.netloc}


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Page]:
    made = Page(chromium, address)
    yield made
    made.close()


def test_type_slide_switch_and_share(page: Page, chromium: Any, address: str) -> None:
    page.type(TEXT)
    assert page.page.input_value("#example") == ""
    page.after(lambda: page.page.select_option("#length", "8"))
    page.slide(8)
    assert "".join(page.tokens()) == TEXT[: len("".join(page.tokens()))]
    assert len(page.tokens()) == 8
    assert page.page.text_content("#place").startswith("token 8 of ")
    under_memory = page.page.text_content("#finding")
    assert re.search(
        r"Written back at their place: \d of 8 tokens .*Bits retained: \d+\.\d of the \d+\.\d", under_memory
    )
    # each token says what became of it in a word, a sign and a colour
    for item in page.page.locator("#tokens li").all():
        became = item.get_attribute("class")
        assert item.locator(".s .sr").text_content().strip() == became
        assert item.locator(".s").text_content()[0] == {"kept": "✓", "altered": "≠", "lost": "×"}[became]

    # a slider on the move is not set back by answers to where it was
    page.page.evaluate(
        """async () => {
          const slider = document.getElementById("position");
          for (let v = 9; v <= 20; v++) {
            slider.value = v;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            await new Promise(done => setTimeout(done, 30));
          }
        }"""
    )
    page.slide(20)
    assert page.page.text_content("#place").startswith("token 20 of ")
    assert len(page.tokens()) == 8
    assert page.page.text_content("#finding") != under_memory
    kept = page.page.locator("#tokens li.kept").count()
    page.after(lambda: page.page.select_option("#condition", "none"))
    assert "Bits retained: 0.0 of" in page.page.text_content("#finding")
    assert page.page.locator("#tokens li.kept").count() < kept
    page.after(lambda: page.page.select_option("#condition", "bits:4@memory"))
    assert page.page.is_visible("#screen")

    page.page.click("#share")
    link = page.page.input_value("#link")
    assert link.startswith(address + "#t=On+7+March")
    other = Page(chromium, link)
    assert other.shown() == page.shown()
    other.close()
    page.type(TEXT * 100)
    page.page.click("#share")
    assert "Too long for a link" in page.page.text_content("#shared")
    assert page.page.is_hidden("#link-field")


def test_change_a_word(page: Page) -> None:
    page.type(TEXT)
    page.slide(30)
    page.after(lambda: page.page.click("#change"))
    assert page.page.text_content("#noticed") == "Nothing is changed yet."
    page.type(TEXT.replace("312", "845"), "#changed")
    assert page.page.text_content("#noticed").startswith("The memory notices: its parts moved by up to ")
    changed = "".join(page.page.locator("#changed-tokens > li.change > bdi").all_text_contents())
    assert set(changed.strip()) <= set("845")
    assert changed != ""
    assert page.page.locator("#moved-rows tr").count() == 12
    assert page.page.locator("#moved-rows td").first.text_content() != "0.0\u202f%"
    # before the change nothing differs
    page.slide(8)
    assert "The change lies outside" in page.page.text_content("#noticed")
    assert set(page.page.locator("#moved-rows td").all_text_contents()) == {"0.0\u202f%"}


def test_keyboard_phone_and_axe(chromium: Any, address: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe_playwright_python")
    for scheme in ("light", "dark"):
        page = Page(chromium, address, color_scheme=scheme)
        page.page.set_viewport_size({"width": 390, "height": 844})
        page.after(lambda page=page: page.page.select_option("#length", "8"))
        page.after(lambda page=page: page.page.click("#change"))
        page.type("Another text.", "#changed")
        page.page.click("#share")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
        before = int(page.page.input_value("#position"))
        page.page.focus("#position")
        page.after(lambda page=page: page.page.keyboard.press("ArrowRight"))
        assert int(page.page.input_value("#position")) == before + 1
        assert page.page.get_attribute("#position", "aria-valuetext").startswith(f"after token {before + 1} of ")
        found = axe.Axe().run(page.page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
        page.close()


def test_hostile_text_is_shown_and_nothing_else_happens(page: Page) -> None:
    hostile = (
        "<script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.exe \u0007\u0000 e\u0301\u0302 👩‍👩‍👧 &lt; "
    )
    page.type(hostile)
    page.after(lambda: page.page.select_option("#length", "128"))
    page.slide(128)
    assert page.page.locator("main img, main script, section script").count() == 0
    shown = "".join(page.tokens())
    assert shown.startswith("<script>alert(1)</script><img src=x onerror=alert(2)>")
    assert "\u202e" not in shown
    assert "‹202e›" in shown
    assert shown.count("gnp.exe") == 1
    # a megabyte is refused where it is pasted, and stays there to be cut
    page.after(lambda: page.page.fill("#text", "x" * 1_000_000), "refused")
    assert page.page.text_content("#problem").startswith("The text has 1,000,000 characters; at most 20,000")
    assert page.page.is_hidden("#result")
    page.type("It goes on as if nothing had been.")
    assert page.page.is_visible("#result")
    assert page.page.is_hidden("#problem")


def test_a_link_from_elsewhere(chromium: Any, address: str) -> None:
    page = Page(chromium, address + "#t=A+text+of+<b>mine</b>+that+is+short&w=7&c=bits:99&d=shipped&p=9999")
    assert page.page.input_value("#text") == "A text of <b>mine</b> that is short"
    assert "condition bits:99, which is not to be had here; memory is shown" in page.page.text_content("#shared")
    assert page.page.input_value("#position") == page.page.get_attribute("#position", "max")
    page.close()


# ---- the server, asked by something else than its page ---------------------------------------------------------------


def ask(address: str, body: bytes | dict[str, Any], **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", "/read", content, {"Content-Type": "application/json"} | headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


QUESTION = {"text": TEXT, "decoder": "shipped", "condition": "memory", "length": 16, "position": 20}


def test_the_server_refuses(address: str) -> None:
    status, answer = ask(address, QUESTION)
    assert status == 200
    assert [json.loads(line)["kind"] for line in answer.splitlines()][-1] == "written"
    # another site's name that leads here (DNS rebinding), and a form of another site
    assert ask(address, QUESTION, Host="evil.example")[0] == 400
    assert ask(address, QUESTION, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(address, b"x" * 600_000)[0] == 413
    for wrong in (b"", b"[]", b"{", b'{"text": "\\ud800"}', QUESTION | {"length": "16"}, QUESTION | {"more": 1}):
        assert ask(address, wrong)[0] == 422, wrong
    status, answer = ask(address, QUESTION | {"text": "a" * 20_001})
    assert (status, json.loads(answer)["problem"]) == (400, "the text has 20,001 characters")
    assert ask(address, QUESTION | {"position": 10**30})[0] in (200, 422)
    assert ask(address, QUESTION | {"position": -5})[0] == 200
    assert ask(address, QUESTION | {"length": 17})[0] == 400

    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    for path, status in (("/", 200), ("/static/../app.py", 404), ("/static/%2e%2e/app.py", 404), ("/docs", 404)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status, path
        assert "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
    connection.close()


def test_readers_who_leave_make_room(address: str) -> None:
    """Many who hang up in the middle of an answer; then one who stays is answered."""
    for _ in range(20):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.request("POST", "/read", json.dumps(QUESTION), {"Content-Type": "application/json"})
        connection.close()
    deadline = time.monotonic() + 60
    while (status := ask(address, QUESTION)[0]) == 503 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status == 200


def test_more_than_can_wait_are_sent_away(address: str) -> None:
    long = QUESTION | {"text": TEXT * 12, "length": 256, "position": 256, "condition": "random_encoder@memory"}
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(ask(address, long)[0])) for _ in range(14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503}


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(RunError, match="no run folder"):
        CliRunner().invoke(cli.app, ["playground", str(tmp_path), "--port", "0"], catch_exceptions=False)
    port = urlsplit(address).port
    with pytest.raises(RunError, match=f"port {port} cannot be had"):
        CliRunner().invoke(cli.app, ["playground", "--port", str(port)], catch_exceptions=False)
    monkeypatch.delitem(sys.modules, "mnemoscope.playground.app", raising=False)
    monkeypatch.delattr("mnemoscope.playground.app", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"needs uvicorn.*pip install 'mnemoscope\[playground\]'"):
        CliRunner().invoke(cli.app, ["playground"], catch_exceptions=False)


def test_another_host_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("starlette", reason="starlette")
    from mnemoscope.playground import app

    assert [app.is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.8.9.1")] == [True] * 4
    assert [app.is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.4", "example.org")] == [False] * 4
    served: list[str] = []
    monkeypatch.setattr(app, "serve", lambda session, host, listening, ready: served.append(host))
    monkeypatch.setattr("mnemoscope.playground.session.opened", lambda run: None)
    said = CliRunner().invoke(cli.app, ["playground", "--host", "0.0.0.0", "--port", "0"], catch_exceptions=False)
    assert "without a password" in " ".join(said.stderr.split())
    assert served == ["0.0.0.0"]
