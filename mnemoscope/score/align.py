"""Which units of a window came back, in place and anywhere.  Units are token ids, or words: anything hashable.

``align`` finds one way of least cost (an insertion, an omission and a substitution cost 1 each) to turn the source
into the reconstruction, over whole units, never over characters::

    source           the    cat         sat    on    the    mat
    reconstruction   the    dog         sat          the    mat    today
    operation        match  substitute  match  omit  match  match  (inserted)

Of several ways of least cost it takes always the same one: equal beginnings and ends are matched first; between them,
read from the end, an omission is preferred to a substitution, and a substitution to an insertion.  Another choice would
match about one token in a hundred more or fewer, which is as far as "in place" is defined.  (The library halves
windows of some 2,000 units and more; the cost stays least, but between equals the choice there can be another.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

OPERATIONS = ("match", "substitute", "omit")
MATCH, SUBSTITUTE, OMIT = range(3)
_CODES = {"replace": SUBSTITUTE, "delete": OMIT}


class Alignment(NamedTuple):
    """The monotone alignment of a source of L units with a reconstruction of R.

    Attributes:
        operations: int8 [L], indices into ``OPERATIONS``: what became of each source unit.
        inserted: units of the reconstruction that stand for no source unit; R = L - omitted + inserted.
        ends: int64 [L + 1], rising from 0 to R: ``reconstruction[ends[i]:ends[i + 1]]`` is what stands for source unit
            i, after what was inserted before it; what was inserted at the end goes with the last unit.
    """

    operations: npt.NDArray[np.int8]
    inserted: int
    ends: npt.NDArray[np.int64]


def align(source: Sequence[Hashable], reconstruction: Sequence[Hashable]) -> Alignment:
    """One alignment of least edit distance, always the same for the same input; see the module's drawing."""
    operations = np.full(len(source), MATCH, np.int8)
    ends = np.zeros(len(source) + 1, np.int64)
    inserted = 0
    for op in Levenshtein.opcodes(source, reconstruction):
        # an omission's destination is empty; a block of matches or substitutions takes one unit each
        ends[op.src_start + 1 : op.src_end + 1] = np.minimum(
            np.arange(op.src_end - op.src_start) + op.dest_start + 1, op.dest_end
        )
        if op.tag == "insert":
            inserted += op.dest_end - op.dest_start
        elif op.tag != "equal":
            operations[op.src_start : op.src_end] = _CODES[op.tag]
    if len(source):
        ends[-1] = len(reconstruction)
    return Alignment(operations, inserted, ends)


def recovered_anywhere(source: Sequence[Hashable], reconstruction: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
    """The paper's count (arXiv 2512.15653), bool [L]: the k-th occurrence of a unit in the source counts as recovered
    if the reconstruction holds at least k of it, wherever.

    Does not see order, and takes the last occurrences of a unit for the lost ones, whichever they were.
    """
    left = Counter(reconstruction)
    recovered = np.zeros(len(source), np.bool_)
    for place, unit in enumerate(source):
        if left.get(unit):
            left[unit] -= 1
            recovered[place] = True
    return recovered
