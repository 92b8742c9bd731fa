"""Control text: the same tokens in another order, or others; spans that are right; and the prior has nothing to say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import small
from scipy import stats
from test_windows import document, letters
from tokenizers import Tokenizer

from mnemoscope import config, pipeline
from mnemoscope.errors import ConfigError, ModelError
from mnemoscope.text import tokens, windows
from mnemoscope.text.control import Control
from mnemoscope.types import Document


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    small.tokenizer(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def made(
    tokenizer: Tokenizer, kind: str, text: str, seed: int = 0, name: str = "x"
) -> tuple[tokens.Encoding, Document, tokens.Encoding]:
    """The text's own encoding, its control document, and that one's encoding."""
    plain = Document(name, text, "news", "s", control=kind)
    encoding = tokens.encode(tokenizer, text)
    return encoding, *Control(tokenizer, seed)(plain, encoding)


def test_shuffled_letters() -> None:
    before, found, after = made(letters(), "shuffled", "abcdefghijklmnopqrstuvwxyz")
    assert found.text != "abcdefghijklmnopqrstuvwxyz"
    assert sorted(found.text) == sorted("abcdefghijklmnopqrstuvwxyz")
    # one token a letter, so the text spells the tokens
    assert [ord(c) - ord("a") for c in found.text] == after.ids.tolist()
    assert after.char_start.tolist() == list(range(26))
    assert after.char_end.tolist() == list(range(1, 27))
    assert before.ids.tolist() == list(range(26))


@pytest.mark.parametrize("text", ["", "a", "日", "naïve 日本 🙂🙂 — é", "the cat sat on the mat"])
def test_a_characters_bytes_stay_together(bytewise: Tokenizer, text: str) -> None:
    """So the text is whole, tiled by the spans, and cut again it gives the very tokens: one a byte."""
    before, found, after = made(bytewise, "shuffled", text)
    assert Counter(found.text) == Counter(text)
    for one, other in zip(after, tokens.encode(bytewise, found.text), strict=True):
        np.testing.assert_array_equal(one, other)
    assert Counter(before.ids.tolist()) == Counter(after.ids.tolist())


def test_every_order_is_as_likely() -> None:
    """600 documents of three letters: six orders, 100 each, by a chi-square test."""
    orders = Counter(made(letters(), "shuffled", "abc", name=f"d{n}")[1].text for n in range(600))
    assert len(orders) == 6
    assert stats.chisquare(list(orders.values())).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["shuffled", "random"])
def test_the_seed_and_the_documents_name_decide(kind: str) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"
    one = made(letters(), kind, text)[1].text
    assert made(letters(), kind, text)[1].text == one
    assert made(letters(), kind, text, seed=1)[1].text != one
    assert made(letters(), kind, text, name="y")[1].text != one


def test_random_tokens_are_even_and_whole(bytewise: Tokenizer) -> None:
    """Of 256 bytes the 128 of ASCII are characters by themselves; <|endoftext|> is special.  20,000 of them, by a
    chi-square test."""
    before, found, after = made(bytewise, "random", "0123456789" * 2000)
    assert len(after.ids) == len(before.ids) == 20_000
    counts = Counter(after.ids.tolist())
    assert 0 not in counts
    assert sorted(bytewise.decode([i]) for i in counts) == [chr(n) for n in range(128)]
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    for one, other in zip(after, tokens.encode(bytewise, found.text), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_vocabulary_of_nothing_but_special_tokens() -> None:
    tokenizer = letters()
    tokenizer.add_special_tokens(sorted(tokenizer.get_vocab()))
    with pytest.raises(ModelError, match="none can be drawn"):
        made(tokenizer, "random", "abc")


def test_windows_are_cut_from_the_control_text() -> None:
    plain = document("abcdefghijklmnopqrstuvwxyz", "x")
    control = Document("x/shuffled", plain.text, "news", "paper", "scots", control="shuffled")
    found = windows.cut([plain, control], letters(), [5], "none", seed=0)
    spelt = {w.window_id: found.window_text(w) for w in found.windows[5]}
    assert spelt["x:5:5"] == "fghij"
    shuffled = "".join(spelt[f"x/shuffled:5:{n}"] for n in range(0, 25, 5))
    assert found.texts["x/shuffled"].startswith(shuffled)
    assert shuffled != plain.text[:25]
    for window in found.windows[5]:
        assert spelt[window.window_id] == "".join(chr(ord("a") + i) for i in window.token_ids)


def test_a_study_beside_its_control(tmp_path: Path) -> None:
    """Text and both controls in one run: as many tokens each, the order of words' letters gone."""
    file = small.study(tmp_path)
    values = small.values(tmp_path)
    corpus = values["text"]["measure"][0]
    values["text"]["measure"] = [
        corpus,
        *({"path": corpus["path"], "domain_name": kind, "control": kind} for kind in ("shuffled", "random")),
    ]
    values["windows"] = {"lengths": [12]}
    values["decoders"] = [values["decoders"][1] | {"conditions": ["memory", "none"], "tokens": 128}]
    study = config.load(small.write(values, file))
    run = pipeline.run(study, tmp_path / "run", until="estimate")
    rows = run.table("reconstructions").filter(condition="memory")
    group = pl.col("doc_id").str.extract(r"/(shuffled|random)$").fill_null("text").alias("kind")
    texts = rows.with_columns(group).group_by("kind").agg(pl.len(), pl.col("reference").str.join(""), "domain")
    found = {row["kind"]: row for row in texts.iter_rows(named=True)}
    assert len({row["len"] for row in found.values()}) == 1
    assert "the" in found["text"]["reference"]
    assert set(found["random"]["domain"]) == {"random"}
    known = set(found["text"]["reference"])
    assert set(found["shuffled"]["reference"]) <= known
    assert not set(found["random"]["reference"]) <= known
    domains = run.table("estimates").filter(by="domain", seed="all", condition="memory", metric="retention")
    assert set(domains["group"]) == {"news", "fiction", "shuffled", "random"}


REFUSED = {
    "train": ({"text": {"train": [{"path": "a", "control": "random"}]}}, "is measured, not trained on"),
    "pair": (
        {"text": {"measure": [{"path": "a", "control": "random", "pair": "p", "dialect": "d"}]}},
        "leave out pair or control",
    ),
    "annotations": (
        {
            "text": {"measure": [{"path": "a", "control": "shuffled"}]},
            "annotations": [{"name": "n", "kind": "fields"}],
        },
        "measure control text in a study of its own",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_it_has_no_meaning_it_is_refused(case: str, tmp_path: Path) -> None:
    changes, problem = REFUSED[case]
    with pytest.raises((ConfigError, ValueError), match=problem):
        config.Study.model_validate({"name": "x", "seed": 0, **changes})
