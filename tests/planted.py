"""A checkpoint that cannot tell 200 words apart, and text in which nothing but the memory could.

The embedding rows of a class of tokens are made equal; the head is tied to them, so their logits are equal too.  In the
text every word of the class is replaced by one drawn at random from the class, and every word of its neighbours, 200
other words as frequent, by one of the neighbours: neither can be guessed from the words around it, and only the
planted rows make them differ.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

#: a token that is a word by itself, with the space before it, in a byte-level alphabet
_WORD = re.compile("Ġ[a-z]+")


def choose(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[list[int], list[int]]:
    """A class of ``size`` tokens and its neighbours: the commonest words, dealt out in turn (a b b a a b b a ...), so
    that both are about as frequent."""
    counts = Counter(first for text in texts for _, _, first in _words(text, tokenizer))
    spelled = dict(zip(counts, tokenizer.convert_ids_to_tokens(list(counts)), strict=True))
    common = [token for token, _ in counts.most_common() if _WORD.fullmatch(spelled[token])][: 2 * size]
    assert len(common) == 2 * size
    return [t for n, t in enumerate(common) if n % 4 in (0, 3)], [t for n, t in enumerate(common) if n % 4 in (1, 2)]


def redraw(
    text: str, tokenizer: PreTrainedTokenizerBase, sets: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> tuple[str, list[dict[str, int | str]]]:
    """The text with every word that begins with a token of a set replaced by a token of that set, drawn at random; and
    the spans of what was drawn, labelled with the set's name."""
    label_of = {token: label for label, tokens in sets.items() for token in tokens}
    spans: list[dict[str, int | str]] = []
    out, done, length = [], 0, 0
    for start, end, first in _words(text, tokenizer):
        if (label := label_of.get(first)) is None:
            continue
        word = tokenizer.convert_ids_to_tokens(int(rng.choice(sets[label]))).replace("Ġ", " ")
        out += [text[done:start], word]
        length, done = length + start - done + len(word), end
        spans.append({"start": length - len(word) + 1, "end": length, "label": label})
    return "".join([*out, text[done:]]), spans


def plant(source: Path, target: Path, members: Sequence[int]) -> None:
    """Copies a model's folder; in the copy the tied embedding rows of ``members`` are all their mean."""
    target.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, target / name)
    tensors = load_file(source / "model.safetensors")
    assert not any("lm_head" in name for name in tensors), "the head must be tied to the embedding"
    rows = tensors["backbone.embeddings.weight"]
    rows[list(members)] = rows[list(members)].mean(0)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def _words(text: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, int, int]]:
    """Start, end and first token of every word: a space and the letters after it, which a byte-level tokenizer splits
    off and encodes by itself, whatever stands around them."""
    backend = tokenizer.backend_tokenizer
    for _, (start, end) in backend.pre_tokenizer.pre_tokenize_str(text):
        if text[start] == " " and text[start + 1 : end].isalpha():
            yield start, end, backend.encode(text[start:end]).ids[0]
