"""A planted checkpoint: 200 words whose embedding rows are equal.

The tool, run as a user runs it, must find that which of them stood where is lost, wholly, and that nothing else is.
"""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import planted
import polars as pl
import pytest
from test_report import Page as Html
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from mnemoscope import cli

SIZE = 200
LENGTHS = (4, 8)

#: (condition, length, group, metric) -> value, low, high, n_tokens and more
Numbers = dict[tuple[str, int, str, str], dict[str, Any]]

STUDY = """
name = "planted"
seed = 0
[model]
name = "{model}"
[compute]
device = "cpu"
[[text.train]]
path = "train.jsonl"
doc_id = "doc_id"
[[text.measure]]
path = "measure.jsonl"
doc_id = "doc_id"
[windows]
lengths = [4, 8]
tokens_per_length = 4096
[[decoders]]
name = "growing"
recipe = "growing"
seeds = [0]
conditions = ["memory", "wrong"]
tokens = 25600
batch_tokens = 256
optimiser = {{ learning_rate = 6e-3, final = 0.05 }}
[[annotations]]
name = "words"
kind = "fields"
argument = "spans"
[estimate]
by = ["words"]
confidence = 0.99
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished run, made by the command line."""
    folder = tmp_path_factory.mktemp("planted")
    zoo = Path(str(resources.files("mnemoscope.zoo")))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(zoo / "mamba-nano")
    records = [json.loads(line) for line in (zoo / "sampler/sampler.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [record["text"] for record in records]
    members, neighbours = planted.choose(texts, tokenizer, SIZE)
    planted.plant(zoo / "mamba-nano", folder / "model", members)

    rng = np.random.default_rng(0)
    for use, chosen in (("train", texts[::2] * 8), ("measure", texts[1::2])):
        with (folder / f"{use}.jsonl").open("w", encoding="utf-8") as out:
            for number, text in enumerate(chosen):
                drawn, spans = planted.redraw(text, tokenizer, {"class": members, "neighbours": neighbours}, rng)
                ids = tokenizer(drawn)["input_ids"]
                for label, tokens in (("class", members), ("neighbours", neighbours)):
                    # the text is encoded as it was drawn: these tokens stand there and nowhere else
                    assert int(np.isin(ids, tokens).sum()) == sum(span["label"] == label for span in spans)
                record = {"doc_id": f"{use}-{number}", "text": drawn, "spans": spans}
                out.write(json.dumps(record, ensure_ascii=False) + "\n")

    (folder / "study.toml").write_text(STUDY.format(model=folder / "model"))
    done = CliRunner().invoke(cli.app, ["run", str(folder / "study.toml"), "--out", str(folder / "run")])
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(scope="module")
def page(run: Path) -> Numbers:
    """The estimates by group of words, as the page holds them."""
    data = Html((run / "report.html").read_text(encoding="utf-8")).data("estimates")
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    named = [{c: v if c in data["numbers"] else data["texts"][v] for c, v in row.items()} for row in rows]
    return {(r["condition"], r["length"], r["group"], r["metric"]): r for r in named if r["by"] == "words"}


@pytest.mark.parametrize("length", LENGTHS)
def test_the_members_of_the_class_are_not_told_apart(page: Numbers, length: int) -> None:
    """In place they are recovered by chance within the class; none can cost less than ln 200 nats on average."""
    omission, nats = (page["memory", length, "class", metric] for metric in ("omission_in_place", "nats"))
    assert omission["n_tokens"] > 500
    assert 1 - omission["high"] <= 1 / SIZE
    # about 3 of 650 are expected, and 4 times that would be no luck
    assert 1 - omission["value"] <= 4 / SIZE
    assert nats["high"] >= math.log(SIZE)


@pytest.mark.parametrize(("length", "least"), [(4, 0.5), (8, 0.2)])
def test_their_neighbours_are_kept(page: Numbers, length: int, least: float) -> None:
    """By the memory: another window's memory brings back no more of them than of the class."""
    omission, nats = (page["memory", length, "neighbours", metric] for metric in ("omission_in_place", "nats"))
    assert 1 - omission["high"] > least
    assert nats["high"] < math.log(SIZE) - 1
    assert 1 - page["wrong", length, "neighbours", "omission_in_place"]["value"] <= 4 / SIZE


def test_the_neighbours_are_as_frequent(page: Numbers) -> None:
    for length in LENGTHS:
        members, neighbours = (page["memory", length, group, "nats"]["n_tokens"] for group in ("class", "neighbours"))
        assert members == pytest.approx(neighbours, rel=0.25)


def test_that_one_of_the_class_stood_there_is_kept(run: Path) -> None:
    """Where one stood a decoder that trained for a minute often expects one, and elsewhere hardly ever."""
    spans = pl.read_parquet(run / "annotations" / "words.parquet").filter(label="class")
    tokens = pl.read_parquet(run / "tokens.parquet").filter(condition="memory", length=4)
    # the token begins with the space before the word
    place = spans.select("doc_id", "char_end", char_start=pl.col("char_start") - 1, one=pl.lit(True))
    tokens = tokens.join(place, on=["doc_id", "char_start", "char_end"], how="left")
    members = tokens.filter("one")["token_id"].unique()
    assert len(members) <= SIZE
    expected = pl.col("predicted_id").is_in(members.implode()).mean()
    where, elsewhere = (tokens.filter(pl.col("one").fill_null(False) == one).select(expected).item() for one in (1, 0))
    assert where > 0.2 > 0.02 > elsewhere
