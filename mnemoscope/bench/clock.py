"""What work costs, from a little of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from scipy.optimize import nnls

#: seconds of work that are enough: of what took as long there is no repeat and no larger batch
ENOUGH = 0.4
REPEATS = 3
#: seconds of a call that is made once: it is neither repeated nor are other lengths tried that it stands for
LONG = 2.0
#: times the cost in proportion to a smaller size that are not believed at once
HELD_UP = 1.5
#: tokens of the smallest batch that is timed on a CPU, and how many times more the next has
SMALLEST, GROWTH = 256, 4


def wait() -> None:
    """Until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], calls: int = 1) -> float:
    """Seconds of one of ``calls`` calls, the device's work included."""
    wait()
    started = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return (time.perf_counter() - started) / calls


def typical(work: Callable[[], object]) -> float:
    """Least seconds of a few calls: others that hold one up make it longer, nothing makes it shorter.  The first, which
    may load kernels, counts only where it took so long that there is no other."""
    first = seconds_of(work)
    if first > LONG:
        return first
    times = [seconds_of(work)]
    while len(times) < REPEATS and sum(times) < ENOUGH:
        times.append(seconds_of(work))
    return min(times)


class Cost:
    """Seconds of some work against its size, from a few sizes that were timed.

    Between these it is interpolated; outside them it has the slope of the line that fits them best in proportion, whose
    fixed part and slope are not negative.

    Args:
        work: takes the size.
        sizes: rising; those after one that took long are left out.
    """

    def __init__(self, work: Callable[[int], object], sizes: Iterable[int]):
        self.sizes: list[int] = []
        self.seconds: list[float] = []
        for size in sizes:
            each = typical(partial(work, size))
            # a size costs at most in proportion; what took far longer was held up by others, and is timed again
            if self.sizes and each > HELD_UP * self.seconds[-1] * size / self.sizes[-1]:
                each = min(each, typical(partial(work, size)))
            self.sizes.append(size)
            self.seconds.append(each)
            if each > ENOUGH:
                break
        seconds = np.array(self.seconds)
        terms = np.column_stack([np.ones(len(seconds)), self.sizes]) / seconds[:, None]
        self.slope = float(nnls(terms, np.ones(len(seconds)))[0][1])

    def covers(self, size: int) -> bool:
        """Whether so much was timed."""
        return size <= self.sizes[-1]

    def __call__(self, size: float) -> float:
        outside = size - np.clip(size, self.sizes[0], self.sizes[-1])
        return float(np.interp(size, self.sizes, self.seconds) + self.slope * outside)


def rising(first: int, last: int) -> list[int]:
    """From ``first`` in leaps to ``last``."""
    leaps: list[int] = []
    while first < last:
        leaps.append(first)
        first *= GROWTH
    return [*leaps, last]


class Batches:
    """The cost of work on a batch of windows of any of a study's lengths.

    On a GPU every length is timed, in whole batches: each needs kernels of its own, and a small batch says nothing of a
    large one.  On a CPU, where a token's cost differs between lengths by what a window costs beside its tokens, the
    shortest, the middle (unless these take long) and the longest are, in batches that grow until one takes long;
    between these, the cost of as many tokens is linear in windows.

    Args:
        work: takes a length and a number of windows.
        full: length -> windows of a whole batch.
    """

    def __init__(self, work: Callable[[int, int], object], full: dict[int, int], gpu: bool):
        lengths = sorted(full)
        self.costs: dict[int, Cost] = {}
        #: whether each was timed in whole batches
        self.whole = True
        ends_first = lengths if gpu else dict.fromkeys((lengths[0], lengths[-1], lengths[len(lengths) // 2]))
        for length in ends_first:
            if not gpu and len(self.costs) == 2 and max(c.seconds[0] for c in self.costs.values()) > LONG:
                break
            least = min(full[length], max(2, SMALLEST // length))
            sizes = [full[length]] if gpu else rising(least, full[length])
            self.costs[length] = Cost(partial(work, length), sizes)
            self.whole &= self.costs[length].covers(full[length])
        self.timed = sorted(self.costs)

    def __call__(self, length: int, windows: int) -> float:
        # np.interp wants rising places: longest first
        places = [1 / timed for timed in reversed(self.timed)]
        return float(np.interp(1 / length, places, [self.costs[t](windows * length / t) for t in reversed(self.timed)]))
