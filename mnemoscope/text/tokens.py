"""Text to token ids with character spans, and a training corpus as one array of tokens.

Spans are half-open, in code points, and tile the text: the first starts at 0, each starts no later than the one
before it ends, the last ends with the text.  The space before a word belongs to the token that spells it, whatever
``trim_offsets`` says.  Tokens that hold parts of one multi-byte character share its span::

    text    t h e _ ñ _ 日        the  (0, 3)   _ñ  (3, 5)   _  (5, 6)   byte 1 of 日 (6, 7)   bytes 2-3 (6, 7)
            0 1 2 3 4 5 6

The text is only text: a stretch that reads like a special token (``<|endoftext|>``) is spelt out, not obeyed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mnemoscope.config import Corpus
from mnemoscope.errors import ModelError, RunError, TextError
from mnemoscope.text import corpora as corpora_
from mnemoscope.types import Document, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: characters handed to the tokenizer's threads at once
_BATCH = 1 << 21
#: part of a store's key; raise it when the layout of the files changes
_LAYOUT = 1


class Encoding(NamedTuple):
    """Token ids of one text, and the half-open code-point span of each: three int64 [n]."""

    ids: IntArray
    char_start: IntArray
    char_end: IntArray


def bare(tokenizer: Tokenizer | PreTrainedTokenizerBase) -> Tokenizer:
    """The tokenizer without what belongs to a model's input: no special tokens, truncation, padding or dropout.

    A copy, unless it is bare already.

    Raises:
        ModelError: a tokenizer that knows no offsets (a slow one).
    """
    backend: Any = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} does not say which characters its tokens stand for",
            remedy="Give a fast tokenizer: one with a tokenizer.json",
        )
    extras = (backend.post_processor, backend.truncation, backend.padding, getattr(backend.model, "dropout", None))
    if backend.encode_special_tokens and not any(extras):
        return backend
    try:
        content = json.loads(backend.to_str())
    except Exception as error:  # the library raises bare Exception where a part is written in Python
        raise ModelError(f"the tokenizer cannot be copied ({error})", remedy="Give one with a tokenizer.json") from None
    content |= {"post_processor": None, "truncation": None, "padding": None}
    if "dropout" in content["model"]:
        content["model"]["dropout"] = None
    copy: Tokenizer = Tokenizer.from_str(json.dumps(content))
    copy.encode_special_tokens = True
    return copy


def encode(tokenizer: Tokenizer | PreTrainedTokenizerBase, text: str) -> Encoding:
    """One text as (ids, char_start, char_end).  For many texts use :func:`encode_documents`.

    Raises:
        ModelError: a tokenizer without offsets, or one whose spans do not tile the text.
    """
    return _encoding(bare(tokenizer).encode(text), text, "the text")


def encode_documents(
    tokenizer: Tokenizer | PreTrainedTokenizerBase, documents: Iterable[Document]
) -> Iterator[tuple[Document, Encoding]]:
    """Each document with its encoding, in order; on all cores.

    Raises:
        ModelError: as :func:`encode`, naming the document.
    """
    tokenizer = bare(tokenizer)
    for batch in batches(documents):
        raw = tokenizer.encode_batch([d.text for d in batch])
        for document, encoding in zip(batch, raw, strict=True):
            yield document, _encoding(encoding, document.text, f"document {document.doc_id!r}")


def batches(documents: Iterable[Document], characters: int | None = None) -> Iterator[list[Document]]:
    """Documents in lists of about ``characters`` (else two million) characters, for a tokenizer's threads to share."""
    enough = _BATCH if characters is None else characters
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= enough:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoding(raw: Any, text: str, name: str) -> Encoding:
    ids = np.array(raw.ids, dtype=np.int64)
    start, end = np.array(raw.offsets, dtype=np.int64).reshape(-1, 2).T.copy()
    # Where a span should go on from: the end of the one before it, and the end of the text after the last.
    before, after = np.append(0, end), np.append(start, len(text))
    skipped = np.flatnonzero(after > before)
    if skipped.size:
        first = skipped[0]
        raise ModelError(
            f"the tokenizer drops characters {before[first]} to {after[first]} of {name}"
            f" ({text[before[first] : after[first]][:20]!r})",
            remedy="Its tokens cannot be traced to the text: give one that spells every character (byte-level BPE)",
        )
    backwards = (start > end).any() or (np.diff(start) < 0).any() or (np.diff(end) < 0).any()
    if backwards or end[-1:].max(initial=0) > len(text):
        raise ModelError(
            f"the tokenizer's offsets in {name} do not run from left to right within the text",
            remedy="Its normaliser moves characters: give one that keeps their order (byte-level BPE)",
        )
    return Encoding(ids, start, end)


