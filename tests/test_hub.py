"""The published 130M models by their hub names, from a hub on this machine, with random weights of their true shapes.

The client reads HF_ENDPOINT when it is imported, so each visit is a process of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hub_server
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import mnemoscope
from mnemoscope.errors import ModelError
from mnemoscope.memory import source

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


class Counting(hub_server.Handler):
    """Counts what it is asked, and is busy at first."""

    busy: int
    asked: list[str]

    def do_HEAD(self) -> None:  # noqa: N802
        self.asked.append(f"HEAD {self.path}")
        if len(self.asked) > self.busy:
            return super().do_HEAD()
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def served(tmp_path: Path) -> Path:
    (tmp_path / "hub/some/model").mkdir(parents=True)
    (tmp_path / "hub/some/model/config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def aim(served: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the client of this process ask at an address, with a cache of its own."""
    monkeypatch.setenv("NO_PROXY", "*")

    def at(address: str) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(served / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    return at


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client and we would have waited, without the waiting."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("where", ["refused", "unknown"])
def test_a_hub_that_is_not_there_is_given_up_in_a_second(
    aim: Callable[[str], None], slept: list[float], where: str
) -> None:
    address = f"http://127.0.0.1:{free_port()}" if where == "refused" else "http://nowhere.invalid"
    aim(address)
    found = source.find("some/model")
    assert found.get("config.json") is None
    assert found.get("tokenizer.json") is None
    # the client alone waits 1 + 2 + 4 + 8 + 8 seconds, for each file
    assert slept == [1]
    error = found.missing("config.json", "")
    assert isinstance(error, ModelError)
    assert f"{address} cannot be reached (" in str(error)
    assert where == "unknown" or "Connection refused" in str(error)
    assert all(word in error.remedy for word in ("Connect", "HF_ENDPOINT", "HF_HOME", "--local-dir FOLDER"))


def test_what_is_cached_needs_no_hub(served: Path, aim: Callable[[str], None], slept: list[float]) -> None:
    with hub_server.serve(served / "hub") as address:
        aim(address)
        there = source.find("some/model").get("config.json")
        assert there is not None
    # elsewhere: a server that is shut down still answers on the connections that it has
    aim(f"http://127.0.0.1:{free_port()}")
    found = source.find("some/model")
    assert found.get("config.json") == there
    assert slept == []
    assert found.get("other.json") is None
    assert slept == [1]


@pytest.mark.parametrize("busy", [0, 4])
def test_a_hub_that_is_busy_is_waited_for(
    served: Path, aim: Callable[[str], None], slept: list[float], busy: int
) -> None:
    asked: list[str] = []
    kind = type("Busy", (Counting,), {"busy": busy, "asked": asked})
    with hub_server.serve(served / "hub", kind) as address:
        aim(address)
        found = source.find("some/model")
        assert found.get("config.json") is not None
        assert found.get("tokenizer.json") is None
    assert f"{address} has no tokenizer.json" in str(found.missing("tokenizer.json", ""))
    if busy:
        assert slept[:2] == [1, 2]  # the client's patience
    else:
        # one more than the client's own, of the first file alone
        assert (slept, sorted(map(os.path.basename, asked))) == ([], ["config.json", "config.json", "tokenizer.json"])


def test_what_a_caller_handles_is_not_the_hubs(served: Path, aim: Callable[[str], None], slept: list[float]) -> None:
    with hub_server.serve(served / "hub") as address:
        aim(address)
        try:
            raise ConnectionRefusedError(111, "of another hub")
        except ConnectionRefusedError:
            assert source.find("some/model").get("tokenizer.json") is None
    assert slept == []


def test_a_hub_that_is_restarted_is_asked_again(
    served: Path, aim: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    aim(f"http://127.0.0.1:{port}")
    with ExitStack() as stack:
        start = lambda _: stack.enter_context(hub_server.serve(served / "hub", port=port))  # noqa: E731
        monkeypatch.setattr("time.sleep", start)
        assert source.find("some/model").get("config.json") is not None
