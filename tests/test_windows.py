"""Windows and the token store: hand-worked accounts, the even choice, and the store's life on disk."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from mnemoscope.config import Corpus
from mnemoscope.errors import RunError, TextError
from mnemoscope.text import corpora, tokens, windows
from mnemoscope.types import Document


def letters(size: int = 26) -> Tokenizer:
    """One token a letter, a = 0: windows can be read off the text."""
    vocabulary = {chr(ord("a") + n): n for n in range(26)} | {f"<{n}>": n for n in range(26, size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="z"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return tokenizer


def document(text: str, name: str) -> Document:
    return Document(name, text, "news", "paper", "scots", f"file.jsonl:{name}")


def spelt(found: windows.WindowSet, length: int) -> list[str]:
    return ["".join(chr(ord("a") + i) for i in w.token_ids) for w in found.windows[length]]


def test_a_document_is_cut_from_its_first_token_and_the_rest_is_counted() -> None:
    # 11 + 3 + 4 letters. L = 4: two windows and a rest of 3; a rest of 3; one window
    found = windows.cut(
        [document("abcdefghijk", "x"), document("lmn", "y"), document("opqr", "z")], letters(), [4, 5], "bos", seed=0
    )
    assert spelt(found, 4) == ["abcd", "efgh", "opqr"]
    assert found.accounts[4] == windows.Account(
        length=4, documents=3, shorter=1, tokens=18, dropped=6, cut=3, windows=3, measured_documents=2
    )
    assert spelt(found, 5) == ["abcde", "fghij"]
    assert found.accounts[5] == windows.Account(
        length=5, documents=3, shorter=2, tokens=18, dropped=8, cut=2, windows=2, measured_documents=1
    )
    assert set(found.texts) == {"x", "z"}  # no window, no text to slice
    window = found.windows[4][1]
    assert (window.window_id, window.doc_id, window.prefix) == ("x:4:4", "x", "bos")
    assert (window.domain, window.source, window.dialect) == ("news", "paper", "scots")
    assert (window.char_start.tolist(), window.char_end.tolist()) == ([4, 5, 6, 7], [5, 6, 7, 8])
    assert found.window_text(window) == "efgh"


def test_nested_windows_are_the_beginnings_of_the_longest() -> None:
    # 11 + 3 + 5 letters. Passages of 5: two and a rest of one; none; one
    documents = [document("abcdefghijk", "x"), document("lmn", "y"), document("opqrs", "z")]
    found = windows.cut(documents, letters(), [2, 5], "none", seed=0, nested=True)
    assert spelt(found, 5) == ["abcde", "fghij", "opqrs"]
    assert spelt(found, 2) == ["ab", "fg", "op"]
    assert [w.window_id for w in found.windows[2]] == ["x:2:0", "x:2:5", "z:2:0"]
    assert [[w.passage for w in found.windows[length]] for length in (2, 5)] == [["x:0", "x:5", "z:0"]] * 2
    # y would have given a window of two letters; 2 * 3 + 13 == 19
    assert found.accounts[2] == windows.Account(
        length=2, documents=3, shorter=1, tokens=19, dropped=13, cut=3, windows=3, measured_documents=2
    )
    # a budget is that of the longest, and its passages are those that would have been drawn for it alone
    for seed in range(5):
        some = windows.cut(UNEVEN, letters(), [2, 3], "none", seed=seed, tokens_per_length=13, nested=True).windows
        plain = windows.cut(UNEVEN, letters(), [3], "none", seed=seed, tokens_per_length=13).windows
        assert [w.window_id for w in some[3]] == [w.window_id for w in plain[3]]
        assert [w.passage for w in some[2]] == [w.passage for w in some[3]]
        assert len(some[2]) == 13 // 3
    with pytest.raises(TextError, match="no document has 101 tokens"):
        windows.cut(UNEVEN, letters(), [2, 101], "none", seed=0, nested=True)


@pytest.mark.parametrize(("size", "expected"), [(1023, 3), (1024, 4), (1025, 4)])
def test_the_last_full_window_is_kept(size: int, expected: int) -> None:
    found = windows.cut([document("a" * size, "x")], letters(), [256], "none", seed=0)
    assert len(found.windows[256]) == expected
    assert found.accounts[256].dropped == size - 256 * expected


def test_an_empty_document_is_one_shorter_than_the_window() -> None:
    account = windows.cut([document("", "x"), document("abc", "y")], letters(), [2], "none", seed=0).accounts[2]
    assert (account.documents, account.shorter, account.windows, account.dropped) == (2, 1, 1, 1)


# windows of 2: "x" holds 50, "y" 3, "z" 1 and "w" none
UNEVEN = [document("a" * 100, "x"), document("b" * 7, "y"), document("c" * 3, "z"), document("d", "w")]


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        (6, {"x": 1, "y": 1, "z": 1}),  # three windows: a first one of each, before any second
        (7, {"x": 1, "y": 1, "z": 1}),  # floor(7 / 2)
        (10, {"x": 2, "y": 2, "z": 1}),
        (12, {"x": 3, "y": 2, "z": 1, "or": {"x": 2, "y": 3, "z": 1}}),
        (40, {"x": 16, "y": 3, "z": 1}),  # the short ones are used up
        (1000, {"x": 50, "y": 3, "z": 1}),
    ],
)
def test_windows_are_drawn_evenly_over_documents(budget: int, counts: dict[str, object]) -> None:
    other = counts.pop("or", counts) if "or" in counts else counts
    for seed in range(5):
        found = windows.cut(UNEVEN, letters(), [2], "none", seed=seed, tokens_per_length=budget)
        assert dict(Counter(w.doc_id for w in found.windows[2])) in (counts, other)
        places = [("xyz".index(w.doc_id), int(w.char_start[0])) for w in found.windows[2]]
        assert places == sorted(set(places))
        account = found.accounts[2]
        # what a document holds does not depend on how much of it is measured
        assert (account.cut, account.shorter, account.dropped, account.tokens) == (54, 1, 3, 111)
        assert account.windows == len(found.windows[2]) == min(54, budget // 2)


def test_one_window_at_least() -> None:
    found = windows.cut(UNEVEN, letters(), [4], "none", seed=0, tokens_per_length=1)
    assert found.accounts[4].windows == 1
    assert set(found.texts) == {found.windows[4][0].doc_id}


def ids(seed: int, budget: int | None, lengths: list[int] | None = None) -> list[str]:
    found = windows.cut(UNEVEN, letters(), lengths or [2], "none", seed=seed, tokens_per_length=budget)
    return [w.window_id for w in found.windows[2]]


def test_the_choice_follows_the_seed_and_nothing_else() -> None:
    assert ids(0, 30) == ids(0, 30) == ids(0, 30, [1, 2, 3])
    assert len({tuple(ids(seed, 30)) for seed in range(10)}) > 5
    assert ids(0, None) == ids(1, None)
    for budget in range(2, 60, 2):  # a larger budget keeps what a smaller one chose
        assert set(ids(3, budget)) < set(ids(3, budget + 2))


def test_a_window_is_as_likely_as_another_of_its_document() -> None:
    # one of 50 in each of 2000 seeds: 40 expected, standard deviation 6.3
    first = Counter(ids(seed, 2 * 3)[0] for seed in range(2000))
    assert len(first) == 50
    assert max(first.values()) < 40 + 5 * 6.3


def test_no_document_long_enough() -> None:
    with pytest.raises(TextError, match="no document has 101 tokens; the longest, 'x', has 100") as caught:
        windows.cut(UNEVEN, letters(), [2, 101], "none", seed=0)
    assert "leave this length out" in caught.value.remedy
    with pytest.raises(TextError, match="no document to measure"):
        windows.cut([], letters(), [2], "none", seed=0)


def test_one_id_twice_names_both_places() -> None:
    twins = [document("abc", "x"), Document("x", "abc", "", "", "", "other.jsonl:3")]
    with pytest.raises(TextError, match=r"'x' is given twice \(file.jsonl:x and other.jsonl:3\)"):
        windows.cut(twins, letters(), [2], "none", seed=0)


def write(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[Corpus]:
    one = write(tmp_path / "one.jsonl", "abcdef", "", "gh")
    other = write(tmp_path / "other.jsonl", "mnop")
    return [Corpus(path=str(one)), Corpus(path=str(other), weight=4.0)]


def test_a_store_is_the_documents_one_after_another(two: list[Corpus], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    store = tokens.TokenStore.build(two, letters(), tmp_path / "cache", lambda d, t: calls.append((d, t)))
    assert store.tokens.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15]
    assert store.tokens.dtype == np.uint16
    assert store.starts.tolist() == [0, 6, 6, 8, 12]
    assert store.doc_weights.tolist() == [1, 1, 1, 4]
    assert store.longest == "one.jsonl:1"
    assert calls == [(4, 12)]
    assert [p.name.startswith("unfinished") for p in (tmp_path / "cache").iterdir()] == [False]


def test_a_large_vocabulary_takes_wider_tokens(two: list[Corpus], tmp_path: Path) -> None:
    assert tokens.TokenStore.build(two, letters(2**16), tmp_path / "cache").tokens.dtype == np.uint16
    assert tokens.TokenStore.build(two, letters(2**16 + 1), tmp_path / "cache").tokens.dtype == np.uint32


def test_every_start_is_drawn_by_its_corpus_weight(two: list[Corpus], tmp_path: Path) -> None:
    # L = 3 fits at abc bcd cde def, weight 1, and at mno nop, weight 4: shares 1/12 each, and 4/12 each
    store = tokens.TokenStore.build(two, letters(), tmp_path / "cache")
    drawn = store.sample(np.random.default_rng(0), 3, 12_000)
    counts = Counter("".join(chr(ord("a") + i) for i in row) for row in drawn)
    expected = dict.fromkeys(["abc", "bcd", "cde", "def"], 1000) | dict.fromkeys(["mno", "nop"], 4000)
    assert counts.keys() == expected.keys()
    for window, n in expected.items():  # five standard deviations of a binomial
        assert abs(counts[window] - n) < 5 * np.sqrt(n * (1 - n / 12_000))


def test_draws_follow_the_generator(two: list[Corpus], tmp_path: Path) -> None:
    store = tokens.TokenStore.build(two, letters(), tmp_path / "cache")
    first, same, other = (store.sample(np.random.default_rng(seed), 2, 50) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_no_training_document_long_enough(two: list[Corpus], tmp_path: Path) -> None:
    store = tokens.TokenStore.build(two, letters(), tmp_path / "cache")
    with pytest.raises(TextError, match=r"no training document has 7 tokens; the longest, 'one\.jsonl:1', has 6"):
        store.sample(np.random.default_rng(0), 7, 1)


def test_a_store_is_found_again_until_anything_it_holds_changes(
    two: list[Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    built = tokens.TokenStore.build(two, letters(), cache)
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "_write", None)  # to write again would fail
        again = tokens.TokenStore.build(two, letters(), cache)
    np.testing.assert_array_equal(built.tokens, again.tokens)

    tokens.TokenStore.build(two, letters(27), cache)  # another tokenizer
    tokens.TokenStore.build([two[0], two[1].model_copy(update={"weight": 1.0})], letters(), cache)
    write(tmp_path / "other.jsonl", "mnoq")
    assert tokens.TokenStore.build(two, letters(), cache).tokens[-1] == 16
    assert len(list(cache.iterdir())) == 4


def test_a_build_that_fails_leaves_nothing(two: list[Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(RunError, match="No space left") as caught:
            tokens.TokenStore.build(two, letters(), tmp_path / "cache")
    assert "Make room" in caught.value.remedy
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_store_that_another_process_finished_first_is_used(
    two: list[Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store, cache = tokens._write, tmp_path / "cache"

    def slow(*arguments: object) -> None:
        write_store(*arguments)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(tokens, "_write", write_store)
            tokens.TokenStore.build(two, letters(), cache)

    monkeypatch.setattr(tokens, "_write", slow)
    assert len(tokens.TokenStore.build(two, letters(), cache).tokens) == 12
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "missing", "meta", "other size"])
def test_a_damaged_store_is_told(two: list[Corpus], tmp_path: Path, damage: str) -> None:
    tokens.TokenStore.build(two, letters(), tmp_path / "cache")
    [place] = (tmp_path / "cache").iterdir()
    file = place / ("meta.json" if damage == "meta" else "tokens.npy")
    if damage == "missing":
        file.unlink()
    elif damage == "other size":
        np.save(file, np.zeros(3, np.uint16))
    else:
        file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(RunError, match="damaged token store") as caught:
        tokens.TokenStore.load(place)
    assert str(caught.value).startswith(str(place))
    assert "Delete this folder" in caught.value.remedy


def test_documents_of_many_batches_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_BATCH", 5)
    texts = ["ab" * (n % 4) for n in range(23)]
    file = Corpus(path=str(write(tmp_path / "a.jsonl", *texts)))
    pairs = list(tokens.encode_documents(letters(), corpora.read([file])))
    assert [d.text for d, _ in pairs] == texts
    assert all(len(e.ids) == len(d.text) for d, e in pairs)
    calls: list[tuple[int, int]] = []
    store = tokens.TokenStore.build([file], letters(), tmp_path / "cache", lambda d, t: calls.append((d, t)))
    assert store.starts.tolist() == np.cumsum([0, *map(len, texts)]).tolist()
    assert len(calls) > 5
    assert calls[-1] == (23, sum(map(len, texts)))


def test_the_texts_of_a_pair_give_windows_at_the_same_places() -> None:
    """8 and 5 windows of 2: of each budget both give the same of the first 5; only then the longer gives its last 3."""
    texts = [Document(f"{n}/{d}", "a" * size, "", "", d) for n in range(6) for d, size in (("sae", 16), ("aave", 11))]
    for budget in range(4, 160, 4):
        found = windows.cut(texts, letters(), [2], "none", seed=budget, tokens_per_length=budget).windows[2]
        places: dict[str, set[int]] = {}
        for window in found:
            places.setdefault(window.doc_id, set()).add(int(window.char_start[0]))
        for number in range(6):
            sae, aave = (places.get(f"{number}/{dialect}", set()) for dialect in ("sae", "aave"))
            assert {place for place in sae if place < 10} == aave
            assert aave == {0, 2, 4, 6, 8} or sae == aave
