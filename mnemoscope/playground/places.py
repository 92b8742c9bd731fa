"""Where a window lies in a text, and where it lies in the text once a word was changed.

A window of at most W tokens ends at the position p, so it is the tokens from max(0, p - W) to p.  A change is what
lies between the longest common beginning of two texts and the longest common end of what follows it ::

    before   the cat sat on the mat        first 1, before_end 2, after_end 3
    after    the old dog sat on the mat
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mnemoscope.text.tokens import Encoding
from mnemoscope.types import Window


class Place(NamedTuple):
    """The tokens ``first`` to ``end`` of a text, half-open."""

    first: int
    end: int


class Change(NamedTuple):
    """Half-open spans of tokens: ``first`` to ``before_end`` of the one text became ``first`` to ``after_end`` of the
    other."""

    first: int
    before_end: int
    after_end: int

    def moved(self, place: int) -> int:
        """A place between two tokens of the text before, in the text after; one inside the change moves to its end."""
        if place <= self.first:
            return place
        return self.after_end + max(0, place - self.before_end)


def change(before: Sequence[int], after: Sequence[int]) -> Change:
    """What was changed between two texts, by their token ids."""
    shorter = min(len(before), len(after))
    first = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    rest = shorter - first
    end = next((i for i in range(rest) if before[-1 - i] != after[-1 - i]), rest)
    return Change(first, len(before) - end, len(after) - end)


def window(encoding: Encoding, place: Place, prefix: str, doc_id: str = "text") -> Window:
    """The tokens at a place of a text as a window; ``prefix``: what the encoder reads before it."""
    span = slice(*place)
    return Window(
        window_id=f"{doc_id}:{place.end - place.first}:{place.first}",
        doc_id=doc_id,
        token_ids=encoding.ids[span],
        char_start=encoding.char_start[span],
        char_end=encoding.char_end[span],
        domain="",
        source="",
        dialect="",
        prefix=prefix,
    )
