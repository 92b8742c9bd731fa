"""What a word is, where words are counted.

A run of letters, combining marks and digits of any script, and what an apostrophe joins to it::

    Don't pay 3.50 to O'Brien-Smith       Don't | pay | 3 | 50 | to | O'Brien | Smith

Case and accents are kept as written, and nothing is normalised.  Scripts that put no space between words (Chinese,
Japanese, Thai) give whole runs: that would take a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

#: a word: findall gives a text's words, finditer their spans in code points; none holds a space
WORD = regex.compile(r"[\p{L}\p{M}\p{N}]++(?:['’][\p{L}\p{M}\p{N}]++)*+")


def words(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, word) of each word of a text, in order; offsets in code points, the end exclusive."""
    for found in WORD.finditer(text):
        yield found.start(), found.end(), found[0]
