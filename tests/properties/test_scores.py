"""Equalities that hold for any text and any reconstruction."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from decoded import decoded, window
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize

from mnemoscope import plugins
from mnemoscope.score.align import align, recovered_anywhere
from mnemoscope.score.records import records
from mnemoscope.score.rouge import rouge

# few ids and few words, so that repetitions and near misses are frequent; and any text at all
IDS = st.lists(st.integers(0, 3) | st.integers(0, 100_000), max_size=30)
WORDS = st.lists(st.sampled_from(["a", "A", "a.", "b", "“", "日本", "c"]), max_size=20)
PROSE = st.text(alphabet="abAB09 .-\n", max_size=60) | st.text(max_size=40)
SCORER = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)


def omission_of_the_paper(reference: list, reconstruction: list) -> float:
    """1 - fraction of reference (word, k-th occurrence) pairs present in the reconstruction."""

    def pairs(words: list) -> set[tuple]:
        return {(word, words[: i + 1].count(word)) for i, word in enumerate(words)}

    wanted = pairs(reference)
    return 1 - len(wanted & pairs(reconstruction)) / len(wanted)


@given(WORDS.filter(bool), WORDS)
@settings(deadline=None)
def test_omission_anywhere_is_the_papers(reference, reconstruction):
    ours = 1 - recovered_anywhere(reference, reconstruction).mean()
    assert ours == pytest.approx(omission_of_the_paper(reference, reconstruction))


@given(WORDS.filter(bool), WORDS)
@settings(deadline=None, max_examples=50)
def test_omission_words_of_the_table_is_the_papers(reference, reconstruction):
    row = window([1], [2], reference=" ".join(reference), reconstruction="  ".join(reconstruction))
    windows = pl.from_arrow(records(decoded(row), str)[0])
    metric = plugins.load("metric", "omission_words")
    sums = windows.select(num=metric.numerator.sum(), den=metric.denominator.sum()).row(0)
    assert sums[0] / sums[1] == pytest.approx(omission_of_the_paper(reference, reconstruction))


@given(IDS, IDS)
@settings(deadline=None)
def test_alignment_accounts_for_every_unit(source, written):
    found = align(source, written)
    omitted, matched = int((found.operations == 2).sum()), int((found.operations == 0).sum())
    assert len(written) == len(source) - omitted + found.inserted
    assert matched <= recovered_anywhere(source, written).sum()
    again = align(list(source), list(written))
    assert np.array_equal(found.operations, again.operations)
    assert found.inserted == again.inserted


@given(IDS)
@settings(deadline=None)
def test_a_permutation_loses_nothing_anywhere(source):
    assert recovered_anywhere(source, source[::-1]).all()


@given(PROSE, PROSE)
@settings(deadline=None)
def test_rouge_is_the_librarys_where_there_is_something_to_recover(reference, reconstruction):
    ours, theirs = rouge(reference, reconstruction)._asdict(), SCORER.score(reference, reconstruction)
    words = len(tokenize(reference, None))
    for name, needed in (("rouge1", 1), ("rouge2", 2), ("rougeL", 1)):
        if words < needed:
            assert math.isnan(ours[name])
        else:
            assert ours[name] == pytest.approx(theirs[name].fmeasure)


@given(IDS.filter(bool), st.text(max_size=40), st.text(max_size=40))
@settings(deadline=None, max_examples=50)
def test_a_perfect_reconstruction_loses_nothing(ids, text, as_decoded):
    """Whatever the script, and however the tokenizer spells the same ids when it decodes them."""
    row = window(ids, ids, reference=text, reconstruction=as_decoded)
    windows, tokens = (pl.from_arrow(t) for t in records(decoded(row), str))
    assert (tokens["operation"] == "match").all()
    assert tokens["recovered_in_place"].all()
    assert tokens["recovered_anywhere"].all()
    found = windows.row(0, named=True)
    assert found["exact"]
    assert found["matched"] == len(ids)
    assert (found["substituted"], found["omitted"], found["inserted"]) == (0, 0, 0)
    assert found["words_recovered_anywhere"] == found["words"] == len(text.split())
    assert all(found[n] == 1 or math.isnan(found[n]) for n in ("rouge1", "rouge2", "rougeL"))


@given(st.lists(st.tuples(IDS.filter(bool), IDS), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_windows_do_not_see_each_other(pairs):
    rows = [window(s, w, window_id=f"d:{len(s)}:{i}") for i, (s, w) in enumerate(pairs)]
    together = records(decoded(*rows), str)
    alone = [records(decoded(row), str) for row in rows]
    for kind in (0, 1):
        apart = pl.concat([pl.from_arrow(tables[kind]) for tables in alone])
        assert pl.from_arrow(together[kind]).equals(apart, null_equal=True)
    # the table of windows is the table of tokens, added up
    windows, tokens = (pl.from_arrow(t) for t in together)
    counted = tokens.group_by("window_id", maintain_order=True).agg(
        matched=(pl.col("operation") == "match").sum(),
        substituted=(pl.col("operation") == "substitute").sum(),
        omitted=(pl.col("operation") == "omit").sum(),
        length=pl.len(),
    )
    for name in ("matched", "substituted", "omitted", "length"):
        assert counted[name].to_list() == windows[name].to_list()
