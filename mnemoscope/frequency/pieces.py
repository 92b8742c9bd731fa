"""The database that counts within a bound of memory, and what it does: count a piece of a corpus, add pieces up.

A piece is a stretch of documents.  Its units (tokens, or words by their number in the piece's vocabulary) lie one
after another with the number of their document beside them; a row of n units is n columns, each shifted by one more::

    unit      5  7  5  9 | 7  5            pairs   5 7   7 5   5 9   (9 7 is across)   7 5
    document  0  0  0  0 | 1  1
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mnemoscope.errors import CountError
from mnemoscope.rundir import disk_errors

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_UNITS = npt.NDArray[np.uint32]

MB = 10**6
#: the interpreter with its libraries, and the tokenizer at work on a batch
_BASE = 300 * MB
LEAST_MEMORY = 512 * MB
#: bytes that the database asks for each thread
_A_THREAD = 200 * MB
#: bytes that a piece takes for a unit (parts and their whole, units and their documents), a document,
#: and a word unlike others
_A_UNIT, _A_DOCUMENT, _A_WORD = 24, 16, 250
#: bytes that the tokenizer takes for a character
_A_CHARACTER = 60
#: larger pieces gain nothing
_LARGEST_PIECE = 400 * MB


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound of memory, in bytes, shared out: to the process itself, a document, a piece, the database."""

    memory: int

    @property
    def _free(self) -> int:
        return self.memory - _BASE

    @property
    def database(self) -> int:
        """Bytes for the database; what does not fit it puts on the disk."""
        return self._free // 2

    @property
    def piece(self) -> int:
        """Bytes for a piece, all kinds together."""
        return min(_LARGEST_PIECE, self._free // 4)

    @property
    def document(self) -> int:
        """Characters of the longest document, which is tokenised as a whole."""
        return self._free // 4 // _A_CHARACTER


@dataclass(slots=True)
class Units:
    """The units of a piece, of one kind.  ``vocabulary`` is each word's number, for words; None for tokens."""

    kind: str
    vocabulary: dict[str, int] | None
    _arrays: list[_UNITS] = field(default_factory=list)
    _lengths: list[_UNITS] = field(default_factory=list)
    _size: int = 0
    _documents: int = 0

    def add(self, documents: Sequence[Sequence[int]]) -> None:
        """The units of each of some documents."""
        lengths = np.array([len(d) for d in documents], dtype=np.uint32)
        size = int(lengths.sum())
        self._arrays.append(np.fromiter(chain.from_iterable(documents), dtype=np.uint32, count=size))
        self._lengths.append(lengths)
        self._size, self._documents = self._size + size, self._documents + len(lengths)

    @property
    def bytes(self) -> int:
        """What the units take until they are counted."""
        return self._size * _A_UNIT + self._documents * _A_DOCUMENT + len(self.vocabulary or ()) * _A_WORD

    @property
    def lengths(self) -> _UNITS:
        """Units of each document."""
        return np.concatenate([np.empty(0, np.uint32), *self._lengths])

    @property
    def whole(self) -> _UNITS:
        """All units, one document after another."""
        return np.concatenate([np.empty(0, np.uint32), *self._arrays])

    def totals(self, ngrams: int) -> list[int]:
        """How many rows of 1, 2, ..., ``ngrams`` units there are, none of them across two documents."""
        lengths = self.lengths.astype(np.int64)
        return [int(np.maximum(0, lengths - n + 1).sum()) for n in range(1, ngrams + 1)]

    def clear(self) -> None:
        self._arrays.clear()
        self._lengths.clear()
        self._size = self._documents = 0
        if self.vocabulary is not None:
            self.vocabulary.clear()


class Database:
    """DuckDB in memory, with a bound and a folder to spill into."""

    def __init__(self, connection: DuckDBPyConnection, path: Path):
        self._connection, self._path = connection, path

    def count(self, units: Units, n: int, file: Path) -> None:
        """Counts the rows of ``n`` units of a piece into a Parquet file: unit columns or item, count, documents."""
        column, lengths = units.whole, units.lengths
        document = np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths)
        rows = max(0, len(column) - n + 1)
        last = min(n - 1, len(column))
        table = {f"u{i}": column[min(i, last) : min(i, last) + rows] for i in range(n)}
        table |= {"document": document[:rows], "last": document[last : last + rows]}
        us = _columns(n)
        query = (
            f"SELECT {us}, sum(c)::BIGINT AS count, count(*) AS documents FROM"
            f" (SELECT {us}, document, count(*) AS c FROM piece WHERE document = last GROUP BY ALL) GROUP BY {us}"
        )
        self._connection.register("piece", pa.table(table))
        if units.vocabulary is not None:
            words = list(units.vocabulary)
            self._connection.register(
                "vocabulary",
                pa.table({"number": np.arange(len(words), dtype=np.uint32), "word": pa.array(words, pa.string())}),
            )
            item = " || ' ' || ".join(f"v{i}.word" for i in range(n))
            joins = " ".join(f"JOIN vocabulary v{i} ON v{i}.number = u{i}" for i in range(n))
            query = f"SELECT {item} AS item, count, documents FROM ({query}) {joins}"
        with self._bounded():
            self._connection.execute(f"COPY ({query}) TO '{_quoted(file)}' (FORMAT parquet, COMPRESSION zstd)")
        self._connection.unregister("piece")

    def add_up(self, files: Sequence[Path], columns: str, least: int, rows: int) -> Iterator[pa.RecordBatch]:
        """The sums over pieces, most frequent first, then by ``columns``; only what occurs ``least`` times or more."""
        names = ", ".join(f"'{_quoted(f)}'" for f in files)
        query = (
            f"SELECT {columns}, sum(count)::BIGINT AS count, sum(documents)::BIGINT AS documents"
            f" FROM read_parquet([{names}]) GROUP BY {columns} HAVING sum(count) >= {least:d}"
            f" ORDER BY count DESC, {columns}"
        )
        with self._bounded():
            yield from self._connection.sql(query).to_arrow_reader(rows)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        import duckdb

        try:
            with disk_errors(self._path):
                yield
        except duckdb.OutOfMemoryException as error:
            if "max_temp_directory_size" in str(error):
                raise CountError(
                    "no space left on the disk for what does not fit into memory",
                    remedy="Free some and give the same command again",
                    file=self._path,
                ) from error
            raise CountError(
                f"the database cannot work within its share of the memory ({str(error).splitlines()[0]})",
                remedy="Give more --memory with the same command, which goes on from here",
            ) from error


@contextmanager
def database(budget: Budget, spill: Path) -> Iterator[Database]:
    """A database within its budget.

    Raises:
        CountError: DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise CountError(
            "corpora are counted by the library 'duckdb', which is not installed",
            remedy="Install it: pip install 'mnemoscope[count]'",
        ) from None
    settings: dict[str, Any] = {
        "memory_limit": f"{budget.database}B",
        "threads": max(1, min(os.cpu_count() or 1, budget.database // _A_THREAD)),
        "temp_directory": str(spill),
        "preserve_insertion_order": False,
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        connection.execute("SET enable_progress_bar = false")
        yield Database(connection, spill)


def _columns(n: int) -> str:
    return ", ".join(f"u{i}" for i in range(n))


def _quoted(path: Path) -> str:
    """For an SQL string.  Brackets and stars in names would be read as a pattern."""
    return str(path).replace("'", "''")
