"""What names one thing and no other, and can hardly be guessed: addresses, keys, part numbers, names in code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import regex

from mnemoscope.annotate import Annotator, Span
from mnemoscope.types import Document

_HEX = r"[0-9a-fA-F]"
_WORD = r"[\p{L}\d]"
#: the first that fits
_LABELS = {
    "url": r"(?:https?|ftp)://[^\s<>\"']++|www\.[^\s<>\"']++",
    "email": r"[\p{L}\d._%+-]++@[\p{L}\d-]++(?:\.[\p{L}\d-]++)++",
    "uuid": rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}",
    "ip": r"\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?",
    "path": r"(?:~|\.{1,2})?(?:/[\p{L}\d_.@+-]++){2,}+/?|[A-Za-z]:(?:\\[\p{L}\d_.@+-]++)++",
    "hash": r"(?=[a-f\d]*\d)(?=\d*[a-f])[a-f\d]{7,64}",
    "code": rf"(?!\d+(?:st|nd|rd|th|s|am|pm)\b)(?=[\p{{L}}._/-]*\d)(?=[\d._/-]*\p{{L}})"
    rf"{_WORD}++(?:[._/-]{_WORD}++)*+|(?!\d{{4}}-\d{{1,2}}-\d{{1,2}}\b)\d+(?:-\d+){{2,}}",
    "symbol": r"_*\p{L}+\d*(?:_+[\p{L}\d]++)++|\p{Ll}++(?:\p{Lu}[\p{Ll}\d]++)++"
    r"|(?:\p{L}[\p{L}\d]*+(?:\.|::))*+\p{L}[\p{L}\d]*+\(\)",
    "handle": r"[@#]\p{L}[\p{L}\d_]++",
}
_IDENTIFIER = regex.compile(
    r"(?<![\p{L}\p{M}\d_@#])(?:"
    + "|".join(f"(?P<{label}>{pattern})" for label, pattern in _LABELS.items())
    + r")(?![\p{L}\p{M}\d_])"
)
_STRETCH = regex.compile(r"\S++")
_PHONE = regex.compile(r"(?<![\p{L}\d])(?:\+\d[\d ()-]{5,18}\d|\(\d{2,5}\) ?\d[\d -]{3,12}\d)(?![\p{L}\d])")
#: longer ones are no identifiers, and patterns that look ahead would take too long over them
_LONGEST = 300
_TRAILING = ".,;:!?)]}'\"…»”’"


class Identifiers(Annotator):
    """Labels: ``url``, ``email``, ``uuid``, ``ip``, ``phone``, ``path``, ``hash`` (7 to 64 hexadecimal digits, both
    letters and figures), ``code`` (letters and figures in one: ``INV-2024-0031``, ``B2B``; or groups of figures:
    ``978-0-13-468599-1``), ``symbol`` (``snake_case``, ``camelCase``, ``call()``) and ``handle`` (``@name``).

    But for phone numbers they hold no white space, and none is longer than 300 characters with what stands around it.
    Ordinals (``1st``), decades (``1990s``) and dates are none.  CamelCase with a first capital is left to ``names``.
    """

    wants = ""

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        at = 0
        for phone in _PHONE.finditer(document.text):
            yield from _within(document, at, phone.start())
            yield Span(document.doc_id, phone.start(), phone.end(), "phone")
            at = phone.end()
        yield from _within(document, at, len(document.text))


def _within(document: Document, start: int, end: int) -> Iterator[Span]:
    """Of each stretch without white space."""
    for stretch in _STRETCH.finditer(document.text, start, end):
        if len(stretch[0]) > _LONGEST:
            continue
        for found in _IDENTIFIER.finditer(document.text, *stretch.span()):
            text = found[0].rstrip(_TRAILING) if found.lastgroup in ("url", "path") else found[0]
            if text:
                yield Span(document.doc_id, found.start(), found.start() + len(text), str(found.lastgroup))


ANNOTATION = Identifiers
