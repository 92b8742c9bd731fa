"""Corpora in, documents out, one at a time; text is kept exactly as given.

A record is a line of JSON, a row of a Parquet file or of a data set, a sentence of a file of columns, or a whole
plain-text file.  A document is a record, or, in a corpus of tokens, all successive records of one ``doc_id``, or so
many of them.  A field ``a.b`` is field b of the object in field a, unless a record has a field of that very name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count as naturals
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from mnemoscope.config import Corpus
from mnemoscope.errors import TextError
from mnemoscope.text import columns, files, sentences
from mnemoscope.types import Document

_ROWS = 1024
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Input:
    """What a run read from one file (or one split of a data set); goes into its manifest.

    Attributes:
        name: the file, or the data set with its configuration and split.
        documents: records in it; ``empty`` of them hold no text at all, and so no window.
        file_bytes: size of the file as it lies on disk; 0 for a data set.
        text_bytes: bytes of the documents' text in UTF-8.
        sha256: of the file's bytes; of ids and texts for a data set.
    """

    name: str
    documents: int
    empty: int
    file_bytes: int
    text_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Origin:
    """One file, or one split of a data set (``path`` is None).  ``name`` starts the ids of nameless documents."""

    corpus: Corpus
    name: str
    path: Path | None
    extra: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return str(self.path or self.name)


def read(corpora: Sequence[Corpus]) -> Iterator[Document]:
    """The documents of all corpora, in order, one at a time.

    Raises:
        TextError: a corpus that cannot be read, or two documents of one id; with file, line (or row) and remedy.
    """
    return (document for _, document in read_with_corpus(corpora))


def read_with_corpus(corpora: Sequence[Corpus]) -> Iterator[tuple[Corpus, Document]]:
    """As :func:`read`, each document with the corpus it came from."""
    for origin, documents in _origins(corpora):
        for document in documents:
            yield origin.corpus, document


def read_with_record(corpora: Sequence[Corpus], fields: Sequence[str]) -> Iterator[tuple[Document, dict[str, Any]]]:
    """As :func:`read`, each document with its record; in a corpus of tokens each field holds a list of the values in
    the document's records.

    Args:
        fields: what is wanted of a record besides what the corpus names; of Parquet only these columns are read.
    """
    for corpus in corpora:
        for origin in _files(corpus, tuple(fields)):
            for _, document, record in _documents(origin):
                yield document, record


def check(corpora: Sequence[Corpus], progress: Callable[[int, int], None] | None = None) -> list[Input]:
    """Reads everything once, before any long work starts, so that nothing can fail to be read in its midst.

    Args:
        progress: called after each file with the bytes of the files read so far, and of all.

    Raises:
        TextError: as :func:`read`.
    """
    pairs = list(_origins(corpora))
    sizes = [0 if origin.path is None else origin.path.stat().st_size for origin, _ in pairs]
    inputs = []
    for number, (origin, documents) in enumerate(pairs):
        inputs.append(_check(origin, documents, sizes[number]))
        if progress is not None:
            progress(sum(sizes[: number + 1]), sum(sizes))
    return inputs


def _check(origin: _Origin, documents: Iterable[Document], size: int) -> Input:
    count = empty = text_bytes = 0
    content = hashlib.sha256()
    for document in documents:
        text = document.text.encode()
        count, empty, text_bytes = count + 1, empty + (not text), text_bytes + len(text)
        if origin.path is None:
            content.update(json.dumps([document.doc_id, document.text]).encode())
    return Input(
        name=origin.where,
        documents=count,
        empty=empty,
        file_bytes=size,
        text_bytes=text_bytes,
        sha256=content.hexdigest() if origin.path is None else sha256(origin.path),
    )


def digest(corpora: Sequence[Corpus]) -> str:
    """SHA-256 of the corpora's content, options and order, wherever their files lie."""
    content = hashlib.sha256()
    for origin, documents in _origins(corpora):
        options = origin.corpus.model_dump(mode="json", exclude={"path"})
        sha = _check(origin, documents, 0).sha256 if origin.path is None else sha256(origin.path)
        content.update(json.dumps([origin.name, options, sha], sort_keys=True).encode())
    return content.hexdigest()


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _origins(corpora: Sequence[Corpus]) -> Iterator[tuple[_Origin, Iterator[Document]]]:
    """Every file of every corpus with its documents; ids are unique over all of them."""
    seen: dict[str, str] = {}
    for corpus in corpora:
        for origin in _files(corpus):
            yield origin, _unique(origin, seen)


def _files(corpus: Corpus, extra: tuple[str, ...] = ()) -> list[_Origin]:
    if corpus.path is not None:
        return [_Origin(corpus, name, path, extra) for path, name in files.find(corpus.path)]
    parts = (corpus.dataset, corpus.dataset_config, corpus.split)
    return [_Origin(corpus, "/".join(p for p in parts if p), None, extra)]


