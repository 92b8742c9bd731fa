"""What a stretch of code is, by Pygments: keyword, identifier, number, string, operator, comment, punctuation, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import find_lexer_class_for_filename, get_lexer_by_name
from pygments.token import Token, _TokenType
from pygments.util import ClassNotFound

from mnemoscope.annotate import Annotator, Span, field_of
from mnemoscope.errors import ConfigError
from mnemoscope.types import Document

#: Pygments' types, the most special first; what is of none of them (white space, mostly) has no label
_CLASSES = (
    (Token.Comment.Preproc, "directive"),
    (Token.Comment.PreprocFile, "directive"),
    (Token.Comment, "comment"),
    (Token.Keyword, "keyword"),
    (Token.Operator.Word, "keyword"),
    (Token.Operator, "operator"),
    (Token.Punctuation, "punctuation"),
    (Token.Literal.Number, "number"),
    (Token.Literal, "string"),
    (Token.Name, "identifier"),
    (Token.Error, "error"),
)
_FIELD = "field:"


class Code(Annotator):
    """The language is ``argument``, a name that Pygments knows (``python``); or ``field:lang`` says which field of a
    record holds such a name or the name of a file (``src/main.rs``).  A document whose field Pygments does not know has
    no spans: it is no code.

    Raises:
        ConfigError: Pygments knows no such language.
    """

    wants = "a language (python), or the field that holds it or a file's name (field:path)"

    def __init__(self, argument: str):
        super().__init__(argument)
        self._field = argument.removeprefix(_FIELD) if argument.startswith(_FIELD) else None
        self._lexer = None if self._field is not None else _lexer(argument)
        if self._field is not None:
            self.fields = (self._field,)
        elif self._lexer is None:
            raise ConfigError(
                f"Pygments knows no language {argument!r}",
                remedy="See https://pygments.org/languages, or write field:NAME for a field of the records",
            )

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        """Raises: TextError: the record has no such field."""
        lexer = self._lexer
        if self._field is not None:
            lexer = _lexer(str(field_of(document, record, self._field)))
        if lexer is None:
            return
        # tokens of one class that touch are one span: a string and its quotes
        start, end, label = 0, 0, None
        for at, kind, piece in lexer.get_tokens_unprocessed(document.text):
            core = piece.strip()
            here = _class(kind) if core else None
            at += len(piece) - len(piece.lstrip())
            if here == label and at == end:
                end = at + len(core)
                continue
            if label is not None:
                yield Span(document.doc_id, start, end, label)
            start, end, label = at, at + len(core), here
        if label is not None:
            yield Span(document.doc_id, start, end, label)


@cache
def _lexer(name: str) -> Lexer | None:
    try:
        return get_lexer_by_name(name)
    except ClassNotFound:
        found = find_lexer_class_for_filename(name)
        return None if found is None else found()


@cache
def _class(kind: _TokenType) -> str | None:
    return next((label for special, label in _CLASSES if kind in special), None)


ANNOTATION = Code
