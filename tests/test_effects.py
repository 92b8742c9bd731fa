"""effects.parquet: families, pairs of dialects, what is refused; each number by another road."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from scipy import stats
from synthetic_run import make_run, shuffle

from mnemoscope import annotate, config, schema
from mnemoscope.config import Corpus, Study
from mnemoscope.errors import ConfigError, RunError
from mnemoscope.stats import effects
from mnemoscope.stats.estimate import estimate
from mnemoscope.text import corpora

LN2 = np.log(2)


def asked(study: Study, **wanted: Any) -> Study:
    return Study.model_validate({**study.model_dump(), "effects": [wanted]})


def computed(folder: Path, study: Study) -> pl.DataFrame:
    effects.require(folder, study)
    effects.effects(folder, study)
    return pl.read_parquet(folder / "effects.parquet")


# ---- families


def test_holm_by_hand_and_every_pair_once(tmp_path: Path) -> None:
    """Three pairs: the least p times 3, the next times 2, the last as it is, none below one before it."""
    study = asked(make_run(tmp_path, documents=24, windows=1), by="domain", metrics=["omission_in_place", "retention"])
    found = computed(tmp_path, study)
    assert set(found["kind"]) == {"plain"}
    families = found.partition_by("metric", "length", "condition")
    assert len(families) == 2 * 2
    for family in families:
        assert family["family"].to_list() == [3, 3, 3]
        pairs = [{r["group"], r["base"]} for r in family.iter_rows(named=True)]
        assert len({frozenset(p) for p in pairs}) == 3
        p = family.sort("p")["p"].to_list()
        steps = np.minimum(1, np.maximum.accumulate([3 * p[0], 2 * p[1], p[2]]))
        np.testing.assert_allclose(family.sort("p")["p_adjusted"].to_list(), steps)


def test_a_comparison_asked_for_twice_is_one(tmp_path: Path) -> None:
    """With other controls only the adjusted differences are others: three plain ones stay a family of three."""
    study = make_run(tmp_path, documents=24)
    more = [{"by": "domain", "metrics": ["nats"], "controls": c} for c in (["position"], ["position", "subwords"])]
    found = computed(tmp_path, Study.model_validate({**study.model_dump(), "effects": more})).filter(length=16)
    once = computed(tmp_path, Study.model_validate({**study.model_dump(), "effects": more[:1]})).filter(length=16)
    assert found.filter(kind="plain").equals(once.filter(kind="plain"))
    assert found.filter(kind="adjusted").group_by("controls").len()["len"].to_list() == [2, 2]
    assert set(found.filter(kind="adjusted")["family"]) == {2}


def test_the_largest_group_of_all_lengths_is_the_base_of_each(tmp_path: Path) -> None:
    """Fiction has most tokens at 16, news and mathematics at 64, where there are more."""
    study = make_run(tmp_path, documents=24)
    for name in ("tokens", "reconstructions"):
        frame = pl.read_parquet(tmp_path / f"{name}.parquet")
        few = (pl.col("length") == 16) & (pl.col("domain") != "fiction")
        many = (pl.col("length") == 64) & (pl.col("domain") == "fiction")
        last = pl.col("window_id").is_in(
            frame.filter(few | many)["window_id"].unique().sort().gather_every(4).implode()
        )
        frame.filter(~last).write_parquet(tmp_path / f"{name}.parquet")
    tokens = pl.read_parquet(tmp_path / "tokens.parquet").filter(condition="memory", seed=0)
    size = tokens.group_by("length", "domain").len().sort("length", "len", descending=True)
    assert size.filter(length=16)["domain"][0] == "fiction" != size.filter(length=64)["domain"][0]
    asking = asked(study, by="domain", metrics=["nats"], controls=["position"])
    found = computed(tmp_path, asking).filter(condition="memory")
    largest = tokens.group_by("domain").len().sort("len", "domain", descending=[True, False])["domain"][0]
    assert set(found.filter(kind="adjusted")["base"]) == {largest}
    assert found.filter(kind="plain", base=largest).group_by("length").len()["len"].to_list() == [2, 2]


def test_differences_are_those_of_the_estimates(tmp_path: Path) -> None:
    study = asked(make_run(tmp_path), by="domain", base="news", metrics=["omission_in_place", "exact", "bits_retained"])
    found = computed(tmp_path, study).filter(kind="plain")
    estimate(tmp_path, study)
    own = pl.read_parquet(tmp_path / "estimates.parquet").filter(by="domain", seed="all", condition="memory")
    values = {(r["length"], r["metric"], r["group"]): r["value"] for r in own.iter_rows(named=True)}
    assert found.height == 2 * 3 * 3
    for row in found.iter_rows(named=True):
        a, b = (values[row["length"], row["metric"], row[side]] for side in ("group", "base"))
        assert (row["group_value"], row["base_value"]) == pytest.approx((a, b))
        assert row["value"] == pytest.approx(a - b)
        if row["size_kind"] == "h":
            assert row["size"] == pytest.approx(2 * np.arcsin(np.sqrt(a)) - 2 * np.arcsin(np.sqrt(b)))
    assert {r["size_kind"] for r in found.filter(metric="omission_in_place").iter_rows(named=True)} == {"h"}
    assert set(found.filter(base="news")["group"]) == {"fiction", "mathematics"}


def test_the_parts_add_up_to_the_difference_in_bits(tmp_path: Path) -> None:
    study = asked(make_run(tmp_path), by="domain", metrics=["bits_retained"])
    found = computed(tmp_path, study)
    key = ["length", "group", "base"]
    whole = found.filter(kind="plain").sort(key)
    both = found.filter(pl.col("kind").is_in(["prior", "share"])).group_by(key).agg(pl.col("value").sum()).sort(key)
    np.testing.assert_allclose(both["value"], whole["value"])


def test_the_written_table_is_the_schemas_and_rows_may_come_in_any_order(tmp_path: Path) -> None:
    controls = ["surprisal", "position", "subwords", "repetition", "dialect"]
    study = asked(make_run(tmp_path, documents=40, dialect=True, lengths=(16,)), by="domain", controls=controls)
    first = computed(tmp_path, study)
    assert pq.read_table(tmp_path / "effects.parquet").schema.equals(schema.arrow("effects"), check_metadata=True)
    assert set(first["kind"]) == {"plain", "prior", "share", "adjusted"}
    for table in ("tokens", "reconstructions"):
        shuffle(tmp_path / f"{table}.parquet")
    second = computed(tmp_path, study)
    numbers = [c for c, t in first.schema.items() if t == pl.Float64]
    assert first.drop(numbers).equals(second.drop(numbers))
    for c in numbers:
        np.testing.assert_allclose(first[c], second[c], rtol=1e-6, atol=1e-9, err_msg=c)


def test_mathematics_is_kept_less_whatever_its_surprisal(tmp_path: Path) -> None:
    """The synthetic run's truth: mathematics keeps half of what news keeps, of every token's nats alike."""
    study = make_run(tmp_path, documents=60, lengths=(16,))
    found = computed(tmp_path, asked(study, by="domain", base="news", controls=["surprisal", "position"]))
    row = found.filter(kind="adjusted", metric="bits_retained", group="mathematics").row(0, named=True)
    # 0.4 and 0.8 of a token's nats, three quarters of that on average over positions
    bits = pl.read_parquet(tmp_path / "tokens.parquet").filter(condition="none")["nats"].mean() / LN2  # type: ignore[operator]
    assert row["low"] < -0.4 * 0.75 * bits < row["high"]
    assert row["controls"] == "surprisal, position"
    assert row["n_documents"] == 60


def test_no_more_than_so_many_tokens_are_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects.covariates, "MOST_TOKENS", 1500)
    study = make_run(tmp_path, documents=60, lengths=(16,))
    found = computed(tmp_path, asked(study, by="domain", controls=["position"])).filter(kind="adjusted")
    # 48 tokens a document: 31 whole documents
    assert set(found["n_documents"]) == {31}
    assert set(found["n_tokens"]) == {31 * 48}
    assert found["method"].str.contains("31 of 60 documents drawn").all()


def test_without_none_there_are_losses_only(tmp_path: Path) -> None:
    study = make_run(tmp_path, documents=40, lengths=(16,), conditions=("memory",))
    found = computed(tmp_path, asked(study, by="domain", controls=["position"]))
    assert set(found["metric"]) == {"omission_in_place"}
    assert set(found["kind"]) == {"plain", "adjusted"}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"by": "mood"}, "neither a column nor an annotation"),
        ({"by": "domain", "controls": ["moon"]}, "control for 'moon'"),
        ({"by": "domain", "metrics": ["omision"]}, "no metric named"),
        ({"by": "domain", "base": "poetry"}, "compare with 'poetry'"),
        ({"by": "domain", "words": "pos"}, "^[^ ]+: effects.by names 'pos', which is neither a column"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, wanted: dict[str, Any], said: str) -> None:
    study = make_run(tmp_path, lengths=(16,), windows=1)
    with pytest.raises((RunError, ConfigError), match=said):
        computed(tmp_path, asked(study, **wanted))
    assert not (tmp_path / "effects.parquet").exists()


def test_a_base_that_no_span_has_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    study = make_run(tmp_path, lengths=(16,), windows=1)
    annotate.write(annotate.table([annotate.Span("news-0", 0, 3, "noun")]), tmp_path, "pos")
    with pytest.raises(RunError, match=r"compare with 'nuon', .*There are: \(unlabelled\), noun"):
        effects.require(tmp_path, asked(study, by="pos", base="nuon"))
    effects.require(tmp_path, asked(study, by="pos", base="noun"))


def test_surprisal_needs_none(tmp_path: Path) -> None:
    study = make_run(tmp_path, lengths=(16,), windows=1, conditions=("memory",))
    with pytest.raises(ConfigError, match="condition 'none'"):
        effects.require(tmp_path, asked(study, by="domain", controls=["surprisal"]))


# ---- pairs


def pairs(folder: Path, documents: int = 12) -> Study:
    """The synthetic run with its documents made into pairs, news and fiction in two dialects; north's last window has
    no partner, and the mathematics stay single."""
    made = make_run(folder, documents=3 * documents, windows=3, lengths=(16,), by=("domain",))
    for name in ("tokens", "reconstructions"):
        file = folder / f"{name}.parquet"
        frame = pl.read_parquet(file)
        number = (pl.col("doc_id").str.split("-").list.last().cast(pl.Int64) // 3).cast(pl.String)
        dialect = pl.col("domain").replace({"news": "north", "fiction": "south", "mathematics": ""})
        doc_id = pl.when(dialect == "").then("doc_id").otherwise("p" + number + "/" + dialect)
        place = pl.col("window_id").str.split(":").list.slice(1).list.join(":")
        frame = frame.with_columns(dialect=dialect, doc_id=doc_id).with_columns(window_id=doc_id_of() + ":" + place)
        short = (pl.col("dialect") == "south") & pl.col("window_id").str.ends_with(":32")
        frame.filter(~short).select(schema.arrow(name).names).write_parquet(file)
    corpus = {"path": "x.jsonl", "pair": "id", "dialect_name": "north"}
    return Study.model_validate({**made.model_dump(), "text": {"measure": [corpus]}})


def doc_id_of() -> pl.Expr:
    return pl.col("doc_id")


def test_pairs_are_matched_and_compared_within(tmp_path: Path) -> None:
    """The difference is that of the windows that have a partner, and its p the paired t-test's over pairs, whose texts
    are as long as each other."""
    metrics = ["omission_in_place", "bits_retained", "retention", "nats"]
    found = computed(tmp_path, asked(pairs(tmp_path), by="pair", base="north", metrics=metrics))
    assert set(found["n_documents"]) == {12}
    assert set(found["group"]) == {"south"}
    tokens = pl.read_parquet(tmp_path / "tokens.parquet").filter(
        pl.col("dialect") != "", condition="memory"
    ).filter(~pl.col("window_id").str.ends_with(":32"))  # fmt: skip
    shares = (
        tokens.with_columns(pair=pl.col("doc_id").str.split("/").list.first())
        .group_by("pair", "dialect")
        .agg(lost=1 - pl.col("recovered_in_place").mean())
        .pivot("dialect", index="pair", values="lost")
    )
    theirs = stats.ttest_rel(shares["south"], shares["north"])
    row = found.filter(metric="omission_in_place").row(0, named=True)
    assert row["value"] == pytest.approx((shares["south"] - shares["north"]).mean())
    # two seeds widen what the documents alone would say
    assert row["n_tokens"] == 12 * 32
    assert row["p"] >= theirs.pvalue * 0.999
    assert "paired by document" in row["method"]
    prior = found.filter(metric="nats", condition="none").row(0, named=True)
    bits = {r["kind"]: r["value"] for r in found.filter(metric="bits_retained").iter_rows(named=True)}
    assert np.sign(bits["prior"]) == np.sign(prior["value"])
    assert bits["prior"] + bits["share"] == pytest.approx(bits["plain"])


def test_windows_at_different_places_are_no_pair(tmp_path: Path) -> None:
    """South's windows at 0 are taken away: at 16 both dialects are left, and at 0 north alone."""
    study = pairs(tmp_path)
    for name in ("tokens", "reconstructions"):
        file = tmp_path / f"{name}.parquet"
        away = (pl.col("dialect") == "south") & pl.col("window_id").str.ends_with(":0")
        pl.read_parquet(file).filter(~away).write_parquet(file)
    found = computed(tmp_path, asked(study, by="pair", base="north", metrics=["omission_in_place"]))
    lost = pl.read_parquet(tmp_path / "tokens.parquet").filter(
        pl.col("window_id").str.ends_with(":16"), condition="memory"
    )
    means = {d: 1 - lost.filter(dialect=d)["recovered_in_place"].mean() for d in ("north", "south")}
    assert found["value"].to_list() == [pytest.approx(means["south"] - means["north"])]
    assert found["n_tokens"].to_list() == [12 * 16]


