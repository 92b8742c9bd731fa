"""Files of columns, a token a line and an empty line after each sentence: CoNLL, CoNLL-U (Plus), BIO and their kin.

A sentence is a record that lists the values of each column.  Columns of CoNLL-U have its names in small letters, those
of other files their number, counted from 1::

    -DOCSTART- -X- O
                              {"document": "test.bio:1",
    U.N.       NNP B-ORG       "1": ["U.N.", "voted"], "2": ["NNP", "VBD"], "3": ["B-ORG", "O"]}
    voted      VBD O

``document`` is the id that CoNLL-U gives after ``# newdoc id =``, else file and number of the ``-DOCSTART-`` or
``# newdoc`` before the sentence; a file without either has no such field.

CoNLL-U (https://universaldependencies.org/format.html) adds ``space_after`` (from ``SpaceAfter=No`` in MISC) and a
field for each comment ``# key = value``; ``meta::`` comments hold for the rest of their document.  Empty nodes (8.1)
are left out.  The words of a multiword token stand for themselves where they spell it (do + n't); where they do not
(du = de + le), the token stands for them and its values are theirs, joined by ``+``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from mnemoscope.errors import TextError
from mnemoscope.text import files

_CONLL_U = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_NO_SPACE, _DOCUMENT = "SpaceAfter=No", "-DOCSTART-"

Row = Sequence[str]


def read(path: Path, conll_u: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based line of its first token, record) of each sentence.

    Raises:
        TextError: lines of one sentence with different numbers of columns, or a bad multiword token.
    """
    return _conll_u(path) if conll_u else _plain(path)


def _plain(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    documents = 0
    for line, rows in _stretches(path, comments=False):
        if rows[0][0] == _DOCUMENT:
            documents += 1
            continue
        columns = {str(n): values for n, values in enumerate(_transposed(rows, path, line), start=1)}
        yield line, ({"document": f"{path.name}:{documents}"} if documents else {}) | columns


def _conll_u(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    names: Sequence[str] = _CONLL_U
    of_document: dict[str, str] = {}
    documents = 0
    for line, rows in _stretches(path, comments=True):
        comments = [row[0].lstrip("# ") for row in takewhile(lambda row: row[0].startswith("#"), rows)]
        keys = (c.partition("=") for c in comments if "=" in c)
        pairs = {key.strip(): value.strip() for key, _, value in keys}
        if "global.columns" in pairs:
            names = pairs.pop("global.columns").lower().split()
        if any(c.split("=")[0].strip() in ("newdoc", "newdoc id") for c in comments):
            documents += 1
            of_document = {"document": pairs.get("newdoc id", f"{path.name}:{documents}")}
            of_document |= {key: value for key, value in pairs.items() if key.startswith("meta::")}
        line, rows = line + len(comments), rows[len(comments) :]
        if rows:
            columns = _transposed(_surface(rows, names, path, line), path, line, len(names))
            fields: dict[str, Any] = dict(zip(names, columns, strict=True))
            if "misc" in fields:
                fields["space_after"] = [_NO_SPACE not in misc.split("|") for misc in fields["misc"]]
            yield line, of_document | pairs | fields


def _stretches(path: Path, comments: bool) -> Iterator[tuple[int, list[Row]]]:
    """(line, rows) of each stretch of lines that are not empty; a ``-DOCSTART-`` is one by itself."""
    start, rows = 0, list[Row]()
    for line, content in files.lines(path):
        content = content.rstrip("\r\n")
        begins = content.startswith(_DOCUMENT) and not comments
        if rows and (begins or not content.strip(" \t")):
            yield start, rows
            rows = []
        if begins:
            yield line, [[_DOCUMENT]]
        elif content.strip(" \t"):
            start = start if rows else line
            rows.append(_cells(content, comments))
    if rows:
        yield start, rows


def _cells(content: str, comments: bool) -> Row:
    if comments and content.startswith("#"):
        return [content]
    return content.split("\t") if comments or "\t" in content else [cell for cell in content.split(" ") if cell]


def _transposed(rows: Sequence[Row], path: Path, line: int, width: int | None = None) -> list[list[str]]:
    width = width or len(rows[0])
    for number, row in enumerate(rows):
        if len(row) != width:
            raise TextError(
                f"{len(row)} columns, where the sentence has {width}",
                remedy="Separate columns by tabs (or, where no line has one, by spaces), sentences by an empty line",
                file=path,
                line=line + number,
            )
    return [list(column) for column in zip(*rows, strict=True)]


def _surface(rows: Sequence[Row], names: Sequence[str], path: Path, line: int) -> list[Row]:
    """The rows of the tokens that the text shows: multiword tokens resolved, empty nodes left out."""
    if "id" not in names or "form" not in names:
        raise TextError("no columns ID and FORM", remedy="Name them in # global.columns", file=path, line=line)
    _transposed(rows, path, line, len(names))
    key = names.index("id")
    shown: list[Row] = []
    number = 0
    while number < len(rows):
        row = rows[number]
        number += 1
        first, dash, last = row[key].partition("-")
        if not dash:
            shown += [] if "." in first else [row]
            continue
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            problem, remedy = f"the id {row[key]!r} is no range", "The id of a multiword token is 1-2"
            raise TextError(problem, remedy=remedy, file=path, line=line + number - 1)
        words = [r for r in rows[number : number + 1 + int(last) - int(first)] if "." not in r[key]]
        number += len(words)
        shown += _multiword(row, words, names)
    return shown


def _multiword(whole: Row, words: Sequence[Row], names: Sequence[str]) -> list[list[str]]:
    """A multiword token as its words, if they spell it; else as one."""
    form, misc = names.index("form"), names.index("misc") if "misc" in names else None
    if "".join(word[form] for word in words) == whole[form]:
        made = [list(word) for word in words]
    else:
        made = [["+".join(cells) for cells in zip(*words, strict=True)] or list(whole)]
        made[0][form] = whole[form]
    if misc is not None:
        for word in made:
            word[misc] = _NO_SPACE
        made[-1][misc] = whole[misc]
    return made
