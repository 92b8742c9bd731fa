"""How long a study will take on this machine, found by doing a little of each of its stages.

prepare is done whole; training and measuring are timed batch by batch, on the study's own batches; scoring, estimates
and page are made of a miniature of the study and drawn out to its size.  Everything is written to a folder that is
removed at the end.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mnemoscope import config, pipeline, plugins, schema
from mnemoscope.codec.generate import STRIDE, Reconstruction, Writer
from mnemoscope.memory.memory import Memory
from mnemoscope.pipeline import Workshop
from mnemoscope.progress import Progress, Silent
from mnemoscope.rundir import RunDir
from mnemoscope.text import corpora, files
from mnemoscope.text.tokens import TokenStore
from mnemoscope.train import checkpoint, decoders
from mnemoscope.train.step import optimiser_for, step_for
from mnemoscope.types import IntArray, Window

#: seconds of work in a repeat, repeats, and seconds after which there are no more of them
REPEAT, REPEATS, ENOUGH = 0.3, 3, 2.0
#: bytes of training text that are tokenised
SAMPLE = 1 << 22
#: tokens of the larger miniature, and how many times fewer the smaller has
MINIATURE, SMALLER = 200_000, 4


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of work: ``amount`` of ``unit`` in all of the study, and the seconds that they take."""

    stage: str
    what: str
    amount: float
    unit: str
    seconds: float


@dataclass(slots=True)
class Forecast:
    """What a study will take.

    Attributes:
        unending: seconds more if no reconstruction ended before twice its window's length; those of decoders that are
            yet to be trained are taken to end with it.
        peak_bytes: the most memory that was held while this was found out, the device's if it has its own.
    """

    device: str
    lines: list[Line] = field(default_factory=list)
    unending: float = 0.0
    peak_bytes: int = 0

    @property
    def seconds(self) -> float:
        return sum(line.seconds for line in self.lines)

    def of_stage(self, stage: str) -> float:
        return sum(line.seconds for line in self.lines if line.stage == stage)


class _Nowhere(RunDir):
    """A run whose folder is removed at the end: it needs no room for what will not be made."""

    def require_room(self, needed: int) -> None:
        pass


def forecast(study: config.Study, progress: Progress | None = None, device: str | None = None) -> Forecast:
    """Times a little of every stage of ``study``.

    Args:
        device: instead of the study's.

    Raises:
        MnemoscopeError: whatever the study itself would be refused for.
    """
    talk = progress or Silent()
    if device is not None:
        study = study.model_copy(update={"compute": study.compute.model_copy(update={"device": device})})
    with tempfile.TemporaryDirectory(prefix="mnemoscope-bench-") as folder:
        shop = Workshop(_Nowhere(Path(folder) / "run", study), talk)
        found = Forecast(shop.device_name)
        pipeline.prepare(shop)
        facts = shop.run.manifest
        read = sum(i["text_bytes"] for i in facts["inputs"])
        found.lines.append(
            Line("prepare", "reading and cutting text", read / 1e6, "MB", facts["stages"]["prepare"]["seconds"])
        )
        found.lines += _training(shop, Path(folder))
        found.lines += _measuring(shop, found)
        found.lines += _after(shop)
        found.peak_bytes = _peak(shop.accelerator.device)
    return found


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # kilobytes, but bytes on a Mac
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---- clocks ---------------------------------------------------------------------------------------------------------


def _seconds(work: Callable[[], object], calls: int = 1) -> float:
    """Seconds of one call, the device's work included."""

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    wait()
    started = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return (time.perf_counter() - started) / calls


def typical(work: Callable[[], object]) -> float:
    """Median seconds of one call over some repeats; the first call does not count unless it was long."""
    first = _seconds(work)
    if first > ENOUGH:
        return first
    calls = max(1, int(REPEAT / first))
    times: list[float] = []
    while len(times) < REPEATS and sum(times) * calls < ENOUGH:
        times.append(_seconds(work, calls))
    return median(times)


# ---- train ----------------------------------------------------------------------------------------------------------


