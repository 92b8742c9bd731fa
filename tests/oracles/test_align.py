"""The alignment against the textbook's table, and against examples worked by hand."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from mnemoscope.score.align import OPERATIONS, align, recovered_anywhere


def operations(source, written):
    found = align(source, written)
    return [OPERATIONS[o] for o in found.operations], found.inserted


def table(source, written) -> list[list[int]]:
    """Levenshtein's table, as in the textbook: [i][j] turns the first i units into the first j."""
    rows = [list(range(len(written) + 1))]
    for i, a in enumerate(source, start=1):
        row = [i]
        for j, b in enumerate(written, start=1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b)))
        rows.append(row)
    return rows


def stated_choice(source, written) -> list[str]:
    """Of the ways of least cost, the one that the module's docstring states."""
    start = next((i for i, (a, b) in enumerate(zip(source, written, strict=False)) if a != b), None)
    if start is None:
        start = min(len(source), len(written))
    end = 0
    while end < min(len(source), len(written)) - start and source[-1 - end] == written[-1 - end]:
        end += 1
    inner, inner_written = source[start : len(source) - end], written[start : len(written) - end]
    cost = table(inner, inner_written)
    i, j, back = len(inner), len(inner_written), []
    while i:
        if cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            back.append("omit")
        elif j > 1 and cost[i][j - 1] < cost[i - 1][j - 1]:  # an insertion where it is cheaper than a substitution
            j -= 1
        else:
            i, j = i - 1, j - 1
            back.append("match" if inner[i] == inner_written[j] else "substitute")
    return ["match"] * start + back[::-1] + ["match"] * end


def test_the_drawing_in_the_docstring():
    source, written = ["the", "cat", "sat", "on", "the", "mat"], ["the", "dog", "sat", "the", "mat", "today"]
    assert operations(source, written) == (["match", "substitute", "match", "omit", "match", "match"], 1)


@pytest.mark.parametrize(
    ("source", "written", "expected", "inserted"),
    [
        ([5, 6, 7], [5, 6, 7], ["match"] * 3, 0),
        ([5, 6, 7], [], ["omit"] * 3, 0),
        ([], [5, 6], [], 2),
        ([5, 6, 7], [6, 7, 8], ["omit", "match", "match"], 1),  # shifted by one: 2 edits, against 3 substitutions
        ([5, 5, 5], [5], ["match", "omit", "omit"], 0),
        # ties of 2 edits: substitutions are preferred to an insertion, and an omission to a substitution
        ([5, 6], [6, 7], ["substitute", "substitute"], 0),
        ([5, 6, 7], [8, 9], ["substitute", "substitute", "omit"], 0),
    ],
)
def test_by_hand(source, written, expected, inserted):
    assert operations(source, written) == (expected, inserted)


def test_ids_are_units_and_not_their_digits():
    # as characters, 12 and 21 share a digit; as ids they share nothing
    assert operations([12, 34], [21, 43]) == (["substitute", "substitute"], 0)
    # ids beyond a byte, and beyond Unicode
    assert operations([300, 2_000_000], [2_000_000]) == (["omit", "match"], 0)


def test_of_least_cost_and_by_the_stated_choice():
    draw = random.Random(0)
    for _ in range(500):
        alphabet = draw.choice([2, 4, 50])
        source = [draw.randrange(alphabet) for _ in range(draw.randrange(40))]
        written = [draw.randrange(alphabet) for _ in range(draw.randrange(40))]
        found = align(source, written)
        assert int((found.operations != 0).sum()) + found.inserted == table(source, written)[-1][-1]
        assert operations(source, written)[0] == stated_choice(source, written)


def test_what_stands_for_each_unit_by_hand():
    # the drawing in the module's docstring: "on" has nothing, and "today", inserted at the end, goes with "mat"
    source = ["the", "cat", "sat", "on", "the", "mat"]
    written = ["the", "dog", "sat", "the", "mat", "today"]
    ends = align(source, written).ends.tolist()
    assert [written[a:b] for a, b in pairwise(ends)] == [["the"], ["dog"], ["sat"], [], ["the"], ["mat", "today"]]
    # what is inserted before a unit goes with it
    assert align(["a", "b"], ["x", "a", "y", "z", "b"]).ends.tolist() == [0, 2, 5]
    assert align(["a", "b"], []).ends.tolist() == [0, 0, 0]
    assert align([], ["a"]).ends.tolist() == [0]


def test_what_stands_for_the_units_is_the_reconstruction():
    draw = random.Random(1)
    for _ in range(500):
        alphabet = draw.choice([2, 4, 50])
        source = [draw.randrange(alphabet) for _ in range(draw.randrange(1, 40))]
        written = [draw.randrange(alphabet) for _ in range(draw.randrange(40))]
        found = align(source, written)
        ends = found.ends.tolist()
        assert (ends[0], ends[-1]) == (0, len(written))
        stands = [written[a:b] for a, b in pairwise(ends)]
        assert [unit for there in stands for unit in there] == written
        for unit, operation, there in zip(source, found.operations, stands, strict=True):
            # a match is there; with what was inserted at the end it need not be the last
            assert (unit in there) if operation == 0 else len(there) >= (operation == 1)
            assert not (operation == 2 and there)


def test_long_windows_are_aligned_whole():
    source = np.random.default_rng(0).integers(0, 8192, 5000).tolist()
    written = source[:1000] + source[1001:4000] + [9000] + source[4000:]
    found = align(source, written)
    assert np.flatnonzero(found.operations).tolist() == [1000]
    assert found.inserted == 1


def test_recovered_anywhere_by_hand():
    # "a" stands three times and was written twice: its third occurrence is lost, wherever the two were written
    found = recovered_anywhere(["a", "b", "a", "c", "a"], ["c", "a", "x", "a"])
    assert found.tolist() == [True, False, True, True, False]
    assert recovered_anywhere([], [1]).tolist() == []
