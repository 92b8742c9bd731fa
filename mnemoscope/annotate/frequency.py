"""How frequent a token or a word is in a corpus that was counted, the model's pretraining text say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mnemoscope.annotate import Annotator, Span
from mnemoscope.errors import ConfigError, TextError
from mnemoscope.frequency.words import words
from mnemoscope.types import Document

if TYPE_CHECKING:
    from mnemoscope.annotate._reader import Reader

_METADATA = b"mnemoscope.counts"
_REMEDY = "Give a file that mnemoscope count wrote, or a Parquet file with the columns item and count"


class Frequency(Annotator):
    """``word counts.parquet`` or ``token counts.parquet``: occurrences in a million, in bins of a factor of ten
    (``0.1-1 per million``, ``1-10 per million``, ...; the lower edge belongs to the bin), of each word
    (:mod:`mnemoscope.frequency.words`, case kept) or token.

    What the file does not list is ``unseen``, or, if the file lists nothing that occurs less often than k times,
    ``under k times``.  A file of other making has a row for each item: a word, or a token's id, and its count; a
    million is then of the sum of its counts.  Of several tokens that share a character, the first labels all.

    Raises:
        TextError: the file cannot be read, or holds no counts of the kind.
        ConfigError: token counts by another tokenizer.
    """

    wants = "word or token, a space, and the path of a file of counts: word counts.parquet"
    reads = True

    def __init__(self, argument: str, reader: Reader):
        super().__init__(argument)
        self._kind, _, path = argument.partition(" ")
        if self._kind not in ("word", "token") or not path:
            raise ConfigError(f"the argument {argument!r} of a frequency annotation", remedy=f"Give {self.wants}")
        file = Path(path).expanduser()
        counts, total, least = _read(file, self._kind)
        self._absent = "unseen" if least <= 1 else f"under {least} times"
        power = np.floor(np.log10(counts["count"].to_numpy() * (1e6 / total)) + 1e-9).astype(int)
        self._labels = dict(zip(counts["item"].to_list(), map(_label, power.tolist()), strict=True))
        self._reader = reader
        if self._kind == "token" and "text" in counts.columns:
            top = counts.sort("count", descending=True).head(100)
            other = [t for i, t in zip(top["item"], top["text"], strict=True) if reader.text([i]).strip() != t.strip()]
            if 2 * len(other) > top.height:
                raise ConfigError(
                    f"{file} counts the tokens of another tokenizer: {other[0]!r} is none of the model's",
                    remedy="Count with the model's own: mnemoscope count --tokens MODEL",
                )

    @classmethod
    def path_in(cls, argument: str) -> str:
        return argument.partition(" ")[2]

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        if self._kind == "word":
            for start, end, word in words(document.text):
                yield Span(document.doc_id, start, end, self._labels.get(word, self._absent))
            return
        tokens = self._reader.tokens(document.text)
        for number, start, end in zip(*(column.tolist() for column in tokens), strict=True):
            yield Span(document.doc_id, start, end, self._labels.get(number, self._absent))


def _label(power: int) -> str:
    return f"{10.0**power:g}-{10.0 ** (power + 1):g} per million"


def _read(file: Path, kind: str) -> tuple[pl.DataFrame, float, int]:
    """item (a word, or a token's id), count, and text for tokens that have one; the total of all counts; how often an
    item must occur to be listed."""
    try:
        metadata = json.loads(pl.read_parquet_metadata(file).get(_METADATA.decode(), "{}"))
        rows = pl.scan_parquet(file, glob=False)
        there = rows.collect_schema().names()
        if "kind" in there:
            rows = rows.filter(pl.col("kind") == kind, pl.col("n") == 1)
        columns = [pl.col("item"), pl.col("count").cast(pl.Float64)]
        if kind == "token" and "ids" in there:
            columns = [pl.col("ids").list.first().alias("item"), columns[1], pl.col("item").alias("text")]
        counts = rows.select(columns).filter(pl.col("count") > 0).collect()
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise TextError(f"no counts ({str(error).splitlines()[0]})", remedy=_REMEDY, file=file) from None
    dtype = counts["item"].dtype
    if counts.is_empty() or not (dtype == pl.String if kind == "word" else dtype.is_integer()):
        wanted = "a text" if kind == "word" else "a whole number"
        raise TextError(f"no counts of {kind}s, where item is {wanted}", remedy=_REMEDY, file=file)
    total = metadata["totals"][kind][0] if metadata else counts["count"].sum()
    return counts, float(total), int(metadata["request"]["least"]) if metadata else 1


ANNOTATION = Frequency
