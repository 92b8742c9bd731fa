"""Spans from a user's file: JSON lines or Parquet with ``doc_id, char_start, char_end, label``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mnemoscope.annotate import Annotator, Span
from mnemoscope.errors import TextError
from mnemoscope.text import files
from mnemoscope.types import Document

_FIELDS = ("doc_id", "char_start", "char_end", "label")


class FileSpans(Annotator):
    """Spans from the file ``argument``, read whole when it is made; document ids are the corpus's.

    Raises:
        TextError: the file cannot be read, or holds what is no span; with file and line (Parquet: row).
    """

    wants = "the path of a file of spans"

    def __init__(self, argument: str):
        super().__init__(argument)
        path = Path(argument).expanduser()
        kind = files.suffix(path)
        if kind not in (*files.JSON_LINES, *files.PARQUET):
            known = ", ".join((*files.JSON_LINES, *files.PARQUET))
            raise TextError("not a file of spans that we can read", remedy=f"Give one of {known}", file=path)
        self._by_document: dict[str, list[Span]] = defaultdict(list)
        for span in _parquet(path) if kind in files.PARQUET else _json_lines(path):
            self._by_document[span.doc_id].append(span)

    @classmethod
    def path_in(cls, argument: str) -> str:
        return argument

    def spans(self, document: Document, record: Mapping[str, Any]) -> Sequence[Span]:
        return self._by_document.get(document.doc_id, ())


def _json_lines(path: Path) -> Iterator[Span]:
    for line, content in files.lines(path):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TextError(
                f"not JSON: {error}", remedy="Each line must hold one whole JSON object", file=path, line=line
            ) from None
        yield _span(record, path, line)


def _parquet(path: Path) -> Iterator[Span]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [c for c in _FIELDS if c in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield _span(record, path, row)
    except (pa.ArrowException, OSError) as error:
        raise TextError(
            f"unreadable as Parquet ({str(error).splitlines()[0]})", remedy="Write the file again", file=path
        ) from None


def _span(record: object, path: Path, line: int) -> Span:
    match record:
        case {"doc_id": str(doc_id), "char_start": int(start), "char_end": int(end), "label": str(label)}:
            if 0 <= start < end and type(start) is type(end) is int:
                return Span(doc_id, start, end, label)
            problem = f"document {doc_id!r}: characters {start} to {end} are no span"
        case dict():
            missing = [f for f in _FIELDS if f not in record]
            problem = f"no {', '.join(missing)}" if missing else "a field of the wrong type"
        case _:
            problem = "not an object"
    raise TextError(
        problem,
        remedy='A span is {"doc_id": "a", "char_start": 3, "char_end": 9, "label": "PERSON"}, the end exclusive',
        file=path,
        line=line,
    )


ANNOTATION = FileSpans
