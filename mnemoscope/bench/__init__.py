"""How long a study will take on this machine, found by doing a little of each of its stages.

prepare is done whole, so a study that would be refused is refused here.  Training steps and measuring batches are the
study's own; where a whole one is long they are timed with fewer windows, and drawn out.  Scores, estimates and page are
made of two miniatures of the study, and drawn out.  Everything is written to a folder that is removed at the end.

A reconstruction is a sum: reading and scoring a batch, timed; a stride of the writer at each number of slots, timed;
and the strides that its windows need, from where a few of them ended.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import torch

from mnemoscope import config, pipeline
from mnemoscope.bench import after, measuring, training
from mnemoscope.bench.found import Forecast, Line
from mnemoscope.progress import Progress, Silent
from mnemoscope.rundir import RunDir
from mnemoscope.workshop import Workshop

__all__ = ["Forecast", "Line", "forecast"]


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
        found.assumed.append("One process, on a machine that is as busy then as it was now.")
        pipeline.prepare(shop)
        facts = shop.run.manifest
        read = sum(i["text_bytes"] for i in facts["inputs"])
        seconds = facts["stages"]["prepare"]["seconds"]
        found.lines.append(Line("prepare", "checking and cutting text", read / 1e6, "MB", seconds))
        found.lines += training.training(shop, found, Path(folder))
        found.lines += measuring.measuring(shop, found)
        found.lines += after.after(shop)
        found.peak_bytes = _peak(shop.accelerator.device)
    return found


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # kilobytes, but bytes on a Mac
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
