"""A training's whole state on disk: weights, optimiser, generator, position.  Safetensors and JSON, never pickle.

A checkpoint is written beside the last one and put in its place by one rename, so that a kill at any moment leaves a
whole one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from mnemoscope import schema
from mnemoscope.errors import RunError
from mnemoscope.rundir import replacing

CurveRow = dict[str, Any]


def save(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any], curve: list[CurveRow]
) -> None:
    """Writes ``folder``/latest; ``state`` is what JSON can hold."""
    new, latest, old = folder / "new", folder / "latest", folder / "old"
    if old.exists() and not latest.exists():
        # a kill between the two renames below: this is the only whole one until the next is written
        os.replace(old, latest)
    for stale in (new, old):
        shutil.rmtree(stale, ignore_errors=True)
    new.mkdir(parents=True)
    save_model(module, str(new / "weights.safetensors"))
    moments: dict[str, torch.Tensor] = {}
    names = {id(p): n for n, p in module.named_parameters()}
    for parameter, values in optimiser.state.items():
        for key, value in values.items():
            moments[f"{names[id(parameter)]}|{key}"] = value.detach().contiguous()
    save_file(moments, str(new / "optimiser.safetensors"))
    save_curve(curve, new / "curve.parquet")
    (new / "state.json").write_text(json.dumps(state))
    if latest.exists():
        os.replace(latest, old)
    os.replace(new, latest)
    shutil.rmtree(old, ignore_errors=True)


def load(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, expected: str
) -> tuple[dict[str, Any], list[CurveRow]] | None:
    """Puts the last whole checkpoint of ``folder`` into ``module`` and ``optimiser``.

    Args:
        expected: ``state['plan']`` that the checkpoint must have been made under.

    Returns:
        its state and curve, or None if there is no checkpoint.

    Raises:
        RunError: it belongs to another training.
    """
    # a kill between the two renames leaves only 'old', which is whole
    latest = next((p for p in (folder / "latest", folder / "old") if (p / "state.json").exists()), None)
    if latest is None:
        return None
    state: dict[str, Any] = json.loads((latest / "state.json").read_text())
    if state["plan"] != expected:
        raise RunError(
            "this checkpoint is of another training",
            remedy="Give the run another folder, or remove the checkpoint to train anew",
            file=latest / "state.json",
        )
    load_model(module, str(latest / "weights.safetensors"), strict=True)
    parameters = dict(module.named_parameters())
    for key, value in load_file(str(latest / "optimiser.safetensors")).items():
        name, _, moment = key.partition("|")
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU unless it is fused
        on_cpu = moment == "step" and not optimiser.defaults.get("fused")
        optimiser.state[parameter][moment] = value if on_cpu else value.to(parameter.device)
    return state, pq.read_table(latest / "curve.parquet").to_pylist()


def save_weights(module: nn.Module, path: Path) -> None:
    """Final weights, written atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # one process writes it, so the half that a kill left has this name too and is written over
    temporary = path.with_name(path.name + ".new")
    save_model(module, str(temporary))
    os.replace(temporary, path)


def save_curve(curve: list[CurveRow], path: Path) -> None:
    """A curve, by ``schema.CURVES``, written atomically."""
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(curve, schema=schema.arrow("curves")), temporary, compression="zstd")


def gather(files: Sequence[Path], target: Path) -> None:
    """Curves, of one training each, as one table, written atomically."""
    with replacing(target) as temporary:
        pq.write_table(pa.concat_tables([pq.read_table(f) for f in files]), temporary, compression="zstd")


def discard(folder: Path) -> None:
    """Removes a training's checkpoints, once its final weights are written."""
    shutil.rmtree(folder, ignore_errors=True)
