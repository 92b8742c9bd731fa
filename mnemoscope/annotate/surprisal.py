"""How little the model itself expected a token: bins of -log2 p."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mnemoscope.annotate import Annotator, Span
from mnemoscope.errors import ConfigError
from mnemoscope.types import Document

if TYPE_CHECKING:
    from mnemoscope.annotate._reader import Reader


class Surprisal(Annotator):
    """Bits of each token under the encoder as a language model that has read the window up to it (and the study's
    prefix, if any); with prefix ``none`` a window's first token is never predicted and has no label.

    The argument lists the edges of the bins, in bits: ``1 2 4 8`` makes ``0-1 bits``, ``1-2 bits``, ``2-4 bits``,
    ``4-8 bits`` and ``8+ bits``; an edge belongs to the bin above it.
    """

    wants = "the edges of the bins in bits, rising, such as 1 2 4 8"
    reads = True

    def __init__(self, argument: str, reader: Reader):
        super().__init__(argument)
        try:
            self._edges = np.array([float(edge) for edge in argument.split()])
        except ValueError:
            self._edges = np.zeros(0)
        if not self._edges.size or not (np.isfinite(self._edges).all() and (np.diff(self._edges, prepend=0) > 0).all()):
            raise ConfigError(f"the argument {argument!r} of a surprisal annotation", remedy=f"Give {self.wants}")
        edges = [f"{edge:g}" for edge in (0, *self._edges)]
        self._labels = [*(f"{low}-{high} bits" for low, high in pairwise(edges)), f"{edges[-1]}+ bits"]
        self._reader = reader

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        windows = self._reader.windows(document.doc_id)
        for window, nats in zip(windows, self._reader.nats(windows), strict=True):
            bins = np.searchsorted(self._edges, nats / np.log(2), side="right")
            rows = (window.char_start.tolist(), window.char_end.tolist(), bins.tolist(), np.isnan(nats).tolist())
            for start, end, number, unknown in zip(*rows, strict=True):
                if not unknown:
                    yield Span(document.doc_id, start, end, self._labels[number], window.window_id)


ANNOTATION = Surprisal
