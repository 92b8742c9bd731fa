"""Names by their capitals, for text without gold: words that are capitalised and do not begin a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import regex

from mnemoscope.annotate import Annotator, Span
from mnemoscope.types import Document

_CAPITAL = r"\p{Lu}[\p{L}\p{M}'’-]*+(?<!['’-])"
_JOINED = r"(?: (?:of|the|de|del|della|di|da|du|la|le|van|von|der|den|al|bin|y|&))*+"
_RUN = regex.compile(rf"(?<![\p{{L}}\p{{M}}\d_.@#/]){_CAPITAL}(?:{_JOINED} {_CAPITAL})*+(?![\p{{L}}\p{{M}}\d_])")
_FIRST = regex.compile(rf"{_CAPITAL}{_JOINED} ?")
#: a full stop behind these ends no sentence
_SHORT = r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Jr|Sr|No|vs|cf|e\.g|i\.e|\p{Lu})"
#: what stands before the first word of a sentence, heading, list item or quotation
_BEGINS = regex.compile(rf"(?:^|[\n\r]|(?<!{_SHORT})[.!?…]|[:;—–•*|>])[\s\"'“”‘’«»()\[\]_*#>-]*+$|[\"“‘«(\[]\s*$")
_BEFORE = 40
_WORDS = frozenset({"I", "A", "O", "OK", "I'm", "I’m", "I'd", "I’d", "I'll", "I’ll", "I've", "I’ve"})
_ACRONYM = regex.compile(r"\p{Lu}{2,}+")


class Names(Annotator):
    """Labels: ``name`` (a run of capitalised words, *of*, *de*, *van* and their like between them) and ``acronym`` (one
    word of capitals only).  The first word of a sentence, line, list item or quotation is put aside: nothing tells it
    from any other, so *Ada slept* holds no name and *Ada Lovelace slept* holds *Lovelace*.

    Languages that capitalise all nouns, and scripts without capitals, are not for it; ``spacy`` knows more.
    """

    wants = ""

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        text = document.text
        for run in _RUN.finditer(text):
            start, end = run.span()
            if _BEGINS.search(text[max(0, start - _BEFORE) : start]) or start == 0:
                first = _FIRST.match(text, start, end)
                start = first.end() if first else end
            name = text[start:end]
            if name and name not in _WORDS:
                yield Span(document.doc_id, start, end, "acronym" if _ACRONYM.fullmatch(name) else "name")


ANNOTATION = Names
