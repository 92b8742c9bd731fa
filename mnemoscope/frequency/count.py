"""``mnemoscope count``: tokens, words and n-grams of a corpus that need not fit into memory.

The corpus is read in pieces; each piece is counted and put on the disk, whole or not at all, and in the end the pieces
are added up::

    counts.parquet.parts/plan.json                         what is counted, of which files
    counts.parquet.parts/piece-00000000/                   some documents of some files, in their order
        token-1.parquet  token-2.parquet  word-1.parquet   unit columns or item, count, documents
        meta.json                                          how many documents and units, and where the next piece begins

An interrupted count goes on after its last piece, whatever --memory then says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

import mnemoscope
from mnemoscope import schema
from mnemoscope.config import Corpus
from mnemoscope.errors import CountError, TextError
from mnemoscope.frequency import metadata
from mnemoscope.frequency.pieces import LEAST_MEMORY, MB, Budget, Database, Units, database
from mnemoscope.frequency.spelling import Spelling, read_tokenizer
from mnemoscope.frequency.words import WORD
from mnemoscope.progress import Progress, Silent
from mnemoscope.rundir import disk_errors, write_atomically
from mnemoscope.text import corpora, files
from mnemoscope.text.tokens import batches
from mnemoscope.types import Document

#: raise it when pieces or the rule of what is counted change
_LAYOUT = 1
_ROWS = 1 << 17
_BATCH = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What to count.

    Attributes:
        tokens: the model whose tokenizer's tokens to count, or None.
        words: whether to count words (:mod:`mnemoscope.frequency.words`).
        ngrams: rows of 1, 2, ..., ``ngrams`` of them.
        least: leave out what occurs less often.
        text: field of a record that holds the text.
    """

    tokens: str | None
    words: bool
    ngrams: int
    least: int
    text: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """What ``meta.json`` says: how much the piece holds, and the file, and the document in it, that come after."""

    documents: int
    text_bytes: int
    totals: dict[str, list[int]]
    file: int
    document: int


def count(
    paths: Sequence[str], out: str | Path, request: Request, memory: str = "2GB", progress: Progress | None = None
) -> Path:
    """Counts a corpus into a Parquet file (table ``counts`` of the schema); resumable, by the same call.

    Rows are sorted by kind, n, falling count, and item.  The file's metadata, JSON under ``mnemoscope.counts``, hold
    the totals, what was counted, the tokenizer's digest, and name, size and SHA-256 of every file.

    Args:
        paths: files, folders or globs, as a corpus of a study names them.
        memory: bound of the process's memory: a number with MB (10^6 bytes) or GB after it.

    Returns:
        ``out``.

    Raises:
        MnemoscopeError: input that cannot be read or counted, a full disk, or a bound that is too low.
    """
    out, talk = Path(out), progress or Silent()
    budget = _check(out, request, memory)
    tokenizer, digest = read_tokenizer(request.tokens) if request.tokens is not None else (None, None)
    found = _files(paths)
    place = out.with_name(f"{out.name}.parts")
    plan = {
        "layout": _LAYOUT,
        "request": asdict(request),
        "tokenizer": digest,
        "words": WORD.pattern if request.words else None,
        "inputs": _inputs(found, talk),
    }
    if out.exists():
        _refuse_another(metadata.read(out), plan, out)
        if (place / "plan.json").exists():  # killed between the last two steps
            shutil.rmtree(place)
        talk.say(f"nothing to do: {out} holds these counts")
        return out
    with disk_errors(place):
        pieces = _open(place, plan)
        with database(budget, place / "spill") as db:
            reader = _Reader([path for path, _ in found], request.text, budget, pieces)
            _count_all(reader, pieces, place, db, request, tokenizer, budget, talk)
            facts = _write(out, place, pieces, db, request, tokenizer, plan, talk)
        shutil.rmtree(place)
    units = " and ".join(f"{totals[0]:,} {kind}s" for kind, totals in facts["totals"].items())
    where = "1 document" if facts["documents"] == 1 else f"{facts['documents']:,} documents"
    talk.say(f"{units} in {where}; their counts are in {out}")
    return out


# ---- before the work ------------------------------------------------------------------------------------------------


