"""Numbers written in figures: whole ones by their digits, and so by order of magnitude; decimals, years, dates, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import regex

from mnemoscope.annotate import Annotator, Span
from mnemoscope.types import Document

MONTH = (
    r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?|July?|Aug(?:ust|\.)?|Sept?(?:ember|\.)?"
    r"|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
#: the first that fits, where no letter or figure stands before or after it
KINDS = {
    "date": rf"\d{{4}}-\d{{1,2}}-\d{{1,2}}|\d{{1,2}}(?P<_>[/.])\d{{1,2}}(?P=_)(?:\d{{4}}|\d\d)"
    rf"|{MONTH} {_DAY}(?:,? \d{{4}})?|{_DAY} {MONTH}(?:,? \d{{4}})?|{MONTH},? \d{{4}}",
    "time": r"\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?",
    "year": r"(?:1[5-9]|20)\d\ds?(?!,\d{3})",
    "compound": r"[\p{L}\p{M}_]*+\d+(?:\.\d+){2,}[\p{L}\p{M}\d_]*|[\p{L}\p{M}_]*+\d+[\p{L}\p{M}_][\p{L}\p{M}\d_]*"
    r"|[\p{L}\p{M}_]++\d+",
    "decimal": r"(?:\d{1,3}(?:,\d{3})+|\d+)?\.\d+(?:[eE][-+]?\d+)?",
    "whole": r"\d{1,3}(?:,\d{3})+|\d+",
}
_NUMBER = regex.compile(
    r"(?<![\p{L}\p{M}\d_])(?:"
    + "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items())
    + r")(?![\p{L}\p{M}\d_])"
)
_MOST = 7


class Numbers(Annotator):
    """Labels: ``1 digit`` to ``6 digits`` and ``7+ digits`` for whole numbers (n digits are 10^(n-1) and above, but for
    leading zeros; commas between thousands do not count), ``decimal``, ``year``, ``date``, ``time`` and ``compound``.

    A bare whole number from 1500 to 2099 is taken for a year (so is ``1990s``).  Dates are ``2024-01-31``,
    ``31/12/1999`` and English ones with a month's name; figures joined to letters or to two points and more (``B2B``,
    ``1st``, ``3.11.4``) are ``compound``.  Number words, signs, currencies and percent signs have no label.
    """

    wants = ""

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        for found in _NUMBER.finditer(document.text):
            label = str(found.lastgroup)
            if label == "whole":
                digits = len(found[0].replace(",", ""))
                label = "1 digit" if digits == 1 else f"{digits} digits" if digits < _MOST else f"{_MOST}+ digits"
            yield Span(document.doc_id, found.start(), found.end(), label)


ANNOTATION = Numbers
