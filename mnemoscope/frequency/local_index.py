"""An infini-gram index on this machine: a suffix array of a corpus, which counts any n-gram of any length exactly.

Liu et al. 2024, arXiv 2401.17377.  The package ``infini-gram`` sorts and searches; what it searches is written here,
so that any corpus and any tokenizer will do: its own are a handful, fetched by name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mnemoscope.config import Corpus
from mnemoscope.errors import CountError, TextError
from mnemoscope.frequency.spelling import read_tokenizer
from mnemoscope.rundir import disk_errors
from mnemoscope.text import corpora
from mnemoscope.text.tokens import bare, batches
from mnemoscope.types import IntArray

#: bytes that one process of the sorter must have: it fails on what is divided into less
_A_PROCESS = 10**7


class LocalIndex:
    """An index in a folder.

    Args:
        folder: where :meth:`build` put it.

    Attributes:
        total: units in the corpus: tokens, or bytes of UTF-8.
        documents: documents in it.

    Raises:
        CountError: there is none, it is damaged, or the package ``infini-gram`` is not installed.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()
        try:
            meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            width, self.total, self.documents = int(meta["width"]), int(meta["total"]), int(meta["documents"])
            sizes = {file: (self.folder / file).stat().st_size for file in meta["sizes"]}
            if sizes != meta["sizes"]:
                raise ValueError("sizes differ")
            self._tokenizer = bare(Tokenizer.from_str(meta["tokenizer"])) if meta["tokenizer"] is not None else None
        except Exception as error:  # the tokenizer's Rust side raises nothing narrower
            raise CountError(f"no index, or a damaged one ({error})", remedy="Build it anew", file=folder) from None
        try:
            from infini_gram.engine import InfiniGramEngine
        except ImportError:
            _not_installed()
        most = 256**width - 1
        self._engine = InfiniGramEngine(
            str(self.folder), eos_token_id=0, vocab_size=most, version=4, token_dtype=f"u{8 * width}"
        )

    @classmethod
    def build(
        cls,
        paths: Sequence[str],
        folder: str | Path,
        *,
        tokenizer: str | None = None,
        text: str = "text",
        memory_gb: int = 4,
    ) -> LocalIndex:
        """Indexes a corpus; the folder appears whole or not at all.  It takes some 7 bytes for each unit.

        Args:
            paths: files, folders or globs.
            tokenizer: the model whose tokens to index; None for bytes.
            text: field of a record that holds the text.
            memory_gb: what the sorter may use, in GiB.

        Raises:
            MnemoscopeError: text that cannot be read, a folder that is there, or a sorter that fails.
        """
        place = Path(folder).resolve()
        if place.exists():
            raise CountError("this is there already", remedy="Give another folder, or open it", file=place)
        # the package hands its paths to a shell as they are
        if not re.fullmatch(r"[\w./+-]+", str(place), re.ASCII):
            raise CountError("the indexer takes no path with such characters", remedy="Give a plain one", file=place)
        backend = read_tokenizer(tokenizer)[0] if tokenizer is not None else None
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=place.parent))
            try:
                meta = _write(unfinished, paths, backend, text)
                _sort(unfinished, meta["width"], memory_gb)
                meta["sizes"] = {f.name: f.stat().st_size for f in sorted(unfinished.iterdir())}
                (unfinished / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
                os.replace(unfinished, place)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return cls(place)

    def count(self, items: Sequence[str | Sequence[int]]) -> IntArray:
        """How often each item occurs, int64 [items]; occurrences may overlap, and none is across two documents.

        In an index of bytes ``the`` also occurs in ``other``; in one of tokens a string is tokenised on its own, and
        only that sequence of tokens is found.

        Args:
            items: strings, or token ids where the index is of tokens.

        Raises:
            CountError: an empty item, or ids where the index is of bytes.
        """
        return np.array([self._count(item) for item in items], dtype=np.int64)

    def per_million(self, items: Sequence[str | Sequence[int]]) -> npt.NDArray[np.float64]:
        """Occurrences for each million units of the corpus (tokens or bytes), float64 [items]."""
        return self.count(items).astype(np.float64) * (1e6 / self.total)

    def _count(self, item: str | Sequence[int]) -> int:
        if isinstance(item, str):
            ids = list(item.encode()) if self._tokenizer is None else self._tokenizer.encode(item).ids
        elif self._tokenizer is None:
            raise CountError("an index of bytes knows no token ids", remedy="Ask it by string", file=self.folder)
        else:
            ids = [int(i) for i in item]
        if not ids:
            raise CountError("an empty item occurs everywhere", remedy="Leave it out", file=self.folder)
        answer = self._engine.count(input_ids=ids)
        if "error" in answer:
            raise CountError(f"{item!r} cannot be asked ({answer['error']})", remedy="Mend it", file=self.folder)
        return int(answer["count"])


def _write(place: Path, paths: Sequence[str], tokenizer: Tokenizer | None, text: str) -> dict[str, Any]:
    """The corpus as the package's tokeniser would leave it: each document after a separator of ones, and its start."""
    width = 1 if tokenizer is None else 2 if max(tokenizer.get_vocab().values()) < 2**16 - 1 else 4
    total = documents = 0
    with (place / "tokenized.0").open("wb") as units, (place / "offset.0").open("wb") as starts:
        for content in _documents(paths, tokenizer, text, f"<u{width}"):
            starts.write(np.uint64((total + documents) * width).tobytes())
            units.write(b"\xff" * width + content)
            total, documents = total + len(content) // width, documents + 1
    if total == 0:
        raise TextError("there is nothing to index: no text at all", remedy="Put text into it", file=paths[0])
    return {
        "width": width,
        "total": total,
        "documents": documents,
        "tokenizer": tokenizer.to_str() if tokenizer is not None else None,
    }


def _documents(paths: Sequence[str], tokenizer: Tokenizer | None, text: str, dtype: str) -> Iterator[bytes]:
    chosen = [Corpus.model_validate({"path": path, "text": text}) for path in paths]
    documents = (document for document, _ in corpora.read_with_record(chosen, []))
    for batch in batches(documents):
        texts = [d.text for d in batch]
        if tokenizer is None:
            yield from (t.encode() for t in texts)
        else:
            yield from (np.array(raw.ids, dtype=dtype).tobytes() for raw in tokenizer.encode_batch_fast(texts))


def _sort(place: Path, width: int, memory_gb: int) -> None:
    """The suffix array, made in a process of its own: the package's program changes its folder and its limits."""
    import importlib.util
    import resource

    if importlib.util.find_spec("infini_gram") is None:
        _not_installed()
    size = (place / "tokenized.0").stat().st_size
    options = {
        "data_dir": place,
        "save_dir": place,
        "version": 4,
        "token_dtype": f"u{8 * width}",
        "mem": memory_gb,
        "cpus": max(1, min(os.cpu_count() or 1, size // _A_PROCESS)),
        "ulimit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
    command = [sys.executable, "-m", "infini_gram.indexing", *(f"--{k}={v}" for k, v in options.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    table = place / "table.0"
    # each entry is as many whole bytes as it takes to point anywhere into the corpus
    expected = size // width * -(-(size - 1).bit_length() // 8)
    if done.returncode or not table.exists() or table.stat().st_size != expected:
        said = " ".join((done.stderr.strip() or done.stdout.strip())[-300:].split())
        full = " No space left" if "No space left" in done.stderr + done.stdout else ""
        raise CountError(
            f"the indexer failed{full} ({said})", remedy="Give it more memory or disk, or another folder", file=place
        )


def _not_installed() -> NoReturn:
    raise CountError(
        "indexes are searched by the package 'infini-gram', which is not installed",
        remedy="Install it: pip install 'mnemoscope[infini-gram]'",
    )
