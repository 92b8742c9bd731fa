"""ROUGE F1 of a reconstruction, equal to the library rouge-score's without stemming.

The words are the library's.  The counting is ours because the library's longest common subsequence is a table in
Python, quadratic in the window, and because it scores 0 where the reference holds nothing to recover.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rapidfuzz.distance import LCSseq
from rouge_score.tokenize import tokenize


class Rouge(NamedTuple):
    """F1 scores in [0, 1]; NaN where the reference holds no such unit (``){\\n\\t`` holds no word of a-z and 0-9)."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 (the metric is spelt so)


def rouge(reference: str, reconstruction: str) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L of two texts; without regard to case, punctuation or symbols."""
    source, written = tokenize(reference, None), tokenize(reconstruction, None)
    pairs, written_pairs = list(pairwise(source)), list(pairwise(written))
    return Rouge(
        _f1(_shared(source, written), source, written),
        _f1(_shared(pairs, written_pairs), pairs, written_pairs),
        _f1(LCSseq.similarity(source, written), source, written),
    )


def _shared(source: Sequence[Hashable], written: Sequence[Hashable]) -> int:
    return (Counter(source) & Counter(written)).total()


def _f1(shared: int, source: Sequence[Hashable], written: Sequence[Hashable]) -> float:
    if not source:
        return math.nan
    return 2 * shared / (len(source) + len(written))
