"""First mention, or repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mnemoscope.annotate import Annotator, Span
from mnemoscope.errors import ConfigError
from mnemoscope.frequency.words import words
from mnemoscope.types import Document

if TYPE_CHECKING:
    from mnemoscope.annotate._reader import Reader


class Repetition(Annotator):
    """Labels ``first`` and ``repeated`` of each word (:mod:`mnemoscope.frequency.words`), whatever its case.

    The argument says where an earlier mention counts.  ``window``: in the window before the word, which is all that a
    memory has read; a word that the window's edge cuts counts as what is left of it.  ``document``: anywhere in the
    document before it, though the memory of this window never saw it: a property of the text.
    """

    wants = "window or document: where an earlier mention counts"
    reads = True

    def __init__(self, argument: str, reader: Reader):
        super().__init__(argument)
        if argument not in ("window", "document"):
            raise ConfigError(f"the argument {argument!r} of a repetition annotation", remedy=f"Give {self.wants}")
        self._reader = reader if argument == "window" else None

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        if self._reader is None:
            yield from _labelled(document, 0, len(document.text), None)
            return
        for window in self._reader.windows(document.doc_id):
            yield from _labelled(document, int(window.char_start[0]), int(window.char_end[-1]), window.window_id)


def _labelled(document: Document, start: int, end: int, window_id: str | None) -> Iterator[Span]:
    seen: set[str] = set()
    for first, last, word in words(document.text[start:end]):
        folded = word.casefold()
        label = "repeated" if folded in seen else "first"
        seen.add(folded)
        yield Span(document.doc_id, start + first, start + last, label, window_id)


ANNOTATION = Repetition
