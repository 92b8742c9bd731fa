"""The published experiment by its own names, from a hub on this machine: random weights of the true shape, and records
of ours in the layouts of the true data sets.  Only budgets, lengths and seeds are smaller than in studies/paper-*.toml.

The clients read HF_ENDPOINT when they are imported, so each command is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import hub_server
import polars as pl
import pytest
import small
import test_hub
import torch
import transformers
import zstandard
from safetensors.torch import save_file

import mnemoscope
from mnemoscope import config

STUDIES = Path(mnemoscope.__file__).parents[1] / "studies"
#: size -> width, layers (as published), parameters (by hand: 24 layers of 3,771,648, and so on, with 50,280 rows)
SIZES = {
    "130m": (768, 24, 129_135_360),
    "370m": (1024, 48, 371_516_416),
    "790m": (1536, 48, 793_204_224),
    "1.4b": (2048, 48, 1_372_178_432),
}
#: the Pile's names of its subsets, in the order in which they take turns in our records; the last is not measured
SETS = (
    *("Pile-CC", "ArXiv", "FreeLaw", "StackExchange", "NIH ExPorter", "PubMed Central", "Enron Emails", "Github"),
    *("DM Mathematics", "Wikipedia (en)"),
)
#: word, part of speech, entity, as CoNLL-2003 has them
SENTENCE = (
    ("Ada", "NNP", "B-PER"),
    ("Byron", "NNP", "I-PER"),
    ("sold", "VBD", "O"),
    ("12", "CD", "O"),
    (".", ".", "O"),
)
POS, NER = ['"', ".", "CD", "NNP", "VBD"], ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]


def configuration(size: str) -> dict[str, object]:
    """As the -hf repositories write it: the keys of the authors beside Hugging Face's."""
    width, layers, _ = SIZES[size]
    theirs = {"d_model": width, "n_layer": layers, "d_inner": 2 * width, "ssm_cfg": {}, "rms_norm": True}
    theirs |= {"fused_add_norm": True, "pad_vocab_size_multiple": 8, "residual_in_fp32": True}
    ours = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 2 * width, "vocab_size": 50280}
    ours |= {"state_size": 16, "conv_kernel": 4, "expand": 2, "time_step_rank": width // 16, "use_conv_bias": True}
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return {"architectures": ["MambaForCausalLM"], "model_type": "mamba", **theirs, **ours, **special}


def words(number: int, count: int = 40) -> str:
    """Text of ours; every document another."""
    stock = cycle(("the", "memory", "keeps", "what", f"document {number}", "says", "of", "rain", "and", "calm"))
    return " ".join(islice(stock, count))


def fill(root: Path, data: Path) -> None:
    """The hub's repositories, and the data folder."""
    datasets = pytest.importorskip("datasets", reason="the library that reads data sets is an optional dependency")
    model = root / "state-spaces/mamba-130m-hf"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(configuration("130m")))
    tensors = test_hub.weights(test_hub.MAMBA, 50280)
    tensors["backbone.embeddings.weight"] = tensors.pop("backbone.embedding.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    test_hub.save_tokenizer(model)
    for size in ("370m", "790m", "1.4b"):
        larger = root / f"state-spaces/mamba-{size}-hf"
        larger.mkdir(parents=True)
        (larger / "config.json").write_text(json.dumps(configuration(size)))

    pile = root / "datasets/monology/pile-uncopyrighted"
    (pile / "train").mkdir(parents=True)
    (pile / "README.md").write_text("# The Pile\n")
    for number, name in enumerate(("train/00", "train/01", "val", "test")):
        records = (
            {"text": words(1000 * number + i), "meta": {"pile_set_name": s}}
            for i, s in enumerate(islice(cycle(SETS), 2 * len(SETS)))
        )
        content = "".join(json.dumps(r) + "\n" for r in records).encode()
        (pile / f"{name}.jsonl.zst").write_bytes(zstandard.compress(content))

    tags = {"pos_tags": POS, "chunk_tags": ["O", "B-NP"], "ner_tags": NER}
    listed = {k: datasets.Sequence(datasets.ClassLabel(names=v)) for k, v in tags.items()}
    features = {"id": datasets.Value("string"), "tokens": datasets.Sequence(datasets.Value("string")), **listed}
    tokens, pos, ner = map(list, zip(*SENTENCE, strict=True))
    record = {"tokens": tokens, "pos_tags": [POS.index(p) for p in pos], "chunk_tags": [0] * 5}
    rows = [{"id": str(i), **record, "ner_tags": [NER.index(n) for n in ner]} for i in range(50)]
    conll = root / "datasets/lhoestq/conll2003/data"
    conll.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        made = datasets.Dataset.from_list(rows, features=datasets.Features(features))
        made.to_parquet(str(conll / f"{split}-00000-of-00001.parquet"))

    pairs = [{"id": f"redial-{i}", "task": "logic", "sae": f"he is {words(i, 12)}", "aave": f"he {words(i, 12)}"}
             for i in range(4)]  # fmt: skip
    file = data / "dialect/redial.jsonl.zst"
    file.parent.mkdir(parents=True)
    file.write_bytes(zstandard.compress("".join(json.dumps(r) + "\n" for r in pairs).encode()))


def smaller(file: Path, data: Path) -> config.Study:
    """The study with one seed and the lengths 4 and 8, and trainings of one or two steps."""
    study = config.load(file, data=data)
    published, growing = study.decoders
    assert (published.name, growing.name) == ("published", "growing")
    assert study.windows is not None
    return study.model_copy(
        update={
            "windows": study.windows.model_copy(update={"lengths": [4, 8], "tokens_per_length": 120}),
            "compute": study.compute.model_copy(update={"device": "cpu"}),
            "estimate": study.estimate.model_copy(update={"resamples": 50}),
            "decoders": [
                published.model_copy(update={"lengths": [4], "tokens": 16, "batch_tokens": 16}),
                growing.model_copy(
                    update={"seeds": [0], "conditions": ["memory", "none"], "tokens": 32, "batch_tokens": 16}
                    | {"shares": [1.0, 1.0]}
                ),
            ],
        }
    )


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def space() -> Iterator[Path]:
    """A folder for hub, cache and runs, 4 GB when filled; gone afterwards, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def command(space: Path) -> Iterator[Command]:
    fill(space / "hub", space / "data")
    with hub_server.serve(space / "hub") as address:

        def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "mnemoscope.cli", *map(str, arguments)],
                env=os.environ
                | {"HF_HOME": str(space / "home"), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
                | {"PYTHONPATH": str(Path(mnemoscope.__file__).parents[1]), "COLUMNS": "200"}
                | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"},
                capture_output=True,
                text=True,
                timeout=500,
            )

        yield run


def test_the_whole_experiment(space: Path, command: Command) -> None:
    file = small.write(smaller(STUDIES / "paper-130m.toml", space / "data").model_dump(mode="json"), space / "s.toml")
    done = command("run", file, "--out", space / "run")
    assert done.returncode == 0, done.stderr
    run = space / "run"
    tokens = pl.read_parquet(run / "tokens.parquet")
    # every document gives a window of 4: 18 of the Pile, 8 of ReDial, 3 of CoNLL-2003.
    # The nine subsets, from the file test.jsonl.zst alone; and nothing of the tenth
    assert set(tokens["domain"].unique()) == {*SETS[:9], "CoNLL-2003", "ReDial"}
    documents = {n["name"]: n["documents"] for n in json.loads((run / "manifest.json").read_text())["inputs"]}
    assert documents["monology/pile-uncopyrighted/train"] == 40
    assert documents["monology/pile-uncopyrighted/test"] == 2
    assert documents["lhoestq/conll2003/test"] == 3  # 50 sentences by 20
    annotations = {n: pl.read_parquet(run / f"annotations/{n}.parquet") for n in ("pos", "entity")}
    assert annotations["pos"].height == 250
    assert set(annotations["pos"]["label"]) == {"NNP", "VBD", "CD", "."}
    assert set(annotations["entity"]["label"]) == {"PER", "O"}
    found = pl.read_parquet(run / "estimates.parquet")
    groups = {(by, group) for by, group in found.select("by", "group").unique().iter_rows()}
    assert {("pos", "NNP"), ("entity", "PER"), ("dialect", "aave"), ("domain", "DM Mathematics")} <= groups
    effects = pl.read_parquet(run / "effects.parquet")
    assert set(effects["by"].unique()) == {"pair"}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "DM Mathematics" in page


def test_it_is_inspected(command: Command) -> None:
    seen = command("inspect", "state-spaces/mamba-130m-hf")
    assert seen.returncode == 0, seen.stderr
    assert "129,135,360 parameters" in seen.stdout


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_its_true_shape(size: str, tmp_path: Path) -> None:
    study = config.load(STUDIES / f"paper-{size}.toml", data=tmp_path)
    assert study.model is not None
    assert study.model.name == f"state-spaces/mamba-{size}-hf"
    (tmp_path / "config.json").write_text(json.dumps(configuration(size)))
    with torch.device("meta"):
        model = transformers.MambaForCausalLM(transformers.MambaConfig.from_json_file(tmp_path / "config.json"))
    assert sum(p.numel() for p in model.parameters()) == SIZES[size][2]


def test_the_studies_differ_in_size_alone(tmp_path: Path) -> None:
    def same(size: str) -> dict[str, object]:
        values = config.load(STUDIES / f"paper-{size}.toml", data=tmp_path).model_dump(mode="json")
        del values["name"], values["model"], values["compute"], values["decoders"][1]["optimiser"]["learning_rate"]
        return values

    assert all(same(size) == same("130m") for size in SIZES)


def test_a_size_whose_weights_are_not_there_is_refused(space: Path, command: Command) -> None:
    (space / "hub/state-spaces/mamba-370m-hf/tokenizer.json").write_bytes(
        (space / "hub/state-spaces/mamba-130m-hf/tokenizer.json").read_bytes()
    )
    (space / "hub/state-spaces/mamba-370m-hf/tokenizer_config.json").write_bytes(
        (space / "hub/state-spaces/mamba-130m-hf/tokenizer_config.json").read_bytes()
    )
    told = command("inspect", "state-spaces/mamba-370m-hf")
    assert told.returncode == 2
    assert "state-spaces/mamba-370m-hf" in told.stderr
