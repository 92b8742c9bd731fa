"""A model's weights: found, read, and checked name by name and shape by shape.

They are safetensors, or ``pytorch_model.bin`` through torch's reader that builds tensors and nothing else
(``weights_only``); no code that comes with weights is ever run.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Set
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mnemoscope.errors import ModelError
from mnemoscope.memory.source import AGAIN, Source, read_json

#: in order of preference; an index names the files that the weights are spread over
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def find_files(source: Source) -> list[Path]:
    """The files that hold the weights.

    Raises:
        ModelError: there are none, or an index names files that are not there.
    """
    for name in _WEIGHTS:
        file = source.get(name)
        if file is None:
            continue
        if not name.endswith(".index.json"):
            return [file]
        parts = sorted(set(read_json(file).get("weight_map", {}).values()))
        if not parts or any(Path(part).name != part for part in parts):
            raise ModelError("has no weight_map of file names beside it", remedy=AGAIN, file=file)
        found = {part: source.get(part) for part in parts}
        lost = [part for part, path in found.items() if path is None]
        if lost:
            raise source.missing(" and no ".join(lost), f"{name} says that weights are in there. {AGAIN}")
        return [path for path in found.values() if path is not None]
    raise source.missing("weights", f"There must be one of: {', '.join(_WEIGHTS)}")


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of one file, by the names that Hugging Face's classes have.

    Raises:
        ModelError: the file is cut short, of another kind, or holds more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            weights = safetensors.torch.load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"not weights that we read: {error}", remedy=AGAIN, file=file) from error
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ModelError("holds something other than named tensors", remedy="Save model.state_dict()", file=file)
    return {name.replace("embedding.", "embeddings."): weight for name, weight in weights.items()}


def fill(model: Any, weights: dict[str, Tensor], name: str) -> None:
    """Gives ``model``, which is on the meta device, its weights: all of them, and no others.

    Raises:
        ModelError: weights missing or surplus, of another shape, or two that the configuration calls one and differ.
    """
    wanted: dict[str, Tensor] = model.state_dict()
    if model.config.tie_word_embeddings:
        names = {id(module): f"{path}.weight" for path, module in model.named_modules()}
        head, embedding = (names[id(m)] for m in (model.get_output_embeddings(), model.get_input_embeddings()))
        either = weights.get(embedding, weights.get(head))
        if either is not None:
            weights = {head: either, embedding: either} | weights
            if not torch.equal(weights[head], weights[embedding]):
                raise ModelError(
                    f"{name!r}: {head} and {embedding} are to be one (tie_word_embeddings) and differ",
                    remedy="Correct tie_word_embeddings in config.json",
                )
    faults = [
        f"{len(odd)} {kind}: {_some(odd)}"
        for kind, odd in (("missing", wanted.keys() - weights.keys()), ("surplus", weights.keys() - wanted.keys()))
        if odd
    ]
    if faults:
        raise ModelError(f"{name!r}: weights do not fit config.json ({'; '.join(faults)})", remedy="Use its own pair")
    for key, weight in weights.items():
        if weight.shape != wanted[key].shape:
            raise ModelError(
                f"{name!r}: {key} is {tuple(weight.shape)} in the file, {tuple(wanted[key].shape)} in config.json",
                remedy="Use its own pair",
            )
    model.load_state_dict(weights, assign=True)
    model.tie_weights()


def _some(names: Set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
