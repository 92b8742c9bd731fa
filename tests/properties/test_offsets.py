"""Whatever the text: spans tile it, windows are its tokens, and training draws only true windows."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mnemoscope.config import Corpus
from mnemoscope.errors import ModelError
from mnemoscope.text import tokens, windows
from mnemoscope.types import Document

MANY = settings(deadline=None, max_examples=200)

SAMPLE = ["the cat sat on the mat, and the dog sat by the door; naïve café 日本日本 🙂🙂\n\n"] * 8
EOS = "<|endoftext|>"

# Any code point but a lone surrogate; once at large, once crowded with what is hard to place
CROWDED = [
    "the",
    " ",
    "  ",
    "\n",
    "\r\n",
    "é",
    "e\u0301",
    "日本",
    "🙂",
    "👩🏽\u200d🚀",
    "\u2028",
    "\x00",
    "\ufeff",
    EOS,
    "a",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(st.sampled_from(CROWDED)).map("".join)


@cache
def byte_level(prefix_space: bool = False, trim: bool | None = None, template: bool = False) -> Tokenizer:
    """A byte-level BPE of about 300 tokens, with what a model's tokenizer may add to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=[EOS], show_progress=False)
    tokenizer.train_from_iterator(SAMPLE, trainer)
    if trim is not None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, 0)])
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=64)
    return tokenizer


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes a token stands for: its spelling in GPT-2's byte alphabet, undone."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    to_byte = {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
    return bytes(to_byte[c] for c in tokenizer.id_to_token(token_id))


def document(text: str, name: str = "d") -> Document:
    return Document(name, text, "domain", "source", "dialect", "file:1")


@MANY
@given(ANY_TEXT)
def test_spans_tile_the_text_and_hold_their_tokens_bytes(text: str) -> None:
    tokenizer = byte_level()
    ids, start, end = tokens.encode(tokenizer, text)
    assert ids.dtype == start.dtype == end.dtype == np.int64
    covered = 0
    at = 0  # the bytes of the tokens, one after another, are the bytes of the text
    edges = np.cumsum([0, *(len(c.encode()) for c in text)])  # of each character, in bytes
    for token, first, last in zip(ids.tolist(), start.tolist(), end.tolist(), strict=True):
        spelt = token_bytes(tokenizer, token)
        assert text.encode()[at : at + len(spelt)] == spelt
        # the span is exactly the characters in which these bytes lie, whole or in part
        assert edges[first] <= at < edges[first + 1]
        assert edges[last - 1] < at + len(spelt) <= edges[last]
        assert first <= covered <= last
        at, covered = at + len(spelt), last
    assert (at, covered) == (len(text.encode()), len(text))


@MANY
@given(ANY_TEXT)
@pytest.mark.parametrize("extras", [{"trim": True}, {"trim": False}, {"template": True}], ids=str)
def test_what_a_model_adds_to_its_tokenizer_changes_nothing(extras: dict[str, bool], text: str) -> None:
    plain, extra = tokens.encode(byte_level(), text), tokens.encode(byte_level(**extras), text)
    for one, other in zip(plain, extra, strict=True):
        np.testing.assert_array_equal(one, other)


@MANY
@given(ANY_TEXT)
def test_a_prefix_space_has_no_span_of_its_own(text: str) -> None:
    _, start, end = tokens.encode(byte_level(prefix_space=True), text)
    assert text == "" or (start[0] == 0 and end[-1] == len(text) and (start[1:] <= end[:-1]).all())


def test_hand_worked_spans() -> None:
    # the BPE learnt 日本 but not 本日: 本 is e6 | 9c ac and 日 is e6 97 | a5, two tokens each that share its span
    tokenizer = byte_level()
    ids, start, end = tokens.encode(tokenizer, "the 本日")
    assert [token_bytes(tokenizer, i) for i in ids] == [b"the", b" ", b"\xe6", b"\x9c\xac", b"\xe6\x97", b"\xa5"]
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == [(0, 3), (3, 4), (4, 5), (4, 5), (5, 6), (5, 6)]


def test_text_that_reads_like_a_special_token_is_text() -> None:
    tokenizer = byte_level()
    end_of_text = tokenizer.token_to_id(EOS)
    ids, _, last = tokens.encode(tokenizer, f"a{EOS}b")
    assert end_of_text not in ids
    assert last[-1] == len(EOS) + 2
    assert end_of_text in tokenizer.encode(f"a{EOS}b").ids  # and the model's own tokenizer is left as it was


def test_an_ordinary_added_token_is_still_found() -> None:
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    ids, start, end = tokens.encode(tokenizer, "a    b")
    assert tokenizer.token_to_id("    ") in ids
    assert (start.tolist(), end.tolist()) == ([0, 1, 5], [1, 5, 6])


def test_dropout_is_put_aside() -> None:
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.model.dropout = 0.9
    expected = tokens.encode(byte_level(), SAMPLE[0]).ids
    for _ in range(3):
        np.testing.assert_array_equal(tokens.encode(tokenizer, SAMPLE[0]).ids, expected)


