"""Values that a corpus gives for its tokens, beside the places of those tokens in the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mnemoscope.annotate import field_of
from mnemoscope.errors import TextError
from mnemoscope.types import Document

Place = tuple[int, int]


def sentences(
    document: Document, record: Mapping[str, Any], field: str
) -> Iterator[tuple[Sequence[Place], Sequence[str | None]]]:
    """(places of the tokens, their values) of each sentence of the document.

    Raises:
        TextError: the corpus gives no tokens, or a sentence does not give a text or null for each of them.
    """
    if not document.tokens:
        raise TextError(
            f"document {document.doc_id!r} comes without tokens, and so without values for them",
            remedy="Say in the corpus which field lists them: tokens",
            file=document.where or None,
        )
    given = field_of(document, record, field)
    for number, (places, values) in enumerate(zip(document.tokens, given, strict=True), start=1):
        listed = isinstance(values, list) and all(v is None or isinstance(v, str) for v in values)
        if not listed or len(values) != len(places):
            raise TextError(
                f"document {document.doc_id!r}, sentence {number}: field {field!r} does not list a label (or null) for "
                f"each of its {len(places)} tokens",
                remedy="Labels are texts, one a token, in the order of the tokens",
                file=document.where or None,
            )
        yield places, values


def chunks(tags: Sequence[str | None]) -> Iterator[tuple[int, int, str]]:
    """(first token, last token, label) of each chunk of a sentence's tags, and of each stretch outside: ``O``.

    IOB1, IOB2, BIOES and BILOU alike, by the rules of CoNLL's evaluation script (conlleval): a chunk begins with B, S
    or U, or where the label changes or the chunk before it has ended (with E, L, S or U); so ``I-PER`` after ``O``
    begins one.  No tag, ``_`` and the empty one are ``O``.

    Raises:
        ValueError: a tag of another form.
    """
    first, label, ended = 0, "", True
    for number, tag in enumerate(tags):
        prefix, _, kind = (tag or "O").replace("_", "O", 1 if tag == "_" else 0).partition("-")
        if prefix not in ("B", "I", "O", "E", "S", "L", "U", "M") or (prefix == "O") == bool(kind):
            raise ValueError(tag)
        here = kind or "O"
        if number and (here != label or (here != "O" and (ended or prefix in "BSU"))):
            yield first, number - 1, label
            first = number
        label, ended = here, prefix in "ELSU"
    if tags:
        yield first, len(tags) - 1, label
