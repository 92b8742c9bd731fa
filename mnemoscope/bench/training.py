"""Training steps: a few of each kind that a study takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mnemoscope import config, plugins
from mnemoscope.bench.clock import Batches, seconds_of
from mnemoscope.bench.found import Forecast, Line
from mnemoscope.text import corpora, files
from mnemoscope.text.tokens import TokenStore
from mnemoscope.train import checkpoint, decoders
from mnemoscope.train.step import Step, optimiser_for, step_for
from mnemoscope.workshop import Workshop

#: bytes of training text that are tokenised
SAMPLE = 1 << 21


def training(shop: Workshop, found: Forecast, folder: Path) -> Iterator[Line]:
    jobs = decoders.jobs(shop.study)
    if not jobs:
        return
    store, seconds, megabytes = _tokenised(shop, folder)
    yield Line("train", "tokenising", megabytes, "MB", seconds)
    gpu = shop.accelerator.device.type == "cuda"
    # a step's cost depends on these alone; on a CPU, that of a batch of any size is drawn from those of a few
    alike: dict[tuple[Any, ...], list[decoders.Job]] = {}
    for job in jobs:
        reads = plugins.load("condition", job.condition).reads
        kind = reads, job.decoder.batch_tokens if gpu else None, job.decoder.family, str(job.decoder.options)
        alike.setdefault(kind, []).append(job)
    beginnings, one_save = 0.0, 0.0
    taken: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    with shop.progress.task("timing training steps", len(alike), "") as bar:
        for number, group in enumerate(alike.values()):
            bar.at(number, group[0].condition)
            plans = [job.plan(shop.study.seed) for job in group]
            steps = sum((Counter(plan.lengths.tolist()) for plan in plans), Counter[int]())
            trainer = _Trainer(shop, store, group[0])
            one_save = one_save or seconds_of(partial(trainer.save, folder / "saved"))
            full = {length: max(1, max(plan.batch_tokens for plan in plans) // length) for length in steps}
            beginning = {length: trainer.record(length, full[length]) if gpu else 0.0 for length in full}
            cost = Batches(trainer.step, full, gpu)
            found.whole &= cost.whole
            # what is compiled for a CPU is kept on disk, and the study finds it there
            beginnings += trainer.made * len(group) + (trainer.compiled if gpu else 0.0)
            for job, plan in zip(group, plans, strict=True):
                name = f"{job.decoder.name}, {job.condition}"
                tokens[name] += plan.tokens
                for length, count in Counter(plan.lengths.tolist()).items():
                    each = cost(length, max(1, plan.batch_tokens // length))
                    taken[name] += each * count  # type: ignore[assignment]
                    # the first two steps of a shape compile and record on a GPU, in every training anew
                    beginnings += max(0.0, beginning[length] - 2 * each)
            shop.accelerator.free_memory()
    for name in tokens:
        yield Line("train", name, tokens[name], "tokens", taken[name])
    plans = [job.plan(shop.study.seed) for job in jobs]
    saves = sum((plan.steps - 1) // plan.checkpoint_every + 1 for plan in plans)
    yield Line("train", "compiling, recording" if gpu else "beginning", len(jobs), "decoders", beginnings)
    yield Line("train", "saving", saves, "checkpoints", one_save * saves)


def _tokenised(shop: Workshop, folder: Path) -> tuple[TokenStore, float, float]:
    """A sample of the training text as tokens, as one document; seconds and megabytes of all of it."""
    parts = [
        corpus.model_copy(update={"path": str(path)}) if path else corpus
        for corpus in shop.study.text.train
        for path in ([file for file, _ in files.find(corpus.path)] if corpus.path else [None])
    ]
    sample = folder / "sample.jsonl"
    size = 0
    with sample.open("w", encoding="utf-8") as out:
        for part in parts:
            held = 0
            for document in corpora.read([part]):
                out.write(json.dumps({"text": document.text}) + "\n")
                held += len(document.text.encode())
                if held > SAMPLE // len(parts):
                    break
            size += held
    tokenizer = shop.loaded.tokenizer
    assert tokenizer is not None
    build = partial(
        TokenStore.build, [config.Corpus.model_validate({"path": str(sample)})], tokenizer, folder / "cache"
    )
    seconds = seconds_of(build)
    tokens = build().tokens
    longest = max(max(decoders.lengths_of(d, shop.study)) for d in shop.study.decoders)
    tokens = np.tile(tokens, -(-longest // len(tokens)))
    store = TokenStore(tokens, np.array([0, len(tokens)]), np.ones(1), "the sample")
    # the manifest names the files of text.train first
    total = sum(i["text_bytes"] for i in shop.run.manifest["inputs"][: len(parts)])
    return store, seconds * total / size, total / 1e6


class _Trainer:
    """A training as ``train.loop.fit`` sets it up, to take steps of.

    Attributes:
        made: seconds that it took to set up.
        compiled: seconds of the first step of all, of one window.
    """

    def __init__(self, shop: Workshop, store: TokenStore, job: decoders.Job):
        self.store, self.rng = store, np.random.default_rng(0)
        plan = job.plan(shop.study.seed)

        def make() -> None:
            self.decoder = shop.decoder(job.decoder, job.seed).to(shop.accelerator.device)
            self.decoder.begin_training()
            self.optimiser = optimiser_for(self.decoder, plan)
            self.prepared = shop.accelerator.prepare(self.decoder, self.optimiser)

        self.made = seconds_of(make)
        self.decoder.train()
        module, optimiser = self.prepared
        self.advance: Step = step_for(module, optimiser, shop.loss(job.condition), plan, shop.accelerator)
        self.compiled = seconds_of(partial(self.step, int(plan.lengths.min()), 1))

    def step(self, length: int, windows: int) -> None:
        # weights that moved would not be slower, but they might become infinite
        self.advance(torch.from_numpy(self.store.sample(self.rng, length, windows)), windows, 0.0)

    def record(self, length: int, windows: int) -> float:
        """Seconds of the first two steps of a shape."""
        return seconds_of(partial(self.step, length, windows)) + seconds_of(partial(self.step, length, windows))

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, self.decoder, self.optimiser, {"plan": ""}, [])
