"""The loop.  It draws windows, sums their loss, divides by the global number of targets, and steps; nothing else.

Numbers that it derives are decided in :mod:`mnemoscope.train.plan`; what it trains, and on what, is given to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mnemoscope.errors import RunError
from mnemoscope.train import checkpoint
from mnemoscope.train.plan import Plan
from mnemoscope.train.step import Loss, optimiser_for, step_for
from mnemoscope.train.tracking import Log
from mnemoscope.types import IntArray

#: (generator, window length, windows) -> ids [windows, T] int64
Draw = Callable[[np.random.Generator, int, int], IntArray]
#: (tokens seen, tokens in all, mean nats of the last steps)
Progress = Callable[[int, int, float], None]

#: (steps done, tokens seen): what is looked at between steps, the module in evaluation mode
Look = Callable[[int, int], None]

#: steps between reads of the loss, each of which waits for the device
READ_EVERY = 50
#: seconds after which one process alone reads it anyway, so that slow steps show
READ_AFTER = 1.0


def fit(
    module: nn.Module,
    loss: Loss,
    draw: Draw,
    plan: Plan,
    *,
    seed: tuple[int, ...],
    identity: str,
    folder: Path,
    accelerator: Accelerator,
    row: dict[str, Any],
    progress: Progress,
    log: Log = lambda rows: None,
    look: Look | None = None,
    at: Collection[int] = (),
) -> list[checkpoint.CurveRow]:
    """Trains ``module`` in place, from the last checkpoint in ``folder`` if there is one.

    Every process draws the same global batch and takes its own rows of it, so the sequence of windows, and up to
    rounding the curve, do not depend on the number of processes.

    Args:
        seed: of the draws.
        identity: what this training is; a checkpoint of another identity is refused.
        row: run, decoder, condition, seed of every row of the curve (schema.CURVES).
        log: takes the rows that are new in the curve, now and then, in every process.
        look: called by the main process after as many steps as ``at`` names, while the others wait; again for those
            since the last checkpoint, if the training goes on from there.  Its time is not the training's.

    Returns:
        the training's curve, a row a step.

    Raises:
        RunError: a step has fewer windows than there are processes, the loss is not finite, or a checkpoint is alien.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    plan.require_shares(world)
    rng = np.random.default_rng([*seed, 0])
    module.to(accelerator.device)
    optimiser = optimiser_for(module, plan)
    first, seen, seconds = 0, 0, 0.0
    curve: list[checkpoint.CurveRow] = []
    if (found := checkpoint.load(folder, module, optimiser, identity)) is not None:
        state, curve = found
        first, seen, seconds = state["step"], state["tokens"], state["seconds"]
        rng.bit_generator.state = state["generator"]
    prepared, stepping = accelerator.prepare(module, optimiser)
    advance = step_for(prepared, stepping, loss, plan, accelerator)
    total = plan.tokens
    pending: list[tuple[dict[str, Any], Tensor]] = []
    started = shown = time.monotonic()

    def read() -> float:
        """Moves the losses that wait on the device into the curve."""
        if not pending:
            return float(curve[-1]["nats"]) if curve else float("nan")
        values = accelerator.reduce(torch.stack([value for _, value in pending]), reduction="sum").tolist()
        for (entry, _), value in zip(pending, values, strict=True):
            if not np.isfinite(value):
                raise RunError(
                    f"the loss is {value} at step {entry['step']} of {identity}",
                    remedy="Lower the learning rate; the last checkpoint is kept",
                )
            curve.append({**entry, "nats": value})
        log(curve[-len(pending) :])
        pending.clear()
        return float(np.mean(values))

    def look_after(steps: int) -> float:
        """Seconds that it took."""
        if look is None or steps not in at:
            return 0.0
        if pending:
            pending[-1][1].item()  # the time of the steps before is theirs
        began = time.monotonic()
        if accelerator.is_main_process:
            module.eval()
            look(steps, seen)
            module.train()
        accelerator.wait_for_everyone()
        return time.monotonic() - began

    module.train()
    if first == 0:
        started += look_after(0)
    for step in range(first, plan.steps):
        length, windows = int(plan.lengths[step]), plan.windows(step)
        ids = torch.from_numpy(draw(rng, length, windows)[rank::world])
        rate = plan.learning_rate(step)
        mean = advance(ids, windows, rate)
        seen += windows * length
        last = step + 1 == plan.steps
        if last:
            mean.item()  # the training's time is that of its work, not of handing it to the device
        elapsed = seconds + time.monotonic() - started
        entry = {**row, "length": length, "step": step, "tokens": seen, "learning_rate": rate, "seconds": elapsed}
        pending.append((entry, mean))
        # all processes must read at the same steps, so only one alone may go by the clock
        slow = world == 1 and time.monotonic() - shown > READ_AFTER
        if (step + 1) % READ_EVERY == 0 or slow or last:
            progress(seen, total, read())
            shown = time.monotonic()
        started += look_after(step + 1)
        if (step + 1) % plan.checkpoint_every == 0 and not last:
            read()
            if accelerator.is_main_process:
                position = {
                    "plan": identity,
                    "step": step + 1,
                    "tokens": seen,
                    "seconds": elapsed,
                    "generator": rng.bit_generator.state,
                }
                checkpoint.save(folder, module, optimiser, position, curve)
            accelerator.wait_for_everyone()
    # else Accelerate keeps every model and its moments until the process ends
    accelerator.free_memory()
    module.eval()
    return curve
