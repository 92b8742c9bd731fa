"""One label a token from a corpus of tokens: part of speech, mostly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mnemoscope.annotate import Annotator, Span
from mnemoscope.annotate._gold import sentences
from mnemoscope.types import Document


class Tags(Annotator):
    """The field ``argument`` lists a label for each token (``["PROPN", "VERB"]``); null, ``_`` and the empty one are
    no label."""

    wants = "the name of a field that lists a label for each token"

    def __init__(self, argument: str):
        super().__init__(argument)
        self.field = argument
        self.fields = (argument,)

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        """Raises: TextError: as :func:`mnemoscope.annotate._gold.sentences`."""
        for places, labels in sentences(document, record, self.field):
            for (start, end), label in zip(places, labels, strict=True):
                if label and label != "_":
                    yield Span(document.doc_id, start, end, label)


ANNOTATION = Tags
