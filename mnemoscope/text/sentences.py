"""Sentences given as tokens, and the text that they spell.

::

    tokens       Ada   did   n't   sleep   .          |  Rain   fell   .
    space_after   1     0     1      0     1          |   1      0     1
    text         Ada didn't sleep. Rain fell.

Without ``space_after`` one space stands between any two tokens: ``Ada did n't sleep . Rain fell .``  Text begins with
its first token and ends with its last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnemoscope.errors import TextError

#: tokens of a sentence, and whether a space follows each
Sentence = tuple[Sequence[str], Sequence[bool]]
Places = tuple[tuple[tuple[int, int], ...], ...]


def join(sentences: Iterable[Sentence]) -> tuple[str, Places]:
    """The text of the sentences, and for each sentence the half-open character span of each of its tokens."""
    pieces: list[str] = []
    places = []
    at, space = 0, False
    for tokens, spaces in sentences:
        spans = []
        for token, follows in zip(tokens, spaces, strict=True):
            if space:
                pieces.append(" ")
                at += 1
            pieces.append(token)
            spans.append((at, at + len(token)))
            at, space = at + len(token), follows
        places.append(tuple(spans))
    return "".join(pieces), tuple(places)


def sentence(
    record: Mapping[str, Any], tokens: str, space_after: str | None, *, file: str | Path, line: int
) -> Sentence:
    """The sentence that a record holds in its fields ``tokens`` and ``space_after``.

    Raises:
        TextError: they are not lists of the same length, a token is empty or no text, or a space neither 1 nor 0.
    """

    def refuse(problem: str, remedy: str) -> TextError:
        return TextError(problem, remedy=remedy, file=file, line=line)

    given = record[tokens]
    if not isinstance(given, list) or not all(isinstance(t, str) and t for t in given):
        raise refuse("the tokens are not a list of texts, none of them empty", 'Tokens are ["Ada", "slept", "."]')
    try:
        "".join(given).encode()
    except UnicodeEncodeError:
        remedy = "Mend the escape (\\ud800 to \\udfff come in pairs)"
        raise refuse("a token holds half a surrogate pair, which is no text", remedy) from None
    if space_after is None:
        return given, [True] * len(given)
    spaces = record[space_after]
    if not isinstance(spaces, list) or not all(s in (0, 1) for s in spaces):
        raise refuse("space_after is not a list of 1 and 0 (or true and false)", "Give one for each token")
    if len(spaces) != len(given):
        raise refuse(f"{len(given)} tokens and {len(spaces)} values of space_after", "Give one for each token")
    return given, spaces
