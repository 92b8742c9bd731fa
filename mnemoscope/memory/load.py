"""From a name to an adapter and its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mnemoscope import plugins
from mnemoscope.errors import ConfigError, ModelError
from mnemoscope.memory import original, weights
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.source import find, read_json
from mnemoscope.memory.tokenizer import read_tokenizer, special_tokens

__all__ = ["Loaded", "load", "special_tokens"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that can be read and started, and its tokenizer.

    Attributes:
        name: as it was asked for.
        digest: SHA-256 of the files that were read (configuration, weights, tokenizer), in the order of their names.
    """

    adapter: Adapter
    tokenizer: PreTrainedTokenizerFast | None
    name: str
    digest: str


def load(
    name: str,
    *,
    revision: str | None = None,
    tokenizer: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    scan: str = "auto",
    need_tokenizer: bool = True,
) -> Loaded:
    """Loads a model into its architecture's adapter, in evaluation mode.

    Args:
        name: an embedded model, a folder, or a hub name; the layout is Hugging Face's or the Mamba authors'.
        revision: branch, tag or commit, for a hub name.
        tokenizer: folder or hub name of the tokenizer, where it is not the model's own.
        dtype: of the parameters: float32, float64 or bfloat16.
        device: a torch device.
        scan: backend of the scan, see :func:`mnemoscope.kernels.scan.choose`.
        need_tokenizer: False loads none.

    Raises:
        ModelError: whatever is missing, corrupt, surplus or does not fit, by name.
    """
    if dtype not in _DTYPES:
        raise ModelError(f"dtype {dtype!r} is not one that a model can have", remedy=f"There are: {', '.join(_DTYPES)}")
    source = find(name, revision)
    config_file = source.get("config.json")
    if config_file is None:
        raise source.missing("config.json", "A model is a folder with config.json and its weights")
    values = read_json(config_file)
    is_original = original.is_original(values)
    if is_original:
        values = original.convert(values, config_file)
    adapter_class = _architecture(values, config_file)
    config = _configure(adapter_class, values if is_original else None, config_file)

    files = [config_file]
    fitting: PreTrainedTokenizerFast | None = None
    if need_tokenizer:
        # before the weights, which are much to fetch for nothing
        fitting, tokenizer_files = read_tokenizer(source, tokenizer, config, is_original)
        files += tokenizer_files
    weight_files = weights.find_files(source)
    files += weight_files
    tensors: dict[str, Tensor] = {}
    for file in weight_files:
        tensors |= weights.read(file)

    with init_empty_weights(include_buffers=False):
        model = getattr(transformers, adapter_class.model_class)(config)
    weights.fill(model, tensors, name)
    try:
        model = model.to(device=device, dtype=_DTYPES[dtype])
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{name!r} cannot be put on {device!r}: {error}", remedy="Choose another device") from error
    return Loaded(adapter_class(model, scan).eval(), fitting, name, _digest(files))


def _architecture(values: dict[str, Any], file: Path) -> type[Adapter]:
    if "model_type" not in values:
        raise ModelError(
            "has neither model_type (Hugging Face) nor d_model and n_layer (the Mamba authors)",
            remedy="Point at a model's own config.json",
            file=file,
        )
    try:
        adapter_class: type[Adapter] = plugins.load("memory", str(values["model_type"]))
    except ConfigError:
        raise ModelError(
            f"no adapter for model_type {values['model_type']!r}",
            remedy=f"There are: {', '.join(plugins.names('memory'))}. "
            "An architecture is one new file in mnemoscope/memory/architectures/",
            file=file,
        ) from None
    return adapter_class


def _configure(adapter_class: type[Adapter], converted: dict[str, Any] | None, file: Path) -> Any:
    """Hugging Face's configuration, from ``converted`` values, or from ``file`` as the library writes it."""
    config_class = getattr(transformers, adapter_class.config_class)
    try:
        return config_class.from_json_file(file) if converted is None else config_class.from_dict(converted)
    except (StrictDataclassError, TypeError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ModelError(
            f"not a configuration of {adapter_class.model_type} ({problem})", remedy="Mend it", file=file
        ) from error


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.name):
        with file.open("rb") as stream:
            whole.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
