"""Dates and times as English prose and logs write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import regex

from mnemoscope.annotate import Annotator, Span
from mnemoscope.annotate.numbers import KINDS, MONTH
from mnemoscope.types import Document

_LABELS = {
    "time": rf"{KINDS['time']}(?: ?[ap]\.?m\b\.?)?|\d{{1,2}} ?[ap]\.?m\b\.?",
    "date": rf"{KINDS['date']}|(?:the )?\d{{1,2}}(?:st|nd|rd|th) of {MONTH}(?:,? \d{{4}})?",
    "year": KINDS["year"],
    "weekday": r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?",
}
_DATE = regex.compile(
    r"(?<![\p{L}\p{M}\d_])(?:"
    + "|".join(f"(?P<{label}>{pattern})" for label, pattern in _LABELS.items())
    + r")(?![\p{L}\p{M}\d_])"
)


class Dates(Annotator):
    """Labels: ``date`` (``2024-01-31``, ``31/12/1999``, ``3 May``, ``May 2024``, ``the 3rd of May``), ``time``
    (``09:30``, ``4 pm``), ``year`` (a bare number from 1500 to 2099) and ``weekday``.

    As in ``numbers``, a house number of 1612 is taken for a year.  Months alone and words such as *yesterday* have no
    label.
    """

    wants = ""

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        for found in _DATE.finditer(document.text):
            label = next(name for name in _LABELS if found[name] is not None)
            yield Span(document.doc_id, found.start(), found.end(), label)


ANNOTATION = Dates
