"""Contestants take turns at the same work; medians, spreads, and the reason where one cannot take part."""

from __future__ import annotations

import ctypes
import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mnemoscope.bench.clock import seconds_of, wait

Work = Callable[[], object]


class NotHereError(Exception):
    """Why a contestant cannot take part here."""


@dataclass(slots=True)
class Row:
    """One contestant's time for one piece of work.

    Attributes:
        amount: of ``unit`` that one call works off.
        seconds: of each repeat, a call.
        peak_bytes: the most that it held while it was made and warmed up, besides what was held before.
        facts: what else there is to say, such as model-FLOPs utilisation.
        skipped: why there is no number.
    """

    part: str
    work: str
    who: str
    amount: float = 0.0
    unit: str = ""
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    facts: dict[str, float] = field(default_factory=dict)
    skipped: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        return self.amount / self.median


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to look: ``repeats`` blocks of at least ``block`` seconds each.

    What would take more than ``long`` seconds in all is repeated once; what takes that in one call, not at all.
    """

    repeats: int
    block: float
    long: float


THOROUGH, QUICK = Patience(7, 0.15, 10.0), Patience(3, 0.05, 4.0)


@dataclass(frozen=True, slots=True)
class Contestant:
    """``make`` prepares the work and says how much of ``unit`` a call of it works off, or raises NotHereError.

    ``warm`` calls of it compile its kernels and record its graphs.
    """

    who: str
    make: Callable[[], tuple[Work, float]]
    unit: str = "tokens"
    warm: int = 3


def contest(part: str, work: str, contestants: Sequence[Contestant], patience: Patience) -> list[Row]:
    """Every contestant's row, the first contestant's first; they take turns within each repeat."""
    rows, runners = [], []
    for c in contestants:
        row = Row(part, work, c.who, unit=c.unit)
        rows.append(row)
        try:
            before = _held()
            run, row.amount = c.make()
            first = [seconds_of(run) for _ in range(c.warm)][-1]
            row.peak_bytes = _peak() - before
            if first > patience.long:
                row.seconds = [first]
            else:
                runners.append((row, run, max(1, int(patience.block / first)), first))
        except Exception as error:  # whatever another library raises, it gets no number
            row.skipped = _reason(error)
        _tidy()
    for repeat in range(patience.repeats):
        for row, run, calls, first in runners:
            # what takes long is warm after its first call, and steady
            if row.skipped or (repeat > 0 and first > patience.long / patience.repeats):
                continue
            try:
                row.seconds.append(seconds_of(run, calls))
            except torch.OutOfMemoryError as error:  # beside the others
                row.seconds, row.skipped = [], _reason(error)
                _tidy()
    for row in rows:
        if row.seconds and rows[0].seconds and row is not rows[0]:
            row.facts["ours over theirs"] = rows[0].rate / row.rate
    return rows


def _reason(error: Exception) -> str:
    told = str(error) if isinstance(error, NotHereError) else f"{type(error).__name__}: {error}"
    return " ".join(told.split())[:160]


def _held() -> int:
    """Bytes held now, from which on the peak is looked for."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    gc.collect()
    with suppress(OSError, AttributeError):
        # what another has freed goes back to the system (glibc), where it would do for this one and not be seen
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak so far
    return _resident()


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _resident()


def _resident() -> int:
    """The process's most resident bytes since the last reset; 0 where the system does not say."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return 0


def _tidy() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def recorded(work: Work) -> Work:
    """``work`` as a CUDA graph, which takes no time to launch; as it is where there is no GPU."""
    if not torch.cuda.is_available():
        return work
    with torch.cuda.stream(stream := torch.cuda.Stream()):
        for _ in range(2):  # kernels are compiled outside the recording
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = work()

    def replay(held: object = (work, held)) -> None:  # what is read and written must stay where it was recorded
        graph.replay()

    return replay


def fitting(make: Callable[[int], Work], most: int) -> tuple[Work, int]:
    """``make(n)`` for the largest n of most, most / 2, ... with which a call of it fits into memory, and that n.

    Half of what just fits, if not everything does: the others take turns beside it.
    """
    n, spare = most, 1
    while True:
        try:
            work = make(n)
            work()
            wait()
        except torch.OutOfMemoryError:
            if n == 1:
                raise
            n, spare = n // 2, 2
        else:
            return make(max(1, n // spare)), max(1, n // spare)
        _tidy()


def ceilings(device: torch.device, patience: Patience) -> Iterator[Row]:
    """What this machine does at most: products of large matrices, and a copy."""
    size, dtypes = (8192, [torch.bfloat16]) if device.type == "cuda" else (2048, [torch.float32, torch.bfloat16])
    for dtype in dtypes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        name = str(dtype).removeprefix("torch.")
        made: Callable[..., Any] = lambda a=a, b=b: (lambda: a @ b, 2 * size**3)  # noqa: E731
        yield from contest("ceilings", f"matrix product {size}^3", [Contestant(name, made, "FLOP")], patience)
    source = torch.empty(2**30 if device.type == "cuda" else 2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = Contestant("uint8", lambda: (lambda: target.copy_(source), 2 * len(source)), "B")
    yield from contest("ceilings", "copy", [copy], patience)
