"""Commands in processes of their own, which can be killed (SIGKILL: nothing is tidied up) at a chosen moment.

The processes are forked from one that has imported the heavy libraries and done nothing else.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_PRELOAD = [
    *("mnemoscope.cli", "mnemoscope.pipeline", "mnemoscope.pretraining", "mnemoscope.report.html"),
    *("mnemoscope.memory.architectures.mamba", "mnemoscope.codec.families.native"),
    *("transformers.models.mamba.modeling_mamba", "torch.distributed", "accelerate", "pandas"),
]


@dataclass(frozen=True)
class Kill:
    """When to kill: at the ``count``-th rename of a file to a path that ends in ``rename``, or at step ``step`` of
    the ``count``-th training that gets so far."""

    rename: str = ""
    step: int = -1
    before: bool = False
    count: int = 1


def start(command: Sequence[str], log: Path, kill: Kill | None = None, **environment: str) -> BaseProcess:
    """Starts ``mnemoscope COMMAND``; what it prints goes to ``log``, what it trains to ``log``.steps."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    process = context.Process(target=_main, args=(list(command), log, kill, environment))
    process.start()
    return process


def run(command: Sequence[str], log: Path, kill: Kill | None = None) -> int:
    """The exit code of ``mnemoscope COMMAND``, negative for a signal."""
    process = start(command, log, kill)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def trainings(log: Path) -> list[tuple[str, list[int]]]:
    """Each training that the processes began, in order: its folder's name, and the steps that it made."""
    found: list[tuple[str, list[int]]] = []
    for line in Path(f"{log}.steps").read_text().splitlines():
        kind, _, value = line.partition(" ")
        if kind == "begin":
            found.append((value, []))
        else:
            found[-1][1].append(int(value))
    return found


def _main(command: list[str], log: Path, kill: Kill | None, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    import torch

    gc.freeze()  # see tests/conftest.py
    torch.set_num_threads(1)
    _watch(Path(f"{log}.steps"), kill or Kill())
    from mnemoscope import cli

    sys.argv = ["mnemoscope", *command]
    cli.main()


def _watch(log: Path, kill: Kill) -> None:
    from mnemoscope import pipeline, pretraining
    from mnemoscope.train.plan import Plan

    left = [kill.count]

    def strike(hit: bool) -> None:
        if hit:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def note(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")

    replace, learning_rate, fit = os.replace, Plan.learning_rate, pipeline.fit

    def replace_and_strike(source: Any, target: Any, **more: Any) -> None:
        hit = bool(kill.rename) and fnmatch(str(target), f"*/{kill.rename}")
        strike(hit and kill.before)
        replace(source, target, **more)
        strike(hit and not kill.before)

    def count_steps(plan: Plan, step: int) -> float:
        strike(step == kill.step)
        note(f"step {step}")
        return learning_rate(plan, step)

    def name_training(*arguments: Any, **more: Any) -> Any:
        note(f"begin {more['folder'].name}")
        return fit(*arguments, **more)

    changed: list[tuple[Any, str, Callable[..., Any]]] = [
        (os, "replace", replace_and_strike),
        (Plan, "learning_rate", count_steps),
        (pipeline, "fit", name_training),
        (pretraining, "fit", name_training),
    ]
    for owner, name, function in changed:
        setattr(owner, name, function)
