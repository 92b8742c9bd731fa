"""Text that says nothing, to be measured as any other: what is recovered of it, no knowledge of language guessed.

``shuffled``    a document's own tokens in random order: its words, but neither grammar nor sense
``random``      as many tokens, each drawn evenly from the vocabulary: not even the words' frequencies

The text of a control document is what its tokens spell, one after another, and their spans are in that text.  A
tokenizer might cut it otherwise: the tokens are what is read and written back.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from mnemoscope.errors import ModelError
from mnemoscope.text.tokens import Encoding, bare
from mnemoscope.types import Document, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Control:
    """Makes a document's control text.  What becomes of a document depends on its id, the seed, and on no other.

    Args:
        tokenizer: of the model.
        seed: not negative.
    """

    def __init__(self, tokenizer: Tokenizer | PreTrainedTokenizerBase, seed: int):
        self.tokenizer, self.seed = tokenizer, seed

    def __call__(self, document: Document, encoding: Encoding) -> tuple[Document, Encoding]:
        """The document with the text of its control, and that text's tokens, as many as it had.

        Raises:
            ModelError: no token of the vocabulary spells text by itself.
        """
        name = hashlib.sha256(document.doc_id.encode()).digest()[:8]
        rng = np.random.default_rng([self.seed, int.from_bytes(name)])
        make = {"shuffled": self._shuffled, "random": self._random}[document.control]
        text, new = make(rng, document.text, encoding)
        return replace(document, text=text, tokens=()), new

    def _shuffled(self, rng: np.random.Generator, text: str, encoding: Encoding) -> tuple[str, Encoding]:
        """Tokens that share a character, of which each spells a part, stay together."""
        ids, start, end = encoding
        first = np.flatnonzero(start[1:] >= end[:-1]) + 1
        groups = np.split(np.arange(len(ids)), first) if len(ids) else []
        order = [groups[i] for i in rng.permutation(len(groups))]
        spans = [slice(start[g[0]], end[g[-1]]) for g in order]
        moved = np.cumsum([0, *(s.stop - s.start for s in spans)])
        shift = [np.full(len(g), m - s.start) for g, s, m in zip(order, spans, moved, strict=False)]
        chosen, by = (np.concatenate([np.empty(0, dtype=np.int64), *parts]) for parts in (order, shift))
        new = Encoding(ids[chosen], start[chosen] + by, end[chosen] + by)
        return "".join(text[s] for s in spans), new

    def _random(self, rng: np.random.Generator, text: str, encoding: Encoding) -> tuple[str, Encoding]:
        ids, spelt = self._whole
        drawn = rng.integers(len(ids), size=len(encoding.ids))
        words = [spelt[i] for i in drawn]
        edges = np.cumsum([0, *map(len, words)])
        return "".join(words), Encoding(ids[drawn], edges[:-1], edges[1:])

    @cached_property
    def _whole(self) -> tuple[IntArray, list[str]]:
        """The tokens that spell whole characters by themselves, special ones left out, and what each spells."""
        tokenizer = bare(self.tokenizer)
        special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        ids = [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]
        spelt = tokenizer.decode_batch([[i] for i in ids])
        whole = [(i, word) for i, word in zip(ids, spelt, strict=True) if word and "\ufffd" not in word]
        if not whole:
            raise ModelError(
                "no token of the tokenizer spells text by itself, so that none can be drawn",
                remedy="Measure shuffled text instead of random",
            )
        return np.array([i for i, _ in whole], dtype=np.int64), [word for _, word in whole]