def _check(out: Path, request: Request, memory: str) -> Budget:
    if request.tokens is None and not request.words:
        raise CountError("nothing is to be counted", remedy="Give --tokens MODEL, --words, or both")
    if request.ngrams < 1 or request.least < 1:
        raise CountError("n-grams and the least count begin at 1", remedy="Give --ngrams and --least of 1 or more")
    amount = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MG])B", memory, re.ASCII)
    if amount is None:
        raise CountError(f"{memory!r} is no amount of memory", remedy="Give --memory such as 800MB or 4GB")
    budget = Budget(int(float(amount[1]) * (MB if amount[2] == "M" else 1000 * MB)))
    if budget.memory < LEAST_MEMORY:
        raise CountError(f"{memory} are too little to count in", remedy=f"Give --memory {LEAST_MEMORY // MB}MB or more")
    if out.is_dir():
        raise CountError("this is a folder", remedy="Give --out a file, such as counts.parquet", file=out)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    return budget


def _files(paths: Sequence[str]) -> list[tuple[Path, str]]:
    found = [pair for path in paths for pair in files.find(path)]
    seen: set[Path] = set()
    for path, _ in found:
        if path.resolve() in seen:
            raise TextError("this file is named twice", remedy="Give each text once", file=path)
        seen.add(path.resolve())
    return found


def _inputs(found: Sequence[tuple[Path, str]], talk: Progress) -> list[dict[str, Any]]:
    sizes = [path.stat().st_size for path, _ in found]
    inputs, done = [], 0
    with talk.task("checking files", sum(sizes) / MB, "MB") as bar:
        for (path, name), size in zip(found, sizes, strict=True):
            inputs.append({"name": name, "bytes": size, "sha256": corpora.sha256(path)})
            done += size
            bar.at(done / MB)
    return inputs


def _refuse_another(held: dict[str, Any], plan: dict[str, Any], file: Path) -> None:
    differing = [key for key in plan if held.get(key) != plan[key]]
    if differing:
        raise CountError(
            f"these are counts of something else (differing: {', '.join(differing)})",
            remedy="Give another --out, or remove them",
            file=file,
        )


def _open(place: Path, plan: dict[str, Any]) -> list[_Piece]:
    """Makes the folder of pieces, or finds what an earlier attempt left in it."""
    file = place / "plan.json"
    if not file.exists():
        if place.exists() and any(not f.name.endswith(".new") for f in place.iterdir()):
            raise CountError("this folder is not ours", remedy="Give another --out, or remove it", file=place)
        write_atomically(file, json.dumps(plan, indent=1))
    try:
        _refuse_another(json.loads(file.read_text(encoding="utf-8")), plan, file)
        for unfinished in place.glob("piece-*.new"):
            shutil.rmtree(unfinished)
        folders = sorted(place.glob("piece-*"))
        return [_Piece(**json.loads((f / "meta.json").read_text(encoding="utf-8"))) for f in folders]
    except (ValueError, TypeError) as error:
        raise CountError(f"damaged ({error})", remedy="Remove this folder and count anew", file=place) from None


# ---- pieces ---------------------------------------------------------------------------------------------------------


class _Reader:
    """The documents that no piece holds yet.

    Attributes:
        file, document: where the document after the last one given would be.
    """

    def __init__(self, paths: Sequence[Path], text: str, budget: Budget, pieces: Sequence[_Piece]):
        self.paths, self._text, self._budget = paths, text, budget
        self.file, self.document = (pieces[-1].file, pieces[-1].document) if pieces else (0, 0)

    def __iter__(self) -> Iterator[Document]:
        for path in self.paths[self.file :]:
            if files.suffix(path) in files.PLAIN_TEXT:
                # a file of plain text is one document, so it is measured before it is read whole
                _require_short(sum(len(line) for _, line in files.lines(path)), self._budget, str(path))
            corpus = Corpus.model_validate({"path": str(path), "text": self._text})
            for document, _ in islice(corpora.read_with_record([corpus], []), self.document, None):
                _require_short(len(document.text), self._budget, document.where)
                self.document += 1
                yield document
            if self.document == 0:
                raise TextError("no record in it", remedy="Put text into it or leave it out", file=path)
            self.file, self.document = self.file + 1, 0


