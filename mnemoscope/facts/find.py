"""The facts of texts, by rules, and the windows that begin with them.

::

    text       paid INV-0031 on 3 May to Ada Lovelace in ...
    facts           code     date    name
    windows         |---- N tokens ----|
                                |---- N tokens ----|

The memory is taken N tokens after the fact began; what stood before the fact was not read, so nothing but what follows
competes with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnemoscope import plugins
from mnemoscope.annotate import Annotator
from mnemoscope.errors import ConfigError, TextError
from mnemoscope.text import files
from mnemoscope.text.tokens import Encoding, encode_documents
from mnemoscope.text.windows import WindowSet, choose, window_at
from mnemoscope.types import Document, Window

#: what is looked for if nothing is asked for; of facts that overlap, the one whose kind comes first is kept
KINDS = ("code", "identifiers", "dates", "numbers", "names")
#: of code, what is a fact; keywords, operators and punctuation are grammar
_OF_CODE = ("identifier", "number", "string")
_AROUND = 60


class Fact(NamedTuple):
    """A stretch of a document; see ``schema.FACTS``.  ``first`` is the place of its first token in the document."""

    doc_id: str
    file: str
    line: int
    kind: str
    label: str
    char_start: int
    char_end: int
    fact: str
    before: str
    following: str
    first: int
    tokens: int


class Found(NamedTuple):
    """What :func:`find` found.

    Attributes:
        facts: those that are measured, by length N.
        held: all that the texts hold, by N: those as long as N tokens, or nearer to their document's end, are not in.
        total: all facts.
    """

    facts: dict[int, list[Fact]]
    windows: WindowSet
    held: dict[int, int]
    total: int


class Rules:
    """The annotators of the kinds that are asked for, each ``KIND`` or ``KIND:ARGUMENT``.

    Raises:
        ConfigError: no such kind, one that reads windows, or one given twice.
    """

    def __init__(self, kinds: Sequence[str]):
        self.kinds: list[tuple[str, Annotator]] = []
        for spelt in kinds:
            kind, _, argument = spelt.partition(":")
            found = plugins.load("annotation", kind)
            if found.reads:
                raise ConfigError(
                    f"an annotation of kind {kind!r} labels windows, and facts are found before there are any",
                    remedy=f"Ask for others, such as {', '.join(KINDS)}",
                )
            if kind in dict(self.kinds):
                raise ConfigError(f"facts of kind {kind!r} are asked for twice", remedy="Ask once")
            # without an argument, code is what a file's name says that it is
            self.kinds.append((kind, found("field:file" if spelt == "code" else argument)))
        self.fields = tuple(f for _, annotator in self.kinds for f in annotator.fields if f != "file")

    def facts(self, document: Document, record: Mapping[str, Any], encoding: Encoding) -> list[Fact]:
        """The facts of a document, in order; none overlaps another, or begins in the same token."""
        name = document.where.rpartition(":")[0]
        is_source = Path(name).suffix.lower() in files.SOURCE
        taken = np.zeros(len(document.text) + 1, np.bool_)
        begun: set[int] = set()
        found = []
        for kind, annotator in self.kinds:
            if kind == "code" and "file" in annotator.fields:
                if not is_source:
                    continue
                record = {**record, "file": Path(name).name}
            for _, start, end, label, *_ in annotator.spans(document, record):
                if label == "O" or (kind == "code" and label not in _OF_CODE) or taken[start:end].any():
                    continue
                place = int(np.searchsorted(encoding.char_end, start, side="right"))
                if place in begun:
                    continue
                taken[start:end] = True
                begun.add(place)
                tokens = int(np.searchsorted(encoding.char_start, end, side="left")) - place
                found.append(_fact(document, name, kind, label, start, end, place, tokens))
        return sorted(found, key=lambda f: f.first)


def _fact(document: Document, file: str, kind: str, label: str, start: int, end: int, first: int, tokens: int) -> Fact:
    text, line = document.text, int(document.where.rpartition(":")[2])
    # a plain text is one record, which begins in line 1
    if files.suffix(Path(file)) in (None, *files.PLAIN_TEXT):
        line += text.count("\n", 0, start)
    around = text[max(0, start - _AROUND) : start], text[end : end + _AROUND]
    return Fact(document.doc_id, file, line, kind, label, start, end, text[start:end], *around, first, tokens)


def find(
    documents: Iterator[tuple[Document, Mapping[str, Any]]],
    tokenizer: Any,
    rules: Rules,
    lengths: Sequence[int],
    *,
    seed: int,
    most: int | None,
) -> Found:
    """The facts of documents, and the windows that begin with them.

    Args:
        lengths: N, tokens after which the memory is taken.
        most: so many facts at each length, drawn evenly over documents; None: all.

    Raises:
        TextError: no fact at all, or none that N tokens follow.
    """
    records: dict[str, Mapping[str, Any]] = {}

    def remembered() -> Iterator[Document]:
        for document, record in documents:
            records[document.doc_id] = record
            yield document

    encoded = list(encode_documents(tokenizer, remembered()))
    of_each = [rules.facts(document, records[document.doc_id], encoding) for document, encoding in encoded]
    total = sum(map(len, of_each))
    if not total:
        raise TextError("these texts hold no fact", remedy=f"Looked for: {', '.join(k for k, _ in rules.kinds)}")
    facts: dict[int, list[Fact]] = {}
    windows: dict[int, list[Window]] = {}
    held: dict[int, int] = {}
    for length in lengths:
        fit = [
            [f for f in some if f.tokens <= length and f.first + length <= len(encoding.ids)]
            for some, (_, encoding) in zip(of_each, encoded, strict=True)
        ]
        held[length] = sum(map(len, fit))
        if not held[length]:
            raise TextError(
                f"no fact of these texts has {length} tokens from its begin to the end of its document",
                remedy="Give longer texts, or leave this number out of --after",
            )
        counts = np.array([len(some) for some in fit], dtype=np.int64)
        drawn = choose(counts, most or held[length], np.random.default_rng([seed, length]))
        facts[length] = [fit[d][i] for d, i in drawn]
        windows[length] = [window_at(*encoded[d], fit[d][i].first, length, "none") for d, i in drawn]
    texts = {document.doc_id: document.text for document, _ in encoded}
    # windows that overlap account for no tokens
    return Found(facts, WindowSet(windows, {}, texts), held, total)
