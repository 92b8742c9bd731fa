"""How the study's model reads the measured text, for annotators that ask for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mnemoscope.errors import ModelError
from mnemoscope.memory.load import Loaded
from mnemoscope.text.tokens import Encoding, bare, encode
from mnemoscope.text.windows import WindowSet
from mnemoscope.types import Window


class Reader:
    """The tokenizer, the windows and the encoder of a study.

    Args:
        bos: the token that the encoder reads before a window, if the study's prefix is ``bos``.
        batch_tokens: tokens that the encoder reads at once; no number depends on it.

    Raises:
        ModelError: a model without a tokenizer, or one whose tokenizer knows no offsets.
    """

    def __init__(self, loaded: Loaded, windows: WindowSet, bos: int | None, batch_tokens: int):
        if loaded.tokenizer is None:
            raise ModelError(f"{loaded.name!r} has no tokenizer", remedy="Name one: model.tokenizer")
        self._tokenizer = bare(loaded.tokenizer)
        self._adapter, self._bos, self._batch_tokens = loaded.adapter, bos, batch_tokens
        self._windows: dict[str, list[Window]] = defaultdict(list)
        for some in windows.windows.values():
            for window in some:
                self._windows[window.doc_id].append(window)

    def tokens(self, text: str) -> Encoding:
        """The tokens of a text, see :func:`mnemoscope.text.tokens.encode`."""
        return encode(self._tokenizer, text)

    def text(self, ids: Sequence[int]) -> str:
        """Tokens decoded."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def windows(self, doc_id: str) -> Sequence[Window]:
        """The measured windows of a document, shortest first."""
        return self._windows.get(doc_id, ())

    @torch.no_grad()
    def nats(self, windows: Sequence[Window]) -> list[npt.NDArray[np.float64]]:
        """-ln p of each token of each window [L], under the encoder as a language model that has read what stands
        before it in the window (and the study's prefix).  NaN for a window's first token where the prefix is none."""
        found: list[npt.NDArray[np.float64]] = []
        at = 0
        while at < len(windows):
            length = windows[at].length
            batch = [w for w in windows[at : at + max(1, self._batch_tokens // length)] if w.length == length]
            at += len(batch)
            ids = torch.from_numpy(np.stack([w.token_ids for w in batch])).to(self._adapter.device)
            found.extend(self._batch(ids).cpu().double().numpy())
        return found

    def _batch(self, ids: torch.Tensor) -> torch.Tensor:
        """Nats [B, L] of ids [B, L]."""
        if self._bos is not None:
            ids = torch.cat([ids.new_full((len(ids), 1), self._bos), ids], dim=1)
        read, targets = ids[:, :-1], ids[:, 1:]
        nats = torch.full(ids.shape, float("nan"), device=ids.device)
        if read.shape[1]:
            hidden, _ = self._adapter.hidden(read, None)
            nats[:, 1:] = self._adapter.cross_entropy(hidden.flatten(0, 1), targets.flatten())[0].view_as(targets)
        return nats if self._bos is None else nats[:, 1:]
