"""The built-in sampler corpus: its file, its sizes and its spans."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SAMPLER = Path(__file__).resolve().parents[1] / "mnemoscope" / "zoo" / "sampler"
DOMAINS = {
    "news",
    "code",
    "math",
    "law",
    "medicine",
    "email",
    "dialogue",
    "docs",
    "wiki",
    "books",
}
LABELS = {"PERSON", "PLACE", "ORGANISATION", "NUMBER"}


def _load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sampler_build", SAMPLER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = _load_build()
STORED = (SAMPLER / "sampler.jsonl").read_bytes()
# One record a line: splitting on "\n" alone, since text may hold other line separators.
RECORDS: list[dict[str, Any]] = [json.loads(line) for line in STORED.decode("utf-8").split("\n") if line]
each_record = pytest.mark.parametrize("record", RECORDS, ids=[r["doc_id"] for r in RECORDS])


def test_rebuild_equals_the_stored_file() -> None:
    assert build.render(build.build_records()).encode("utf-8") == STORED


def test_size_and_domains() -> None:
    assert sum(len(r["text"].encode("utf-8")) for r in RECORDS) >= 60_000
    counts = Counter(r["domain"] for r in RECORDS)
    assert set(counts) == DOMAINS
    assert len(counts) >= 8
    assert min(counts.values()) >= 5


def test_no_duplicate_documents() -> None:
    assert len({r["doc_id"] for r in RECORDS}) == len(RECORDS)
    assert len({" ".join(r["text"].split()) for r in RECORDS}) == len(RECORDS)


def test_some_text_is_not_ascii_and_offsets_are_code_points() -> None:
    assert any(ord(char) > 0xFFFF for r in RECORDS for char in r["text"])
    by_id = {r["doc_id"]: r for r in RECORDS}
    news = by_id["news-04"]
    named = {news["text"][s["start"] : s["end"]] for s in news["spans"]}
    assert {"São Telmo", "Henrique Valadão", "Margarida Sotto"} <= named


def test_readme_quotes_the_computed_table() -> None:
    readme = (SAMPLER / "README.md").read_text(encoding="utf-8")
    assert build.size_table(build.build_records()) in readme


@each_record
def test_record_shape(record: dict[str, Any]) -> None:
    assert list(record) == ["doc_id", "text", "domain", "source", "split", "spans"]
    assert record["source"] == "mnemoscope-sampler"
    assert len(record["text"]) >= 1_500
    assert not re.search("[⟦⟧]", record["text"])


@each_record
def test_spans_are_tidy(record: dict[str, Any]) -> None:
    text = record["text"]
    previous_end = 0
    for span in record["spans"]:
        assert list(span) == ["start", "end", "label"]
        assert span["label"] in LABELS
        assert previous_end <= span["start"] < span["end"] <= len(text)
        piece = text[span["start"] : span["end"]]
        assert piece
        assert piece == piece.strip()
        assert "\n" not in piece
        previous_end = span["end"]


@each_record
def test_digits_are_numbers(record: dict[str, Any]) -> None:
    if record["domain"] in {"code", "math"}:
        pytest.skip("figures in code and formulas are labelled only in part")
    covered: set[int] = set()
    for span in record["spans"]:
        if span["label"] == "NUMBER":
            covered.update(range(span["start"], span["end"]))
    text = record["text"]
    for run in re.finditer(r"\d+", text):
        around = text[max(0, run.start() - 20) : run.end() + 20]
        assert covered.issuperset(range(*run.span())), around


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("ask ⟦PERSON:Amina Duarte", "not closed"),
        ("ask Amina Duarte⟧ now", "was not open"),
        ("⟦PERSON:Amina ⟦PLACE:Sabarra⟧⟧", "opens inside"),
        ("⟦BOAT:Admiral⟧", "must open with"),
        ("⟦Amina⟧", "must open with"),
        ("⟦PERSON:⟧", "is empty"),
        ("⟦PERSON: Amina⟧", "white space"),
    ],
)
def test_bad_markup_is_refused(marked: str, message: str) -> None:
    with pytest.raises(build.SamplerError, match=message):
        build.parse_source(f"=== news-01\n{marked}\n", "news")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("=== news-01\na\n=== news-01\nb\n", "duplicate id news-01"),
        ("=== wiki-01\na\n", "not a news id"),
        ("stray\n=== news-01\na\n", "before the first"),
        ("=== news-01\n\n", "is empty"),
    ],
)
def test_bad_sources_are_refused(content: str, message: str) -> None:
    with pytest.raises(build.SamplerError, match=message):
        build.parse_source(content, "news")


def test_markup_is_removed_and_offsets_count_code_points() -> None:
    text, spans = build.parse_markup("😀 é ⟦PERSON:Zoë⟧ has ⟦NUMBER:3⟧.", "news-01")
    assert text == "😀 é Zoë has 3."
    assert spans == [
        {"start": 4, "end": 7, "label": "PERSON"},
        {"start": 12, "end": 13, "label": "NUMBER"},
    ]


def test_check_and_table_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--check"]) == 0
    assert build.main(["--table"]) == 0
    assert "| all | 50 |" in capsys.readouterr().out
