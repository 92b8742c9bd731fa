"""Scores, estimates and page, of two miniatures of a study: what grows with its tokens is what differs between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mnemoscope import pipeline
from mnemoscope.bench.clock import seconds_of
from mnemoscope.bench.found import Line
from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.memory.memory import Memory
from mnemoscope.pipeline import Workshop
from mnemoscope.train import checkpoint, decoders

#: tokens of the larger miniature, and how many times fewer the smaller has
MINIATURE, SMALLER = 100_000, 4


def after(shop: Workshop) -> Iterator[Line]:
    """These stages over two miniatures of the study: what grows with its tokens is what differs between the two."""
    study = shop.study
    cells = [
        (d.name, seed, condition, length)
        for d in study.decoders
        for seed in d.seeds
        for condition in d.conditions
        for length in decoders.lengths_of(d, study)
    ]
    whole = sum(length * len(shop.windows.windows[length]) for *_, length in cells)
    every = max(1, whole // MINIATURE)
    _curves(shop)
    stages: dict[str, Callable[[Workshop], None]] = {"score": pipeline.score, "estimate": pipeline.estimate}
    times: dict[str, list[float]] = {name: [] for name in stages}
    sizes: list[int] = []
    with shop.progress.task("timing scores and estimates", 3, "") as bar:
        # the first time, modules are imported too, as they are in the study
        for number, keep in enumerate((SMALLER * every, SMALLER * every, every)):
            bar.at(number)
            sizes.append(_miniature(shop, cells, keep))
            for name, stage in stages.items():
                times[name].append(seconds_of(partial(stage, shop)))
        page = seconds_of(partial(pipeline.report, shop))
    for name, (first, small, large) in times.items():
        per_token = max(0.0, large - small) / max(1, sizes[2] - sizes[1])
        yield Line(name, f"{len(cells)} measurements", whole, "tokens", first + per_token * (whole - sizes[0]))
    yield Line("report", "figures and page", 1, "page", page)


class _Guesser(Writer):
    """Stands for a decoder and its writer: every second token is right."""

    def __init__(self, bos: int) -> None:
        self.decoder = self.force  # type: ignore[assignment]
        self.bos, self.rng = bos, np.random.default_rng(0)

    def force(self, memory: Memory, ids: Tensor) -> tuple[Tensor, Tensor]:
        shape = tuple(ids.shape)
        shuffled = self.rng.permutation(ids.cpu().numpy().reshape(-1)).reshape(shape)
        self.guess = np.where(self.rng.random(shape) < 0.5, ids.cpu().numpy(), shuffled)
        return torch.ones(shape[0], shape[1] + 1), torch.from_numpy(np.pad(self.guess, ((0, 0), (0, 1))))

    def write(self, memory: Memory, length: int) -> list[Reconstruction]:
        return [Reconstruction(row, True) for row in self.guess.tolist()]


def _miniature(shop: Workshop, cells: list[tuple[str, int, str, int]], every: int) -> int:
    """Writes decoded/, of each ``every``-th window; the tokens in it."""
    guesser = _Guesser(shop.special[0])
    tokens = 0
    for name, seed, condition, length in cells:
        windows = shop.windows.windows[length][::every]
        key: dict[str, Any] = {"run": shop.study.name, "model": shop.model_name, "decoder": name}
        key |= {"condition": condition, "length": length, "seed": seed}
        target = shop.run.path / "decoded" / f"{name}.{seed}.{condition}.{length}.parquet"
        target.parent.mkdir(exist_ok=True)
        # "none" needs no encoder
        pq.write_table(pa.concat_tables(pipeline.measure(shop, guesser, "none", windows, key)), target)
        tokens += length * len(windows)
    return tokens


def _curves(shop: Workshop) -> None:
    """curves.parquet, which the page draws, with as many rows as the study's will have."""
    jobs = decoders.jobs(shop.study)
    if not jobs:
        return
    rows = [
        {
            **{"run": shop.study.name, "decoder": job.decoder.name, "condition": job.condition, "seed": job.seed},
            **{"length": length, "step": step, "tokens": (step + 1) * plan.batch_tokens, "nats": 1 + 1 / (step + 1)},
            **{"learning_rate": 1.0, "seconds": step / 10},
        }
        for job in jobs
        for plan in [job.plan(shop.study.seed)]
        for step, length in enumerate(plan.lengths.tolist())
    ]
    checkpoint.save_curve(rows, shop.run.path / "curves.parquet")
