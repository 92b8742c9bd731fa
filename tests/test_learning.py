"""Training that is evaluated as it goes: its points, stopped or not; the last is the decoder's own; what they tell."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import small

from mnemoscope import config, learning, pipeline
from mnemoscope.report.learning import of_training
from mnemoscope.rundir import RunDir
from mnemoscope.train.plan import Plan, fixed

EVALUATE = {"tokens": 48, "times": 6, "first": 0.1}


def values(folder: Path) -> dict[str, object]:
    made = small.values(folder)
    growing, fixed_ = made["decoders"]
    searched = {"recipe": "trained", "of": "growing", "seeds": [0], "conditions": ["memory"], "lengths": [4]}
    made["decoders"] = [
        growing | {"evaluate": EVALUATE, "conditions": ["memory", "none"]},
        fixed_ | {"evaluate": EVALUATE, "tokens": 576},
        {"name": "beam", "search": "beam:3", **searched},
        {"name": "judged", "search": "reencode:2:4", **searched},
    ]
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> config.Study:
    folder = tmp_path_factory.mktemp("learning")
    small.study(folder)
    return config.load(small.write(values(folder), folder / "study.toml"))


@pytest.fixture(scope="module")
def run(study: config.Study, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return pipeline.run(study, tmp_path_factory.mktemp("run") / "run")


def test_points_are_in_geometric_progression() -> None:
    """100 steps of 10 tokens; 8 points from 1 / 128 on: 7.8, 15.6, 31.25, 62.5, 125, 250, 500 and 1000 tokens."""
    optimiser = config.Optimiser(learning_rate=1e-3)
    plan = Plan(fixed(5, 100), 10, optimiser, 10)
    assert plan.points(8, 1 / 128) == [0, 1, 2, 4, 7, 13, 25, 50, 100]
    # two points on one step are one
    assert Plan(fixed(5, 2), 10, optimiser, 10).points(8, 1 / 128) == [0, 1, 2]


def test_every_document_is_there_at_every_point(run: RunDir, study: config.Study) -> None:
    table = run.table("learning")
    cells = table.group_by("decoder", "condition", "length", "seed")
    documents = cells.agg(pl.col("doc_id").n_unique(), rows=pl.len(), points=pl.col("step").n_unique())
    assert set(documents.select("decoder", "condition", "length").rows()) == {
        *(("growing", c, length) for c in ("memory", "none") for length in (4, 12)),
        *(("fixed", "memory", length) for length in (4, 12)),
    }
    assert (documents["rows"] == documents["doc_id"] * documents["points"]).all()
    steps = table.filter(decoder="growing", condition="memory", length=4)["step"].unique().sort()
    assert steps[0] == 0
    assert steps[-1] == 25
    tokens = table.group_by("length", "decoder", "condition", "step").agg(pl.col("n_tokens").sum())["n_tokens"]
    assert set(tokens) == {48}


def test_the_last_point_is_the_decoder(run: RunDir) -> None:
    """What evaluation says of a trained decoder is what is measured of it, window for window."""
    last = run.table("learning").filter(pl.col("step") == pl.col("step").max().over("decoder", "condition", "length"))
    tokens = run.table("tokens").filter(pl.col("decoder").is_in(["growing", "fixed"]))
    measured = tokens.group_by("decoder", "condition", "length", "doc_id").agg(pl.col("nats").sum(), n=pl.len())
    both = last.join(measured, on=["decoder", "condition", "length", "doc_id"], suffix="_measured")
    whole = both.filter(pl.col("n") == pl.col("n_tokens"))
    assert whole.height > 10
    assert whole["nats"].to_list() == pytest.approx(whole["nats_measured"].to_list(), rel=1e-5)


def test_resumed_is_never_stopped(run: RunDir, study: config.Study, tmp_path: Path) -> None:
    """Stopped in the third look, which is after the checkpoint of step 10 or before it."""
    look, looks = learning.Learning.look, 0

    def stopping(self: learning.Learning, step: int, tokens: int) -> None:
        nonlocal looks
        looks += 1
        look(self, step, tokens)
        if looks in (3, 8):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning.Learning, "look", stopping)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                pipeline.run(study, tmp_path / "run", until="train")
        pipeline.run(study, tmp_path / "run", until="train")
    assert RunDir.open(tmp_path / "run").table("learning").equals(run.table("learning"))
    assert not (tmp_path / "run/checkpoints/training").exists()


def test_a_study_that_evaluates_nothing_has_no_such_table(study: config.Study, run: RunDir, tmp_path: Path) -> None:
    """And what it trains is the same: a look changes nothing."""
    plain = study.model_copy(
        update={"decoders": [d.model_copy(update={"evaluate": None}) for d in study.decoders if d.name == "growing"]}
    )
    other = pipeline.run(plain, tmp_path / "run", until="train")
    assert not (other.path / "learning.parquet").exists()
    columns = ["condition", "step", "tokens", "nats", "length"]
    watched = run.table("curves").filter(decoder="growing").select(columns)
    assert other.table("curves").select(columns).equals(watched)


def test_what_is_estimated(run: RunDir) -> None:
    table = run.table("convergence")
    assert table.null_count().select(pl.exclude("tokens")).sum_horizontal().item() == 0
    # without a ``none`` there are nats alone
    assert set(table.filter(decoder="fixed")["metric"]) == {"nats"}
    assert set(table.filter(decoder="growing", condition="memory")["metric"]) == {"nats", "bits_retained", "retention"}
    assert set(table.filter(decoder="growing", condition="none")["metric"]) == {"nats"}
    # the last point is what estimates say, where evaluation is of all windows (8 of 4 tokens are of 8 documents)
    assert set(table["kind"]) == {"learning", "asymptote", "prequential"}
    unknown = table.filter(pl.col("value").is_nan())
    assert unknown.height
    assert set(unknown["kind"]) == {"asymptote"}
    assert unknown["method"].str.starts_with("none: ").all()


class TestSearchesOfOneDecoder:
    def test_nats_are_the_decoders(self, run: RunDir) -> None:
        tokens = run.table("tokens").filter(condition="memory", length=4)
        own = tokens.filter(decoder="growing").sort("window_id", "position")
        for name in ("beam", "judged"):
            mine = tokens.filter(decoder=name).sort("window_id", "position")
            assert mine.height
            assert mine["nats"].to_list() == own["nats"].to_list()

    def test_texts_are_their_own(self, run: RunDir) -> None:
        texts = {
            name: pl.read_parquet(run.path / "decoded" / f"{name}.seed-0.memory.L4.parquet")["reconstruction_ids"]
            for name in ("growing", "beam", "judged")
        }
        assert not texts["beam"].equals(texts["growing"])

    def test_nothing_is_trained_for_them(self, run: RunDir) -> None:
        assert set(run.table("curves")["decoder"]) == {"growing", "fixed"}
        assert {p.name for p in run.checkpoints.iterdir()} == {"growing", "fixed"}


class TestPage:
    def test_charts_say_what_the_table_says(self, run: RunDir) -> None:
        """A line per length and point; asymptotes that are not known are named and not drawn."""
        table = run.table("convergence")
        curves, ahead = of_training(table, ["growing", "fixed", "beam"])
        assert [p.title for p in curves.panels] == [
            "information kept, decoder growing",
            "nats per token, decoder fixed",
        ]
        rows = table.filter(decoder="growing", condition="memory", seed="all", metric="retention", length=12)
        points = rows.filter(pl.col("kind") == "learning", pl.col("tokens") > 0).sort("tokens")
        line = curves.panels[0].series[1]
        assert line.label == "12 tokens"
        assert [(p.x, p.value) for p in line.points] == points.select("tokens", "value").rows()
        unknown = rows.filter(pl.col("kind") == "asymptote", pl.col("value").is_nan())
        for row in unknown.iter_rows(named=True):
            assert f"12 tokens (growing): {row['method'].removeprefix('none: ')}" in ahead.caption
        assert all(p.value == p.value for panel in ahead.panels for s in panel.series for p in s.points)

    def test_they_are_on_the_page(self, run: RunDir) -> None:
        page = (run.path / "report.html").read_text(encoding="utf-8")
        assert 'id="convergence"' in page
        assert 'id="asymptote"' in page
        assert {"convergence.svg", "asymptote.svg"} <= {f.name for f in (run.path / "figures").iterdir()}

    def test_without_a_decoder_that_was_evaluated_there_are_none(self, run: RunDir) -> None:
        assert of_training(run.table("convergence"), ["beam"]) == []
