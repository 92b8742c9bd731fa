"""The published 130M models by their hub names, from a hub on this machine, with random weights of their true shapes.

The client reads HF_ENDPOINT when it is imported, so each visit is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_server
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import mnemoscope

LAYERS, WIDTH, INNER = 24, 768, 1536
BLOCK = {"norm.weight": (WIDTH,), "mixer.out_proj.weight": (WIDTH, INNER)}
MAMBA = BLOCK | {
    "mixer.in_proj.weight": (2 * INNER, WIDTH),
    "mixer.conv1d.weight": (INNER, 1, 4),
    "mixer.conv1d.bias": (INNER,),
    "mixer.x_proj.weight": (48 + 2 * 16, INNER),
    "mixer.dt_proj.weight": (INNER, 48),
    "mixer.dt_proj.bias": (INNER,),
    "mixer.A_log": (INNER, 16),
    "mixer.D": (INNER,),
}
# 24 heads of 64, one group, state 128
MAMBA2 = BLOCK | {
    "mixer.in_proj.weight": (2 * INNER + 2 * 128 + 24, WIDTH),
    "mixer.conv1d.weight": (INNER + 2 * 128, 1, 4),
    "mixer.conv1d.bias": (INNER + 2 * 128,),
    "mixer.dt_bias": (24,),
    "mixer.A_log": (24,),
    "mixer.D": (24,),
    "mixer.norm.weight": (INNER,),
}
AUTHORS = {
    "d_model": WIDTH,
    "n_layer": LAYERS,
    "vocab_size": 50277,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
}

VISIT = """
import json, sys, torch
from mnemoscope.errors import ModelError
from mnemoscope.memory.describe import describe
from mnemoscope.memory.load import load, special_tokens
seen = {}
for name in json.loads(sys.argv[1]):
    repository, _, revision = name.partition("@")
    try:
        loaded = load(repository, revision=revision or None)
    except ModelError as error:
        seen[name] = {"error": str(error)}
        continue
    with torch.no_grad():
        logits, _ = loaded.adapter(torch.tensor([[0, 11, 7, 50276, 3]]))
    seen[name] = {
        "parameters": sum(p.numel() for p in loaded.adapter.parameters()),
        "parts": {row.part: [row.count, list(row.shape), row.numbers] for row in describe(loaded.adapter)},
        "logits": list(logits.shape),
        "first": logits[0, -1, :8].tolist(),
        "special": special_tokens(loaded.tokenizer, loaded.adapter.model.config),
        "text": loaded.tokenizer.decode(loaded.tokenizer("the memory of the window").input_ids),
        "digest": loaded.digest,
    }
print(json.dumps(seen))
"""


def weights(block: dict[str, tuple[int, ...]], rows: int) -> dict[str, torch.Tensor]:
    """Random weights by the authors' names, bfloat16 so that the files are small."""
    shapes = {f"backbone.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in block.items()}
    shapes |= {"backbone.embedding.weight": (rows, WIDTH), "backbone.norm_f.weight": (WIDTH,)}
    generator = torch.Generator().manual_seed(0)
    return {
        n: torch.empty(s, dtype=torch.bfloat16).uniform_(-0.05, 0.1, generator=generator) for n, s in shapes.items()
    }


def save_authors(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(AUTHORS | config))
    torch.save(tensors | {"lm_head.weight": tensors["backbone.embedding.weight"]}, folder / "pytorch_model.bin")


def save_tokenizer(folder: Path) -> None:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["what the memory of a model keeps of the window, and what it forgets"] * 9, trainer)
    made.save(str(folder / "tokenizer.json"))
    token = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "tokenizer_class": "GPTNeoXTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(token))


@pytest.fixture(scope="module")
def space() -> Iterator[Path]:
    """A folder for the hub and a cache, 1.6 GB when filled; gone afterwards, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def hub(space: Path) -> Path:
    root = space / "hub"
    mamba = weights(MAMBA, 50280)
    save_authors(root / "state-spaces/mamba-130m", {"ssm_cfg": {}, "pad_vocab_size_multiple": 8}, mamba)
    ours = root / "state-spaces/mamba-130m-hf"
    ours.mkdir()
    config = {"model_type": "mamba", "vocab_size": 50280, "num_hidden_layers": 24, "torch_dtype": "float32"}
    (ours / "config.json").write_text(json.dumps(config))
    mamba["backbone.embeddings.weight"] = mamba.pop("backbone.embedding.weight")
    save_file(mamba, ours / "model.safetensors")
    save_tokenizer(ours)
    del mamba
    layer = {"ssm_cfg": {"layer": "Mamba2"}, "attn_layer_idx": [], "attn_cfg": {}, "d_intermediate": 0}
    save_authors(root / "state-spaces/mamba2-130m", layer | {"pad_vocab_size_multiple": 16}, weights(MAMBA2, 50288))
    neox = root / "EleutherAI/gpt-neox-20b"
    neox.mkdir(parents=True)
    save_tokenizer(neox)
    return root


def visit(space: Path, names: list[str], **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", VISIT, json.dumps(names)],
        env=os.environ
        | {"HF_HOME": str(space / "home"), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        | {"PYTHONPATH": str(Path(mnemoscope.__file__).parents[1])}
        | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_published_models_by_name(space: Path, hub: Path) -> None:
    names = [f"state-spaces/{name}" for name in ("mamba-130m-hf", "mamba-130m", "mamba2-130m")]
    missing = ["state-spaces/none", "EleutherAI/gpt-neox-20b", "state-spaces/mamba2-130m@v9"]
    with hub_server.serve(hub) as address:
        seen = visit(space, names + missing, HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
    ours, theirs, second = (seen[name] for name in names)
    nowhere, no_config, no_revision = (seen[name]["error"] for name in missing)

    # 24 x 1536 x 16 and 24 x 1536 x 3; parameters as published
    parts = {"ssm": [24, [1536, 16], 589_824], "conv": [24, [1536, 3], 110_592], "total": [48, [], 700_416]}
    assert (ours["parameters"], ours["parts"], ours["logits"]) == (129_135_360, parts, [1, 5, 50280])
    # 24 x (24 x 64) x 128 and 24 x (1536 + 2 x 128) x 3
    parts = {"ssm": [24, [1536, 128], 4_718_592], "conv": [24, [1792, 3], 129_024], "total": [48, [], 4_847_616]}
    assert (second["parameters"], second["parts"], second["logits"]) == (128_989_632, parts, [1, 5, 50288])
    # the same weights in the authors' layout
    assert {k: v for k, v in theirs.items() if k != "digest"} == {k: v for k, v in ours.items() if k != "digest"}
    for found in (ours, theirs, second):
        assert found["special"] == [0, 0]
        assert found["text"] == "the memory of the window"

    assert f"no model 'state-spaces/none': not embedded, not a folder, and not (or not for you) on {address}" in nowhere
    assert f"'EleutherAI/gpt-neox-20b' on {address} has no config.json" in no_config
    assert "'state-spaces/mamba2-130m' has no revision 'v9'" in no_revision

    # the hub is gone: what was fetched still loads, the rest says where it would have been asked for
    offline = visit(space, ["state-spaces/mamba-130m", "some/other"], HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    assert offline["state-spaces/mamba-130m"] == theirs
    assert f"{address} is not asked (HF_HUB_OFFLINE)" in offline["some/other"]["error"]
