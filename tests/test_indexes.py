"""infini-gram indexes: one built here against a plain search and against our own counts, one asked by HTTP of a server
on this machine that speaks the protocol and fails as services do."""

from __future__ import annotations

import json
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import small

from mnemoscope.errors import CountError, MnemoscopeError
from mnemoscope.frequency.count import Request, count
from mnemoscope.frequency.local_index import LocalIndex
from mnemoscope.frequency.remote_index import RemoteIndex
from mnemoscope.frequency.spelling import read_tokenizer


def write(file: Path, texts: list[str]) -> Path:
    file.write_text("".join(f"{json.dumps({'text': t})}\n" for t in texts), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(3)
    return ["".join(rng.choices(["a", "ab", " ", "é", "日"], k=rng.choice([0, 1, 300]))) for _ in range(40)]


# ---- local ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus.jsonl, and its indexes of bytes and of a tokenizer's tokens."""
    pytest.importorskip("infini_gram", reason="the package that searches indexes is an optional dependency")
    folder = tmp_path_factory.mktemp("built")
    corpus = write(folder / "corpus.jsonl", texts)
    small.tokenizer(folder / "model")
    LocalIndex.build([str(corpus)], folder / "bytes", memory_gb=1)
    LocalIndex.build([str(corpus)], folder / "tokens", tokenizer=str(folder / "model"), memory_gb=1)
    return folder


def test_bytes_as_a_plain_search_finds_them(built: Path, texts: list[str]) -> None:
    index = LocalIndex(built / "bytes")
    asked = ["a", "ab", "aa", " ", "é", "日", "日é", "abab", "b ab", "z", *(t[5:12] for t in texts if len(t) > 20)]
    found = [sum(len(re.findall(f"(?={re.escape(item)})", t)) for t in texts) for item in asked]
    assert index.count(asked).tolist() == found
    assert found[2] > 0  # "aa", whose occurrences overlap
    assert (index.total, index.documents) == (sum(len(t.encode()) for t in texts), 40)
    assert index.per_million(["a"])[0] == pytest.approx(1e6 * found[0] / index.total)


def test_tokens_as_we_count_them(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="the library that counts corpora is an optional dependency")
    request = Request(str(built / "model"), False, 3, 1, "text")
    rows = pl.read_parquet(count([str(built / "corpus.jsonl")], tmp_path / "c.parquet", request))
    index = LocalIndex(built / "tokens")
    assert len(rows) > 50
    assert index.count([list(ids) for ids in rows["ids"]]).tolist() == rows["count"].to_list()
    assert index.total == rows.filter(pl.col("n") == 1)["count"].sum()


def test_tokens_asked_by_string(built: Path, texts: list[str]) -> None:
    tokenizer, _ = read_tokenizer(str(built / "model"))
    ids = [tokenizer.encode(t).ids for t in texts]
    pairs = Counter(pair for row in ids for pair in pairwise(row))
    ab = tuple(tokenizer.encode("ab").ids)
    index = LocalIndex(built / "tokens")
    assert index.count(["ab", ab]).tolist() == [pairs[ab], pairs[ab]]  # type: ignore[index]


def test_what_an_index_refuses(built: Path, tmp_path: Path) -> None:
    index = LocalIndex(built / "bytes")
    with pytest.raises(CountError, match="an empty item occurs everywhere"):
        index.count(["a", ""])
    with pytest.raises(CountError, match="an index of bytes knows no token ids"):
        index.count([[1, 2]])
    with pytest.raises(CountError, match="cannot be asked"):
        LocalIndex(built / "tokens").count([[70_000]])
    with pytest.raises(CountError, match="this is there already"):
        LocalIndex.build([str(built / "corpus.jsonl")], built / "bytes")
    with pytest.raises(CountError, match="takes no path with such characters"):
        LocalIndex.build([str(built / "corpus.jsonl")], tmp_path / "a b")
    with pytest.raises(MnemoscopeError, match="there is nothing to index"):
        LocalIndex.build([str(write(tmp_path / "a.jsonl", [""]))], tmp_path / "index")
    with pytest.raises(CountError, match="no index, or a damaged one"):
        LocalIndex(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_damaged_index_is_not_asked(built: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    LocalIndex.build([str(built / "corpus.jsonl")], index, memory_gb=1)
    with (index / "table.0").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CountError, match="sizes differ"):
        LocalIndex(index)


def test_an_indexer_that_fails(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CountError, match="the indexer failed"):
        LocalIndex.build([str(built / "corpus.jsonl")], tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_without_the_package(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infini_gram.engine", None)
    with pytest.raises(CountError, match=r"pip install 'mnemoscope\[infini-gram\]'"):
        LocalIndex(built / "bytes")


# ---- by HTTP --------------------------------------------------------------------------------------------------------

_CORPUS = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "sat", "too"]


def answer(query: dict[str, Any]) -> dict[str, Any]:
    """What the service says: its tokens are words here; an empty query counts them all."""
    if query.get("index") != "v4_cats":
        return {"error": f"[Flask] Invalid index: {query.get('index')}"}
    if query.get("query_type") != "count" or not isinstance(query.get("query"), str):
        return {"error": "[Flask] Invalid query"}
    words = query["query"].split()
    found = sum(_CORPUS[i : i + len(words)] == words for i in range(len(_CORPUS))) if words else len(_CORPUS)
    return {"count": found, "approx": False, "token_ids": [1] * len(words), "tokens": words, "latency": 0.7}


class Service:
    """The server: ``trouble`` are its next answers, (status, headers, body), before it answers as it should."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.trouble: list[tuple[int, dict[str, str], bytes]] = []
        self.url = ""


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((time.monotonic(), query["query"]))
            status, headers, body = state.trouble.pop(0) if state.trouble else (200, {}, b"")
            if status == 0:  # the line goes dead
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body or json.dumps(answer(query)).encode())

        def log_message(self, *_: object) -> None:
            """Silent: the client's errors tell what went wrong."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def index(service: Service, tmp_path: Path) -> Callable[..., RemoteIndex]:
    def make(name: str = "v4_cats", **options: Any) -> RemoteIndex:
        chosen = {"url": service.url, "per_second": 100.0, "timeout": 5.0} | options
        return RemoteIndex(name, tmp_path / "answers" / "cache.sqlite", **chosen)

    return make


def test_asked_once_and_never_again(service: Service, index: Callable[..., RemoteIndex]) -> None:
    first = index()
    assert first.count(["the", "sat on", "the", "bird"]).tolist() == [3, 1, 3, 0]
    assert first.total == 11
    assert first.per_million(["the"]) == pytest.approx([3e6 / 11])
    assert [query for _, query in service.asked] == ["the", "sat on", "bird", ""]
    # a cache outlives its client, and the service
    service.trouble = [(500, {}, b"down")] * 99
    assert index().count(["bird", "the"]).tolist() == [0, 3]
    # but is no other index's
    with pytest.raises(CountError):
        index("v4_dogs", attempts=1).count(["the"])


def test_politeness(service: Service, index: Callable[..., RemoteIndex]) -> None:
    begun = time.monotonic()
    index(per_second=20.0).count(["the", "cat", "sat", "on"])
    assert time.monotonic() - begun > 3 * 0.05
    with pytest.raises(CountError, match="3 queries, where at most 2 are allowed"):
        index(at_most=2).count(["mat", "and", "dog", "cat"])
    assert len(service.asked) == 4
    assert index(at_most=2).count(["mat", "and", "the", "cat"]).tolist() == [1, 1, 3, 1]


def test_trouble_that_passes(service: Service, index: Callable[..., RemoteIndex]) -> None:
    service.trouble = [(503, {}, b"busy"), (429, {"Retry-After": "1"}, b"slow down"), (0, {}, b"")]
    assert index(per_second=50.0).count(["the"]).tolist() == [3]
    times = [t for t, _ in service.asked]
    assert len(times) == 4
    assert times[1] - times[0] < 0.5
    assert times[2] - times[1] > 0.95  # as long as it asked for


def test_trouble_that_stays(service: Service, index: Callable[..., RemoteIndex]) -> None:
    service.trouble = [(200, {}, b"")] + [(502, {}, b"")] * 99
    with pytest.raises(
        CountError, match=r"does not answer \(502 Bad Gateway; 3 attempts\). .* answers so far are kept"
    ):
        index(attempts=3).count(["the", "cat"])
    assert len(service.asked) == 4
    assert index(attempts=1).count(["the"]).tolist() == [3]


def test_offline(tmp_path: Path) -> None:
    with pytest.raises(CountError, match=r"127.0.0.1:9/: the service does not answer \(.*refused; 2 attempts\)"):
        RemoteIndex("x", tmp_path / "c", url="http://127.0.0.1:9/", attempts=2, per_second=100).count(["the"])


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ((403, {}, b"no"), r"the service refuses 'the' \(403 Forbidden\)"),
        ((200, {}, b"<html>"), r"what came back for 'the' is no count \(b'<html>'\)"),
        ((200, {}, b"[1]"), "is no count"),
        ((200, {}, b'{"count": "3"}'), "is no count"),
        ((200, {}, b'{"count": -1}'), "is no count"),
        ((200, {}, b'{"count": 3, "approx": true}'), "only estimates how often 'the' occurs"),
    ],
)
def test_answers_that_are_none(
    service: Service, index: Callable[..., RemoteIndex], trouble: tuple[int, dict[str, str], bytes], said: str
) -> None:
    service.trouble = [trouble]
    with pytest.raises(CountError, match=said):
        index().count(["the"])
    assert len(service.asked) == 1
    assert index().count(["the"]).tolist() == [3]  # and none of it was kept


def test_a_name_that_the_service_does_not_know(index: Callable[..., RemoteIndex]) -> None:
    with pytest.raises(CountError, match=r"refuses 'the' \(\[Flask\] Invalid index: v4_dogs\). Check the index's name"):
        index("v4_dogs").count(["the"])


def test_a_cache_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"something else " * 100)
    with pytest.raises(CountError, match="the cache cannot be used"):
        RemoteIndex("x", tmp_path / "cache", url="http://127.0.0.1:9/").count(["the"])
    with pytest.raises(CountError, match="an empty item occurs everywhere"):
        RemoteIndex("x", tmp_path / "c").count([""])
