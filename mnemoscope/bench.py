"""How long a study will take on this machine, found by doing a little of each of its stages.

prepare is done whole, so a study that would be refused is refused here.  Training steps and measuring batches are the
study's own; where a whole one is long they are timed with fewer windows, and drawn out.  Scores, estimates and page are
made of two miniatures of the study, and drawn out.  Everything is written to a folder that is removed at the end.

A reconstruction is a sum: reading and scoring a batch, timed; a stride of the writer at each number of slots, timed;
and the strides that its windows need, from where a few of them ended.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.optimize import nnls
from torch import Tensor

from mnemoscope import config, pipeline, plugins
from mnemoscope.codec.generate import STRIDE, Reconstruction, Writer
from mnemoscope.memory.memory import Memory
from mnemoscope.pipeline import Workshop
from mnemoscope.progress import Progress, Silent
from mnemoscope.rundir import RunDir
from mnemoscope.text import corpora, files
from mnemoscope.text.tokens import TokenStore
from mnemoscope.train import checkpoint, decoders
from mnemoscope.train.step import Step, optimiser_for, step_for
from mnemoscope.types import IntArray, Window

#: seconds of work that are enough: of what took as long there is no repeat and no larger batch
ENOUGH = 0.4
REPEATS = 3
#: tokens of the smallest batch that is timed on a CPU, and how many times more the next has
SMALLEST, GROWTH = 256, 4
#: windows that are written to their ends, and the seconds that this may take for all decoders together
WRITTEN, WRITING = 16, 12.0
#: bytes of training text that are tokenised
SAMPLE = 1 << 21
#: tokens of the larger miniature, and how many times fewer the smaller has
MINIATURE, SMALLER = 100_000, 4


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
    """What a study will take, by one process on a machine as busy as it was.

    Attributes:
        assumed: what was not timed, and taken to be so; sentences.
        peak_bytes: the most memory that was held while this was found out, the device's if it has its own.
        whole: whether the study's own batches were timed, so that the study will not hold more.
    """

    device: str
    lines: list[Line] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    peak_bytes: int = 0
    whole: bool = True

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
    if device is not None:
        study = study.model_copy(update={"compute": study.compute.model_copy(update={"device": device})})
    with tempfile.TemporaryDirectory(prefix="mnemoscope-bench-") as folder:
        shop = Workshop(_Nowhere(Path(folder) / "run", study), progress or Silent())
        found = Forecast(shop.device_name)
        pipeline.prepare(shop)
        facts = shop.run.manifest
        read = sum(i["text_bytes"] for i in facts["inputs"])
        seconds = facts["stages"]["prepare"]["seconds"]
        found.lines.append(Line("prepare", "checking and cutting text", read / 1e6, "MB", seconds))
        found.lines += _training(shop, found, Path(folder))
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


def _seconds(work: Callable[[], object]) -> float:
    """Seconds of one call, the device's work included."""

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def typical(work: Callable[[], object]) -> float:
    """Median seconds of a call; the first does not count unless it was long."""
    first = _seconds(work)
    if first > ENOUGH:
        return first
    times = [_seconds(work)]
    while len(times) < REPEATS and sum(times) < ENOUGH:
        times.append(_seconds(work))
    return median(times)


class Cost:
    """Seconds of some work against its size, from a few sizes that were timed.

    Between these it is interpolated; beyond them it rises as the line does that fits them best in proportion, whose
    fixed part and slope are not negative.

    Args:
        work: takes the size.
        sizes: rising; those after one that took long are left out.
    """

    def __init__(self, work: Callable[[int], object], sizes: Iterable[int]):
        self.sizes: list[int] = []
        self.seconds: list[float] = []
        for size in sizes:
            self.sizes.append(size)
            self.seconds.append(typical(partial(work, size)))
            if self.seconds[-1] > ENOUGH:
                break
        seconds = np.array(self.seconds)
        terms = np.column_stack([np.ones(len(seconds)), self.sizes]) / seconds[:, None]
        self.slope = float(nnls(terms, np.ones(len(seconds)))[0][1])

    def __call__(self, size: float) -> float:
        beyond = max(0.0, size - self.sizes[-1])
        return float(np.interp(size, self.sizes, self.seconds)) + self.slope * beyond