def _count_all(
    reader: _Reader,
    pieces: list[_Piece],
    place: Path,
    db: Database,
    request: Request,
    tokenizer: Tokenizer | None,
    budget: Budget,
    talk: Progress,
) -> None:
    """Counts what no piece holds yet, piece after piece, and adds them to ``pieces``."""
    kinds = [Units("token", None)] * (tokenizer is not None) + [Units("word", {})] * request.words
    documents = text_bytes = 0
    before = sum(piece.documents for piece in pieces)

    def put() -> None:
        totals = {units.kind: units.totals(request.ngrams) for units in kinds}
        piece = _Piece(documents, text_bytes, totals, reader.file, reader.document)
        folder = _folder(place, len(pieces))
        unfinished = folder.with_name(f"{folder.name}.new")
        unfinished.mkdir()
        for units in kinds:
            for n in range(1, request.ngrams + 1):
                db.count(units, n, unfinished / f"{units.kind}-{n}.parquet")
            units.clear()
        (unfinished / "meta.json").write_text(json.dumps(asdict(piece)), encoding="utf-8")
        os.replace(unfinished, folder)
        pieces.append(piece)

    ends = np.cumsum([0, *(path.stat().st_size / MB for path in reader.paths)])
    with talk.task("counting", float(ends[-1]), "MB") as bar:
        for batch in batches(reader, min(_BATCH, budget.document)):
            _collect(batch, kinds, tokenizer)
            documents += len(batch)
            text_bytes += sum(len(d.text.encode()) for d in batch)
            bar.at(float(ends[reader.file]), f"{before + documents:,} documents")
            if sum(units.bytes for units in kinds) >= budget.piece:
                put()
                before, documents, text_bytes = before + documents, 0, 0
        if documents:
            put()


def _folder(place: Path, number: int) -> Path:
    return place / f"piece-{number:08}"


def _require_short(characters: int, budget: Budget, where: str) -> None:
    if characters > budget.document:
        needed = budget.memory * characters / budget.document
        raise CountError(
            f"a document of {characters:,} characters; within this memory one may have {budget.document:,}",
            remedy=f"Give more --memory ({needed / MB:,.0f}MB will do), or the text as several records",
            file=where,
        )


def _collect(batch: Sequence[Document], kinds: Sequence[Units], tokenizer: Tokenizer | None) -> None:
    for units in kinds:
        if units.vocabulary is None:
            assert tokenizer is not None
            units.add([raw.ids for raw in tokenizer.encode_batch_fast([d.text for d in batch])])
        else:
            number = units.vocabulary
            units.add([[number.setdefault(w, len(number)) for w in WORD.findall(d.text)] for d in batch])


# ---- adding up ------------------------------------------------------------------------------------------------------


def _write(
    out: Path,
    place: Path,
    pieces: Sequence[_Piece],
    db: Database,
    request: Request,
    tokenizer: Tokenizer | None,
    plan: dict[str, Any],
    talk: Progress,
) -> dict[str, Any]:
    kinds = sorted(pieces[0].totals)
    spelling = Spelling(tokenizer) if tokenizer is not None else None
    kept: dict[str, list[int]] = {kind: [] for kind in kinds}
    layout = schema.arrow("counts")
    with (
        talk.task("adding up", len(kinds) * request.ngrams, "tables") as bar,
        pq.ParquetWriter(place / "unfinished.parquet", layout, compression="zstd") as writer,
    ):
        for kind in kinds:
            for n in range(1, request.ngrams + 1):
                sources = [_folder(place, i) / f"{kind}-{n}.parquet" for i in range(len(pieces))]
                columns = "item" if kind == "word" else ", ".join(f"u{i}" for i in range(n))
                rows = 0
                for batch in db.add_up(sources, columns, request.least, _ROWS):
                    writer.write_batch(_rows(batch, kind, n, spelling, layout))
                    rows += batch.num_rows
                kept[kind].append(rows)
                bar.at(sum(map(len, kept.values())), f"{rows:,} {kind} {n}-grams")
        facts = plan | {
            "version": mnemoscope.__version__,
            "documents": sum(piece.documents for piece in pieces),
            "text_bytes": sum(piece.text_bytes for piece in pieces),
            "totals": {k: np.sum([piece.totals[k] for piece in pieces], axis=0).tolist() for k in kinds},
            "kept": kept,
        }
        writer.add_key_value_metadata({metadata.KEY: json.dumps(facts)})
    os.replace(place / "unfinished.parquet", out)
    return facts


def _rows(batch: pa.RecordBatch, kind: str, n: int, spelling: Spelling | None, layout: pa.Schema) -> pa.RecordBatch:
    """What the database gives, in the columns of the schema."""
    size = batch.num_rows
    if kind == "word":
        items, ids = batch["item"], pa.nulls(size, layout.field("ids").type)
    else:
        assert spelling is not None
        units = np.stack([batch[f"u{i}"].to_numpy().astype(np.int32) for i in range(n)], axis=1)
        items = spelling.items(units)
        starts = np.arange(size + 1, dtype=np.int32) * n
        ids = pa.ListArray.from_arrays(pa.array(starts), pa.array(units.ravel()))
    columns = [pa.repeat(kind, size), pa.repeat(pa.scalar(n, pa.int32()), size), items, ids]
    return pa.record_batch([*columns, batch["count"], batch["documents"]], schema=layout)
