"""``mnemoscope count``: tokens, words and n-grams of a corpus that need not fit into memory.

The corpus is read in pieces; each piece is counted and put on the disk, whole or not at all, and in the end the pieces
are added up::

    counts.parquet.parts/plan.json                         what is counted, of which files
    counts.parquet.parts/<file>-<first>-<end>/             documents first to end (exclusive) of a file
        token-1.parquet  token-2.parquet  word-1.parquet   unit columns or item, count, documents
        meta.json                                          how many documents and units, and whether the file ends

An interrupted count goes on after its last piece, whatever --memory then says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
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
from mnemoscope.progress import Progress, Silent, Task
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


@dataclass(slots=True)
class _Part:
    """One file: how far it is counted."""

    path: Path
    name: str
    number: int
    documents: int = 0
    text_bytes: int = 0
    totals: dict[str, list[int]] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    ended: bool = False

    def take(self, meta: dict[str, Any], folder: Path) -> None:
        self.documents += meta["documents"]
        self.text_bytes += meta["text_bytes"]
        for kind, totals in meta["totals"].items():
            before = self.totals.get(kind, [0] * len(totals))
            self.totals[kind] = [a + b for a, b in zip(before, totals, strict=True)]
        self.folders.append(folder)
        self.ended = meta["ended"]


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
    parts = _parts(paths)
    place = out.with_name(f"{out.name}.parts")
    plan = {
        "layout": _LAYOUT,
        "request": asdict(request),
        "tokenizer": digest,
        "words": WORD.pattern if request.words else None,
        "inputs": _inputs(parts, talk),
    }
    if out.exists():
        _refuse_another(metadata.read(out), plan, out)
        if (place / "plan.json").exists():  # killed between the last two steps
            shutil.rmtree(place)
        return out
    with disk_errors(place):
        _open(place, plan, parts)
        with database(budget, place / "spill") as db:
            _count_all(parts, place, db, request, tokenizer, budget, talk)
            facts = _write(out, place, parts, db, request, tokenizer, plan, talk)
        shutil.rmtree(place)
    units = " and ".join(f"{totals[0]:,} {kind}s" for kind, totals in facts["totals"].items())
    talk.say(f"{units} in {facts['documents']:,} documents; their counts are in {out}")
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


def _parts(paths: Sequence[str]) -> list[_Part]:
    found = [pair for path in paths for pair in files.find(path)]
    seen: dict[Path, str] = {}
    for path, _ in found:
        if path.resolve() in seen:
            raise TextError("this file is named twice", remedy="Give each text once", file=path)
        seen[path.resolve()] = str(path)
    return [_Part(path, name, number) for number, (path, name) in enumerate(found)]


def _inputs(parts: Sequence[_Part], talk: Progress) -> list[dict[str, Any]]:
    sizes = [part.path.stat().st_size for part in parts]
    found = []
    with talk.task("checking files", sum(sizes) / MB, "MB") as bar:
        for number, part in enumerate(parts):
            found.append({"name": part.name, "bytes": sizes[number], "sha256": corpora.sha256(part.path)})
            bar.at(sum(sizes[: number + 1]) / MB)
    return found


def _refuse_another(held: dict[str, Any], plan: dict[str, Any], file: Path) -> None:
    differing = [key for key in plan if held.get(key) != plan[key]]
    if differing:
        raise CountError(
            f"these are counts of something else (differing: {', '.join(differing)})",
            remedy="Give another --out, or remove them",
            file=file,
        )


def _open(place: Path, plan: dict[str, Any], parts: Sequence[_Part]) -> None:
    """The folder of pieces: made, or found with what an earlier attempt left in it."""
    file = place / "plan.json"
    if not file.exists():
        if place.exists() and any(not f.name.endswith(".new") for f in place.iterdir()):
            raise CountError("this folder is not ours", remedy="Give another --out, or remove it", file=place)
        write_atomically(file, json.dumps(plan, indent=1))
    try:
        _refuse_another(json.loads(file.read_text(encoding="utf-8")), plan, file)
    except ValueError as error:
        raise CountError(f"damaged ({error})", remedy=f"Remove {place} and count anew", file=file) from None
    for folder in sorted(place.glob("*-*-*")):
        if folder.name.endswith(".new"):
            shutil.rmtree(folder)
        else:
            part = parts[int(folder.name.split("-")[0])]
            part.take(json.loads((folder / "meta.json").read_text(encoding="utf-8")), folder)


# ---- pieces ---------------------------------------------------------------------------------------------------------


def _count_all(
    parts: Sequence[_Part],
    place: Path,
    db: Database,
    request: Request,
    tokenizer: Tokenizer | None,
    budget: Budget,
    talk: Progress,
) -> None:
    sizes = [part.path.stat().st_size / MB for part in parts]
    with talk.task("counting", sum(sizes), "MB") as bar:
        for part in parts:
            before = sum(sizes[: part.number])
            if not part.ended:
                _count_part(part, place, db, request, tokenizer, budget, bar, before)
            if part.documents == 0:
                raise TextError("no record in it", remedy="Put text into it or leave it out", file=part.path)
            bar.at(before + sizes[part.number], _note(part))


def _note(part: _Part, documents: int = 0) -> str:
    return f"{part.name}: {part.documents + documents:,} documents"


def _count_part(
    part: _Part,
    place: Path,
    db: Database,
    request: Request,
    tokenizer: Tokenizer | None,
    budget: Budget,
    bar: Task,
    before: float,
) -> None:
    kinds = [Units("token", None)] * (tokenizer is not None) + [Units("word", {})] * request.words
    documents = text_bytes = 0

    def put(ended: bool) -> None:
        totals = {units.kind: units.totals(request.ngrams) for units in kinds}
        meta = {"documents": documents, "text_bytes": text_bytes, "ended": ended, "totals": totals}
        first = part.documents
        folder = place / f"{part.number:06}-{first:012}-{first + documents:012}{'-end' * ended}"
        unfinished = folder.with_name(f"{folder.name}.new")
        unfinished.mkdir()
        for units in kinds:
            for n in range(1, request.ngrams + 1):
                db.count(units, n, unfinished / f"{units.kind}-{n}.parquet")
            units.clear()
        (unfinished / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        os.replace(unfinished, folder)
        part.take(meta, folder)

    for batch in batches(_documents(part, request, budget), min(_BATCH, budget.document)):
        _collect(batch, kinds, tokenizer)
        documents += len(batch)
        text_bytes += sum(len(d.text.encode()) for d in batch)
        bar.at(before, _note(part, documents))
        if sum(units.bytes for units in kinds) >= budget.piece:
            put(ended=False)
            documents = text_bytes = 0
    put(ended=True)


def _documents(part: _Part, request: Request, budget: Budget) -> Iterator[Document]:
    """The documents that no piece holds yet; none longer than can be tokenised within the budget."""
    if files.suffix(part.path) in files.PLAIN_TEXT:
        # a file of plain text is one document, so it is measured before it is read whole
        _require_short(sum(len(line) for _, line in files.lines(part.path)), budget, str(part.path))
    corpus = Corpus.model_validate({"path": str(part.path), "text": request.text})
    for document, _ in islice(corpora.read_with_record([corpus], []), part.documents, None):
        _require_short(len(document.text), budget, document.where)
        yield document


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
            for raw in tokenizer.encode_batch_fast([d.text for d in batch]):
                units.arrays.append(np.array(raw.ids, dtype=np.uint32))
        else:
            number = units.vocabulary
            for d in batch:
                words = [number.setdefault(word, len(number)) for word in WORD.findall(d.text)]
                units.arrays.append(np.array(words, dtype=np.uint32))


# ---- adding up ------------------------------------------------------------------------------------------------------


def _write(
    out: Path,
    place: Path,
    parts: Sequence[_Part],
    db: Database,
    request: Request,
    tokenizer: Tokenizer | None,
    plan: dict[str, Any],
    talk: Progress,
) -> dict[str, Any]:
    folders = [folder for part in parts for folder in part.folders]
    kinds = sorted(parts[0].totals)
    spelling = Spelling(tokenizer) if tokenizer is not None else None
    kept: dict[str, list[int]] = {kind: [] for kind in kinds}
    layout = schema.arrow("counts")
    with (
        talk.task("adding up", len(kinds) * request.ngrams, "tables") as bar,
        pq.ParquetWriter(place / "unfinished.parquet", layout, compression="zstd") as writer,
    ):
        for kind in kinds:
            for n in range(1, request.ngrams + 1):
                sources = [folder / f"{kind}-{n}.parquet" for folder in folders]
                columns = "item" if kind == "word" else ", ".join(f"u{i}" for i in range(n))
                rows = 0
                for batch in db.add_up(sources, columns, request.least, _ROWS):
                    writer.write_batch(_rows(batch, kind, n, spelling, layout))
                    rows += batch.num_rows
                kept[kind].append(rows)
                bar.at(sum(map(len, kept.values())), f"{rows:,} {kind} {n}-grams")
        facts = plan | {
            "version": mnemoscope.__version__,
            "documents": sum(part.documents for part in parts),
            "text_bytes": sum(part.text_bytes for part in parts),
            "totals": {k: np.sum([part.totals[k] for part in parts], axis=0).tolist() for k in kinds},
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
