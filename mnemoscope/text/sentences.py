"""Sentences given as tokens, and the text that they spell.

::

    tokens       Ada   did   n't   sleep   .          |  Rain   fell   .
    space_after   1     0     1      0     1          |   1      0     1
    text         Ada didn't sleep. Rain fell.

Without ``space_after`` one space stands between any two tokens: ``Ada did n't sleep . Rain fell .``  Text begins with
its first token and ends with its last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

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


def checked(tokens: object, space_after: object, *, file: str | Path, line: int) -> Sentence:
    """A record's tokens and spaces, which may be None, after a look at what they are.

    Raises:
        TextError: not lists of the same length, a token that is empty or no text, or a space that is neither 1 nor 0.
    """

    def refuse(problem: str, remedy: str) -> TextError:
        return TextError(problem, remedy=remedy, file=file, line=line)

    if not isinstance(tokens, list) or not all(isinstance(t, str) and t for t in tokens):
        raise refuse("the tokens are not a list of texts, none of them empty", 'Tokens are ["Ada", "slept", "."]')
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:
        remedy = "Mend the escape (\\ud800 to \\udfff come in pairs)"
        raise refuse("a token holds half a surrogate pair, which is no text", remedy) from None
    if space_after is None:
        return tokens, [True] * len(tokens)
    if not isinstance(space_after, list) or not all(s in (0, 1) for s in space_after):
        raise refuse("space_after is not a list of 1 and 0 (or true and false)", "Give one for each token")
    if len(space_after) != len(tokens):
        raise refuse(f"{len(tokens)} tokens and {len(space_after)} values of space_after", "Give one for each token")
    return tokens, space_after
