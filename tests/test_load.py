"""Loading: both layouts give the same model, and whatever is wrong with one is said by name."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mnemoscope.errors import ModelError
from mnemoscope.memory import source
from mnemoscope.memory.load import load, special_tokens
from mnemoscope.memory.original import convert

CONFIG, SAFE, BIN = "config.json", "model.safetensors", "pytorch_model.bin"


def tokenizer_file(folder: Path, size: int = 37, special: bool = True) -> None:
    """A byte-level tokenizer of ``size`` ids, the first of them special if wanted."""
    vocabulary = {"<|endoftext|>": 0} | {chr(96 + i): i for i in range(1, size)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if special:
        made.add_special_tokens(["<|endoftext|>"])
    made.enable_truncation(3)
    made.save(str(folder / "tokenizer.json"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / SAFE)
    change(weights)
    save_file(weights, folder / SAFE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Mamba in Hugging Face's layout, with its tokenizer."""
    made = tmp_path / "model"
    tiny.model("mamba").save_pretrained(made)
    tokenizer_file(made)
    return made


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client raises once it has given up."""

    def unreachable(name: str, file: str = "", **_: Any) -> str:
        raise LocalEntryNotFoundError(f"{name}/{file}: no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)


def original(folder: Path, model: Any, ssm: dict[str, Any], **more: Any) -> Path:
    """``model`` in the layout of the Mamba authors, as their save_pretrained writes it."""
    folder.mkdir(exist_ok=True)
    config = {
        "d_model": model.config.hidden_size,
        "n_layer": model.config.num_hidden_layers,
        "vocab_size": model.config.vocab_size - 3,  # theirs is before padding
        "ssm_cfg": ssm,
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
        "tie_embeddings": model.config.tie_word_embeddings,
    }
    (folder / CONFIG).write_text(json.dumps(config | more))
    weights = {n.replace("embeddings.", "embedding."): w for n, w in model.state_dict().items()}
    torch.save(weights, folder / BIN)
    return folder


def refused(folder: Path, *, match: str, **options: Any) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        load(str(folder), **options)
    assert caught.value.remedy
    return caught.value


def test_a_folder_gives_adapter_tokenizer_and_digest(folder: Path) -> None:
    loaded = load(str(folder))
    ids = tiny.ids(2, 9)
    torch.testing.assert_close(loaded.adapter(ids)[0], tiny.model("mamba")(ids).logits, rtol=1e-4, atol=1e-5)
    assert loaded.name == str(folder)
    assert not loaded.adapter.training
    assert loaded.tokenizer is not None
    assert loaded.tokenizer("abcdefg").input_ids == [1, 2, 3, 4, 5, 6, 7]  # the file's truncation is off
    assert special_tokens(loaded.tokenizer, loaded.adapter.model.config) == (0, 0)
    assert load(str(folder)).digest == loaded.digest
    edit_weights(folder, lambda w: w["lm_head.weight"].add_(1))
    assert load(str(folder)).digest != loaded.digest


@pytest.mark.parametrize("name", ["mamba", "falcon_mamba", "mamba2"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_every_parameter_and_buffer_has_its_value_and_dtype(tmp_path: Path, name: str, dtype: str) -> None:
    model = tiny.model(name)
    model.save_pretrained(tmp_path)
    adapter = load(str(tmp_path), dtype=dtype, need_tokenizer=False).adapter
    expected = model.to(getattr(torch, dtype))
    for kind in ("named_parameters", "named_buffers"):
        theirs, ours = dict(getattr(expected, kind)()), dict(getattr(adapter.model, kind)())
        assert theirs.keys() == ours.keys()
        for key, value in theirs.items():
            assert torch.equal(value, ours[key]), key


def test_tied_head_is_the_embedding_wherever_it_came_from(tmp_path: Path) -> None:
    tiny.model("mamba", tie_word_embeddings=True).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / SAFE)
    once = load(str(tmp_path), need_tokenizer=False).adapter.model
    assert once.lm_head.weight is once.backbone.embeddings.weight
    edit_weights(tmp_path, lambda w: w.update({"lm_head.weight": w.pop("backbone.embeddings.weight")}))
    swapped = load(str(tmp_path), need_tokenizer=False).adapter.model
    assert torch.equal(swapped.backbone.embeddings.weight, once.lm_head.weight)
    edit_weights(tmp_path, lambda w: w.update({"backbone.embeddings.weight": w["lm_head.weight"] + 1}))
    refused(tmp_path, match="are to be one .* and differ", need_tokenizer=False)


def test_old_name_of_the_embedding_and_sharded_bins(folder: Path) -> None:
    whole = load(str(folder)).adapter(tiny.ids(1, 5))[0]
    weights = load_file(folder / SAFE)
    weights["backbone.embedding.weight"] = weights.pop("backbone.embeddings.weight")
    names = sorted(weights)
    for part, chosen in (("a.bin", names[::2]), ("b.bin", names[1::2])):
        torch.save({n: weights[n] for n in chosen}, folder / part)
    index = {n: "a.bin" if i % 2 == 0 else "b.bin" for i, n in enumerate(names)}
    (folder / f"{BIN}.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / SAFE).unlink()
    assert torch.equal(load(str(folder)).adapter(tiny.ids(1, 5))[0], whole)
    (folder / "b.bin").unlink()
    refused(folder, match=r"has no b\.bin")
    (folder / f"{BIN}.index.json").write_text(json.dumps({"weight_map": {"x": "../b.bin"}}))
    refused(folder, match="weight_map")


LAYOUTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("mamba", {"time_step_rank": "auto", "state_size": 16}, {}),
    ("mamba", {"conv_kernel": 3, "use_bias": True}, {"d_state": 5, "d_conv": 3, "dt_rank": 7, "bias": True}),
    # 24 * 8 channels are 3 heads of 64
    ("mamba2", {"num_heads": 3, "head_dim": 64, "expand": 8, "state_size": 128, "n_groups": 1}, {"expand": 8}),
    (
        "mamba2",
        {"conv_kernel": 3, "time_step_limit": (0.01, 0.05), "tie_word_embeddings": True},
        {"d_state": 5, "d_conv": 3, "headdim": 8, "ngroups": 3, "dt_limit": [0.01, 0.05], "chunk_size": 4},
    ),
]


@pytest.mark.parametrize(("name", "shape", "ssm"), LAYOUTS)
def test_the_authors_layout_gives_the_same_model(
    tmp_path: Path, name: str, shape: dict[str, Any], ssm: dict[str, Any]
) -> None:
    model = tiny.model(name, vocab_size=40, **shape)
    theirs = original(tmp_path / "theirs", model, ssm | ({"layer": "Mamba2"} if name == "mamba2" else {}))
    model.save_pretrained(tmp_path / "ours")
    a = load(str(theirs), need_tokenizer=False).adapter
    b = load(str(tmp_path / "ours"), need_tokenizer=False).adapter
    assert type(a) is type(b)
    assert a.spec() == b.spec()
    ids = tiny.ids(2, 9)
    assert torch.equal(a(ids)[0], b(ids)[0])
    assert special_ids(a) == (0, 0, 0)


def special_ids(adapter: Any) -> tuple[int, int, int]:
    config = adapter.model.config
    return config.bos_token_id, config.eos_token_id, config.pad_token_id


@pytest.mark.parametrize(("padding", "rows"), [(8, 50280), (16, 50288)])
def test_vocabulary_is_padded_as_the_authors_do(padding: int, rows: int) -> None:
    config = {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": padding}
    assert convert(config, Path(CONFIG))["vocab_size"] == rows


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"ssm_cfg": {"layer": "Mamba9"}}, "ssm_cfg.layer is 'Mamba9'"),
        ({"ssm_cfg": {"d_stat": 16}}, r"unknown keys \['d_stat'\]"),
        ({"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}}, "rmsnorm is False"),
        ({"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, "D_has_hdim is True"),
        ({"attn_layer_idx": [9, 18]}, r"attn_layer_idx is \[9, 18\]"),
        ({"rms_norm": False}, "rms_norm is False"),
        ({"d_intermediate": 64}, "d_intermediate is 64"),
        ({"n_layer": "3"}, "n_layer is '3'"),
    ],
)
def test_what_the_authors_layout_can_say_and_we_cannot_do(tmp_path: Path, more: dict[str, Any], match: str) -> None:
    refused(original(tmp_path, tiny.model("mamba", vocab_size=40), {}, **more), match=match, need_tokenizer=False)


def test_the_authors_layout_without_their_tokenizer(tmp_path: Path, no_network: None) -> None:
    theirs = original(tmp_path / "theirs", tiny.model("mamba", vocab_size=40), {"d_state": 5, "dt_rank": 7})

    error = refused(theirs, match="EleutherAI/gpt-neox-20b, which its authors use, cannot be had.*cannot be reached")
    assert "tokenizer = " in error.remedy
    mine = tmp_path / "mine"
    mine.mkdir()
    tokenizer_file(mine)
    assert load(str(theirs), tokenizer=str(mine)).tokenizer is not None


@pytest.mark.parametrize(("offline", "why"), [(True, "is not asked .HF_HUB_OFFLINE."), (False, "cannot be reached")])
def test_no_network_names_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None, offline: bool, why: str
) -> None:
    monkeypatch.setattr(source.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(source.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(source.constants, "HF_HUB_OFFLINE", offline)
    error = refused(Path("some/model"), match=f"no config.json in the cache {tmp_path}, and http://127.0.0.1:9 {why}")
    assert "HF_ENDPOINT" in error.remedy


def test_a_path_to_nothing_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", match="nothing: no such folder")
    refused(Path("./nothing").absolute(), match="no such folder")


def test_embedded_models_come_before_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    folder.rename(zoo / "little")
    (zoo / "__pycache__").mkdir()
    monkeypatch.setattr(source, "_zoo", lambda: zoo)
    monkeypatch.chdir(tmp_path)
    Path("little").mkdir()
    assert source.embedded() == ["little"]
    assert load("little").name == "little"
    with pytest.raises(ModelError, match="has no revision 'v1'"):
        load("little", revision="v1")


def test_wrong_dtype(folder: Path) -> None:
    assert "bfloat16" in refused(folder, match="dtype 'float8'", dtype="float8").remedy


def test_wrong_device(folder: Path) -> None:
    refused(folder, match="cannot be put on 'warp'", device="warp")


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / CONFIG, change)


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit_weights(folder, change)


def halve(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1000])


def unsafe(folder: Path) -> None:
    """A checkpoint that would run code when it is unpickled."""

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "ran",))

    (folder / SAFE).unlink()
    (folder / BIN).write_bytes(pickle.dumps({"backbone.embeddings.weight": Runs()}, protocol=2))


DROPPED, EXTRA = "backbone.layers.1.mixer.D", "backbone.layers.1.mixer.E"


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        pytest.param(remove(CONFIG), "has no config.json", id="no config"),
        pytest.param(write(CONFIG, '{\n"model_type": mamba}'), r"config.json:2: not JSON", id="config not JSON"),
        pytest.param(write(CONFIG, "[]"), "not a JSON object", id="config a list"),
        pytest.param(config(lambda c: c.pop("model_type")), "neither model_type", id="no model_type"),
        pytest.param(
            config(lambda c: c.update(model_type="rwkv")),
            r"no adapter for model_type 'rwkv'. There are: falcon_mamba, mamba, mamba2.* one new file in",
            id="unknown model_type",
        ),
        pytest.param(
            config(lambda c: c.update(hidden_size="wide")), "not a configuration of mamba .*hidden_size", id="bad value"
        ),
        pytest.param(remove(SAFE), r"has no weights. There must be one of: model.safetensors", id="no weights"),
        pytest.param(halve(SAFE), r"model.safetensors: not weights that we read", id="cut short"),
        pytest.param(
            write(SAFE, "version https://git-lfs.github.com/spec/v1\noid"), "not weights .*git-lfs", id="lfs pointer"
        ),
        pytest.param(unsafe, "pytorch_model.bin: not weights that we read", id="pickle"),
        pytest.param(weights(lambda w: w.pop(DROPPED)), f"1 missing: {re.escape(DROPPED)}", id="missing weight"),
        pytest.param(
            weights(lambda w: w.update({EXTRA: torch.ones(2)})), f"1 surplus: {re.escape(EXTRA)}", id="surplus weight"
        ),
        pytest.param(
            config(lambda c: c.update(num_hidden_layers=1)), r"\d\d surplus: .* and \d\d more", id="surplus layers"
        ),
        pytest.param(weights(lambda w: w.pop("lm_head.weight")), "1 missing: lm_head.weight", id="untied head missing"),
        pytest.param(
            config(lambda c: c.update(state_size=6)),
            r"mixer.A_log is \(48, 5\) in the file, \(48, 6\) in config.json",
            id="another shape",
        ),
        pytest.param(remove("tokenizer.json"), "has no tokenizer.json", id="no tokenizer"),
        pytest.param(write("tokenizer.json", "{}"), "tokenizer.json: not a tokenizer", id="tokenizer corrupt"),
        pytest.param(
            lambda f: tokenizer_file(f, 38), "has 38 ids, the model '.*' 37 vocabulary rows", id="tokenizer too large"
        ),
        pytest.param(
            lambda f: tokenizer_file(f, special=False),
            r"the tokenizer \(37 ids, 0 of them special\) has no token .* model \(37 vocabulary rows\)",
            id="no special token",
        ),
        pytest.param(
            write("tokenizer_config.json", '{"bos_token": "<s>"}'), "has no token '<s>', .* bos_token", id="foreign bos"
        ),
    ],
)
def test_what_is_wrong_is_said_by_name(folder: Path, spoil: Callable[[Path], Any], match: str) -> None:
    spoil(folder)
    refused(folder, match=match)
    assert not (folder / "ran").exists()


def test_a_bin_of_something_else(folder: Path) -> None:
    (folder / SAFE).unlink()
    torch.save({"step": 3}, folder / BIN)
    refused(folder, match="something other than named tensors")


def test_special_tokens_prefers_the_tokenizer_and_fills_the_gap(folder: Path) -> None:
    write("tokenizer_config.json", '{"eos_token": {"content": "c"}}')(folder)
    loaded = load(str(folder))
    assert loaded.tokenizer is not None
    # eos is the tokenizer's; bos is the configuration's 0, which tokenizer.json calls special
    assert special_tokens(loaded.tokenizer, loaded.adapter.model.config) == (0, 3)
    tokenizer_file(folder, special=False)
    loaded = load(str(folder))
    # 0 is no longer special: it is not taken for the first token of a text only because the library says so
    assert special_tokens(loaded.tokenizer, loaded.adapter.model.config) == (3, 3)


def test_infinite_limits_survive_the_library_s_json(tmp_path: Path) -> None:
    tiny.model("mamba2").save_pretrained(tmp_path)
    config = load(str(tmp_path), need_tokenizer=False).adapter.model.config
    assert tuple(config.time_step_limit) == (0.0, math.inf)
