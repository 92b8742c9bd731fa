"""Build ``sampler.jsonl`` from the hand-written sources beside this file.

Each ``source/<domain>.txt`` holds documents separated by lines ``=== <doc_id>``.
Spans are marked inline as ``⟦LABEL:text⟧`` with LABEL one of PERSON, PLACE,
ORGANISATION or NUMBER; they do not nest. The script removes the markup and
writes one JSON record a line, with span offsets in Unicode code points.

Run ``python build.py`` to rebuild the file, ``python build.py --check`` to
compare it with what is stored, ``python build.py --table`` for the sizes that
README.md quotes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TypedDict

HERE = Path(__file__).resolve().parent
SOURCE_DIR = HERE / "source"
OUTPUT = HERE / "sampler.jsonl"
SOURCE_NAME = "mnemoscope-sampler"
LABELS = ("PERSON", "PLACE", "ORGANISATION", "NUMBER")

_HEADER = re.compile(r"=== (\S+)")
_BRACKET = re.compile("[⟦⟧]")
_OPENING = re.compile("⟦([A-Z]+):")


class SamplerError(ValueError):
    """The sources are malformed; the message says which document and where."""


class Span(TypedDict):
    """A labelled stretch of text, end exclusive."""

    start: int
    end: int
    label: str


class Record(TypedDict):
    """One document, as one line of ``sampler.jsonl``."""

    doc_id: str
    text: str
    domain: str
    source: str
    split: str
    spans: list[Span]


def parse_markup(marked: str, doc_id: str) -> tuple[str, list[Span]]:
    """Return the text of ``marked`` without its markup, and its spans."""
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0  # of the plain text so far
    label: str | None = None  # of the span that is open
    start = 0
    position = 0

    def fail(what: str, at: int) -> SamplerError:
        line = marked.count("\n", 0, at) + 1
        return SamplerError(f"{doc_id}, line {line} of its text: {what}: {marked[at : at + 30]!r}")

    for bracket in _BRACKET.finditer(marked):
        at = bracket.start()
        piece = marked[position:at]
        pieces.append(piece)
        length += len(piece)
        if bracket.group() == "⟦":
            if label is not None:
                raise fail("a span opens inside another", at)
            opening = _OPENING.match(marked, at)
            if opening is None or opening.group(1) not in LABELS:
                raise fail(f"a span must open with one of {', '.join(LABELS)}", at)
            label, start, position = opening.group(1), length, opening.end()
        else:
            if label is None:
                raise fail("a span closes that was not open", at)
            if not piece or piece != piece.strip():
                raise fail("a span is empty or has white space at an edge, before", at)
            spans.append({"start": start, "end": length, "label": label})
            label, position = None, bracket.end()
    if label is not None:
        raise SamplerError(f"{doc_id}: the last {label} span is not closed")
    pieces.append(marked[position:])
    return "".join(pieces), spans


def parse_source(content: str, domain: str) -> list[Record]:
    """Return the documents of one source file, in order."""
    bodies: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(content.split("\n"), start=1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            doc_id = header.group(1)
            if doc_id in bodies:
                raise SamplerError(f"{domain}.txt, line {number}: duplicate id {doc_id}")
            if not doc_id.startswith(f"{domain}-"):
                raise SamplerError(f"{domain}.txt, line {number}: {doc_id} is not a {domain} id")
            current = bodies[doc_id] = []
        elif current is not None:
            current.append(line)
        elif line.strip():
            raise SamplerError(f"{domain}.txt, line {number}: text before the first === line")
    records: list[Record] = []
    for doc_id, lines in bodies.items():
        text, spans = parse_markup("\n".join(lines).strip("\n") + "\n", doc_id)
        if not text.strip():
            raise SamplerError(f"{doc_id}: the document is empty")
        records.append(
            {
                "doc_id": doc_id,
                "text": text,
                "domain": domain,
                "source": SOURCE_NAME,
                # the demo trains a decoder on the first document of each kind, and measures on the others
                "split": "measure" if records else "train",
                "spans": spans,
            }
        )
    return records


def build_records(source_dir: Path = SOURCE_DIR) -> list[Record]:
    """Return every document under ``source_dir``, by file name and then in file order."""
    records: list[Record] = []
    seen: set[str] = set()
    for path in sorted(source_dir.glob("*.txt")):
        for record in parse_source(path.read_text(encoding="utf-8"), path.stem):
            if record["doc_id"] in seen:
                raise SamplerError(f"{path.name}: duplicate id {record['doc_id']}")
            seen.add(record["doc_id"])
            records.append(record)
    if not records:
        raise SamplerError(f"no documents under {source_dir}")
    return records


def render(records: list[Record]) -> str:
    """Return the JSON Lines text of ``records``."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def size_table(records: list[Record]) -> str:
    """Return a Markdown table of the sizes of each domain."""
    head = ["domain", "documents", "characters", "bytes", *(label.lower() for label in LABELS)]
    totals = [0] * (len(head) - 1)
    rows: list[list[str]] = []
    for domain in dict.fromkeys(record["domain"] for record in records):
        mine = [record for record in records if record["domain"] == domain]
        labels = [span["label"] for record in mine for span in record["spans"]]
        counts = [
            len(mine),
            sum(len(record["text"]) for record in mine),
            sum(len(record["text"].encode("utf-8")) for record in mine),
            *(labels.count(label) for label in LABELS),
        ]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        rows.append([domain, *(f"{count:,}" for count in counts)])
    rows.append(["all", *(f"{total:,}" for total in totals)])
    lines = [head, ["---", *["---:"] * len(totals)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Command line entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build sampler.jsonl from source/*.txt.")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument("--table", action="store_true", help="print the size table only")
    options = parser.parse_args(argv)
    try:
        records = build_records()
    except SamplerError as error:
        print(f"sampler: {error}", file=sys.stderr)
        return 1
    if options.table:
        print(size_table(records), end="")
        return 0
    rendered = render(records).encode("utf-8")
    if options.check:
        if OUTPUT.is_file() and OUTPUT.read_bytes() == rendered:
            return 0
        print(f"sampler: {OUTPUT.name} is out of date; run build.py", file=sys.stderr)
        return 1
    OUTPUT.write_bytes(rendered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
