"""Windows to rows of ``schema.DECODED``: read into memories, predicted token by token, written back."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from mnemoscope import plugins, schema
from mnemoscope.codec.generate import Reconstruction, Texts, Writer
from mnemoscope.codec.search import Search, Slow
from mnemoscope.codec.search._judge import SAMPLE, Judge
from mnemoscope.codec.search.greedy import SEARCH as GREEDY
from mnemoscope.controls import Condition
from mnemoscope.errors import RunError
from mnemoscope.kernels.elementary_numba import loops_may_meet
from mnemoscope.memory.memory import Memory, together
from mnemoscope.types import IntArray, Window
from mnemoscope.workshop import Workshop

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")

#: tokens in a measuring batch on a CPU, at most
CPU_TOKENS = 4096

#: columns of schema.DECODED that are attributes of a window
OF_WINDOW = ("doc_id", "window_id", "domain", "source", "dialect", "prefix")


def batch_windows(shop: Workshop, length: int) -> int:
    """Windows of a length that are measured together: no more on a CPU than what its caches hold pays for."""
    most = CPU_TOKENS if shop.accelerator.device.type == "cpu" else shop.study.compute.batch_tokens
    return max(1, min(most, shop.study.compute.batch_tokens) // length)


def together_written(writer: Writer, windows: Sequence[Window]) -> int:
    """Windows of one length that are written together, at least: as many as the writer has room for, but on a CPU no
    more than leave some for every thread."""
    sharing = torch.get_num_threads() if writer.decoder.device.type == "cpu" else 1
    return writer.size(-(-len(windows) // sharing), windows[0].length)


def judge(shop: Workshop, condition: Condition, windows: Sequence[Window]) -> Judge:
    """Of texts that may be windows of this length, by their memories under the condition."""
    device, length = shop.accelerator.device, windows[0].length
    read = functools.partial(shop.start, condition, draw=1)

    def sample() -> Iterator[Memory]:
        some = [windows[i] for i in np.linspace(0, len(windows) - 1, min(SAMPLE, len(windows))).astype(int)]
        size = batch_windows(shop, length)
        for first in range(0, len(some), size):
            yield read(torch.from_numpy(np.stack([w.token_ids for w in some[first : first + size]])).to(device))

    return Judge(read, sample, shop.loaded.adapter)


def measure(
    shop: Workshop,
    writer: Writer,
    condition_name: str,
    windows: Sequence[Window],
    key: dict[str, Any],
    texts: Texts,
    search: Search = GREEDY,
) -> Iterator[pa.Table]:
    """Windows of one length in batches, by ``schema.DECODED``; ``key`` is the same for all rows, and so are the decoder
    and the search whose ``texts`` are given."""
    condition = plugins.load("condition", condition_name)
    read = condition.windows_to_read(windows)
    length = windows[0].length
    texts.held(condition.written_as, length)  # before several threads ask
    judging = judge(shop, condition, windows)
    size = batch_windows(shop, length)

    def span(writer: Writer, first: int) -> list[pa.Table]:
        """The windows from ``first`` on that are written together."""
        found = _span(
            shop,
            writer,
            condition,
            windows[first : first + step],
            read[first : first + step],
            texts,
            search,
            judging,
            size,
        )
        return [columns(shop, key, *batch) for batch in found]

    if isinstance(search, Slow):
        size = step = min(size, search.together)
    else:
        step = -(-together_written(writer, windows) // size) * size
    firsts = range(0, len(windows), step)
    for tables in side_by_side(span, writer, firsts, shop.accelerator.device):
        yield from tables


#: a batch that is measured: its windows, their ids, nats and predictions, and what was written for them
_Batch = tuple[Sequence[Window], IntArray, npt.NDArray[np.float32], IntArray, Sequence[Reconstruction]]


def _span(
    shop: Workshop,
    writer: Writer,
    condition: Condition,
    windows: Sequence[Window],
    read: Sequence[Window],
    texts: Texts,
    search: Search,
    judging: Judge,
    size: int,
) -> list[_Batch]:
    """Predicts windows ``size`` at a time, then writes those of their texts that are not held."""
    decoder, device, length = writer.decoder, shop.accelerator.device, windows[0].length
    held = texts.held(condition.written_as, length)
    lacking: list[str] = []
    memories: list[Memory] = []

    def predict(some: slice) -> tuple[Sequence[Window], list[str], IntArray, npt.NDArray[np.float32], IntArray]:
        batch, source = windows[some], read[some]
        names = [w.window_id if condition.reads else "" for w in source]
        ids = np.stack([w.token_ids for w in batch])
        tokens = torch.from_numpy(np.stack([w.token_ids for w in source])).to(device)
        with torch.no_grad():
            memory = shop.start(condition, tokens, passages=[w.passage for w in source])
            nats, predicted = decoder(memory, torch.from_numpy(ids).to(device))
        predictions = predicted.cpu().numpy()
        # while it predicts the window's own tokens, what it writes is these
        ends = np.pad(ids, ((0, 0), (0, 1)), constant_values=decoder.eos)
        for row in np.flatnonzero((predictions == ends).all(1) & search.follows):
            held[names[row]] = Reconstruction(ids[row].tolist(), True)
        # the first row of each text that is missing
        missing = [(row, name) for row, name in enumerate(names) if name not in held and name not in lacking]
        rows = {name: row for row, name in reversed(missing)}
        memories.append(memory.rows(torch.tensor(list(rows.values()), dtype=torch.int64, device=device)))
        lacking.extend(rows)
        return batch, names, ids, nats.cpu().numpy(), predictions

    batches = list(in_batches(shop, predict, len(windows), size, length))
    if lacking:
        # without a memory there is one text, which one of several threads writes, and the others wait for
        with nullcontext() if condition.reads else texts.alone:
            if not held.keys() >= set(lacking):
                written = _written(shop, search, writer, together(memories), length, judging)
                held.update(zip(lacking, written, strict=True))
    return [(batch, ids, nats, told, [held[name] for name in names]) for batch, names, ids, nats, told in batches]


def in_batches(shop: Workshop, work: Callable[[slice], _R], count: int, size: int, length: int) -> Iterator[_R]:
    """``work`` on ``count`` windows of a length, ``size`` at a time, or fewer where the device's memory holds no more.

    Raises:
        RunError: it does not hold one.
    """
    done = 0
    while done < count:
        some = slice(done, min(done + size, count))
        try:
            found = work(some)
        except torch.OutOfMemoryError as error:
            rows = some.stop - done
            if rows == 1 and not shop.keeps:
                raise too_long(length) from error
        else:
            yield found
            done = some.stop
            continue
        # after the handler, whose traceback holds on to the tensors
        if not _kept_less(shop):
            size = rows // 2
            log.warning("out of memory: windows of %d tokens are now measured %d at a time", length, size)
        release(shop.accelerator.device)


def side_by_side(
    work: Callable[[Writer, _T], _R], writer: Writer, items: Sequence[_T], device: torch.device
) -> Iterator[_R]:
    """``work`` on each item, in order.

    On a CPU on as many items at once as there are threads, each alone on its own: the operations on a batch are too
    small to be shared among cores, and threads that wait for one another wait long where others use the machine.
    """
    there = torch.get_num_threads()
    threads = min(there, len(items)) if device.type == "cpu" and loops_may_meet() else 1
    if threads == 1:
        yield from (work(writer, item) for item in items)
        return
    idle = [writer, *(Writer(writer.decoder) for _ in range(threads - 1))]

    def alone() -> None:
        torch.set_num_threads(1)
        numba.set_num_threads(1)

    def one(item: _T) -> _R:
        mine = idle.pop()
        try:
            return work(mine, item)
        finally:
            idle.append(mine)

    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=alone)
    try:
        # no more than one for each thread besides those at work: what is done waits in memory
        following = iter(items)
        running = deque(pool.submit(one, item) for item in islice(following, 2 * threads))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(one, item) for item in islice(following, 1))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(there)


def _written(
    shop: Workshop, search: Search, writer: Writer, memory: Memory, length: int, judging: Judge
) -> list[Reconstruction]:
    """What a search writes, of half as many windows at a time where the device's memory does not hold them all."""
    try:
        return search.write(writer, memory, length, judging)
    except torch.OutOfMemoryError as error:
        if memory.batch == 1 and not shop.keeps:
            raise too_long(length) from error
    # after the handler, whose traceback holds on to the tensors
    again = functools.partial(_written, shop, search, writer, length=length, judging=judging)
    whole = _kept_less(shop)
    release(writer.decoder.device)
    if whole:
        return again(memory)
    log.warning("out of memory: windows of %d tokens are now written %d at a time", length, -(-memory.batch // 2))
    halves = torch.arange(memory.batch, device=writer.decoder.device).chunk(2)
    return [text for half in halves for text in again(memory.rows(half))]


def _kept_less(shop: Workshop) -> bool:
    """Lets go of the memories that were kept, if there may be any, before batches are halved."""
    if not shop.keeps:
        return False
    shop.forget(for_good=True)
    log.warning("out of memory: windows are now read from their beginning, each for itself")
    return True


def too_long(length: int) -> RunError:
    """Where not even one window can be held."""
    return RunError(
        f"the device's memory does not hold a window of {length} tokens",
        remedy="Leave out the longest windows, or use a larger device",
    )


def release(device: torch.device) -> None:
    """Gives memory that is free back to a GPU, so that smaller batches find it in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def columns(
    shop: Workshop,
    key: dict[str, Any],
    batch: Sequence[Window],
    ids: IntArray,
    nats: npt.NDArray[np.float32],
    predicted: IntArray,
    written: Sequence[Reconstruction],
) -> pa.Table:
    """A batch's rows; nats and predicted [windows, L + 1], the last of them EOS."""
    texts = shop.tokenizer.batch_decode([w.ids for w in written], clean_up_tokenization_spaces=False)
    columns = {
        **{name: [value] * len(batch) for name, value in key.items()},
        **{name: [getattr(w, name) for w in batch] for name in OF_WINDOW},
        "reference_ids": _lists(ids),
        "char_start": _lists(np.stack([w.char_start for w in batch])),
        "char_end": _lists(np.stack([w.char_end for w in batch])),
        # EOS is scored in training and not here: it is no token of the source
        "predicted_ids": _lists(predicted[:, :-1]),
        "token_nats": _lists(nats[:, :-1]),
        "reconstruction_ids": [w.ids for w in written],
        "stopped": [w.stopped for w in written],
        "reference": [shop.windows.window_text(w) for w in batch],
        "reconstruction": texts,
    }  # fmt: skip
    wanted = schema.arrow("decoded")
    # _lists gives the widest integers, the schema says which
    return pa.table([pa.array(columns[c.name]).cast(c.type) for c in wanted], schema=wanted)


def _lists(rows: npt.NDArray[Any]) -> pa.ListArray:
    """An array [windows, L] as a column of lists."""
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(rows).reshape(-1))
