"""Every metric on one window of five tokens, worked by hand.

    source           to   be   or    not   to         ids 1 2 3 4 1
    reconstruction   or to be to                      ids 3 1 2 1

In place: the cheapest way (3 edits) inserts "or", keeps "to be", omits "or not", keeps "to".
Anywhere: two "to", one "be" and one "or" were written; only "not" is missing.
Teacher forcing guessed 1 2 4 4 2: right at positions 0, 1 and 3.
Bits of each token with the memory: 1 2 0 1 4, sum 8; without: 2 2 3 1 2, sum 10.
"""

from __future__ import annotations

import math

import polars as pl
import pytest
from decoded import decoded, window

from mnemoscope import plugins
from mnemoscope.score.records import records
from mnemoscope.score.rouge import rouge

WITH = [1.0, 2.0, 0.0, 1.0, 4.0]
WITHOUT = [2.0, 2.0, 3.0, 1.0, 2.0]
WORDS = ["", "to", "be", "or", "not"]


def ratio(name: str, frame: pl.DataFrame) -> float:
    metric = plugins.load("metric", name)
    measured = frame.select(num=metric.numerator, den=metric.denominator).filter(pl.col("num").is_not_null())
    return measured["num"].sum() / measured["den"].sum() if measured["den"].sum() else math.nan


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    row = window(
        [1, 2, 3, 4, 1],
        [3, 1, 2, 1],
        reference="to be or not to",
        reconstruction="or to be to",
        predicted_ids=[1, 2, 4, 4, 2],
        token_nats=[b * math.log(2) for b in WITH],
    )
    windows, tokens = (pl.from_arrow(t) for t in records(decoded(row), WORDS.__getitem__))
    return {"window": windows, "token": tokens.with_columns(nats_none=pl.Series(WITHOUT) * math.log(2))}


BY_HAND = {
    "omission_in_place": 2 / 5,
    "omission_anywhere": 1 / 5,
    "omission_words": 1 / 5,
    "exact": 0.0,
    "rouge1": 2 * 4 / (5 + 4),  # to, to, be, or
    "rouge2": 2 * 1 / (4 + 3),  # (to, be), of (to be)(be or)(or not)(not to) and (or to)(to be)(be to)
    "rougeL": 2 * 3 / (5 + 4),  # to ... be ... to
    "token_accuracy": 3 / 5,
    "nats": 8 * math.log(2) / 5,
    "bits_retained": (1 + 0 + 3 + 0 - 2) / 5,  # the last token cost more with the memory: not clipped
    "retention": (10 - 8) / 10,
}


@pytest.mark.parametrize("name", plugins.names("metric"))
def test_by_hand(name, tables):
    metric = plugins.load("metric", name)
    assert ratio(name, tables[metric.level]) == pytest.approx(BY_HAND[name], rel=1e-6)


def test_the_counts_of_the_window(tables):
    columns = ["matched", "substituted", "omitted", "inserted", "words", "words_recovered_anywhere", "exact", "nats"]
    found = tables["window"].select(columns).row(0)
    assert found == pytest.approx((3, 0, 2, 1, 5, 4, False, 8 * math.log(2)))


def test_below_nothing():
    # the memory misled: 3 nats with it, 1 without
    frame = pl.DataFrame({"nats": [3.0], "nats_none": [1.0]})
    assert ratio("bits_retained", frame) == pytest.approx(-2 / math.log(2))
    assert ratio("retention", frame) == pytest.approx(-2.0)


def test_retention_is_a_ratio_of_sums():
    # 4 of 4 and 0 of 1 nats brought back: 4/5, where the mean of ratios would say 1/2
    frame = pl.DataFrame({"nats": [0.0, 1.0], "nats_none": [4.0, 1.0]})
    assert ratio("retention", frame) == pytest.approx(0.8)


def test_an_unmeasured_row_is_in_neither_sum():
    assert ratio("nats", pl.DataFrame({"nats": [1.0, None, float("nan")]})) == 1.0
    assert ratio("rouge1", pl.DataFrame({"rouge1": [0.5, float("nan")]})) == 0.5
    assert ratio("retention", pl.DataFrame({"nats": [1.0, 1.0], "nats_none": [2.0, None]})) == 0.5
    assert math.isnan(ratio("rouge1", pl.DataFrame({"rouge1": [float("nan")]})))


@pytest.mark.parametrize("text", ["){\n\t", "}\n\n", "// **", "Что это", ""])
def test_rouge_of_a_text_without_its_words_is_missing_and_not_zero(text):
    assert all(math.isnan(score) for score in rouge(text, text))


def test_rouge_of_one_word_has_no_pairs():
    scores = rouge("word", "other word")
    assert (scores.rouge1, scores.rougeL) == (2 / 3, 2 / 3)
    assert math.isnan(scores.rouge2)