def _rising(first: int, last: int) -> list[int]:
    """From ``first`` in leaps to ``last``."""
    leaps: list[int] = []
    while first < last:
        leaps.append(first)
        first *= GROWTH
    return [*leaps, last]


class _Batches:
    """The cost of work on a batch of windows of any of a study's lengths.

    On a GPU every length is timed, in whole batches: each needs kernels of its own, and a small batch says nothing of a
    large one.  On a CPU, where a token's cost differs between lengths by what a window costs beside its tokens, the
    shortest, the middle and the longest are, in batches that grow until one takes long; between these, the cost of as
    many tokens is linear in windows.

    Args:
        work: takes a length and a number of windows.
        full: length -> windows of a whole batch.
    """

    def __init__(self, work: Callable[[int, int], object], full: dict[int, int], gpu: bool):
        lengths = sorted(full)
        self.timed = lengths if gpu else sorted({lengths[0], lengths[len(lengths) // 2], lengths[-1]})
        self.costs: dict[int, Cost] = {}
        #: whether each was timed in whole batches
        self.whole = True
        for length in self.timed:
            least = min(full[length], max(2, SMALLEST // length))
            sizes = [full[length]] if gpu else _rising(least, full[length])
            self.costs[length] = Cost(partial(work, length), sizes)
            self.whole &= self.costs[length].sizes[-1] == full[length]

    def __call__(self, length: int, windows: int) -> float:
        # np.interp wants rising places: longest first
        places = [1 / timed for timed in reversed(self.timed)]
        return float(np.interp(1 / length, places, [self.costs[t](windows * length / t) for t in reversed(self.timed)]))


# ---- train ----------------------------------------------------------------------------------------------------------


def _training(shop: Workshop, found: Forecast, folder: Path) -> Iterator[Line]:
    jobs = decoders.jobs(shop.study)
    if not jobs:
        return
    store, seconds, megabytes = _tokenised(shop, folder)
    yield Line("train", "tokenising", megabytes, "MB", seconds)
    gpu = shop.accelerator.device.type == "cuda"
    # a step's cost depends on these alone
    alike: dict[tuple[bool, int | None], list[decoders.Job]] = {}
    for job in jobs:
        reads = plugins.load("condition", job.condition).reads
        alike.setdefault((reads, job.decoder.batch_tokens), []).append(job)
    beginnings, one_save = 0.0, 0.0
    taken: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    with shop.progress.task("timing training steps", len(alike), "") as bar:
        for number, group in enumerate(alike.values()):
            bar.at(number, group[0].condition)
            plans = [job.plan(shop.study.seed) for job in group]
            steps = sum((Counter(plan.lengths.tolist()) for plan in plans), Counter[int]())
            trainer = _Trainer(shop, store, group[0])
            one_save = one_save or _seconds(partial(trainer.save, folder / "saved"))
            full = {length: max(1, plans[0].batch_tokens // length) for length in steps}
            beginning = {length: trainer.record(length, full[length]) if gpu else 0.0 for length in full}
            cost = _Batches(trainer.step, full, gpu)
            found.whole &= cost.whole
            beginnings += trainer.made * len(group) + trainer.compiled
            for job, plan in zip(group, plans, strict=True):
                name = f"{job.decoder.name}, {job.condition}"
                tokens[name] += plan.tokens
                for length, count in Counter(plan.lengths.tolist()).items():
                    each = cost(length, full[length])
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
    seconds = _seconds(build)
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
            self.decoder = shop.decoder().to(shop.accelerator.device)
            self.optimiser = optimiser_for(self.decoder, plan)
            self.prepared = shop.accelerator.prepare(self.decoder, self.optimiser)

        self.made = _seconds(make)
        self.decoder.train()
        module, optimiser = self.prepared
        self.advance: Step = step_for(module, optimiser, shop.loss(job.condition), plan, shop.accelerator)
        self.compiled = _seconds(partial(self.step, int(plan.lengths.min()), 1))

    def step(self, length: int, windows: int) -> None:
        # weights that moved would not be slower, but they might become infinite
        self.advance(torch.from_numpy(self.store.sample(self.rng, length, windows)), windows, 0.0)

    def record(self, length: int, windows: int) -> float:
        """Seconds of the first two steps of a shape."""
        return _seconds(partial(self.step, length, windows)) + _seconds(partial(self.step, length, windows))

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, self.decoder, self.optimiser, {"plan": ""}, [])


# ---- reconstruct ----------------------------------------------------------------------------------------------------


class _Brief(Writer):
    """Writes one stride of each window, and gives it out as often as fills the window."""

    def write(self, memory: Memory, length: int) -> list[Reconstruction]:
        # a writer's limit is twice the length that it is given
        written = super().write(memory, STRIDE // 2)
        return [Reconstruction((w.ids * length)[:length], w.stopped) for w in written]


def strides(ends: Sequence[int] | IntArray, slots: Callable[[int], int]) -> Counter[int]:
    """How many strides a :class:`Writer` takes at each number of slots.

    Args:
        ends: strides that each window of a batch needs.
        slots: ``Writer.slots``.
    """
    counts: Counter[int] = Counter()
    left, waiting = np.empty(0, dtype=np.int64), np.asarray(ends)
    size = slots(len(waiting))
    while True:
        room = size - len(left)
        left, waiting = np.append(left, waiting[:room]), waiting[room:]
        if not len(left):
            return counts
        if not len(waiting) and 2 * len(left) <= size:
            size = slots(len(left))
        counts[size] += 1
        left = left[left > 1] - 1


def _spread(windows: Sequence[Window], count: int) -> list[Window]:
    """``count`` of the windows, from all over their documents."""
    return [windows[i] for i in np.linspace(0, len(windows) - 1, min(count, len(windows))).astype(int)]


def _measuring(shop: Workshop, found: Forecast) -> Iterator[Line]:
    study, gpu = shop.study, shop.accelerator.device.type == "cuda"
    decoder = shop.decoder().to(shop.accelerator.device).eval()
    windows = shop.windows.windows
    used = sorted({length for d in study.decoders for length in decoders.lengths_of(d, study)})
    full = {length: min(len(windows[length]), max(1, study.compute.batch_tokens // length)) for length in used}
    # conditions that read cost the same, and so do those that do not
    kinds = {plugins.load("condition", name).reads: name for d in study.decoders for name in d.conditions}
    brief, writer = _Brief(decoder), Writer(decoder)

    def read(name: str, length: int, count: int) -> None:
        key = {"run": "", "model": "", "decoder": "", "condition": name, "length": length, "seed": 0}
        for _ in pipeline.measure(shop, brief, name, _spread(windows[length], count), key):
            pass

    def write(size: int) -> None:
        writer.write(decoder.adapter.empty(size), STRIDE // 2)

    with shop.progress.task("timing reconstruction", 4, "") as bar:
        beginning = 0.0
        if gpu:
            beginning = sum(_seconds(partial(read, name, n, full[n])) for name in kinds.values() for n in used)
        bar.at(1, "reading")
        reading = {reads: _Batches(partial(read, name), full, gpu) for reads, name in kinds.items()}
        found.whole &= all(cost.whole for cost in reading.values())
        bar.at(2, "strides")
        most = max(map(writer.slots, full.values()))
        sizes = [1 << power for power in range(most.bit_length())] if gpu else _rising(1, most)
        if gpu:
            beginning += sum(_seconds(partial(write, size)) for size in sizes for _ in range(2))
        stride = Cost(write, sizes)
        bar.at(3, "ends")
        ends = _ends(shop, writer, found)

    def batch(reads: bool, length: int, count: int, needed: IntArray) -> float:
        """Seconds of a batch whose windows end as those sampled did, ``needed`` tokens each."""
        need = np.quantile(-(-needed // STRIDE), (np.arange(count) + 0.5) / count, method="nearest")
        # reading has one stride in it
        counts = strides(np.random.default_rng(0).permutation(need), writer.slots)
        counts.subtract(strides(np.ones(count, dtype=np.int64), writer.slots))
        return reading[reads](length, count) + sum(number * stride(size) for size, number in counts.items())

    def cell(reads: bool, length: int, needed: IntArray) -> float:
        batches, rest = divmod(len(windows[length]), full[length])
        seconds = batches * batch(reads, length, full[length], needed)
        return seconds + (batch(reads, length, rest, needed) if rest else 0.0)

    unending = 0.0
    for d in study.decoders:
        for name in d.conditions:
            condition = plugins.load("condition", name)
            tokens, seconds = 0, 0.0
            for length in decoders.lengths_of(d, study):
                tokens += len(d.seeds) * len(windows[length]) * length
                # a decoder that can do it ends with its window; the token that says so is written too
                needed = ends.get((d.name, condition.trained_as, length), np.array([length + 1]))
                each = cell(condition.reads, length, needed)
                seconds += len(d.seeds) * each
                if d.recipe != "trained":
                    longest = cell(condition.reads, length, np.array([2 * length]))
                    unending += len(d.seeds) * (longest - each)
            yield Line("reconstruct", f"{d.name}, {name}", tokens, "tokens", seconds)
    if gpu:
        yield Line("reconstruct", "compiling, recording", len(sizes), "batch sizes", beginning)
    if unending:
        found.assumed.append(
            f"Decoders that are yet to be trained end each text where its window ends; if none ever does, "
            f"reconstruct takes {unending:,.0f} s more."
        )


def _ends(shop: Workshop, writer: Writer, found: Forecast) -> dict[tuple[str, str, int], IntArray]:
    """Tokens that some windows took, by (decoder, condition it was trained under, length), where there are weights."""
    trained = {
        (d.name, condition.trained_as): (d, condition)
        for d in shop.study.decoders
        for condition in [plugins.load("condition", name) for name in d.conditions]
        if d.recipe == "trained"
    }
    ends: dict[tuple[str, str, int], IntArray] = {}
    cut: set[int] = set()
    for name, (d, condition) in trained.items():
        started, last = time.perf_counter(), 0.0
        known: tuple[int, IntArray] | None = None
        for length in decoders.lengths_of(d, shop.study):
            # twice as long a text takes twice as long
            if known is not None and time.perf_counter() - started + 2 * last > WRITING / len(trained):
                ends[*name, length] = known[1] * length // known[0]
                cut.add(known[0])
                continue
            began = time.perf_counter()
            file = decoders.find(decoders.folder_of(d, Path()), d.seeds[0], condition.trained_as, length)
            decoders.load_weights(writer.decoder, file)
            # without a memory all windows are written alike
            some = _spread(shop.windows.windows[length], WRITTEN if condition.reads else 1)
            ids = torch.from_numpy(np.stack([w.token_ids for w in some])).to(shop.accelerator.device)
            written = writer.write(shop.start(condition, ids), length)
            known = length, np.array([len(w.ids) + w.stopped for w in written])
            ends[*name, length] = known[1]
            last = time.perf_counter() - began
    if trained:
        more = f"; those of more than {min(cut)} tokens as shorter ones did" if cut else ""
        found.assumed.append(
            f"Trained decoders end their texts as their first seed ended {WRITTEN} of each length{more}."
        )
    return ends


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
            sizes.append(_miniature(shop, cells, keep))
            for name, stage in stages.items():
                times[name].append(_seconds(partial(stage, shop)))
        page = _seconds(partial(pipeline.report, shop))
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
