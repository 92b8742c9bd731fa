"""Labels of text: spans of characters of a document, projected to tokens through character offsets only.

    corpus record, text, or a user's file -> spans -> annotations/<name>.parquet -> a label per token of tokens.parquet

A file here exposes ``ANNOTATION``, a class of :class:`Annotator`; what it is made with is one string, say a path.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from mnemoscope import schema
from mnemoscope.errors import ConfigError, TextError
from mnemoscope.score.records import replacing
from mnemoscope.types import Document

#: white space of one byte: itself, as byte-level alphabets spell it (tab, \n, \v, \f, \r, space), and SentencePiece's
_SPACE = " \t\n\r\v\f" + "ĉĊċČčĠ" + "▁"
#: spans that become columns together: Python's tuples take ten times the room
_PART = 1 << 18


class Span(NamedTuple):
    """``label`` for the characters (code points) ``char_start`` to ``char_end``, exclusive, of a document's text.

    Attributes:
        window_id: the one window that the label is about, where it depends on the window (whether a word was read
            before, say); None: it holds in the document, whatever windows it is cut into.
    """

    doc_id: str
    char_start: int
    char_end: int
    label: str
    window_id: str | None = None


class Annotator(ABC):
    """Finds the spans of a document.

    Attributes:
        wants: what the argument is, for messages; empty where there is none.
        reads: whether it is made with a :class:`mnemoscope.annotate._reader.Reader` too, as ``reader``: the study's
            tokenizer, windows and model.
        fields: the fields of a record that it looks at.

    Raises:
        ConfigError: an argument where none is wanted, or none where one is.
    """

    wants: ClassVar[str]
    reads: ClassVar[bool] = False
    fields: tuple[str, ...] = ()

    def __init__(self, argument: str):
        name = type(self).__module__.rpartition(".")[2]
        if self.wants and not argument:
            raise ConfigError(f"an annotation of kind {name!r} needs an argument", remedy=f"Give {self.wants}")
        if argument and not self.wants:
            raise ConfigError(
                f"an annotation of kind {name!r} is made with nothing, and the argument is {argument!r}",
                remedy="Leave the argument out",
            )

    @classmethod
    def path_in(cls, argument: str) -> str:
        """The end of an argument that is the path of a file; empty where annotations of the kind take none."""
        return ""

    @abstractmethod
    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterable[Span]:
        """The spans of ``document``, which came from ``record`` of a corpus.

        Args:
            record: in a corpus of tokens, each field holds a list of the values in the document's records.
        """

    def strangers(self, known: Set[str]) -> Sequence[str]:
        """Documents that it has spans of and that are not among the ``known``, all ids of the study's texts."""
        return ()


def field_of(document: Document, record: Mapping[str, Any], field: str) -> Any:
    """What a field of the document's record holds.

    Raises:
        TextError: the record has no such field.
    """
    if field not in record:
        raise TextError(
            f"document {document.doc_id!r} has no field {field!r}",
            remedy=f"Name one of the fields there: {', '.join(record)}",
            file=document.where or None,
        )
    return record[field]


