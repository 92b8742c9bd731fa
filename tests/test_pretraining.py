"""Pretraining: whose tokenizer, which weights decay, how the speed is told; resuming is in e2e/test_resume.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
import tiny
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from mnemoscope import config, pretraining, zoo
from mnemoscope.errors import ModelError, RunError
from mnemoscope.memory import continuity
from mnemoscope.memory.load import load
from mnemoscope.train import checkpoint, utilisation
from mnemoscope.train.language_model import LanguageModel, new_model
from mnemoscope.train.plan import Plan, fixed
from mnemoscope.train.step import optimiser_for

#: architecture -> sizes of a tiny model of it
SHAPES: dict[str, dict[str, Any]] = {
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {
        **{"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
        **{"num_heads": 4, "head_dim": 8, "n_groups": 1, "tie_word_embeddings": True},
    },
}


def study(folder: Path, architecture: str = "mamba", **changes: Any) -> config.Study:
    """With mamba-nano's tokenizer."""
    small.text(folder / "train.jsonl", documents=20, seed=1)
    small.text(folder / "measure.jsonl", seed=2)
    values = small.pretraining(folder, architecture=architecture, shape=SHAPES[architecture], **changes)
    for learnt in ("vocabulary", "tokenizer_bytes"):
        del values["pretrain"][learnt]
    values["pretrain"].setdefault("tokenizer", "mamba-nano")
    return config.resolve(config.Study.model_validate(values), folder)


@pytest.mark.parametrize("architecture", SHAPES)
def test_with_another_models_tokenizer(tmp_path: Path, architecture: str) -> None:
    made = pretraining.pretrain(study(tmp_path, architecture), tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "pretrained.json").read_text())
    loaded = load(str(made), scan="reference")
    assert loaded.adapter.model_type == architecture
    continuity.require(loaded.adapter, str(made))
    # the same text as the same tokens, and the model's rows are the tokenizer's
    nano = PreTrainedTokenizerFast.from_pretrained(str(zoo.folder() / "mamba-nano"))
    for text in ("The sea, 12 % of it;\n\tcalm", "é日", "<|endoftext|>"):
        assert loaded.tokenizer(text).input_ids == nano(text).input_ids
    assert (loaded.adapter.vocabulary, loaded.tokenizer.eos_token_id) == (4096, nano.eos_token_id)
    # the loss of a model that knows nothing is ln 4096 = 8.32 nats
    assert facts["held_out_nats_per_token"] < 8.0
    assert facts["tokens_per_second"] == pytest.approx(facts["training_tokens"] / facts["seconds"])
    assert facts["mfu"] == pytest.approx(facts["flops_per_token"] * facts["tokens_per_second"] / facts["device_flops"])
    assert facts["tokens_per_parameter"] == pytest.approx(1600 / facts["parameters"])
    # done is done, with the model untouched
    before = (made / "model.safetensors").stat().st_mtime_ns
    pretraining.pretrain(study(tmp_path, architecture), tmp_path / "run")
    assert (made / "model.safetensors").stat().st_mtime_ns == before


def test_a_tokenizer_folder_that_changed_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    PreTrainedTokenizerFast.from_pretrained(str(zoo.folder() / "mamba-nano")).save_pretrained(str(folder))
    wanted = study(tmp_path, tokenizer=str(folder))
    assert wanted.pretrain is not None
    # as far as a call gets that is stopped before the first step
    pretraining._prepare(pretraining.RunDir(tmp_path / "run", wanted), wanted.pretrain, pretraining.Silent())
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="the tokenizer of this run changed since it was begun"):
        pretraining.pretrain(wanted, tmp_path / "run")


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((zoo.folder() / "mamba-nano" / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match="names no token that begins or ends a text"):
        pretraining.pretrain(study(tmp_path, tokenizer=str(folder)), tmp_path / "run")


@pytest.mark.parametrize("architecture", SHAPES)
def test_only_matrices_decay(architecture: str) -> None:
    model = LanguageModel(new_model(architecture, SHAPES[architecture], 37, 0, 0))
    plan = Plan(fixed(4, 2), 8, config.Optimiser(learning_rate=1e-3, weight_decay=0.1), 1)
    decaying, others = optimiser_for(model, plan).param_groups
    names = {id(p): n.split("layers.0.")[-1] for n, p in model.named_parameters() if "layers.1." not in n}
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    maps = {"mixer.in_proj.weight", "mixer.out_proj.weight"}
    maps |= {"mixer.x_proj.weight", "mixer.dt_proj.weight"} if architecture == "mamba" else set()
    here = {names[id(p)] for p in decaying["params"] if id(p) in names}
    assert here == maps | {"adapter.model.backbone.embeddings.weight"}
    rest = {names[id(p)] for p in others["params"] if id(p) in names}
    dt = "mixer.dt_proj.bias" if architecture == "mamba" else "mixer.dt_bias"
    assert {"mixer.A_log", "mixer.D", "norm.weight", "mixer.conv1d.weight", "mixer.conv1d.bias", dt} <= rest
    assert len(decaying["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_flops_of_a_token_by_hand() -> None:
    # d 24, inner 48, R 7, N 5: in 24 x 96, x 48 x (7 + 10), dt 7 x 48, out 48 x 24, three layers; head 24 x 37
    layer = 24 * 96 + 48 * 17 + 7 * 48 + 48 * 24
    for tied in (True, False):  # the embedding is looked up; it counts where it is the head, and then once
        model = tiny.model("mamba", tie_word_embeddings=tied)
        assert utilisation.flops_per_token(model) == 6 * (3 * layer + 24 * 37)


def test_the_ceiling_is_a_products(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 0.5, 2.0] + [7.0] * 7)
    monkeypatch.setattr(utilisation, "_seconds_of_product", lambda a, b: next(times))
    # the fastest of ten, 0.5 s for 1,024 ** 3 multiplications and additions
    assert utilisation.matmul_ceiling(torch.device("cpu"), torch.float32) == 4 * 1024**3
    assert next(times, None) is None


def test_the_ceiling_is_that_of_the_quieter_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # before and after the training; the second while another program multiplied
    ceilings = iter([8e12, 2e12])
    monkeypatch.setattr(pretraining, "matmul_ceiling", lambda *_: next(ceilings))
    pretraining.pretrain(study(tmp_path), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "pretrained.json").read_text())["device_flops"] == 8e12


def test_what_was_not_measured_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(utilisation, "_seconds_of_product", no_room)
    pretraining.pretrain(study(tmp_path), tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "pretrained.json").read_text())
    assert "tokens_per_second" in facts
    assert not {"mfu", "device_flops"} & set(facts)


def test_a_kill_between_the_renames_and_one_after_it_leave_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(module.parameters())
    checkpoint.save(tmp_path, module, optimiser, {"plan": "p", "step": 1}, [])
    (tmp_path / "latest").rename(tmp_path / "old")  # the first kill
    monkeypatch.setattr(checkpoint, "save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # the second
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, module, optimiser, {"plan": "p", "step": 2}, [])
    found = checkpoint.load(tmp_path, module, optimiser, "p")
    assert found is not None
    assert found[0]["step"] == 1
