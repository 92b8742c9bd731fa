"""Word class by subword count: into how many tokens the study's tokenizer cuts a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mnemoscope.annotate import Annotator, Span
from mnemoscope.frequency.words import words
from mnemoscope.types import Document

if TYPE_CHECKING:
    from mnemoscope.annotate._reader import Reader

_MOST = 4


class Subwords(Annotator):
    """Labels: ``1 token`` to ``3 tokens`` and ``4+ tokens``, of each word (:mod:`mnemoscope.frequency.words`).

    Counted are the tokens of the whole document that hold a part of the word; a word that a window cuts keeps its
    count.
    """

    wants = ""
    reads = True

    def __init__(self, argument: str, reader: Reader):
        super().__init__(argument)
        self._reader = reader

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        tokens = self._reader.tokens(document.text)
        found = [(start, end) for start, end, _ in words(document.text)]
        start, end = np.array(found, dtype=np.int64).reshape(-1, 2).T
        begun = np.searchsorted(tokens.char_start, end, side="left")
        ended = np.searchsorted(tokens.char_end, start, side="right")
        for (first, last), count in zip(found, (begun - ended).tolist(), strict=True):
            label = "1 token" if count == 1 else f"{count} tokens" if count < _MOST else f"{_MOST}+ tokens"
            yield Span(document.doc_id, first, last, label)


ANNOTATION = Subwords