def collect(
    annotator: Annotator,
    documents: Iterable[tuple[Document, Mapping[str, Any]]],
    labels: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """The spans of the documents, columns as in ``schema.SPANS``, in the annotator's order.

    Args:
        documents: each with its corpus record.
        labels: what labels are to be called instead; spans whose label becomes empty are left out.

    Raises:
        TextError: a span outside its document; or no span at all, where what the annotator was told decides them: a
            text may well hold nothing that a rule finds.
    """
    parts: list[pl.DataFrame] = []
    found: list[Span] = []
    for document, record in documents:
        for span in annotator.spans(document, record):
            if not 0 <= span.char_start < span.char_end <= len(document.text):
                raise _outside(span.doc_id, span.char_start, span.char_end, len(document.text), document.where)
            found.append(span)
        if len(found) >= _PART:
            parts.append(table(found))
            found = []
    spans = pl.concat([*parts, table(found)])
    if labels:
        spans = spans.with_columns(pl.col("label").replace(dict(labels))).filter(pl.col("label") != "")
    if spans.is_empty() and (annotator.wants or labels):
        raise TextError(
            "no document has a span of this annotation", remedy="Check that its document ids are the corpus's"
        )
    return spans


def table(spans: Iterable[Span]) -> pl.DataFrame:
    """The spans as a table by ``schema.SPANS``, order kept."""
    types = dict(zip(Span._fields, (pl.String, pl.Int32, pl.Int32, pl.String, pl.String), strict=True))
    columns = list(zip(*spans, strict=True)) or [()] * len(types)
    return pl.DataFrame(dict(zip(types, columns, strict=True)), schema=types)


def key(spans: pl.DataFrame) -> Literal["window_id", "doc_id"]:
    """What a table of spans is about: windows, each for itself, or documents."""
    of_windows = "window_id" in spans.columns and spans["window_id"].is_not_null().any()
    return "window_id" if of_windows else "doc_id"


def write(spans: pl.DataFrame, folder: Path, name: str) -> Path:
    """Writes ``annotations/<name>.parquet`` in the run folder ``folder``, atomically, and returns its path.

    Raises:
        TextError: the name is no plain file name.
        RunError: it cannot be written.
    """
    if not name or name.startswith(".") or os.path.basename(name) != name:
        raise TextError(f"an annotation cannot be named {name!r}", remedy="Use letters, digits, - and _")
    path = folder / "annotations" / f"{name}.parquet"
    with replacing(path) as part:
        path.parent.mkdir(exist_ok=True)
        pq.write_table(spans.to_arrow().cast(schema.arrow("annotations")), part, compression="zstd")
    return path


def project(spans: pl.DataFrame, tokens: pl.DataFrame, characters: Mapping[str, int] | None = None) -> pl.Series:
    """The label of each token: that of the span with which it shares most characters, its leading white space put
    aside; of several such spans, the one that starts first, then the one listed first.

    ::

        characters   A d a   L o v e l a c e   s l e p t
        tokens       |A d a|  L o v e|l a c e|  s l e p t|
        span         |------ PERSON ---------|
        label         PERSON  PERSON  PERSON     null

    A token of white space only keeps it.  Distance does not matter: a token that no span touches has no label.

    Spans about windows label the tokens of their own window alone.

    Args:
        spans: columns as in ``schema.SPANS``; spans may overlap, and those of other documents are ignored.
        tokens: any rows of tokens.parquet: ``char_start, char_end, token``, and the column that :func:`key` names.
        characters: document -> length of its text, where it is at hand; spans beyond it are refused.

    Returns:
        String [rows of tokens], named ``label``; null where no span touches the token.

    Raises:
        TextError: a span that is empty, or outside its document.
    """
    _refuse_outside(spans, characters)
    place = key(spans)
    spans = spans.sort(place, "char_start", maintain_order=True)
    places = pl.Enum(spans[place].drop_nulls().unique().sort())
    # one axis for all documents (or windows): its number * stride + character
    stride = 1 + max(int(f["char_end"].to_numpy().max(initial=0)) for f in (spans, tokens))

    number = tokens[place].cast(places, strict=False).to_physical().cast(pl.Int64)
    rows = np.flatnonzero(number.is_not_null().to_numpy())
    base = number.drop_nulls().to_numpy() * stride
    start, end = _core(tokens.select("char_start", "char_end", "token")[rows])
    order = np.argsort(base + start, kind="stable")
    rows, start, end = rows[order], (base + start)[order], (base + end)[order]

    base = spans[place].cast(places).to_physical().cast(pl.Int64).to_numpy() * stride
    span_start, span_end = base + spans["char_start"].to_numpy(), base + spans["char_end"].to_numpy()
    # tokens hardly overlap each other, so those that a span touches are (almost exactly) a range of them
    first = np.searchsorted(np.maximum.accumulate(end), span_start, side="right")
    count = np.maximum(np.searchsorted(start, span_end, side="left") - first, 0)
    span = np.repeat(np.arange(len(count)), count)
    token = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)

    overlap = np.minimum(end[token], span_end[span]) - np.maximum(start[token], span_start[span])
    touching = np.flatnonzero(overlap > 0)
    span, token, overlap = span[touching], token[touching], overlap[touching]
    best = np.lexsort((span, -overlap, token))
    token, winner = np.unique(token[best], return_index=True)

    chosen = np.full(tokens.height, -1, np.int64)
    chosen[rows[token]] = span[best][winner]
    index = pl.Series(chosen).replace(-1, None)
    return spans["label"].gather(index).alias("label")


def leading_space() -> pl.Expr:
    """Characters of white space that the column ``token`` begins with, as a tokenizer spells them."""
    spelled = pl.col("token").cast(pl.String)
    return spelled.str.len_chars() - spelled.str.strip_chars_start(_SPACE).str.len_chars()


def _core(tokens: pl.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each token's characters without its leading white space, of which each character is one byte."""
    leading = leading_space()
    start, end = pl.col("char_start").cast(pl.Int64), pl.col("char_end").cast(pl.Int64)
    core = tokens.select(
        start=pl.when(start + leading < end).then(start + leading).otherwise(start),
        end=end,
    )
    return core["start"].to_numpy(), core["end"].to_numpy()


def _refuse_outside(spans: pl.DataFrame, characters: Mapping[str, int] | None) -> None:
    start, end = pl.col("char_start"), pl.col("char_end")
    bad = (start < 0) | (end <= start)
    if characters is not None:
        length = pl.col("doc_id").replace_strict(dict(characters), default=None, return_dtype=pl.Int64)
        bad |= (end > length).fill_null(False)
    for doc_id, first, last in spans.filter(bad).select("doc_id", "char_start", "char_end").head(1).rows():
        raise _outside(doc_id, first, last, (characters or {}).get(doc_id))


def _outside(doc_id: str, start: int, end: int, length: int | None, where: str = "") -> TextError:
    of = "" if length is None else f", whose text has {length} characters"
    return TextError(
        f"the span {start} to {end} does not lie in document {doc_id!r}{of}",
        remedy="Offsets count characters from 0, the end is exclusive, and the text must be the corpus's",
        file=where or None,
    )