@dataclass(slots=True, eq=False)
class TokenStore:
    """A training corpus as tokens, mapped from disk.

    Attributes:
        tokens: uint16 or uint32 [n]: every document's tokens, one document after another.
        starts: int64 [documents + 1]: where each document begins in ``tokens``, and where the last ends.
        doc_weights: float64 [documents]: the weight of each document's corpus.
        longest: id of the document with the most tokens, for messages.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    starts: IntArray
    doc_weights: npt.NDArray[np.float64]
    longest: str
    _drawable: dict[int, tuple[IntArray, IntArray, npt.NDArray[np.float64]]] = field(default_factory=dict, repr=False)

    @classmethod
    def build(
        cls,
        corpora: Sequence[Corpus],
        tokenizer: Tokenizer | PreTrainedTokenizerBase,
        folder: str | Path,
        progress: Callable[[int, int], None] | None = None,
    ) -> TokenStore:
        """Tokenises the corpora, or finds them tokenised in ``folder``.

        A store is a folder of its own, named after the digest of the tokenizer, of the corpora's options and of
        their files' content, and appears whole or not at all.

        Args:
            progress: called with the documents and the tokens so far.

        Raises:
            TextError: a corpus that cannot be read.
            ModelError: a tokenizer without offsets.
            RunError: a store that was damaged on disk.
        """
        tokenizer = bare(tokenizer)
        key = hashlib.sha256(f"{_LAYOUT} {tokenizer.to_str()} {corpora_.digest(corpora)}".encode()).hexdigest()
        place = Path(folder) / key[:32]
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=place.parent))
            try:
                _write(unfinished, corpora, tokenizer, progress)
                os.replace(unfinished, place)
            except OSError as error:
                if not place.is_dir():  # else another process was faster, with the same store
                    remedy = "Make room, or give another folder"
                    raise RunError(f"the token store cannot be written ({error})", remedy=remedy, file=place) from None
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return cls.load(place)

    @classmethod
    def load(cls, place: str | Path) -> TokenStore:
        """The store in the folder ``place``.

        Raises:
            RunError: a file is missing or is not what the store's ``meta.json`` says.
        """
        place = Path(place)
        try:
            meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
            tokens = np.load(place / "tokens.npy", mmap_mode="r")
            starts, weights = np.load(place / "starts.npy"), np.load(place / "weights.npy")
            longest, sizes = meta["longest"], [meta["tokens"], meta["documents"] + 1, meta["documents"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"damaged token store ({error})", remedy="Delete this folder", file=place) from None
        if [len(tokens), len(starts), len(weights)] != sizes:
            raise RunError("damaged token store: sizes differ", remedy="Delete this folder", file=place)
        return cls(np.asarray(tokens), starts, weights, longest)

    def sample(self, rng: np.random.Generator, length: int, count: int) -> IntArray:
        """``count`` windows of ``length`` tokens, int64 [count, length], never across documents.

        Every start at which a window fits into its document is as likely as any other of its corpus; starts of
        different corpora are as likely as their weights are to each other.  Drawn with replacement.

        Raises:
            TextError: no document has ``length`` tokens.
        """
        first, fits, edges = self._draw_table(length)
        chosen = np.searchsorted(edges, rng.random(count) * edges[-1], side="right")
        # a product may round up to the last edge
        chosen = np.minimum(chosen, len(first) - 1)
        begin = first[chosen] + rng.integers(0, fits[chosen])
        return np.lib.stride_tricks.sliding_window_view(self.tokens, length)[begin].astype(np.int64)

    def _draw_table(self, length: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
        """For the documents long enough: first token, number of starts, upper edge of its share of the draws."""
        if length not in self._drawable:
            sizes = np.diff(self.starts)
            enough = np.flatnonzero(sizes >= length)
            if not enough.size:
                raise TextError(
                    f"no training document has {length} tokens; the longest, {self.longest!r}, has"
                    f" {sizes.max(initial=0)}",
                    remedy="Give longer documents, or leave this length out",
                )
            fits = sizes[enough] - length + 1
            edges = np.cumsum(fits * self.doc_weights[enough])
            self._drawable[length] = self.starts[enough], fits, edges
        return self._drawable[length]


def _write(
    place: Path, corpora: Sequence[Corpus], tokenizer: Tokenizer, progress: Callable[[int, int], None] | None
) -> None:
    highest = max(tokenizer.get_vocab().values())
    dtype = np.uint16 if highest < 2**16 else np.uint32
    weights: list[float] = []

    def weighed() -> Iterator[Document]:
        for corpus, document in corpora_.read_with_corpus(corpora):
            weights.append(corpus.weight)
            yield document

    parts: list[npt.NDArray[np.unsignedinteger[Any]]] = []
    total, most, longest = 0, -1, ""
    for batch in batches(weighed()):
        # offsets are not kept, so the faster call that leaves them out will do
        for document, raw in zip(batch, tokenizer.encode_batch_fast([d.text for d in batch]), strict=True):
            parts.append(np.array(raw.ids, dtype=dtype))
            total += len(parts[-1])
            if len(parts[-1]) > most:
                most, longest = len(parts[-1]), document.doc_id
        if progress is not None:
            progress(len(parts), total)
    np.save(place / "tokens.npy", np.concatenate([np.empty(0, dtype), *parts]))
    np.save(place / "starts.npy", np.cumsum([0, *map(len, parts)], dtype=np.int64))
    np.save(place / "weights.npy", np.array(weights, dtype=np.float64))
    meta = {"tokens": total, "documents": len(parts), "longest": longest}
    (place / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
