"""The processes that a launcher (torchrun) started, or just this one."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from mnemoscope import config
from mnemoscope.errors import ConfigError, MnemoscopeError, RunError
from mnemoscope.train import tracking

_T = TypeVar("_T")


def accelerator(compute: config.Compute) -> Accelerator:
    """Accelerate on the study's device, on every process of a launcher.

    Raises:
        ConfigError: the device is not there, the processes cannot work together on it, or there is no such tracker.
    """
    tracking.require(compute.track)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "auto": True}
    if not there[compute.device]:
        raise ConfigError(f"there is no device {compute.device!r} here", remedy="Use compute.device = 'auto'")
    made = Accelerator(
        cpu=compute.device == "cpu" or (compute.device == "auto" and not torch.accelerator.is_available()),
        mixed_precision=compute.mixed_precision,
        # the others wait while the first reads and checks whole corpora
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if made.num_processes != launched:
        raise ConfigError(
            f"{launched} processes were launched, and device {compute.device!r} is for one",
            remedy="Launch one, or use compute.device = 'cuda' or 'cpu'",
        )
    return made


def device_name(processes: Accelerator) -> str:
    """What the work is done on, as a person would say it."""
    device = processes.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def by_main(processes: Accelerator, work: Callable[[], _T]) -> _T | None:
    """What ``work`` gives in the main process, for which the others wait; None in those.

    Raises:
        MnemoscopeError: ``work`` does; then every process stops.
    """
    result, failure, problem = None, None, [""]
    if processes.is_main_process:
        try:
            result = work()
        except MnemoscopeError as error:
            failure, problem = error, [error.problem]
    broadcast_object_list(problem)
    if failure is not None:
        raise failure
    if problem[0]:
        raise RunError(f"the main process stopped: {problem[0]}", remedy="Its own message says more")
    return result
