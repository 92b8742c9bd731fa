"""How a decoder does on text that it is not trained on, while it is trained: rows of ``schema.LEARNING``.

A training leaves ``NAME.learning.parquet`` beside its weights.  What was measured lies in the training's own folder
until then, a file a point, so that nothing is measured twice and a training that goes on from a checkpoint leaves the
same as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mnemoscope import config, plugins, schema
from mnemoscope.codec.decoder import Decoder
from mnemoscope.measuring import batch_windows, in_batches
from mnemoscope.rundir import RunDir, replacing
from mnemoscope.text.windows import WindowSet
from mnemoscope.train import checkpoint, decoders
from mnemoscope.types import Window
from mnemoscope.workshop import Workshop


class Learning:
    """One training's learning curve.

    Args:
        windows: of text.measure, by length.
        folder: of the unfinished training.
    """

    def __init__(self, shop: Workshop, job: decoders.Job, decoder: Decoder, windows: WindowSet, folder: Path):
        self.shop, self.job, self.decoder, self.windows = shop, job, decoder, windows
        self.folder = folder / "learning"

    def look(self, step: int, tokens: int) -> None:
        """Measures the decoder as it is now, unless it was measured after this step already."""
        file = self.folder / f"{step}.parquet"
        if file.exists():
            return
        job = self.job
        key: dict[str, Any] = {"run": self.shop.study.name, "model": self.shop.model_name, "decoder": job.decoder.name}
        key |= {"condition": job.condition, "seed": job.seed, "step": step, "tokens": tokens}
        rows = [
            {**key, "length": length, **row}
            for length in (job.lengths if job.length is None else [job.length])
            for row in by_document(self.shop, self.decoder, job.condition, self.windows.windows[length])
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema.arrow("learning")), part, compression="zstd")

    def save(self, target: Path) -> None:
        """All points as one table."""
        files = sorted(self.folder.glob("*.parquet"), key=lambda f: int(f.stem))
        checkpoint.gather(files, target)


@torch.no_grad()
def by_document(
    shop: Workshop, decoder: Decoder, condition_name: str, windows: Sequence[Window]
) -> list[dict[str, Any]]:
    """Nats of windows of one length under a condition, summed by document, in the order of the documents."""
    condition, device = plugins.load("condition", condition_name), shop.accelerator.device
    read, size = condition.windows_to_read(windows), batch_windows(shop, windows[0].length)

    def costs(some: slice) -> list[float]:
        source, ids = (
            torch.from_numpy(np.stack([w.token_ids for w in each[some]])).to(device) for each in (read, windows)
        )
        # not decoder(...): while it is trained in mixed precision, that is what Accelerate has made of it
        nats = type(decoder).forward(decoder, shop.start(condition, source), ids)[0]
        return nats[:, :-1].cpu().double().sum(1).tolist()

    rows: dict[str, dict[str, Any]] = {}
    found = chain.from_iterable(in_batches(shop, costs, len(windows), size, windows[0].length))
    for window, cost in zip(windows, found, strict=True):
        row = rows.setdefault(
            window.doc_id, {"doc_id": window.doc_id, "dialect": window.dialect, "n_tokens": 0, "nats": 0.0}
        )
        row["n_tokens"] += window.length
        row["nats"] += cost
    return list(rows.values())


def windows_of(shop: Workshop, wanted: config.Evaluate) -> WindowSet:
    """The windows that learning is measured on: those of the study, or as many of them as ``wanted`` says."""
    most = shop.windows_config.tokens_per_length
    return shop.cut(wanted.tokens if most is None else min(most, wanted.tokens))


def gather(run: RunDir) -> None:
    """Writes learning.parquet, if any training was looked at."""
    files = sorted(run.checkpoints.glob("*/seed-*/*.learning.parquet"))
    if files:
        checkpoint.gather(files, run.path / "learning.parquet")
