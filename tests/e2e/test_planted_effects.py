"""Two toys with a planted cause of forgetting, through the whole pipeline: the regression must name the cause.

Digits are rarer than letters.  The first toy forgets by frequency alone: digits are lost more, and no less than letters
as rare.  The second forgets digits, whatever their frequency, and letters never so often.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from toy_memory import Forgetful

from mnemoscope import config, pipeline, workshop
from mnemoscope.memory.load import Loaded
from mnemoscope.train.tokenizer import train_tokenizer

V, BOS = 257, 0
#: characters by rank of frequency, digits mostly among the rare, every one with letters as rare beside it
BY_RANK = "etaoi0nsh1rd2lu3c4m5w6f7g8y9pb"
COUNT = np.round(4000 / np.arange(1, 31) ** 0.8).astype(int)

STUDY = """
name = "effects"
seed = 1
[model]
name = "toy"
[compute]
device = "cpu"
[[text.train]]
path = "text.jsonl"
[[text.measure]]
path = "text.jsonl"
doc_id = "doc_id"
[windows]
lengths = [16]
[[decoders]]
name = "growing"
recipe = "growing"
seeds = [0]
conditions = ["memory", "none"]
tokens = 64
batch_tokens = 64
optimiser = { learning_rate = 1e-2 }
[[annotations]]
name = "kind"
kind = "fields"
argument = "kinds"
[[annotations]]
name = "frequency"
kind = "fields"
argument = "counts"
[estimate]
by = ["kind"]
resamples = 100
[[effects]]
by = "kind"
base = "letter"
controls = ["frequency", "surprisal", "position", "subwords", "repetition"]
"""

CHANCES: dict[str, Mapping[str, float]] = {
    "frequency": {c: 0.1 + 0.6 * rank / 29 for rank, c in enumerate(BY_RANK)},
    "numbers": {c: 0.6 if c.isdigit() else 0.2 for c in BY_RANK},
}


def write_corpus(folder: Path) -> None:
    """60 documents of 64 characters, drawn by their frequency, each with the kind and the count of every character."""
    rng = np.random.default_rng(0)
    count = dict(zip(BY_RANK, COUNT.tolist(), strict=True))
    with (folder / "text.jsonl").open("w", encoding="utf-8") as out:
        for number in range(60):
            text = "".join(rng.choice(list(BY_RANK), 64, p=COUNT / COUNT.sum()))

            def spans(label: Callable[[str], str], text: str = text) -> list[dict[str, object]]:
                return [{"start": i, "end": i + 1, "label": label(c)} for i, c in enumerate(text)]

            kinds = spans(lambda c: "digit" if c.isdigit() else "letter")
            record = {"doc_id": f"d{number}", "text": text, "kinds": kinds, "counts": spans(lambda c: str(count[c]))}
            out.write(json.dumps(record) + "\n")


@pytest.fixture(scope="module", params=sorted(CHANCES))
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pl.DataFrame]:
    """What forgetting follows, and effects.parquet."""
    folder = tmp_path_factory.mktemp(request.param)
    write_corpus(folder)
    (folder / "study.toml").write_text(STUDY)
    tokenizer = train_tokenizer([], V, folder / "tokenizer", lambda line: None)
    number = tokenizer.convert_tokens_to_ids
    toy = Forgetful(V, BOS, number("_"), {number(c): chance for c, chance in CHANCES[request.param].items()}).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop, "load", lambda name, **_: Loaded(toy, tokenizer, "toy", "digest of a toy"))
        run = pipeline.run(config.load(folder / "study.toml"), folder / "run")
    return request.param, run.table("effects")


def test_the_regression_names_the_cause(planted: tuple[str, pl.DataFrame]) -> None:
    cause, effects = planted
    for metric, unit in (("omission_in_place", 1.0), ("bits_retained", -8.0)):
        found = {r["kind"]: r for r in effects.filter(metric=metric, group="digit").iter_rows(named=True)}
        plain, adjusted = found["plain"], found["adjusted"]
        # as they are, digits look worse kept under either cause
        assert (plain["value"] * unit) > 0.1
        assert plain["p_adjusted"] < 1e-4
        assert adjusted["n_documents"] == 60
        if cause == "frequency":
            assert adjusted["low"] < 0 < adjusted["high"]
            assert abs(adjusted["value"]) < 0.05 * abs(unit)
            assert adjusted["p"] > 0.05
        else:
            # chances of 0.6 and 0.2, in losses and in bits of the 8 that a token of 257 has
            assert adjusted["low"] < 0.4 * unit < adjusted["high"]
            assert adjusted["p_adjusted"] < 1e-8
            assert adjusted["base_value"] == pytest.approx(0.2 if unit == 1 else 8 * 0.8, rel=0.1)


def test_what_is_constant_takes_nothing_from_the_rest(planted: tuple[str, pl.DataFrame]) -> None:
    """Without memory every token costs a toy the same: surprisal is constant, and no harm."""
    adjusted = planted[1].filter(kind="adjusted")
    assert adjusted.height == 2
    assert adjusted["value"].is_finite().all()
    assert set(adjusted["controls"]) == {"frequency, surprisal, position, subwords, repetition"}
