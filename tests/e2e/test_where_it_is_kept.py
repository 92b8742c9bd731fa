"""Conditions that change the memory, through the whole pipeline: with decoders of their own, and as screens."""

from __future__ import annotations

import math
import re
from pathlib import Path

import polars as pl
import pytest
import small
from test_toy_memories import BLANK, BOS, STUDY, V, write_corpus
from toy_memory import EPSILON, InTwo

from mnemoscope import config, pipeline, workshop
from mnemoscope.errors import ModelError
from mnemoscope.memory.load import Loaded
from mnemoscope.report import words
from mnemoscope.train.tokenizer import train_tokenizer

KEPT, UNKNOWN = -math.log(1 - EPSILON), math.log(V)
CONDITIONS = ["memory", "none", "conv_only", "conv_only@memory", "ssm_only@memory", "layers:0-0", "bits:16@memory"]


def test_the_tables_say_where_a_toy_keeps_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last three tokens lie in the convolution state, all others in the recurrent one, which is layer 0's."""
    write_corpus(tmp_path)
    spelt = ", ".join(f'"{c}"' for c in CONDITIONS)
    (tmp_path / "study.toml").write_text(STUDY.replace('"memory", "none", "wrong"', spelt))
    tokenizer = train_tokenizer([], V, tmp_path / "tokenizer", lambda line: None)
    adapter = InTwo(V, BOS, tokenizer.convert_tokens_to_ids(BLANK)).eval()
    monkeypatch.setattr(workshop, "load", lambda name, **_: Loaded(adapter, tokenizer, "toy", "digest of a toy"))
    run = pipeline.run(config.load(tmp_path / "study.toml"), tmp_path / "run")

    trained = run.table("curves")["condition"].unique().to_list()
    assert sorted(trained) == ["conv_only", "layers:0-0", "memory", "none"]
    names = {f.name for f in (run.path / "checkpoints" / "growing" / "seed-0").glob("*.safetensors")}
    assert names == {f"{c}.safetensors" for c in ("conv_only", "layers-0-0", "memory", "none")}
    assert not any(":" in f.name for f in run.path.rglob("*"))

    late = pl.col("position") >= pl.col("length") - 3
    held = {"none": pl.lit(False), "conv_only": late, "ssm_only": ~late, "layers:0-0": ~late}
    tokens = run.table("tokens")
    assert set(tokens["condition"]) == set(CONDITIONS)
    for condition in CONDITIONS:
        mine = tokens.filter(condition=condition).with_columns(
            kept=held.get(condition.removesuffix("@memory"), pl.lit(True))
        )
        assert mine["recovered_in_place"].equals(mine["kept"], check_names=False), condition
        off = mine.select((pl.col("nats") - pl.when("kept").then(KEPT).otherwise(UNKNOWN)).abs().max()).item()
        assert off < 1e-3, condition

    # of 8 tokens three are worth 3/8 of what there was to keep, whoever is asked
    estimates = run.table("estimates").filter(metric="retention", by="all", seed="all", length=8)
    found = dict(estimates.select("condition", "value").iter_rows())
    share = 1 - KEPT / UNKNOWN
    expected = {"memory": 1.0, "conv_only": 3 / 8, "conv_only@memory": 3 / 8, "ssm_only@memory": 5 / 8}
    expected |= {"layers:0-0": 5 / 8, "bits:16@memory": 1.0}
    assert found == pytest.approx({c: share * e for c, e in expected.items()}, abs=1e-3)
    page = re.sub(r"\s+", " ", (run.path / "report.html").read_text(encoding="utf-8"))
    for condition in CONDITIONS[2:]:
        assert f"<em>{condition}</em>: {words.given(condition)}<" in page


def test_of_a_model_with_decoders_of_their_own_and_without(tmp_path: Path) -> None:
    """Every condition, both ways; a second run that trains less finds the decoders of the first and says the same."""
    own = ["none", "memory", "random_encoder", "noise:0.5", "bits:3", "ssm_only"]
    screens = ["random_encoder@memory", "noise:0.5@memory", "bits:3@ssm_only", "wrong@ssm_only"]
    file = small.study(tmp_path)
    values = small.values(tmp_path)
    values["decoders"] = [values["decoders"][1] | {"conditions": [*own, *screens]}]
    first = pipeline.run(config.load(small.write(values, file)), tmp_path / "first", until="estimate")
    nats = first.table("reconstructions").select("condition", "length", "window_id", "nats")
    wide = nats.pivot("condition", index=["length", "window_id"], values="nats")
    assert wide.columns[2:] == sorted([*own, *screens])
    # no two of the ten agree on a window: each hands over something else, or to another decoder
    rows = wide.drop("length", "window_id").to_numpy()
    assert all(len(set(row)) == len(own) + len(screens) for row in rows.tolist())

    old = {"name": "fixed", "recipe": "trained", "seeds": [0], "weights": str(first.path / "checkpoints" / "fixed")}
    conditions = ["bits:3", "random_encoder@memory", "none", "noise:0.5@memory"]
    values |= {"decoders": [old | {"conditions": conditions}]}
    values["compute"]["batch_tokens"] = 12  # other batches, the same numbers
    second = pipeline.run(config.load(small.write(values, file)), tmp_path / "second", until="score")
    key = ["condition", "length", "window_id"]
    pair = second.table("reconstructions").join(nats, on=key, validate="1:1")
    assert pair.height == len(conditions) * wide.height
    assert (pair["nats"] - pair["nats_right"]).abs().max() < 1e-4


def test_a_layer_too_many_is_refused_before_any_work(tmp_path: Path) -> None:
    values = small.values(tmp_path)
    file = small.study(tmp_path)
    values["decoders"][0]["conditions"] = ["memory", "layers:1-2@memory"]
    study = config.load(small.write(values, file))
    with pytest.raises(ModelError, match=r"'layers:1-2' names a layer .*\. Its layers are 0 to 1"):
        pipeline.run(study, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