def test_both_texts_of_a_pair_are_one_unit_everywhere(tmp_path: Path) -> None:
    study = pairs(tmp_path)
    estimate(tmp_path, study)
    found = pl.read_parquet(tmp_path / "estimates.parquet").filter(by="all", seed="all", condition="memory")
    # 12 pairs and 12 single documents of mathematics
    assert set(found["n_documents"]) == {24}


def test_the_regression_takes_pairs_too(tmp_path: Path) -> None:
    study = pairs(tmp_path, documents=40)
    row = computed(tmp_path, asked(study, by="pair", base="north", controls=["surprisal", "position"])).filter(
        kind="adjusted", metric="bits_retained"
    )
    assert set(row["n_documents"]) == {40}
    assert row["low"].is_finite().all()


def test_a_corpus_names_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "sae": "I am", "aave": "I be"}\n', encoding="utf-8")
    both = [
        Corpus(path=str(tmp_path / "a.jsonl"), text=text, pair="id", dialect_name=text, domain_name="tweets")
        for text in ("sae", "aave")
    ]
    assert [(d.doc_id, d.text, d.dialect) for d in corpora.read(both)] == [
        ("7/sae", "I am", "sae"),
        ("7/aave", "I be", "aave"),
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [('doc_id = "id"\ndialect_name = "a"', "leave out doc_id"), ("", "give a dialect")],
)
def test_a_corpus_of_pairs_needs_a_dialect_and_no_ids(tmp_path: Path, more: str, said: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(f'name = "x"\nseed = 0\n[[text.measure]]\npath = "a.jsonl"\npair = "id"\n{more}\n')
    with pytest.raises(ConfigError, match=said):
        config.load(file)


def test_pairs_must_be_named_to_be_compared(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('name = "x"\nseed = 0\n[text]\nmeasure = []\n[[effects]]\nby = "pair"\n')
    with pytest.raises(ConfigError, match="name the field of pairs"):
        config.load(file)
