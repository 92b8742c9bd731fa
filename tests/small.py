"""A whole study in a folder, small enough to be run many times: model, tokenizer, corpus, study file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mnemoscope import config

_WORDS = ("the", "sea", "was", "calm", "and", "Ada", "slept", "while", "rain", "fell", "on", "a", "roof", "of", "tin")
OPTIMISER: dict[str, Any] = {"learning_rate": 3e-3, "warmup": 0.1}


def tokenizer(folder: Path) -> None:
    """A token for each byte, and ``<|endoftext|>`` as id 0: 257 ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(["<|endoftext|>", *alphabet])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))


def model(folder: Path, model_type: str = "mamba", **changes: Any) -> Path:
    """A random model of two layers that fits :func:`tokenizer`, in Hugging Face's layout."""
    sizes = {"vocab_size": 257, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 3}
    tiny.model(model_type, **(sizes | changes)).save_pretrained(folder)
    tokenizer(folder)
    return folder


def text(file: Path, documents: int = 8, words: int = 30, seed: int = 0) -> Path:
    """JSON lines with the fields text and domain."""
    rng = np.random.default_rng([seed, 1])
    lines = [
        f'{{"text": "{" ".join(rng.choice(_WORDS, words))}", "domain": "{("news", "fiction")[n % 2]}"}}\n'
        for n in range(documents)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines), encoding="utf-8")
    return file


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study over ``folder``/model, train.jsonl and measure.jsonl, as its file would hold it: one growing decoder of
    25 steps with a checkpoint every 10, and one of 9 steps for each length."""
    training = {"batch_tokens": 64, "optimiser": OPTIMISER, "checkpoint_every": 10, "seeds": [0]}
    return {
        "name": "small",
        "seed": 3,
        "model": {"name": str(folder / "model")},
        "compute": {"device": "cpu", "scan": "reference"},
        "text": {
            "train": [{"path": "train.jsonl", "domain": "domain"}],
            "measure": [{"path": "measure.jsonl", "domain": "domain"}],
        },
        "windows": {"lengths": [4, 12], "tokens_per_length": 96},
        "decoders": [
            {
                **{"name": "growing", "recipe": "growing", "tokens": 1600, "conditions": ["memory", "none", "wrong"]},
                **training,
            },
            {**{"name": "fixed", "recipe": "fixed", "tokens": 1152, "conditions": ["memory"]}, **training},
        ],
        "estimate": {"by": ["domain", "position"], "resamples": 100},
        **changes,
    }


def pretraining(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study of 25 steps of pretraining over ``folder``/train.jsonl and measure.jsonl, a checkpoint every 10."""
    return {
        "name": "small",
        "seed": 3,
        "compute": {"device": "cpu", "scan": "reference"},
        "text": {"train": [{"path": "train.jsonl"}], "measure": [{"path": "measure.jsonl"}]},
        "pretrain": {
            "architecture": "mamba",
            "shape": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
            "vocabulary": 270,
            "tokenizer_bytes": 2000,
            "context": 16,
            "tokens": 1600,
            "batch_tokens": 64,
            "optimiser": OPTIMISER,
            "checkpoint_every": 10,
            "held_out_tokens": 400,
            **changes,
        },
    }


def write(values: dict[str, Any], file: Path) -> Path:
    """The study file that says ``values``, unchecked where :func:`config.load` would refuse it."""
    file.write_text(config.dump(config.Study.model_validate(values)), encoding="utf-8")
    return file


def study(folder: Path, **changes: Any) -> Path:
    """``folder``/study.toml, with everything that it names."""
    with torch.random.fork_rng():
        model(folder / "model")
    text(folder / "train.jsonl", documents=12, seed=1)
    text(folder / "measure.jsonl", seed=2)
    return write(values(folder, **changes), folder / "study.toml")
