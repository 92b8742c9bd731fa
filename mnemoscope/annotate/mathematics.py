r"""Mathematics, in LaTeX and in plain text: number, variable, operator, command, delimiter.

::

    so $\alpha x^2 \le 3$ holds         \alpha, \le command   x variable   ^ operator   2, 3 number   $ delimiter
    He has 3 + 4 = 7 apples             3, 4, 7 number        + = operator
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import regex

from mnemoscope.annotate import Annotator, Span
from mnemoscope.types import Document

_DISPLAYS = "equation|align|alignat|gather|multline|eqnarray|displaymath|math|flalign|split|array|cases|CD"
#: a formula, after https://pandoc.org/MANUAL.html#math (so "$2 or $3" is none); it does not run over an empty line
_FORMULA = regex.compile(
    r"(?<!\\)(?:\$\$(?:(?!\n\s*\n).)+?\$\$"
    r"|\$(?![\s$])(?:\\.|(?!\n\s*\n)[^$\\])+?(?<!\s)\$(?!\d)"
    r"|\\\((?:(?!\n\s*\n).)+?\\\)|\\\[(?:(?!\n\s*\n).)+?\\\]"
    rf"|\\begin\{{({_DISPLAYS})\*?\}}(?:(?!\n\s*\n).)+?\\end\{{\1\*?\}})",
    regex.DOTALL,
)
_COMMAND = r"\\(?:[A-Za-z]+\*?|[^\sA-Za-z()\[\]{}|])"
_NUMBER = r"\d+(?:[.,]\d+)*"
_INSIDE = regex.compile(
    # what these take in braces is a name or prose
    r"(?P<command>\\(?:text\w*|mbox|hbox|label|ref|eqref|cite\w*|tag|operatorname|begin|end)\*?)(?:\s*\{[^{}]*\})?"
    rf"|(?P<delimiter>\\[()\[\]{{}}|]|[()\[\]{{}}|&,;]|\$\$?)"
    rf"|(?P<command>{_COMMAND})|(?P<number>{_NUMBER})|(?P<variable>\p{{L}}\p{{M}}*)"
    r"|(?P<operator>[-*/^_!:'%]|\p{Sm})"
)
_OUTSIDE = regex.compile(
    rf"(?P<command>\\[A-Za-z]+\*?)|(?P<number>(?<![\p{{L}}\p{{M}}\d]){_NUMBER}(?![\p{{L}}\p{{M}}\d]))"
    r"|(?P<operator>(?![|~])\p{Sm}|(?<=[\d)] ?)[-*/^](?= ?[\d(]))"
)


class Mathematics(Annotator):
    r"""In a formula (``$...$``, ``$$...$$``, ``\(...\)``, ``\[...\]``, LaTeX's displays) everything but white space and
    the prose in ``\text{...}`` and its kin: every letter is a variable.  Outside: LaTeX commands, numbers, and signs of
    operations (``-``, ``*``, ``/`` and ``^`` between numbers alone).  Unicode's signs (category Sm) are operators.

    Variables outside formulas have no label: in plain text nothing tells them from words.
    """

    wants = ""

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        text, at = document.text, 0
        for formula in _FORMULA.finditer(text):
            yield from _labelled(_OUTSIDE, document, at, formula.start())
            yield from _labelled(_INSIDE, document, formula.start(), formula.end())
            at = formula.end()
        yield from _labelled(_OUTSIDE, document, at, len(text))


def _labelled(pattern: regex.Pattern[str], document: Document, start: int, end: int) -> Iterator[Span]:
    for found in pattern.finditer(document.text, start, end):
        label = str(found.lastgroup)
        yield Span(document.doc_id, found.start(label), found.end(label), label)


ANNOTATION = Mathematics
