"""Reconstructions.  Each is a sum: reading and scoring a batch, timed; and, where the decoder has not written the same
for another condition, a stride of the writer at each number of slots, timed, times the strides that its windows need,
counted, from where a few of them ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mnemoscope import config, plugins
from mnemoscope.bench.clock import Batches, Cost, rising, seconds_of
from mnemoscope.bench.found import Forecast, Line
from mnemoscope.codec.generate import Reconstruction, Texts, Writer
from mnemoscope.measuring import batch_windows, measure, together_written
from mnemoscope.memory.memory import Memory
from mnemoscope.train import decoders
from mnemoscope.types import IntArray, Window
from mnemoscope.workshop import Workshop

#: windows that are written to their ends, and the seconds that this may take for all decoders together
WRITTEN, WRITING = 16, 12.0


class _Idle(Writer):
    """Gives out texts that it has not written."""

    def write(self, memory: Memory, length: int) -> list[Reconstruction]:
        return [Reconstruction(list(range(length)), False)] * memory.batch


def strides(ends: Sequence[int] | IntArray, slots: Callable[[int], int]) -> Counter[int]:
    """How many strides a :class:`Writer` takes at each number of slots.

    Args:
        ends: strides that each window of a batch needs; one that needs none is not written.
        slots: ``Writer.size`` of a length.
    """
    counts: Counter[int] = Counter()
    left, waiting = np.empty(0, dtype=np.int64), np.asarray(ends)
    waiting = waiting[waiting > 0]
    if not len(waiting):
        return counts
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


def measuring(shop: Workshop, found: Forecast) -> Iterator[Line]:
    """Decoders of one family and the same options cost the same."""
    alike: dict[str, list[config.Decoder]] = {}
    for d in shop.study.decoders:
        alike.setdefault(str(decoders.family_of(decoders.source(d, shop.study), Path())), []).append(d)
    for some in alike.values():
        yield from _of_family(shop, found, some)
    if shop.keeps and alike:
        found.assumed.append(
            "Windows are read from their beginning each time; what was read of them is kept, which is less."
        )


def _of_family(shop: Workshop, found: Forecast, some: Sequence[config.Decoder]) -> Iterator[Line]:
    study, gpu = shop.study, shop.accelerator.device.type == "cuda"
    decoder = shop.decoder(some[0]).to(shop.accelerator.device).eval()
    windows = shop.windows.windows
    used = sorted({length for d in some for length in decoders.lengths_of(d, study)})
    full = {length: min(len(windows[length]), batch_windows(shop, length)) for length in used}
    # conditions that read cost the same, and so do those that do not
    kinds = {plugins.load("condition", name).reads: name for d in some for name in d.conditions}
    idle, writer = _Idle(decoder), Writer(decoder)

    def read(name: str, length: int, count: int) -> None:
        key = {"run": "", "model": "", "decoder": "", "condition": name, "length": length, "seed": 0}
        shop.forget()
        for _ in measure(shop, idle, name, _spread(windows[length], count), key, Texts()):
            pass

    @torch.no_grad()
    def advance(size: int) -> None:
        # a state may be larger for a longer window, and is not smaller
        writer.slots(size, used[-1]).advance()

    with shop.progress.task("timing reconstruction", 4, "") as bar:
        # what is compiled for a CPU, whatever the shape, is kept on disk, and the study finds it there
        shapes = full if gpu else {used[0]: min(full[used[0]], 2)}
        beginning = sum(seconds_of(partial(read, name, *shape)) for name in kinds.values() for shape in shapes.items())
        bar.at(1, "reading")
        reading = {reads: Batches(partial(read, name), full, gpu) for reads, name in kinds.items()}
        found.whole &= all(cost.whole for cost in reading.values())
        bar.at(2, "strides")
        most = max(writer.size(len(windows[length]), used[-1]) for length in used)
        sizes = [1 << power for power in range(most.bit_length())] if gpu else rising(1, most)
        beginning += sum(seconds_of(partial(advance, size)) for size in (sizes if gpu else sizes[:1]) for _ in range(2))
        stride = Cost(advance, sizes)
        bar.at(3, "ends")
        ends = _ends(shop, writer, found, some)

    def written(length: int, count: int, needed: IntArray) -> float:
        """Seconds of writing so many windows, which end as those sampled did, ``needed`` tokens each."""
        need = np.quantile(-(-needed // writer.stride), (np.arange(count) + 0.5) / count, method="nearest")
        counts = strides(np.random.default_rng(0).permutation(need), partial(writer.size, length=length))
        return sum(number * stride(size) for size, number in counts.items())

    def in_batches(length: int, size: int, each: Callable[[int], float]) -> float:
        batches, rest = divmod(len(windows[length]), size)
        return batches * each(size) + (each(rest) if rest else 0.0)

    unending = 0.0
    for d in some:
        known: set[str] = set()
        for name in sorted(d.conditions, key=lambda name: plugins.load("condition", name).written_as != name):
            condition = plugins.load("condition", name)
            tokens, seconds = 0, 0.0
            for length in decoders.lengths_of(d, study):
                tokens += len(d.seeds) * len(windows[length]) * length
                each = in_batches(length, full[length], partial(reading[condition.reads], length))

                def writing(needed: IntArray, reads: bool = condition.reads, length: int = length) -> float:
                    # without a memory all windows are written alike
                    if not reads:
                        return written(length, 1, needed)
                    size = max(full[length], together_written(writer, windows[length]))
                    return in_batches(length, min(size, len(windows[length])), lambda n: written(length, n, needed))

                if condition.written_as not in known:
                    # a decoder that can do it ends with its window; the token that says so is written too
                    ended = writing(ends.get((d.name, condition.trained_as, length), np.array([length + 1])))
                    each += ended
                    if decoders.source(d, study).recipe != "trained":
                        unending += len(d.seeds) * (writing(np.array([2 * length])) - ended)
                seconds += len(d.seeds) * each
            known.add(condition.written_as)
            yield Line("reconstruct", f"{d.name}, {name}", tokens, "tokens", seconds)
    if gpu:
        yield Line("reconstruct", "compiling, recording", len(sizes), "batch sizes", beginning)
    searched = [d.name for d in study.decoders if d.search != "greedy"]
    if searched:
        found.assumed.append(
            f"{', '.join(searched)} write greedily: their searches were not timed. beam:k writes k times as much, and "
            f"reencode:k:n reads k + n texts a window besides."
        )
    if unending:
        found.assumed.append(
            f"Decoders that are yet to be trained end each text where its window ends; if none ever does, "
            f"reconstruct takes {unending:,.0f} s more."
        )


def _ends(
    shop: Workshop, writer: Writer, found: Forecast, alike: Sequence[config.Decoder]
) -> dict[tuple[str, str, int], IntArray]:
    """Tokens that some windows took, by (decoder, condition it was trained under, length), where there are weights."""
    trained = {
        (d.name, condition.trained_as): (d, condition)
        for d in alike
        for condition in [plugins.load("condition", name) for name in d.conditions]
        if decoders.source(d, shop.study).recipe == "trained"
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
            folder = decoders.folder_of(decoders.source(d, shop.study), Path())
            file = decoders.find(folder, d.seeds[0], condition.trained_as, length)
            decoders.load_weights(writer.decoder, file)
            # without a memory all windows are written alike
            some = _spread(shop.windows.windows[length], WRITTEN if condition.reads else 1)
            ids = torch.from_numpy(np.stack([w.token_ids for w in some])).to(shop.accelerator.device)
            memory = shop.start(condition, ids)
            with torch.no_grad():
                predicted = writer.decoder(memory, ids)[1]
            # what is predicted rightly is not written
            right = (predicted == F.pad(ids, (0, 1), value=writer.decoder.eos)).all(1).cpu().numpy()
            written = writer.write(memory.rows(torch.from_numpy(np.flatnonzero(~right)).to(ids.device)), length)
            needed = np.zeros(len(ids), dtype=np.int64)
            needed[~right] = [len(w.ids) + w.stopped for w in written]
            known = length, needed
            ends[*name, length] = known[1]
            last = time.perf_counter() - began
    if trained:
        more = f"; those of more than {min(cut)} tokens as shorter ones did" if cut else ""
        found.assumed.append(
            f"Trained decoders end their texts as their first seed ended {WRITTEN} of each length{more}."
        )
    return ends
