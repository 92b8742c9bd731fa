"""Spans from a user's file: JSON lines or Parquet with ``doc_id, char_start, char_end, label``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mnemoscope.annotate import Annotator, Span
from mnemoscope.errors import TextError
from mnemoscope.text import files
from mnemoscope.types import Document

#: field -> the types that it may have, and what they are called
_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    "doc_id": ((str, int), "text or whole number"),
    "char_start": ((int,), "whole number"),
    "char_end": ((int,), "whole number"),
    "label": ((str,), "text"),
}


class FileSpans(Annotator):
    """Spans from the file ``argument``, read whole when it is made; document ids are the corpus's, and may be whole
    numbers, as there.

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
        if not path.is_file():
            raise TextError("no such file of spans", remedy=files.nearest(path), file=path)
        self._read = partial(_parquet if kind in files.PARQUET else _json_lines, path)
        self._path = path
        self._by_document: dict[str, list[Span]] = defaultdict(list)
        for _, span in self._read():
            self._by_document[span.doc_id].append(span)

    @classmethod
    def path_in(cls, argument: str) -> str:
        return argument

    def spans(self, document: Document, record: Mapping[str, Any]) -> Sequence[Span]:
        """Raises: TextError: a span that ends behind the document; with file and line of the span."""
        found = self._by_document.get(document.doc_id, ())
        for span in found:
            if span.char_end > len(document.text):
                # read again, so that not every span has to keep its line
                line = next(line for line, other in self._read() if other == span)
                raise TextError(
                    f"the span {span.char_start} to {span.char_end} does not lie in document {span.doc_id!r} "
                    f"({document.where}), whose text has {len(document.text)} characters",
                    remedy="Offsets count characters from 0, the end is exclusive, and the text must be the corpus's",
                    file=self._path,
                    line=line,
                )
        return found

    def strangers(self, known: Set[str]) -> Sequence[str]:
        return [doc_id for doc_id in self._by_document if doc_id not in known]


def _json_lines(path: Path) -> Iterator[tuple[int, Span]]:
    """(line, span)."""
    for line, content in files.lines(path):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TextError(
                f"not JSON: {error}", remedy="Each line must hold one whole JSON object", file=path, line=line
            ) from None
        yield line, _span(record, path, line)


def _parquet(path: Path) -> Iterator[tuple[int, Span]]:
    """(row, span)."""
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [c for c in _FIELDS if c in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield row, _span(record, path, row)
    except (pa.ArrowException, OSError) as error:
        raise TextError(
            f"unreadable as Parquet ({str(error).splitlines()[0]})", remedy="Write the file again", file=path
        ) from None


def _span(record: object, path: Path, line: int) -> Span:
    if isinstance(record, dict):
        missing = [field for field in _FIELDS if field not in record]
        wrong = [
            f"{field} is {record[field]!r}, and no {called}"
            for field, (types, called) in _FIELDS.items()
            if field in record and type(record[field]) not in types
        ]
        if not missing and not wrong:
            doc_id, start, end, label = (record[field] for field in _FIELDS)
            if 0 <= start < end:
                return Span(str(doc_id), start, end, label)
            wrong = [f"document {doc_id!r}: characters {start} to {end} are no span"]
        problem = f"no {', '.join(missing)}" if missing else "; ".join(wrong)
    else:
        problem = "not an object"
    raise TextError(
        problem,
        remedy='A span is {"doc_id": "a", "char_start": 3, "char_end": 9, "label": "PERSON"}, the end exclusive',
        file=path,
        line=line,
    )


ANNOTATION = FileSpans