def test_a_transformers_tokenizer_is_its_backend() -> None:
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token=EOS)
    for one, other in zip(tokens.encode(wrapped, SAMPLE[0]), tokens.encode(byte_level(), SAMPLE[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    bare = tokens.bare(wrapped)
    assert tokens.bare(bare) is bare


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="Slow does not say which characters") as caught:
        tokens.encode(Slow(), "text")  # type: ignore[arg-type]
    assert "tokenizer.json" in caught.value.remedy


@pytest.mark.parametrize(
    ("normalizer", "text", "told"),
    [
        (normalizers.Strip(), " a b", r"drops characters 0 to 1 of document 'd' \(' '\)"),
        (normalizers.Strip(), "a b\n", r"drops characters 3 to 4 of document 'd' \('\\n'\)"),
        (normalizers.Replace("#", ""), "a#b", r"drops characters 1 to 2 of document 'd' \('#'\)"),
        (normalizers.Strip(), "  ", r"drops characters 0 to 2 of document 'd'"),
    ],
)
def test_a_tokenizer_that_drops_text_is_refused(normalizer: normalizers.Normalizer, text: str, told: str) -> None:
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.normalizer = normalizer
    with pytest.raises(ModelError, match=told):
        list(tokens.encode_documents(tokenizer, [document("fine", "c"), document(text)]))


def test_words_without_their_spaces_are_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"the": 0, "cat": 1}, unk_token="the"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match=r"drops characters 3 to 4 of the text"):
        tokens.encode(tokenizer, "the cat")


class _Raw:
    """What a tokenizer with a wild normaliser might answer."""

    def __init__(self, *offsets: tuple[int, int]):
        self.ids, self.offsets = list(range(len(offsets))), list(offsets)


@pytest.mark.parametrize(
    "raw",
    [_Raw((0, 3), (2, 1), (1, 4)), _Raw((0, 2), (2, 5)), _Raw((0, 4), (0, 3), (3, 4)), _Raw((0, 2), (1, 4), (0, 4))],
    ids=["backwards", "past the end", "ends fall", "starts fall"],
)
def test_offsets_out_of_order_are_refused(raw: _Raw) -> None:
    with pytest.raises(ModelError, match="offsets in the text do not run from left to right"):
        tokens._encoding(raw, "abcd", "the text")


@MANY
@given(st.lists(ANY_TEXT, max_size=6), st.integers(1, 9))
def test_windows_are_the_documents_tokens(texts: list[str], length: int) -> None:
    documents = [document(text, f"d{n}") for n, text in enumerate(texts)]
    encoded = {d.doc_id: tokens.encode(byte_level(), d.text) for d in documents}
    sizes = {name: len(e.ids) for name, e in encoded.items()}
    if max(sizes.values(), default=0) < length:
        return
    found = windows.cut(documents, byte_level(), [length], "none", seed=0)
    for name, whole in encoded.items():
        own = [w for w in found.windows[length] if w.doc_id == name]
        assert len(own) == sizes[name] // length  # the last full window is among them
        kept = len(own) * length
        for part, values in (("token_ids", whole.ids), ("char_start", whole.char_start), ("char_end", whole.char_end)):
            np.testing.assert_array_equal(np.concatenate([[], *(getattr(w, part) for w in own)]), values[:kept])
        for window in own:
            assert len(window.token_ids) == window.length == length
            text = found.window_text(window)
            assert (
                text == next(d.text for d in documents if d.doc_id == name)[window.char_start[0] : window.char_end[-1]]
            )
            # the window's bytes lie in its text, which has at most a part of a character more at either end
            spelt = b"".join(token_bytes(byte_level(), i) for i in window.token_ids.tolist())
            at = text.encode().find(spelt)
            assert 0 <= at < 4
            assert len(text.encode()) - len(spelt) - at < 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tokens.TokenStore:
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(1)
    for name in ("one", "two"):
        texts = ["".join(rng.choice(list("abcdefgh日🙂 "), size)) for size in rng.integers(1, 30, 12)]
        records = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(records, encoding="utf-8")
    corpora = [Corpus(path=str(folder / "one.jsonl")), Corpus(path=str(folder / "two.jsonl"), weight=3.0)]
    return tokens.TokenStore.build(corpora, byte_level(), folder / "cache")


@pytest.mark.parametrize("length", [1, 2, 5, 13, 20])
def test_draws_are_windows_of_one_document_and_reach_every_start(store: tokens.TokenStore, length: int) -> None:
    true = {
        tuple(store.tokens[first : first + length].tolist())
        for low, high in pairwise(store.starts.tolist())
        for first in range(low, high - length + 1)
    }
    # at most 600 starts, the rarest a third as likely as the others: 60,000 draws miss it with a chance of e^-33
    assert len(store.tokens) <= 600
    drawn = store.sample(np.random.default_rng(length), length, 60_000)
    assert drawn.shape == (60_000, length)
    assert drawn.dtype == np.int64
    assert {tuple(row) for row in drawn.tolist()} == true
