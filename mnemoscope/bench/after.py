"""Scores, estimates and page, of two miniatures of a study: what grows with its tokens is what differs between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mnemoscope import pipeline
from mnemoscope.bench.clock import seconds_of
from mnemoscope.bench.found import Line
from mnemoscope.codec.generate import Reconstruction
from mnemoscope.measuring import columns
from mnemoscope.rundir import file_name
from mnemoscope.train import checkpoint, decoders
from mnemoscope.workshop import Workshop

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


def _miniature(shop: Workshop, cells: list[tuple[str, int, str, int]], every: int) -> int:
    """Writes decoded/, of each ``every``-th window, of which every second token is right; the tokens in it."""
    rng = np.random.default_rng(0)
    tokens = 0
    for name, seed, condition, length in cells:
        windows = shop.windows.windows[length][::every]
        key: dict[str, Any] = {"run": shop.study.name, "model": shop.model_name, "decoder": name}
        key |= {"condition": condition, "length": length, "seed": seed}
        target = shop.run.path / "decoded" / f"{name}.{seed}.{file_name(condition)}.{length}.parquet"
        target.parent.mkdir(exist_ok=True)
        ids = np.stack([w.token_ids for w in windows])
        guess = np.where(rng.random(ids.shape) < 0.5, ids, rng.permuted(ids))
        # EOS is no token of a window
        predicted, nats = np.pad(guess, ((0, 0), (0, 1))), np.ones((len(ids), length + 1), np.float32)
        written = [Reconstruction(row, True) for row in guess.tolist()]
        pq.write_table(columns(shop, key, windows, ids, nats, predicted, written), target)
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
