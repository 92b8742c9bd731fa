"""The values that flow from stage to stage.  No torch here: reports and statistics import this too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and what is known about it.  The unit of resampling in every statistic.

    Attributes:
        where: the file and line it came from, for messages.
        tokens: where the corpus gives tokens, the half-open character span of each: a tuple for each record (sentence)
            of the document.
        control: ``shuffled`` or ``random`` where its tokens are not to be measured as they stand (text/control.py).
    """

    doc_id: str
    text: str
    domain: str
    source: str
    dialect: str = ""
    where: str = ""
    tokens: tuple[tuple[tuple[int, int], ...], ...] = ()
    control: str = ""

    @property
    def unit(self) -> str:
        """What it is resampled as: the pair that it belongs to, whose texts are called ``<pair>/<dialect>``, or
        itself."""
        return self.doc_id.removesuffix(f"/{self.dialect}") if self.dialect else self.doc_id


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """L consecutive tokens of one document, never across two.

    Attributes:
        window_id: ``<doc_id>:<length>:<index of the first token in the document>``, unique in a study.
        token_ids: int64 [L].
        char_start, char_end: int64 [L], half-open character (code point) span of each token in the document's
            text.  Tokens that share one multi-byte character share its span.
        prefix: ``"none"`` or ``"bos"``: what the encoder read before the window.
    """

    window_id: str
    doc_id: str
    token_ids: IntArray
    char_start: IntArray
    char_end: IntArray
    domain: str
    source: str
    dialect: str
    prefix: str

    @property
    def length(self) -> int:
        """L, in tokens."""
        return len(self.token_ids)

    @property
    def passage(self) -> str:
        """``<doc_id>:<index of the first token in the document>``: where it begins, alike for windows of all lengths
        that begin there."""
        return f"{self.doc_id}:{self.window_id.rpartition(':')[2]}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.  ``value`` is NaN when there is nothing to average; ``low`` and ``high`` are NaN
    when fewer than two documents leave nothing to resample."""

    value: float
    low: float
    high: float
    n_tokens: int
    n_documents: int
    method: str
