"""The tokenizer that a corpus is counted with, and its tokens as text."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from mnemoscope.errors import ModelError
from mnemoscope.memory.source import AGAIN, find
from mnemoscope.text.tokens import bare


def read_tokenizer(name: str) -> tuple[Tokenizer, str]:
    """The tokenizer of a model, without loading the model, and the SHA-256 of its ``tokenizer.json``.

    Args:
        name: an embedded model, a folder, or a hub name.

    Raises:
        ModelError: there is none, or it is corrupt.
    """
    source = find(name)
    file = source.get("tokenizer.json")
    if file is None:
        raise source.missing("tokenizer.json", "Name a folder or hub repository that has one")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises nothing narrower
        raise ModelError(f"not a tokenizer: {error}", remedy=AGAIN, file=file) from error
    return bare(tokenizer), hashlib.sha256(file.read_bytes()).hexdigest()


class Spelling:
    """Rows of token ids as text.

    A byte-level tokenizer's tokens are bytes: a row's are joined, and bytes that make no character become U+FFFD, so
    that two rows may look alike; their ids tell them apart.  Another tokenizer's tokens stand as it spells them.
    """

    def __init__(self, tokenizer: Tokenizer):
        vocabulary = tokenizer.get_vocab()
        added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        alphabet = _bytes_of_characters() if _is_byte_level(tokenizer) else {}
        pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, number in vocabulary.items():
            known = {} if token in added else alphabet
            pieces[number] = b"".join(known.get(c) or c.encode() for c in token)
        self._pieces = pa.array(pieces, pa.binary())
        self._whole = np.array([_is_text(p) for p in pieces], dtype=np.bool_)

    def items(self, ids: npt.NDArray[np.integer[Any]]) -> pa.Array:
        """The text of each row of ``ids``, int [rows, n], as a string array [rows]."""
        joined = pc.binary_join_element_wise(*(self._pieces.take(pa.array(column)) for column in ids.T), b"")
        broken = pa.array(~self._whole[ids].all(axis=1))
        mended = [b.decode(errors="replace").encode() for b in joined.filter(broken).to_pylist()]
        return pc.replace_with_mask(joined, broken, pa.array(mended, pa.binary())).cast(pa.string())


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    return any(part["type"] == "ByteLevel" for part in decoder.get("decoders", [decoder]) if part)


def _bytes_of_characters() -> dict[str, bytes]:
    """GPT-2's alphabet: the character that stands for each byte; those that are no visible one are moved to U+0100."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = [b for b in range(256) if b not in visible]
    return {chr(b): bytes([b]) for b in visible} | {chr(256 + i): bytes([b]) for i, b in enumerate(moved)}


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
