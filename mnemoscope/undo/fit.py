"""The distribution of a model's states, from text."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mnemoscope.config import Corpus
from mnemoscope.errors import ConfigError
from mnemoscope.memory.load import load
from mnemoscope.progress import Progress
from mnemoscope.text import corpora
from mnemoscope.text.tokens import TokenStore
from mnemoscope.undo.distribution import Distribution


def fit(
    model: str, text: Sequence[str], folder: Path, *, longest: int, states: int, seed: int, progress: Progress
) -> Distribution:
    """Fits a distribution and writes it.

    Args:
        model: embedded name, folder or hub name.
        text: files, folders or globs.
        folder: where to; what is there of an older one is replaced.
        longest, states: see :meth:`Distribution.fit`.

    Raises:
        MnemoscopeError: whatever is wrong with the model or the text; before anything is fitted.
    """
    loaded = load(model)
    adapter = loaded.adapter.requires_grad_(False)
    given = [Corpus.model_validate({"path": path}) for path in text]
    corpora.check(given)
    with tempfile.TemporaryDirectory() as place:
        assert loaded.tokenizer is not None
        progress.say("tokenising ...")
        store = TokenStore.build(given, loaded.tokenizer, place)
        # all of its text is there, and long enough, before the first state is made
        store.sample(np.random.default_rng(0), longest - 1, 1)
        if states < 2 * (numbers := Distribution.numbers(adapter)):
            raise ConfigError(
                f"{states:,} states are too few for a covariance of {numbers:,} numbers",
                remedy=f"Give --states {2 * numbers} or more",
            )
        frequency = torch.from_numpy(np.bincount(store.tokens, minlength=adapter.vocabulary).astype(np.float64))
        found = Distribution.fit(adapter, store.sample, frequency, longest, states, seed, progress)
    found.save(folder)
    return found
