"""Documents cut into windows: consecutive, of exactly L tokens, never across two documents.

::

    document (11 tokens)   |. . . .|. . . .|. . .       L = 4: two windows; the rest of three is dropped and counted
                           |. .|. .|. .|. .|. .|.       L = 2: five
                           |. .    |. .    |. . .       L = 2, nested: the beginnings of the windows of 4
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mnemoscope.errors import TextError
from mnemoscope.text.control import Control
from mnemoscope.text.tokens import Encoding, encode_documents
from mnemoscope.types import Document, Window

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the documents at one window length.

    Attributes:
        length: L, in tokens.
        documents: all that were given; ``shorter`` of them have fewer than L tokens (nested windows: than the longest
            length), and so no window.
        tokens: in all documents; ``dropped`` of them lie in no window that could be cut: in rests shorter than L
            (shorter documents are such rests), and of nested windows behind the beginnings, too.
        cut: windows that the documents hold: L * cut + dropped == tokens.
        windows: those to be measured, at most ``cut``.
        measured_documents: documents with a window among them.
    """

    length: int
    documents: int
    shorter: int
    tokens: int
    dropped: int
    cut: int
    windows: int
    measured_documents: int


@dataclass(frozen=True, slots=True, eq=False)
class WindowSet:
    """The windows of a study.

    Attributes:
        windows: by length, in the order of the documents and of their tokens.
        accounts: by length.
        texts: document id -> text, of the documents that have a window.
    """

    windows: dict[int, list[Window]]
    accounts: dict[int, Account]
    texts: dict[str, str]

    def window_text(self, window: Window) -> str:
        """The slice of its document that the window's tokens stand for.

        A character whose bytes lie in two windows is whole in the text of both.
        """
        return self.texts[window.doc_id][window.char_start[0] : window.char_end[-1]]


def cut(
    documents: Iterable[Document],
    tokenizer: Tokenizer | PreTrainedTokenizerBase,
    lengths: Sequence[int],
    prefix: Literal["none", "bos"],
    *,
    seed: int,
    tokens_per_length: int | None = None,
    nested: bool = False,
) -> WindowSet:
    """Cuts each document, from its first token, into windows of each length; the last full window is kept.

    Args:
        prefix: what the encoder is to read before each window; recorded, not part of the window.
        seed: of the choice of windows, not negative; the choice for one length does not depend on the others.  And of
            control text.
        tokens_per_length: keep at most this many tokens' worth of windows a length, but one at least.  They are
            drawn evenly over documents: every document gives a first window before any gives a second.  The texts of
            a pair give windows at the same places.
        nested: cut windows of the longest length alone, by all that is said here; those of a shorter length are their
            beginnings: as many windows, of fewer tokens.

    Raises:
        TextError: two documents of one id, or no document long enough for a length.
        ModelError: see :func:`mnemoscope.text.tokens.encode`.
    """
    control = Control(tokenizer, seed)
    encoded = [control(*pair) if pair[0].control else pair for pair in encode_documents(tokenizer, documents)]
    _refuse_twins(encoded)
    windows: dict[int, list[Window]] = {}
    accounts: dict[int, Account] = {}
    for length in lengths:
        # from where one window begins to where the next one does
        step = max(lengths) if nested else length
        held = np.array([len(e.ids) // step for _, e in encoded], dtype=np.int64)
        tokens = sum(len(e.ids) for _, e in encoded)
        if not held.any():
            raise TextError(_too_short(encoded, step), remedy="Give longer documents, or leave this length out")
        if tokens_per_length is None:
            chosen = [(d, w) for d in range(len(held)) for w in range(held[d])]
        else:
            rng = np.random.default_rng([seed, step])
            chosen = choose(held, max(1, tokens_per_length // step), rng, [d.unit for d, _ in encoded])
        windows[length] = [window_at(*encoded[d], w * step, length, prefix) for d, w in chosen]
        accounts[length] = Account(
            length=length,
            documents=len(encoded),
            shorter=int((held == 0).sum()),
            tokens=tokens,
            dropped=tokens - length * int(held.sum()),
            cut=int(held.sum()),
            windows=len(chosen),
            measured_documents=len({d for d, _ in chosen}),
        )
    used = {window.doc_id for some in windows.values() for window in some}
    return WindowSet(windows, accounts, {d.doc_id: d.text for d, _ in encoded if d.doc_id in used})


def choose(
    held: np.ndarray, count: int, rng: np.random.Generator, units: Sequence[str] | None = None
) -> list[tuple[int, int]]:
    """At most ``count`` pairs (document, window), sorted: round-robin over documents in shuffled order, each
    document's windows in shuffled order.  A larger count only adds to a smaller one's choice.

    Args:
        held: [documents], how many windows each has.
        units: [documents], what each belongs to; if left out, each to itself.  The texts of a unit give the same
            windows, those that all of them have, before any other: what is compared stands at the same places.
    """
    texts: dict[str, list[int]] = {}
    for document in range(len(held)):
        texts.setdefault(units[document] if units else str(document), []).append(document)
    members = list(texts.values())
    turns = []
    for place, number in enumerate(rng.permutation(len(members))):
        common = int(held[members[number]].min())
        shared = rng.permutation(common)
        for document in members[number]:
            windows = [*shared, *(common + rng.permutation(held[document] - common))]
            turns += [(turn, place, document, int(window)) for turn, window in enumerate(windows)]
    return sorted((document, window) for _, _, document, window in sorted(turns)[:count])


def window_at(document: Document, encoding: Encoding, first: int, length: int, prefix: str) -> Window:
    """The ``length`` tokens of a document from token ``first`` on."""
    span = slice(first, first + length)
    return Window(
        window_id=f"{document.doc_id}:{length}:{first}",
        doc_id=document.doc_id,
        token_ids=encoding.ids[span],
        char_start=encoding.char_start[span],
        char_end=encoding.char_end[span],
        domain=document.domain,
        source=document.source,
        dialect=document.dialect,
        prefix=prefix,
    )


def _refuse_twins(encoded: Sequence[tuple[Document, Encoding]]) -> None:
    first: dict[str, str] = {}
    for document, _ in encoded:
        if document.doc_id in first:
            raise TextError(
                f"document id {document.doc_id!r} is given twice ({first[document.doc_id]} and {document.where})",
                remedy="Give every document an id of its own",
            )
        first[document.doc_id] = document.where


def _too_short(encoded: Sequence[tuple[Document, Encoding]], length: int) -> str:
    if not encoded:
        return "there is no document to measure"
    document, encoding = max(encoded, key=lambda pair: len(pair[1].ids))
    return f"no document has {length} tokens; the longest, {document.doc_id!r}, has {len(encoding.ids)}"