def _unique(origin: _Origin, seen: dict[str, str]) -> Iterator[Document]:
    line = 0
    for line, document, _ in _documents(origin):
        if document.doc_id in seen:
            raise TextError(
                f"document id {document.doc_id!r} was already given at {seen[document.doc_id]}",
                remedy="Name a field of unique ids (doc_id in the corpus), or give the text once",
                file=origin.where,
                line=line,
            )
        seen[document.doc_id] = document.where
        yield document
    if line == 0:
        problem = f"no record with {origin.corpus.where} in it" if origin.corpus.where else "no record in it"
        raise TextError(problem, remedy="Put text into it or leave it out", file=origin.where)


def _documents(origin: _Origin) -> Iterator[tuple[int, Document, dict[str, Any]]]:
    """(line of its first record, document, record)."""
    corpus = origin.corpus
    if corpus.tokens is None:
        for line, record in _chosen(origin):
            yield line, _document(origin, line, record), record
        return
    for _, pairs in groupby(_chosen(origin), _document_key(corpus)):
        lines, records = zip(*pairs, strict=True)
        document = _joined(origin, lines, records)
        yield lines[0], document, {name: [r.get(name) for r in records] for name in records[0]}


def _document_key(corpus: Corpus) -> Callable[[tuple[int, dict[str, Any]]], Any]:
    """What successive (line, record) of one document have in common."""
    if corpus.doc_id is not None:
        field = corpus.doc_id
        return lambda pair: repr(_get(pair[1], field))
    number, each = naturals(), corpus.records_per_document or 1
    return lambda _: next(number) // each


def _joined(origin: _Origin, lines: Sequence[int], records: Sequence[dict[str, Any]]) -> Document:
    """The document whose sentences are ``records``."""
    of_each = [_document(origin, line, record) for line, record in zip(lines, records, strict=True)]
    for line, other in zip(lines, of_each, strict=True):
        for name in ("domain", "source", "dialect"):
            if getattr(other, name) != getattr(of_each[0], name):
                raise TextError(
                    f"the {name} of document {other.doc_id!r} is {getattr(of_each[0], name)!r} in its first record and "
                    f"{getattr(other, name)!r} here",
                    remedy="Give a document one, or name a field that is the same in all its records",
                    file=origin.where,
                    line=line,
                )
    corpus = origin.corpus
    assert corpus.tokens is not None
    parts = []
    for line, record in zip(lines, records, strict=True):
        for option, field in (("tokens", corpus.tokens), ("space_after", corpus.space_after)):
            if field is not None and field not in record:
                raise _no_field(origin, line, option, field, record)
        part = sentences.sentence(record, corpus.tokens, corpus.space_after, file=origin.where, line=line)
        parts.append(part)
    text, places = sentences.join(parts)
    return replace(of_each[0], text=text, tokens=places)


def _chosen(origin: _Origin) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records that the corpus's ``where`` admits, the ``first`` of them; no further record is read."""
    return islice(_admitted(origin), origin.corpus.first)


def _admitted(origin: _Origin) -> Iterator[tuple[int, dict[str, Any]]]:
    where = origin.corpus.where
    for line, record in _records(origin):
        for field in where:
            if _get(record, field) is _MISSING:
                raise _no_field(origin, line, "where", field, record)
        if all(str(_get(record, field)) == value for field, value in where.items()):
            yield line, record


def _get(record: Mapping[str, Any], field: str) -> Any:
    """The value of a field, or ``_MISSING``."""
    if field in record:
        return record[field]
    outer, _, inner = field.partition(".")
    within = record.get(outer) if inner else None
    return _get(within, inner) if isinstance(within, Mapping) else _MISSING


