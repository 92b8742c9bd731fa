"""The published omission rate and test against a slow restatement of their description, on our reconstructions.

The restatement lists pairs (word, k) and looks each up; it shares no code with the package.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nltk
import numpy as np
import polars as pl
import pytest
from scipy import stats
from synthetic_run import make_run

from mnemoscope.config import Study
from mnemoscope.errors import ConfigError, RunError
from mnemoscope.score import published
from mnemoscope.stats import effects

#: reference as annotators cut it, classes of parts of speech and entities, reconstruction
CASES: list[tuple[str, str, str, str]] = [
    # repeated words: the second "the" and the third "a" are to blame, whichever were lost
    ("the cat and the dog saw a a a bird", "DNCDNVDDDN", "..........", "a cat and the dog saw a bird"),
    # punctuation and a sentence within
    ("He left . She , too , won 5 : 3 .", "PV.P.A.VN.N.", "............", "He left. She, too, won 5: 3."),
    # quotes, of which NLTK makes `` and ''
    ('" Cannot " , said Ann of U.N. \'s team', ".V..VNPNSN", ".....E.E..", '"Cannot", said Ann of U.N.\'s team'),
    # written back without a fault, and yet: C$, 100%
    ("It paid C$ 7 or 100% of it", "PVNNCNPP", "........", "It paid C$ 7 or 100% of it"),
    # nothing written back
    ("all is lost", "DVV", "...", ""),
    # another case, another order, more than there was
    ("Rome and rome in ROME", "NCNPN", "E.E.E", "rome ROME ROME ROME and"),
]


def slow(words: list[str], reconstruction: list[str]) -> list[int]:
    """Omission flags by the letter: (word, k-th occurrence so far) is looked for among the reconstruction's pairs."""

    def pairs(sequence: list[str]) -> list[tuple[str, int]]:
        return [(w, len([v for v in sequence[: i + 1] if v == w])) for i, w in enumerate(sequence)]

    there = pairs(reconstruction)
    return [0 if pair in there else 1 for pair in pairs(words)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_omitted_is_the_restatement(case: tuple[str, str, str, str]) -> None:
    words, _, _, written = case
    tokenize = published.tokenizer("untrained")
    assert published.omitted(words.split(), written, tokenize).astype(int).tolist() == slow(
        words.split(), tokenize(written)
    )


def test_hand_worked() -> None:
    tokenize = published.tokenizer("untrained")
    assert tokenize('the cat "sat" the') == ["the", "cat", "``", "sat", "''", "the"]
    lost = published.omitted(["the", "cat", '"', "sat", '"', ",", "the", "end"], 'the cat "sat" the', tokenize)
    assert lost.tolist() == [False, False, True, False, True, True, False, True]
    assert published.omitted([], "", tokenize).tolist() == []
    # a perfect copy loses words by this definition, as published
    perfect = 'He said " Cannot "'
    assert published.omitted(perfect.split(), perfect, tokenize).tolist() == [False, False, True, True, True]


def test_without_nltks_model_the_study_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(text: str) -> list[str]:
        raise LookupError

    monkeypatch.setattr(nltk.tokenize, "word_tokenize", missing)
    with pytest.raises(ConfigError, match="downloader punkt_tab"):
        published.tokenizer("punkt")
    monkeypatch.setattr(nltk.tokenize, "word_tokenize", lambda text: text.split())
    assert published.tokenizer("punkt")("a b.") == ["a", "b."]


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Study]:
    """The cases as documents of one window each, three times over, with annotations by word."""
    made = make_run(tmp_path, lengths=(16,), documents=1, windows=1, conditions=("memory", "none"), seeds=(0, 1))
    token = pl.read_parquet(tmp_path / "tokens.parquet").filter(condition="memory", seed=0).row(0, named=True)
    window = pl.read_parquet(tmp_path / "reconstructions.parquet").filter(condition="memory").row(0, named=True)
    tokens: list[dict[str, Any]] = []
    windows: list[dict[str, Any]] = []
    spans: dict[str, list[dict[str, Any]]] = {"pos": [], "ner": []}
    for number in range(3 * len(CASES)):
        text, pos, ner, written = CASES[number % len(CASES)]
        doc = f"d{number:02d}"
        # the window begins at character 4 of its document; a word before it is no word of the window
        key = {"doc_id": doc, "window_id": f"{doc}:16:0"}
        tokens.append(token | key | {"char_start": 4, "char_end": 4 + len(text)})
        # the second seed wrote nothing: the published test reads one decoder, the first
        for seed in (0, 1):
            wrote = written if seed == 0 else ""
            windows.append(window | key | {"seed": seed, "reference": text, "reconstruction": wrote})
        spans["pos"].append({"doc_id": doc, "char_start": 0, "char_end": 3, "label": "N"})
        start = 4
        for word, p, e in zip(text.split(), pos, ner, strict=True):
            span = {"doc_id": doc, "char_start": start, "char_end": start + len(word)}
            spans["pos"].append(span | {"label": p})
            if e != ".":
                spans["ner"].append(span | {"label": e})
            start += len(word) + 1
    for name, rows in (("tokens", tokens), ("reconstructions", windows)):
        schema = pl.read_parquet_schema(tmp_path / f"{name}.parquet")
        pl.DataFrame(rows, schema=schema).write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "annotations").mkdir()
    for name, found in spans.items():
        pl.DataFrame(found).write_parquet(tmp_path / "annotations" / f"{name}.parquet")
    wanted = [{"by": by, "metrics": ["omission_words"], "words": "pos", "sentences": "untrained"} for by in spans]
    return tmp_path, Study.model_validate({**made.model_dump(), "effects": wanted})


@pytest.mark.parametrize("by", ["pos", "ner"])
def test_rates_and_tests_are_the_published_ones_to_1e_12(run: tuple[Path, Study], by: str) -> None:
    folder, study = run
    effects.require(folder, study)
    effects.effects(folder, study)
    tokenize = published.tokenizer("untrained")
    flags: dict[str, list[int]] = {}
    for text, pos, ner, written in CASES * 3:
        words = text.split()
        labels = pos if by == "pos" else ["E" if e == "E" else "(unlabelled)" for e in ner]
        for label, flag in zip(labels, slow(words, tokenize(written)), strict=True):
            flags.setdefault(label, []).append(flag)
    rows = pl.read_parquet(folder / "effects.parquet").filter(kind="paper", by=by)
    assert rows.height == math.comb(len(flags), 2)
    for row in rows.iter_rows(named=True):
        a, b = flags[row["group"]], flags[row["base"]]
        assert abs(row["group_value"] - np.mean(a)) < 1e-12
        assert abs(row["base_value"] - np.mean(b)) < 1e-12
        assert row["n_tokens"] == len(a) + len(b)
        p = stats.ttest_ind(a, b, equal_var=True).pvalue  # NaN where nothing varies on either side
        assert row["p"] == pytest.approx(p, abs=1e-12, nan_ok=True)
        assert row["p_adjusted"] == pytest.approx(np.minimum(1, p * rows.height), abs=1e-12, nan_ok=True)
    assert rows["p"].is_finite().sum() >= 1


def test_words_that_are_not_annotated_are_refused(run: tuple[Path, Study]) -> None:
    folder, study = run
    for wrong in ({"by": "domain", "words": "pos"}, {"by": "pos", "words": "chunks"}):
        bad = Study.model_validate({**study.model_dump(), "effects": [{**wrong, "sentences": "untrained"}]})
        with pytest.raises(RunError, match="annotation of this run"):
            effects.require(folder, bad)
