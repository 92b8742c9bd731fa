"""A training's curve, sent to a tracker while it grows: TensorBoard, or another that Accelerate knows.

What is sent of each step::

    nats/L64            nats a token, by the step's window length
    learning_rate
    tokens_per_second   since the step before it

TensorBoard writes files into the run folder and needs no network; what others do is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers

from mnemoscope.errors import ConfigError
from mnemoscope.train.checkpoint import CurveRow

#: takes the rows of the curve that are new
Log = Callable[[Sequence[CurveRow]], None]


def require(name: str | None) -> None:
    """Raises ConfigError if Accelerate knows no tracker ``name``, or its package is not installed."""
    if name is None:
        return
    known = sorted(LOGGER_TYPE_TO_CLASS)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no tracker named {name!r}", remedy=f"{hint}Accelerate knows: {', '.join(known)}")
    if not filter_trackers([name], "."):
        package = "'mnemoscope[track]'" if name == "tensorboard" else name
        raise ConfigError(f"the tracker {name!r} is not installed", remedy=f"Install it: pip install {package}")


@contextmanager
def tracked(processes: Accelerator, name: str | None, folder: Path, training: str) -> Iterator[Log]:
    """What a training's curve is handed to; nothing comes of it where ``name`` is None.

    Args:
        folder: where a tracker that writes files puts them.
        training: what the tracker is to call this one, such as ``growing/seed-0/memory``.
    """
    if name is None:
        yield lambda rows: None
        return
    processes.log_with = filter_trackers([name], folder)
    processes.project_configuration.set_directories(str(folder))
    processes.init_trackers(training)
    before: CurveRow | None = None

    def log(rows: Sequence[CurveRow]) -> None:
        nonlocal before
        for row in rows:
            values = {f"nats/L{row['length']}": row["nats"], "learning_rate": row["learning_rate"]}
            # a process's first step also sets things up; one that the clock does not resolve has no speed
            if before is not None and row["seconds"] > before["seconds"]:
                speed = (row["tokens"] - before["tokens"]) / (row["seconds"] - before["seconds"])
                values["tokens_per_second"] = speed
            processes.log(values, step=row["step"])
            before = row

    try:
        yield log
    finally:
        for tracker in processes.trackers:
            tracker.finish()
        processes.trackers = []
