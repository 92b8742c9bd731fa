"""Stretches of tokens from a corpus of tokens, tagged BIO, IOB, BIOES or BILOU: named entities, mostly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mnemoscope.annotate import Annotator, Span
from mnemoscope.annotate._gold import chunks, sentences
from mnemoscope.errors import TextError
from mnemoscope.types import Document


class Entities(Annotator):
    """The field ``argument`` lists a tag for each token (``["B-PER", "I-PER", "O"]``).

    A span is an entity, from the first character of its first token to the last of its last, or a stretch outside all
    entities, labelled ``O``: so a document without any entity counts as one, too.
    """

    wants = "the name of a field that lists a tag such as B-PER for each token"

    def __init__(self, argument: str):
        super().__init__(argument)
        self.field = argument
        self.fields = (argument,)

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        """Raises: TextError: a tag of another form; as :func:`mnemoscope.annotate._gold.sentences`."""
        for places, tags in sentences(document, record, self.field):
            try:
                for first, last, label in chunks(tags):
                    yield Span(document.doc_id, places[first][0], places[last][1], label)
            except ValueError as error:
                raise TextError(
                    f"document {document.doc_id!r}, field {self.field!r}: {error.args[0]!r} is no tag",
                    remedy="Tags are O, or B, I, E, S, L, U or M with a label: B-PER",
                    file=document.where or None,
                ) from None


ANNOTATION = Entities
