"""The layout of the authors' own code (github.com/state-spaces/mamba), as Hugging Face's configuration.

Its ``config.json`` is ``MambaConfig`` of ``mamba_ssm/models/config_mamba.py``; what ``ssm_cfg`` leaves out has the
default of the class ``Mamba`` or ``Mamba2`` in ``mamba_ssm/modules``.  The weights have Hugging Face's names and axes,
but for ``embedding``, which is ``embeddings`` there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mnemoscope.errors import ModelError

#: what the authors' models were trained with; their repositories bring none
TOKENIZER = "EleutherAI/gpt-neox-20b"

#: keys of ssm_cfg: the key in Hugging Face's configuration, and the default of the authors' class
_MAMBA: dict[str, tuple[str, Any]] = {
    "d_state": ("state_size", 16),
    "d_conv": ("conv_kernel", 4),
    "expand": ("expand", 2),
    "dt_rank": ("time_step_rank", "auto"),
    "dt_min": ("time_step_min", 0.001),
    "dt_max": ("time_step_max", 0.1),
    "dt_init": ("time_step_init_scheme", "random"),
    "dt_scale": ("time_step_scale", 1.0),
    "dt_init_floor": ("time_step_floor", 1e-4),
    "conv_bias": ("use_conv_bias", True),
    "bias": ("use_bias", False),
}
_MAMBA2: dict[str, tuple[str, Any]] = {
    "d_state": ("state_size", 128),
    "d_conv": ("conv_kernel", 4),
    "expand": ("expand", 2),
    "headdim": ("head_dim", 64),
    "ngroups": ("n_groups", 1),
    "dt_min": ("time_step_min", 0.001),
    "dt_max": ("time_step_max", 0.1),
    "dt_init_floor": ("time_step_floor", 1e-4),
    "dt_limit": ("time_step_limit", [0.0, math.inf]),
    "conv_bias": ("use_conv_bias", True),
    "bias": ("use_bias", False),
    "chunk_size": ("chunk_size", 256),
}
#: keys that say how the authors' code computes or starts, not what
_NEUTRAL = {"layer", "use_fast_path", "use_mem_eff_path", "conv_init", "A_init_range"}
#: what Hugging Face's classes can only do in one way
_FIXED: dict[str, Any] = {"rmsnorm": True, "norm_before_gate": False, "D_has_hdim": False, "d_ssm": None}
_FIXED_TOP: dict[str, Any] = {"rms_norm": True, "attn_layer_idx": [], "d_intermediate": 0}


def is_original(config: dict[str, Any]) -> bool:
    """Whether ``config`` is of the authors' layout."""
    return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()


def convert(config: dict[str, Any], file: Path) -> dict[str, Any]:
    """Hugging Face's configuration for the authors' ``config``.

    Args:
        config: the content of their config.json.
        file: where it came from, for messages.

    Raises:
        ModelError: a layer that is neither Mamba nor Mamba-2, or a setting that Hugging Face's classes cannot follow.
    """
    ssm: dict[str, Any] = config.get("ssm_cfg") or {}
    layer = ssm.get("layer", "Mamba1")
    if layer not in ("Mamba1", "Mamba2"):
        raise ModelError(f"ssm_cfg.layer is {layer!r}", remedy="There are: Mamba1, Mamba2", file=file)
    keys = _MAMBA if layer == "Mamba1" else _MAMBA2
    for values, fixed in ((config, _FIXED_TOP), (ssm, _FIXED)):
        for key, only in fixed.items():
            # an empty list and null are both 'none of it'
            if (values.get(key, only) or None) != (only or None):
                raise ModelError(
                    f"{key} is {values[key]!r}", remedy=f"Only {only!r} has an architecture here", file=file
                )
    unknown = ssm.keys() - keys.keys() - _NEUTRAL - _FIXED.keys()
    if unknown:
        raise ModelError(f"ssm_cfg has unknown keys {sorted(unknown)}", remedy=f"Known: {', '.join(keys)}", file=file)
    for key in ("d_model", "n_layer", "vocab_size"):
        if not isinstance(config.get(key), int):
            raise ModelError(f"{key} is {config.get(key)!r}, not a whole number", remedy="Mend the file", file=file)

    multiple = config.get("pad_vocab_size_multiple", 8)
    converted: dict[str, Any] = {
        "model_type": "mamba" if layer == "Mamba1" else "mamba2",
        "hidden_size": config["d_model"],
        "num_hidden_layers": config["n_layer"],
        "vocab_size": math.ceil(config["vocab_size"] / multiple) * multiple,
        "residual_in_fp32": config.get("residual_in_fp32", True),
        "tie_word_embeddings": config.get("tie_embeddings", True),
        "layer_norm_epsilon": 1e-5,
        "hidden_act": "silu",
        # the tokenizer's <|endoftext|> is all three
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    converted.update({name: ssm.get(key, default) for key, (name, default) in keys.items()})
    if layer == "Mamba2":
        converted["num_heads"] = converted["expand"] * config["d_model"] // converted["head_dim"]
    return converted
