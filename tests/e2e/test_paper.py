"""The published experiment by its own names, from a hub on this machine: random weights, and records of ours in the
layouts of the true data sets.  Smaller than in studies/paper-*.toml are budgets, lengths, seeds and the model, which
tests/test_hub.py loads in its true shape.

The clients read HF_ENDPOINT when they are imported, so the commands are in a process of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import hub_server
import polars as pl
import pytest
import small
import test_hub
import torch
import transformers
import zstandard

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
#: what the hub's mamba-130m-hf is here: width, layers, rows of the vocabulary
SMALL = (32, 2, 320)
POS, NER = ['"', ".", "CD", "NNP", "VBD"], ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]


#: the exit code, what is printed and what is said on stderr of each command
TOLD = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from mnemoscope import cli
from mnemoscope.report import figures
figures.paper = lambda chart: {}  # see tests/conftest.py
told = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["mnemoscope", *command]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def configuration(width: int, layers: int, rows: int = 50280) -> dict[str, object]:
    """As the -hf repositories write it: the keys of the authors beside Hugging Face's."""
    theirs = {"d_model": width, "n_layer": layers, "d_inner": 2 * width, "ssm_cfg": {}, "rms_norm": True}
    theirs |= {"fused_add_norm": True, "pad_vocab_size_multiple": 8, "residual_in_fp32": True}
    ours = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 2 * width, "vocab_size": rows}
    ours |= {"state_size": 16, "conv_kernel": 4, "expand": 2, "time_step_rank": width // 16, "use_conv_bias": True}
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return {"architectures": ["MambaForCausalLM"], "model_type": "mamba", **theirs, **ours, **special}


def published(folder: Path) -> transformers.MambaForCausalLM:
    """The model of ``folder``/config.json, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.MambaForCausalLM(transformers.MambaConfig.from_json_file(folder / "config.json"))


def words(number: int, count: int = 40) -> str:
    """Text of ours; every document another."""
    stock = cycle(("the", "memory", "keeps", "what", f"document {number}", "says", "of", "rain", "and", "calm"))
    return " ".join(islice(stock, count))


def fill(root: Path, data: Path) -> None:
    """The hub's repositories, and the data folder."""
    datasets = pytest.importorskip("datasets", reason="the library that reads data sets is an optional dependency")
    model = root / "state-spaces/mamba-130m-hf"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(configuration(*SMALL)))
    published(model).save_pretrained(model)
    (model / "config.json").write_text(json.dumps(configuration(*SMALL)))
    test_hub.save_tokenizer(model)
    for size in ("370m", "790m", "1.4b"):
        larger = root / f"state-spaces/mamba-{size}-hf"
        larger.mkdir(parents=True)
        (larger / "config.json").write_text(json.dumps(configuration(*SIZES[size][:2])))
        test_hub.save_tokenizer(larger)

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


class Told(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run will be."""
    return tmp_path_factory.mktemp("paper") / "run"


@pytest.fixture(scope="module")
def told(run: Path) -> list[Told]:
    """Of the whole experiment, of inspecting its model, and of inspecting one whose weights the hub lacks."""
    space = run.parent
    fill(space / "hub", space / "data")
    file = small.write(smaller(STUDIES / "paper-130m.toml", space / "data").model_dump(mode="json"), space / "s.toml")
    models = [f"state-spaces/mamba-{size}-hf" for size in ("130m", "370m")]
    commands = [["run", str(file), "--out", str(run)], *(["inspect", model] for model in models)]
    with hub_server.serve(space / "hub") as address:
        done = subprocess.run(
            [sys.executable, "-c", TOLD, json.dumps(commands)],
            env=os.environ
            | {"HF_HOME": str(space / "home"), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            | {"PYTHONPATH": str(Path(mnemoscope.__file__).parents[1]), "COLUMNS": "200"}
            | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr
    return [Told(*one) for one in json.loads(done.stdout)]


def test_the_whole_experiment(told: list[Told], run: Path) -> None:
    assert told[0].code == 0, told[0].err
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


def test_it_is_inspected(told: list[Told], run: Path) -> None:
    count = sum(p.numel() for p in published(run.parent / "hub/state-spaces/mamba-130m-hf").parameters())
    assert told[1].code == 0, told[1].err
    assert f"{count:,} parameters" in told[1].out


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_its_true_shape(size: str, tmp_path: Path) -> None:
    study = config.load(STUDIES / f"paper-{size}.toml", data=tmp_path)
    assert study.model is not None
    assert study.model.name == f"state-spaces/mamba-{size}-hf"
    (tmp_path / "config.json").write_text(json.dumps(configuration(*SIZES[size][:2])))
    with torch.device("meta"):
        model = published(tmp_path)
    assert sum(p.numel() for p in model.parameters()) == SIZES[size][2]


def test_the_studies_differ_in_size_alone(tmp_path: Path) -> None:
    def same(size: str) -> dict[str, object]:
        values = config.load(STUDIES / f"paper-{size}.toml", data=tmp_path).model_dump(mode="json")
        del values["name"], values["model"], values["compute"], values["decoders"][1]["optimiser"]["learning_rate"]
        return values

    assert all(same(size) == same("130m") for size in SIZES)


def test_a_size_whose_weights_are_not_there_is_refused(told: list[Told]) -> None:
    assert told[2].code == 2
    assert "state-spaces/mamba-370m-hf" in told[2].err