def _training(shop: Workshop, folder: Path) -> Iterator[Line]:
    jobs = decoders.jobs(shop.study)
    if not jobs:
        return
    store, seconds, megabytes = _tokenised(shop, folder)
    yield Line("train", "tokenising", megabytes, "MB", seconds)
    alike: dict[tuple[str, int], list[decoders.Job]] = {}
    for job in jobs:
        assert job.decoder.batch_tokens is not None
        alike.setdefault((job.condition, job.decoder.batch_tokens), []).append(job)
    beginnings, saves, one_save = 0.0, 0, 0.0
    with shop.progress.task("timing training steps", len(alike), "") as bar:
        for number, ((condition, _), group) in enumerate(alike.items()):
            plans = [job.plan(shop.study.seed) for job in group]
            steps = Counter(length for plan in plans for length in plan.lengths.tolist())
            trainer = _Trainer(shop, store, group[0], folder)
            one_save = one_save or trainer.save_seconds
            saves += sum((plan.steps - 1) // plan.checkpoint_every + 1 for plan in plans)
            beginnings += trainer.make_seconds * len(group)
            for length in sorted(steps):
                bar.at(number, f"{condition}, {length} tokens")
                beginning, each = trainer.time(length)
                beginnings += beginning * sum(length in plan.lengths for plan in plans)
                windows = plans[0].batch_tokens // length or 1
                tokens = steps[length] * windows * length
                yield Line("train", f"{condition}, L = {length}", tokens, "tokens", each * steps[length])
            shop.accelerator.free_memory()
    yield Line("train", "beginning", len(jobs), "decoders", beginnings)
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
    seconds = _seconds(build)
    tokens = build().tokens
    longest = max(max(decoders.lengths_of(d, shop.study)) for d in shop.study.decoders)
    tokens = np.tile(tokens, -(-longest // len(tokens)))
    store = TokenStore(tokens, np.array([0, len(tokens)]), np.ones(1), "the sample")
    # the manifest names the files of text.train first
    total = sum(i["text_bytes"] for i in shop.run.manifest["inputs"][: len(parts)])
    return store, seconds * total / size, total / 1e6


class _Trainer:
    """A training as ``train.loop.fit`` sets it up, to take steps of."""

    def __init__(self, shop: Workshop, store: TokenStore, job: decoders.Job, folder: Path):
        self.shop, self.store, self.plan = shop, store, job.plan(shop.study.seed)
        self.rng = np.random.default_rng(0)

        def make() -> None:
            self.decoder = shop.decoder().to(shop.accelerator.device)
            self.optimiser = optimiser_for(self.decoder, self.plan)
            self.prepared = shop.accelerator.prepare(self.decoder, self.optimiser)

        self.make_seconds = _seconds(make)
        self.decoder.train()
        self.loss = shop.loss(job.condition)
        self.on_gpu = shop.accelerator.device.type == "cuda"
        # kernels are compiled here; of a step's own shape where one is recorded
        self.warm = self._step_of()
        self.warm(torch.from_numpy(self._draw(int(self.plan.lengths.min()), 1)), 1, 0.0)
        self.save_seconds = _seconds(
            lambda: checkpoint.save(folder / "saved", self.decoder, self.optimiser, {"plan": ""}, [])
        )
        self.advance = self._step_of()

    def _step_of(self) -> Any:
        module, optimiser = self.prepared
        return step_for(module, optimiser, self.loss, self.plan, self.shop.accelerator)

    def _draw(self, length: int, windows: int) -> IntArray:
        return self.store.sample(self.rng, length, windows)

    def time(self, length: int) -> tuple[float, float]:
        """Seconds that the first steps of a length take beyond those of others, and of one of those."""
        windows = max(1, self.plan.batch_tokens // length)

        def step() -> None:
            # weights that moved would not be slower, but they might become infinite
            self.advance(torch.from_numpy(self._draw(length, windows)), windows, 0.0)

        if not self.on_gpu:
            return 0.0, typical(step)
        self.warm(torch.from_numpy(self._draw(length, windows)), windows, 0.0)
        first = _seconds(step, 2) * 2
        each = typical(step)
        return max(0.0, first - 2 * each), each


# ---- reconstruct ----------------------------------------------------------------------------------------------------


class _Clocked(Writer):
    """Writes ``limit(length)`` tokens at most, made even, and knows how long it took."""

    seconds = 0.0

    def __init__(self, decoder: Any, limit: Callable[[int], int]):
        super().__init__(decoder)
        self.limit = limit

    def write(self, memory: Memory, length: int) -> list[Reconstruction]:
        written: list[Reconstruction] = []

        def work() -> None:
            # a writer's limit is twice the length that it is given
            written.extend(super(_Clocked, self).write(memory, -(-self.limit(length) // 2)))

        self.seconds = _seconds(work)
        return written


def _measuring(shop: Workshop, found: Forecast) -> Iterator[Line]:
    study, run = shop.study, shop.run
    decoder = shop.decoder().to(shop.accelerator.device).eval()
    trained = _Clocked(decoder, lambda length: 2 * length)
    # a decoder that can do it ends with its window; the token that says so is written too
    untrained = _Clocked(decoder, lambda length: length + 1)
    cells: dict[tuple[Path | None, bool, int], list[str]] = {}
    for d in study.decoders:
        for seed in d.seeds:
            for name in d.conditions:
                condition = plugins.load("condition", name)
                for length in decoders.lengths_of(d, study):
                    weights = None
                    if d.recipe == "trained":
                        weights = decoders.find(
                            decoders.folder_of(d, run.checkpoints), seed, condition.trained_as, length
                        )
                    cells.setdefault((weights, condition.reads, length), []).append(name)
    loaded: Path | None = None
    compiled = False
    with shop.progress.task("timing reconstruction", len(cells), "") as bar:
        for number, ((weights, _, length), names) in enumerate(cells.items()):
            if weights is not None and weights != loaded:
                decoders.load_weights(decoder, weights)
                loaded = weights
            writer = untrained if weights is None else trained
            windows = shop.windows.windows[length]
            batch = max(1, study.compute.batch_tokens // length)
            some = windows[:: max(1, len(windows) // batch)][:batch]
            label = f"{', '.join(dict.fromkeys(names))}, L = {length}"
            bar.at(number, label)

            def measure(
                some: Sequence[Window] = some, writer: Writer = writer, name: str = names[0], length: int = length
            ) -> None:
                key = {"run": "", "model": "", "decoder": "", "condition": name, "length": length, "seed": 0}
                for _ in pipeline._measure(shop, writer, name, some, key):
                    pass

            if not compiled:
                measure(windows[:2])
                compiled = True
            first = _seconds(measure) if shop.accelerator.device.type == "cuda" else 0.0
            each = typical(measure)
            batches = len(names) * len(windows) / len(some)
            seconds = max(0.0, first - each) + each * batches
            if weights is None:
                found.unending += writer.seconds * (-(-2 * length // STRIDE) / -(-(length + 1) // STRIDE) - 1) * batches
            yield Line("reconstruct", label, len(names) * len(windows) * length, "tokens", seconds)


# ---- score, estimate, report ----------------------------------------------------------------------------------------


def _after(shop: Workshop) -> Iterator[Line]:
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
            sizes.append(_decoded(shop, cells, keep))
            for name, stage in stages.items():
                times[name].append(_seconds(lambda stage=stage: stage(shop)))  # type: ignore[misc]
        page = _seconds(lambda: pipeline.report(shop))
    for name, (first, small, large) in times.items():
        per_token = max(0.0, large - small) / max(1, sizes[2] - sizes[1])
        yield Line(name, f"all {len(cells)} cells", whole, "tokens", first + per_token * (whole - sizes[0]))
    yield Line("report", "figures and page", 1, "page", page)


def _decoded(shop: Workshop, cells: list[tuple[str, int, str, int]], every: int) -> int:
    """Writes decoded/ as if every second token had been recovered of each ``every``-th window; the tokens in it."""
    rng = np.random.default_rng(0)
    tokens = 0
    for name, seed, condition, length in cells:
        windows = shop.windows.windows[length][::every]
        ids = np.stack([w.token_ids for w in windows])
        wrong = rng.permutation(ids.reshape(-1)).reshape(ids.shape)
        guess = np.where(rng.random(ids.shape) < 0.5, ids, wrong)
        key: dict[str, Any] = {"run": shop.study.name, "model": shop.model_name, "decoder": name}
        key |= {"condition": condition, "length": length, "seed": seed}
        target = shop.run.path / "decoded" / f"{name}.{seed}.{condition}.{length}.parquet"
        with pipeline._decoded(target) as out:
            per_row = max(1, shop.study.compute.batch_tokens // length)
            for i in range(0, len(windows), per_row):
                part = slice(i, i + per_row)
                # one column more, of the token that ends a window
                padded = torch.from_numpy(np.pad(guess[part], ((0, 0), (0, 1))))
                written = [Reconstruction(row, True) for row in guess[part].tolist()]
                nats = torch.ones(padded.shape)
                out.write_table(pipeline._columns(shop, key, windows[part], ids[part], nats, padded, written))
        tokens += ids.size
    return tokens


def _curves(shop: Workshop) -> None:
    """curves.parquet, which the page draws, with as many rows as the study's will have."""
    jobs = decoders.jobs(shop.study)
    if not jobs:
        return
    with pq.ParquetWriter(shop.run.path / "curves.parquet", schema.arrow("curves")) as out:
        for job in jobs:
            plan = job.plan(shop.study.seed)
            steps = np.arange(plan.steps)
            columns: dict[str, Any] = {
                **{"length": plan.lengths, "step": steps, "tokens": (steps + 1) * plan.batch_tokens},
                **{"nats": 1 + 1 / (steps + 1), "learning_rate": np.ones(plan.steps), "seconds": steps / 10},
            }
            same: dict[str, Any] = {
                "run": shop.study.name,
                "decoder": job.decoder.name,
                "condition": job.condition,
                "seed": job.seed,
            }
            columns |= {name: [value] * plan.steps for name, value in same.items()}
            wanted = schema.arrow("curves")
            out.write_table(pa.table({c: columns[c] for c in wanted.names}).cast(wanted))
