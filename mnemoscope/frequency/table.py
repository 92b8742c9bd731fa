"""Counts read back: how often given tokens, words or n-grams occur in the corpus that was counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mnemoscope.errors import CountError
from mnemoscope.frequency.metadata import read

Item = str | int | Sequence[int]


@dataclass(frozen=True, slots=True)
class Frequencies:
    """The counts of one kind and n.  Nothing is read before it is asked for, so ask for many at once.

    Attributes:
        file: the file that ``mnemoscope count`` wrote.
        kind: token or word.
        n: how many of them make an item.
        total: occurrences of all items in the corpus, those left out of the file among them.
        least: items that occur less often than this are not in the file.
        tokenizer: SHA-256 of the tokenizer.json counted with; None for words.
    """

    file: Path
    kind: str
    n: int
    total: int
    least: int
    tokenizer: str | None

    @classmethod
    def load(cls, file: str | Path, kind: str, n: int = 1) -> Frequencies:
        """The counts of ``kind`` (token or word) and ``n`` in a file.

        Raises:
            CountError: no file of counts, or it holds none of these.
        """
        facts = read(Path(file))
        totals = facts["totals"].get(kind, [])
        if not 1 <= n <= len(totals):
            there = ", ".join(f"{k} 1 to {len(t)}" for k, t in facts["totals"].items())
            raise CountError(
                f"no counts of {kind} {n}-grams", remedy=f"There are: {there}; others take another count", file=file
            )
        digest = facts["tokenizer"] if kind == "token" else None
        return cls(Path(file), kind, n, totals[n - 1], facts["request"]["least"], digest)

    def count(self, items: Sequence[Item]) -> npt.NDArray[np.float64]:
        """Occurrences of each item, float64 [items].

        An item that does not occur counts 0; NaN means that the file does not tell, since it leaves out rare items.

        Args:
            items: of words the strings as written (a row's joined by a space); of tokens the ids, for n = 1 bare.

        Raises:
            CountError: an item that is none of this kind and n, or a damaged file.
        """
        return self._column("count", items)

    def documents(self, items: Sequence[Item]) -> npt.NDArray[np.float64]:
        """Documents that each item occurs in, float64 [items]; 0 and NaN as in :meth:`count`."""
        return self._column("documents", items)

    def per_million(self, items: Sequence[Item]) -> npt.NDArray[np.float64]:
        """Occurrences for each million items of the corpus, float64 [items]; NaN also where the corpus has none."""
        return self.count(items) * (1e6 / self.total if self.total else np.nan)

    def _column(self, column: str, items: Sequence[Item]) -> npt.NDArray[np.float64]:
        keys = self._keys(items)
        rows = pl.scan_parquet(self.file, glob=False).filter(pl.col("kind") == self.kind, pl.col("n") == self.n)
        columns = [pl.col("item").alias("key0")]
        if self.kind == "token":
            columns = [pl.col("ids").list.get(i).alias(f"key{i}") for i in range(self.n)]
        try:
            found = (
                keys.lazy()
                .join(rows.select(*columns, column), on=keys.columns, how="left", maintain_order="left")
                .collect(engine="streaming")
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            raise CountError(
                f"damaged ({str(error).splitlines()[0]})", remedy="Count anew: mnemoscope count", file=self.file
            ) from None
        missing = 0.0 if self.least <= 1 else np.nan
        values: npt.NDArray[np.float64] = found[column].cast(pl.Float64).fill_null(missing).to_numpy()
        return values

    def _keys(self, items: Sequence[Item]) -> pl.DataFrame:
        if self.kind == "word":
            self._require([isinstance(item, str) for item in items], items, "a string")
            return pl.DataFrame({"key0": pl.Series(items, dtype=pl.String)})
        bare = [isinstance(item, int | np.integer) for item in items]
        rows: list[Any] = [[item] if one else item for item, one in zip(items, bare, strict=True)]
        fits = [not isinstance(row, str) and len(row) == self.n for row in rows]
        self._require(fits, items, f"a row of {self.n} token ids")
        ids = np.array(rows, dtype=np.int32).reshape(-1, self.n)
        return pl.DataFrame({f"key{i}": ids[:, i] for i in range(self.n)})

    def _require(self, fits: Sequence[bool], items: Sequence[Item], what: str) -> None:
        if not all(fits):
            item = items[list(fits).index(False)]
            raise CountError(f"{item!r} is not {what}", remedy=f"Ask for {self.kind} {self.n}-grams", file=self.file)
