"""Puts tests/ on the path, so that tests in its folders can import its helpers."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    # its interpreter runs Triton's kernels on the CPU; said here, since it counts only before Triton is first imported,
    # which transformers does with some models
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_finish() -> None:
    """What was imported is no garbage: it need not be gone through whenever some is collected."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Libraries report as leaked what is still frozen at the end."""
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _unprinted(request: pytest.FixtureRequest) -> Iterator[None]:
    """The files of figures for paper, which take most of a page's time, are empty; not in modules with PRINTED."""
    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(request.module, "PRINTED"):
            from mnemoscope.report import figures

            patch.setattr(figures, "paper", lambda chart, kinds=("svg", "png"): dict.fromkeys(kinds, b""))
        yield
