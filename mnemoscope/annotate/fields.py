"""Spans that the corpus brings: a field of each record that lists ``{"start": 3, "end": 9, "label": "PERSON"}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mnemoscope.annotate import Annotator, Span, field_of
from mnemoscope.errors import TextError
from mnemoscope.types import Document


class FieldSpans(Annotator):
    """Spans from the field ``argument`` of a corpus record; a record whose field is an empty list has none."""

    wants = "the name of a field that lists spans"

    def __init__(self, argument: str):
        super().__init__(argument)
        self.field = argument
        self.fields = (argument,)

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        """Raises: TextError: the record has no such field, or it does not list spans."""
        listed = field_of(document, record, self.field)
        for number, item in enumerate(listed if isinstance(listed, list) else [listed]):
            match item:
                case {"start": int(start), "end": int(end), "label": str(label)} if bool not in (
                    type(start),
                    type(end),
                ):
                    yield Span(document.doc_id, start, end, label)
                case _:
                    raise TextError(
                        f"document {document.doc_id!r}, field {self.field!r}, item {number}: {item!r} is no span",
                        remedy='A span is {"start": 3, "end": 9, "label": "PERSON"}',
                        file=document.where or None,
                    )


ANNOTATION = FieldSpans