def _records(origin: _Origin) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based line or row, record)."""
    if origin.path is None:
        return _dataset(origin)
    kind = files.suffix(origin.path)
    if kind in files.JSON_LINES:
        return _json_lines(origin.path)
    if kind in files.COLUMNS:
        return columns.read(origin.path, conll_u=kind in files.CONLL_U)
    return _parquet(origin) if kind in files.PARQUET else _plain_text(origin)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in files.lines(path):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TextError(
                f"not JSON: {error}", remedy="Each line must hold one whole JSON object", file=path, line=line
            ) from None
        if not isinstance(record, dict):
            raise TextError(
                f"the record is {_kind(record)}, not an object",
                remedy='Each line must hold one JSON object, such as {"text": "..."}',
                file=path,
                line=line,
            )
        yield line, record


def _plain_text(origin: _Origin) -> Iterator[tuple[int, dict[str, Any]]]:
    assert origin.path is not None
    named = {option: field for option, field in _fields(origin.corpus).items() if option != "text"}
    if named:
        raise TextError(
            f"plain text has no fields, yet the corpus names {', '.join(f'{k} = {v!r}' for k, v in named.items())}",
            remedy="Leave them out (there are domain_name and dialect_name), or give JSON lines",
            file=origin.path,
        )
    yield 1, {origin.corpus.text: "".join(content for _, content in files.lines(origin.path))}


def _parquet(origin: _Origin) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert origin.path is not None
    fields = _fields(origin.corpus)
    row = 0
    try:
        with pq.ParquetFile(origin.path) as file:
            columns = file.schema_arrow.names
            wanted = {*fields.values(), *origin.corpus.where, *origin.extra}
            wanted |= {field.partition(".")[0] for field in wanted}
            for option, field in fields.items():
                if not {field, field.partition(".")[0]} & {*columns}:
                    raise _no_field(origin, None, option, field, columns)
            for batch in file.iter_batches(batch_size=_ROWS, columns=[c for c in columns if c in wanted]):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = f"unreadable as Parquet ({str(error).splitlines()[0]})"
        raise TextError(problem, remedy="Write the file again", file=origin.path, line=row + 1) from None


def _dataset(origin: _Origin) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise TextError(
            "data sets are read by the library 'datasets', which is not installed",
            remedy="Install it: pip install 'mnemoscope[hub]'",
            file=origin.name,
        ) from None
    corpus = origin.corpus
    row = 0
    try:
        chosen = {"data_files": {corpus.split: corpus.dataset_files}} if corpus.dataset_files else {}
        rows = load_dataset(corpus.dataset, corpus.dataset_config, split=corpus.split, streaming=True, **chosen)
        classes = _classes(rows.features or {})
        for row, record in enumerate(rows, start=1):
            yield row, dict(record) | {f: _named(record[f], names) for f, names in classes.items()}
    except Exception as error:  # the library and its readers raise whatever theirs do
        raise TextError(
            f"the data set cannot be read ({type(error).__name__}: {error})",
            remedy="Check its name, configuration and split, and the network",
            file=origin.name,
            line=row + 1 if row else None,
        ) from error


def _classes(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Field -> names of its classes, for the fields that hold numbers of classes, or lists of such."""
    inner = {field: getattr(feature, "feature", feature) for field, feature in features.items()}
    return {field: list(feature.names) for field, feature in inner.items() if hasattr(feature, "names")}


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(v, names) for v in value]
    return names[value] if isinstance(value, int) and value >= 0 else None


def _fields(corpus: Corpus) -> dict[str, str]:
    """Option of the corpus -> field of a record, for the options given."""
    given = ("text",) if corpus.tokens is None else ("tokens", "space_after")
    options = (*given, "doc_id", "domain", "source", "dialect", "pair")
    return {option: getattr(corpus, option) for option in options if getattr(corpus, option) is not None}


def _document(origin: _Origin, line: int, record: dict[str, Any]) -> Document:
    """The document that a record is; without text where the corpus gives tokens."""
    strings = {o: f for o, f in _fields(origin.corpus).items() if o not in ("tokens", "space_after")}
    values = {option: _value(origin, line, record, option, field) for option, field in strings.items()}
    corpus = origin.corpus
    dialect = values.get("dialect", corpus.dialect_name or "")
    named = f"{values['pair']}/{dialect}" if "pair" in values else f"{origin.name}:{line}"
    doc_id = values.get("doc_id", named)
    return Document(
        doc_id=f"{doc_id}/{corpus.control}" if corpus.control else doc_id,
        text=values.get("text", ""),
        domain=values.get("domain", corpus.domain_name or ""),
        source=values.get("source", origin.name if origin.path is None else origin.path.name),
        dialect=dialect,
        where=f"{origin.where}:{line}",
        control=corpus.control or "",
    )


def _value(origin: _Origin, line: int, record: dict[str, Any], option: str, field: str) -> str:
    value = _get(record, field)
    if value is _MISSING:
        raise _no_field(origin, line, option, field, record)
    if option in ("doc_id", "pair") and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise TextError(
            f"field {field!r} (the corpus's {option}) is {_kind(value)}, not a string",
            remedy="Give a string, or name another field",
            file=origin.where,
            line=line,
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"field {field!r} holds half a surrogate pair at character {error.start}, which is no text",
            remedy="Mend the escape (\\ud800 to \\udfff come in pairs)",
            file=origin.where,
            line=line,
        ) from None
    return value


def _no_field(origin: _Origin, line: int | None, option: str, field: str, there: Iterable[str]) -> TextError:
    return TextError(
        f"no field {field!r} (the corpus's {option})",
        remedy=f"Name one of the fields there: {', '.join(there) or 'none'}",
        file=origin.where,
        line=line,
    )


def _kind(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"
