"""What a field says of a whole document, or of each of its sentences: genre, dialect, speaker, year, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mnemoscope.annotate import Annotator, Span, field_of
from mnemoscope.errors import TextError
from mnemoscope.types import Document


class Value(Annotator):
    """The field ``argument`` of a record is the label of its text; in a corpus of tokens, of that sentence.

    Numbers and truth values are labels as JSON writes them; null and the empty text are none.
    """

    wants = "the name of a field that says what a document is"

    def __init__(self, argument: str):
        super().__init__(argument)
        self.field = argument
        self.fields = (argument,)

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        """Raises: TextError: the record has no such field, or it holds a list or an object."""
        said = field_of(document, record, self.field)
        if document.tokens:
            stretches = [(tokens[0][0], tokens[-1][1]) if tokens else (0, 0) for tokens in document.tokens]
            pairs = list(zip(stretches, said, strict=True))
        else:
            pairs = [((0, len(document.text)), said)]
        for (start, end), value in pairs:
            if isinstance(value, dict | list):
                raise TextError(
                    f"document {document.doc_id!r}: field {self.field!r} is not one value",
                    remedy="Name a field that holds a text or a number",
                    file=document.where or None,
                )
            label = str(value).lower() if isinstance(value, bool) else str(value)
            if start < end and value is not None and label:
                yield Span(document.doc_id, start, end, label)


ANNOTATION = Value
