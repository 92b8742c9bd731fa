"""Four oracles for the cluster bootstrap: theory, scipy, measured coverage, and data with nothing to resample.

Then the way from tables to estimates: worked by hand, and the same whatever the order of rows.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from scipy import stats
from synthetic_run import make_run, shuffle

from benchmarks import coverage
from mnemoscope import schema
from mnemoscope.config import Estimates
from mnemoscope.errors import RunError
from mnemoscope.stats import seeds
from mnemoscope.stats.bootstrap import FloatArray, divide, effective, generator, ratio_intervals, resample, widened
from mnemoscope.stats.compare import between, difference, parts
from mnemoscope.stats.estimate import Sums, compute, estimate, sums
from mnemoscope.stats.seeds import Spread

FOUR = Estimates(position_bins=4)

_TABLES = ("tokens", "reconstructions", "curves", "estimates")


def row(num: FloatArray, den: FloatArray, documents: list[str] | None = None) -> Sums:
    documents = documents or [f"d{i:04d}" for i in range(len(num))]
    num, den = np.asarray(num, float), np.asarray(den, float)
    return Sums({}, documents, num, den, len(num), np.stack([num, den], axis=1)[None])


# ---- theory


def test_the_mean_of_normals_has_the_interval_of_theory() -> None:
    """One token a document, mean of n normals: half width 1.96 / sqrt(n).  Averaged over 200 rows, to 2 %."""
    rng = np.random.default_rng(0)
    num = rng.normal(size=(300, 200))
    found = ratio_intervals(num, np.ones_like(num), confidence=0.95, resamples=2000, rng=rng)
    width = (found.high - found.low).mean()
    assert width == pytest.approx(2 * stats.norm.ppf(0.975) / np.sqrt(300), rel=0.02)


def test_the_interval_of_skewed_data_leans_as_theory_says() -> None:
    """The mean of skewed data: the interval's upper arm is the longer one, by about 1 + skewness/3 z / sqrt(n) (Hall
    1992, section 3.6, for the studentised interval; BCa is correct to the same order)."""
    rng = np.random.default_rng(1)
    num = rng.exponential(size=(100, 400))
    found = ratio_intervals(num, np.ones_like(num), confidence=0.95, resamples=4000, rng=rng)
    ratio = ((found.high - found.value) / (found.value - found.low)).mean()
    skewness = stats.skew(num).mean()
    # Edgeworth: ends at value + s (+-z + (2 z^2 + 1) skewness / 6 sqrt n), less half of it for not studentising
    z, shift = 1.96, skewness * (2 * 1.96**2 + 1) / 6 / 10
    assert 1.05 < ratio < (z + shift) / (z - shift) + 0.02


# ---- scipy


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bca_is_scipys_on_the_same_resamples(confidence: float) -> None:
    """scipy turns our resampled ratios into the same BCa interval, to the last digits, at the confidence that makes a
    normal interval as wide as Student's of the effective number of documents."""
    rng = np.random.default_rng(2)
    num, den = rng.gamma(1, size=(23, 3)), rng.gamma(3, size=(23, 3))
    found = ratio_intervals(num, den, confidence=confidence, resamples=999, rng=np.random.default_rng(5))
    drawn = resample(np.concatenate([num, den], axis=1), 999, np.random.default_rng(5))
    for k in range(3):
        shell = SimpleNamespace(bootstrap_distribution=drawn[:, k] / drawn[:, 3 + k])
        theirs = stats.bootstrap(
            (num[:, k], den[:, k]),
            lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
            paired=True,
            n_resamples=0,
            bootstrap_result=shell,
            method="BCa",
            confidence_level=float(widened(confidence, effective(den))[k]),
            vectorized=True,
        ).confidence_interval
        assert found.low[k] == pytest.approx(theirs.low, abs=1e-12)
        assert found.high[k] == pytest.approx(theirs.high, abs=1e-12)


def test_a_whole_bootstrap_is_scipys_within_its_own_noise() -> None:
    rng = np.random.default_rng(3)
    num, den = rng.gamma(1, size=(40, 1)), rng.gamma(3, size=(40, 1))
    found = ratio_intervals(num, den, confidence=0.95, resamples=40_000, rng=rng)
    theirs = stats.bootstrap(
        (num[:, 0], den[:, 0]),
        lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
        paired=True,
        n_resamples=40_000,
        batch=1000,
        vectorized=True,
        confidence_level=float(widened(0.95, effective(den))[0]),
        rng=4,
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low[0] == pytest.approx(theirs.low, abs=0.02 * width)
    assert found.high[0] == pytest.approx(theirs.high, abs=0.02 * width)


def test_resampled_sums_are_a_plain_loop_over_documents() -> None:
    """Blocks, counts and the product against the definition: draw documents, add up their columns."""
    columns = np.random.default_rng(0).normal(size=(7, 3))
    found = resample(columns, 50, np.random.default_rng(9))
    rng = np.random.default_rng(9)
    for r, drawn in enumerate(rng.integers(7, size=(50, 7))):
        np.testing.assert_allclose(found[r], sum(columns[i] for i in drawn), rtol=1e-12)


def test_documents_of_equal_weight_are_all_effective_and_one_that_outweighs_them_is_alone() -> None:
    weights = np.array([[2.0, 1.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    np.testing.assert_allclose(effective(weights), [3, 1, np.nan])
    # of ten documents, one with half of the text: (9 + 9)^2 / (9 * 1 + 81) = 3.6
    assert effective(np.array([[9.0], *[[1.0]] * 9]))[0] == pytest.approx(3.6)


def test_a_widened_normal_is_students_t_of_the_unbiased_variance() -> None:
    """Mean of n: the resamples' variance is (n - 1) / n of s^2 / n; 95 % of Student's t reaches t sqrt(s^2 / n)."""
    for n in (3, 10, 100):
        z = stats.norm.ppf((1 + widened(0.95, np.array([float(n)]))[0]) / 2)
        assert z * np.sqrt((n - 1) / n) == pytest.approx(stats.t.ppf(0.975, n - 1))
    assert widened(0.95, np.array([1.0]))[0] == 1.0


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_differences_of_means_are_the_t_tests(confidence: float) -> None:
    """One token a document: paired documents give the paired t-test, documents apart Welch's, interval and p."""
    rng = np.random.default_rng(6)
    x, y = rng.gamma(2, size=30), rng.gamma(1, size=30)
    ours = difference(row(x, np.ones(30)), row(y, np.ones(30)), confidence=confidence)
    theirs = stats.ttest_rel(x, y)
    ends = theirs.confidence_interval(confidence)
    np.testing.assert_allclose([ours.low, ours.high, ours.p], [ends.low, ends.high, theirs.pvalue], rtol=1e-9)
    other = row(y[:20], np.ones(20), [f"e{i:02d}" for i in range(20)])
    ours = difference(row(x, np.ones(30)), other, confidence=confidence)
    welch = stats.ttest_ind(x, y[:20], equal_var=False)
    ends = welch.confidence_interval(confidence)
    np.testing.assert_allclose([ours.low, ours.high, ours.p], [ends.low, ends.high, welch.pvalue], rtol=1e-9)


def test_the_jackknife_of_a_difference_of_ratios_is_the_bootstraps_within_its_noise() -> None:
    """Many documents, so that both are near the truth: scipy's standard error, of documents resampled for both sides
    at once and apart."""
    rng = np.random.default_rng(7)
    n = 400
    a, b = row(rng.gamma(2, size=n), rng.gamma(3, size=n)), row(rng.gamma(1, size=n), rng.gamma(3, size=n))

    def statistic(i: FloatArray, j: FloatArray, axis: int = -1) -> FloatArray:
        i, j = i.astype(int), j.astype(int)
        return a.num[i].sum(axis) / a.den[i].sum(axis) - b.num[j].sum(axis) / b.den[j].sum(axis)

    for paired in (True, False):
        theirs = stats.bootstrap(
            (np.arange(n), np.arange(n)),
            statistic,
            paired=paired,
            n_resamples=10_000,
            batch=500,
            vectorized=True,
            rng=4,
        )
        named = b if paired else row(b.num, b.den, [f"e{i:04d}" for i in range(n)])
        ours = difference(a, named, confidence=0.95)
        assert (ours.high - ours.low) / 2 / 1.966 == pytest.approx(theirs.standard_error, rel=0.04)


def test_a_difference_in_bits_is_its_two_parts() -> None:
    """Worked by hand: a saves 6 of 12 nats on 3 tokens, b 2 of 10 on 5: priors 4 and 2 nats, shares 1/2 and 1/5.
    prior part (0.5 + 0.2) / 2 * (4 - 2) = 0.7 nats, share part (4 + 2) / 2 * 0.3 = 0.9: together 2 - 0.4 = 1.6."""

    def side(tokens: list[float], saved: list[float], nats: list[float]) -> tuple[Sums, Sums]:
        return row(np.divide(saved, np.log(2)), tokens), row(saved, nats)

    found = parts(side([1, 2], [2, 4], [4, 8]), side([2, 3], [1, 1], [4, 6]), confidence=0.95)
    assert {k: v.value * np.log(2) for k, v in found.items()} == pytest.approx({"prior": 0.7, "share": 0.9})
    assert all(v.low < v.value < v.high for v in found.values())


# ---- seeds


def test_seeds_that_agree_change_nothing_and_seeds_that_alone_differ_are_students() -> None:
    agree = Spread(2.0, 9.0, 0.0, 3)
    assert agree.stretched(5, 4, 7, 0.95) == (4, 7)
    assert agree.half(0.95) == pytest.approx(stats.t.ppf(0.975, 9) * np.sqrt(2))
    luck = np.array([1.0, 2.0, 6.0])
    alone = Spread(0.0, 9.0, seeds.variance(luck, []), 3)
    theirs = stats.ttest_1samp(luck, 0)
    ends = theirs.confidence_interval(0.95)
    assert alone.stretched(3.0, 3.0, 3.0, 0.95) == pytest.approx((ends.low, ends.high))
    assert alone.p(3.0) == pytest.approx(theirs.pvalue)
    assert seeds.variance(luck[:1], []) == 0


def test_p_is_where_the_interval_just_reaches_nothing() -> None:
    both = Spread(0.5, 20.0, 0.2, 3)
    for value in (0.1, 1.0, 4.0, -4.0, 50.0):
        assert both.half(1 - both.p(value)) == pytest.approx(abs(value), rel=1e-6)
    assert both.p(0.0) == 1
    # a Student's t of less than a degree of freedom goes as far as can be squared at all
    with np.errstate(over="raise"):
        few = Spread(50.0, 0.8, 20.0, 3)
        for value in (1.0, 10.0, 300.0):
            assert few.half(1 - few.p(value)) == pytest.approx(value, rel=1e-6)
    assert np.isnan(Spread(0.0, 9.0, 0.0, 3).p(1.0))
    assert np.isnan(Spread(np.nan, 9.0, 0.1, 3).p(1.0))


def test_what_a_seed_does_to_single_documents_is_no_luck_of_the_seed() -> None:
    """Mean of documents x seeds, all independent: the seeds' means differ by their documents' noise alone, and
    over 500 tables the two parts of the variance are told apart, on average."""
    rng = np.random.default_rng(0)
    found: dict[float, list[float]] = {0.0: [], 0.5: []}
    for luck, parts_of in found.items():
        for _ in range(500):
            table = rng.normal(size=(3, 40)) + rng.normal(0, luck, (3, 1))
            without = (table.sum(1, keepdims=True) - table) / 39
            parts_of.append(table.mean(1).var(ddof=1) / 3 - seeds._interaction(without))
    assert np.mean(found[0.0]) == pytest.approx(0, abs=0.001)
    assert np.mean(found[0.5]) == pytest.approx(0.25 / 3, rel=0.15)


def test_seeds_that_disagree_widen_the_estimate(tmp_path: Path) -> None:
    """The same run with the second seed's losses moved: the value moves by half, the interval by far more."""
    study = make_run(tmp_path, lengths=(16,), windows=2)
    widths = []
    for shift in (0.0, 5.0):
        tokens = pl.read_parquet(tmp_path / "tokens.parquet")
        moved = pl.when(seed=1, condition="memory").then(pl.col("nats") + shift).otherwise("nats")
        tokens.with_columns(nats=moved.cast(pl.Float32)).write_parquet(tmp_path / "tokens.parquet")
        estimate(tmp_path, study)
        found = pl.read_parquet(tmp_path / "estimates.parquet").filter(metric="nats", condition="memory", by="all")
        pooled = found.filter(seed="all")
        widths.append((pooled["high"] - pooled["value"]).item())
        assert pooled["method"].item().endswith("2 decoder seeds as a second level")
        assert "seeds" not in found.filter(seed="0")["method"].item()
    # half of the difference, times t of 1 degree of freedom, to either side: 2.5 * 12.7; nats end at 0 to the other
    assert widths[1] == pytest.approx(2.5 * stats.t.ppf(0.975, 1), rel=0.2)
    assert widths[1] > 5 * widths[0]
    assert pooled["low"].item() == 0


# ---- coverage


def test_intervals_cover_and_token_intervals_would_not() -> None:
    """400 data sets of 100 documents with a random effect each: the interval holds the truth in 95 % of them within
    binomial error; an interval that takes the tokens for independent holds it far less often."""
    rng = np.random.default_rng(8)
    replications, n, truth = 400, 100, 0.3
    covered = naive = 0
    for _ in range(replications):
        tokens = rng.integers(20, 200, n)
        lost = rng.binomial(tokens, rng.beta(3, 7, n)).astype(float)
        found = ratio_intervals(lost[:, None], tokens[:, None] * 1.0, confidence=0.95, resamples=1000, rng=rng)
        covered += bool(found.low[0] <= truth <= found.high[0])
        share = lost.sum() / tokens.sum()
        naive += bool(abs(share - truth) <= 1.96 * np.sqrt(share * (1 - share) / tokens.sum()))
    assert abs(covered / replications - 0.95) < 3 * np.sqrt(0.95 * 0.05 / replications)
    assert naive / replications < 0.6


def test_the_interval_of_a_difference_covers_in_2000_corpora_and_the_t_test_does_not() -> None:
    """As benchmarks/coverage.py, of which this is one row: classes in the same 50 documents, 2,000 corpora."""
    expected = coverage.truth()
    make = lambda rng: coverage.corpus(rng, 50)  # noqa: E731
    assert abs(coverage.coverage(make, expected, coverage.ours, 2000) - 0.95) <= 0.015
    assert coverage.coverage(make, expected, coverage.of_tokens, 500) < 0.8


def test_three_seeds_are_in_the_interval_of_a_difference() -> None:
    """Another row: three seeds with a luck of their own, 100 documents."""
    expected = coverage.truth(0.15)
    make = lambda rng: coverage.corpus(rng, 100, 3, 0.15)  # noqa: E731
    assert abs(coverage.coverage(make, expected, coverage.ours, 600) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 600)


def test_the_difference_of_paired_documents_covers_and_is_narrower() -> None:
    rng = np.random.default_rng(10)
    covered, widths, apart = 0, [], []
    for _ in range(400):
        den = rng.integers(20, 60, 30).astype(float)
        shared = rng.normal(0, 0.3, 30)
        a = row(den * (0.5 + shared + rng.normal(0, 0.05, 30)), den)
        b = row(den * (0.4 + shared + rng.normal(0, 0.05, 30)), den)
        found = difference(a, b, confidence=0.95)
        covered += found.low <= 0.1 <= found.high
        widths.append(found.high - found.low)
        other = row(b.num, b.den, [f"e{i}" for i in range(30)])
        unpaired = difference(a, other, confidence=0.95)
        apart.append(unpaired.high - unpaired.low)
    assert abs(covered / 400 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 400)
    assert np.mean(widths) < 0.3 * np.mean(apart)


# ---- nothing to resample


@pytest.mark.parametrize(
    ("num", "den", "value", "low", "method"),
    [
        ([3.0], [4.0], 0.75, np.nan, "none: fewer"),  # one document
        ([1.0, 1.0, 1.0], [4.0, 4.0, 4.0], 0.25, 0.25, "percentile"),  # identical documents
        ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], 0.1, 0.1, "percentile"),  # one ratio, to rounding
        ([0.0, 0.0], [0.0, 0.0], np.nan, np.nan, "none: no denominator"),  # nothing to divide by
        ([1.0, 0.0], [2.0, 0.0], 0.5, np.nan, "none: no denominator"),  # nothing in some resamples
        ([np.nan, 1.0], [1.0, 1.0], np.nan, np.nan, "none: no denominator"),
    ],
)
def test_degenerate(num: list[float], den: list[float], value: float, low: float, method: str) -> None:
    rng = np.random.default_rng(0)
    found = ratio_intervals(np.array([num]).T, np.array([den]).T, confidence=0.95, resamples=200, rng=rng)
    np.testing.assert_allclose(found.value, [value], equal_nan=True)
    np.testing.assert_allclose([found.low[0], found.high[0]], [low, low], equal_nan=True)
    assert method in found.method[0]


def test_division_by_nothing_is_nan() -> None:
    np.testing.assert_array_equal(divide(np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 2.0])), [np.nan, np.nan, 0.5])


# ---- order


def test_documents_may_come_in_any_order() -> None:
    """The generator belongs to the set of documents, and estimate sorts them."""
    draws = [generator(3, d).random() for d in (["a", "b", "c"], ["c", "a", "b"], ["a", "b"])]
    assert draws[0] == draws[1] != draws[2]
    assert generator(3, ["a"]).random() != generator(4, ["a"]).random()
    assert generator(-1, ["a"]).random() != generator(1, ["a"]).random()


def test_estimates_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    study = make_run(tmp_path)
    estimate(tmp_path, study)
    first = pl.read_parquet(tmp_path / "estimates.parquet")
    for table in ("tokens", "reconstructions"):
        shuffle(tmp_path / f"{table}.parquet")
    estimate(tmp_path, study)
    second = pl.read_parquet(tmp_path / "estimates.parquet")
    assert first.select(pl.exclude("value", "low", "high")).equals(second.select(pl.exclude("value", "low", "high")))
    for c in ("value", "low", "high"):
        np.testing.assert_allclose(first[c], second[c], atol=1e-9)


# ---- tables to estimates


def test_a_table_worked_by_hand(tmp_path: Path) -> None:
    """Two documents, length 2, one seed; nats under none 4 each.

    document a, one window:  nats 1 3  -> kept 3 + 1 = 4 of 8
    document b, two windows: nats 4 2, 5 3 -> kept 0 + 2 - 1 + 1 = 2 of 16
    retention = 6 / 24; at position 0: (3 + 0 - 1) / 12 = 1/6; at position 1: (1 + 2 + 1) / 12 = 1/3
    """
    study = make_run(tmp_path, lengths=(2,), seeds=(0,), conditions=("memory", "none"), by=("position",))
    template = pl.read_parquet(tmp_path / "tokens.parquet").head(1).drop("condition", "doc_id", "window_id", "nats")
    rows = []
    for doc, window, nats in (("a", 0, (1, 3)), ("b", 0, (4, 2)), ("b", 2, (5, 3))):
        for condition in ("memory", "none"):
            for position in (0, 1):
                rows.append(
                    template.with_columns(
                        condition=pl.lit(condition),
                        doc_id=pl.lit(doc),
                        window_id=pl.lit(f"{doc}:2:{window}"),
                        position=pl.lit(position, pl.Int32),
                        nats=pl.lit(4.0 if condition == "none" else nats[position], pl.Float32),
                    )
                )
    pl.concat(rows).select([c.name for c in schema.TOKENS]).write_parquet(tmp_path / "tokens.parquet")
    estimate(tmp_path, study)
    found = pl.read_parquet(tmp_path / "estimates.parquet").filter(metric="retention", seed="all")
    assert found.select("by", "group", "value", "n_tokens", "n_documents").rows() == [
        ("all", "all", 6 / 24, 6, 2),
        ("position", "0-0", 2 / 12, 3, 2),
        ("position", "1-1", 4 / 12, 3, 2),
    ]


def test_the_planted_truth_is_found(tmp_path: Path) -> None:
    """News keeps twice what mathematics keeps, and the end of a window twice what its start keeps."""
    study = make_run(tmp_path, windows=8)
    estimate(tmp_path, study)
    found = pl.read_parquet(tmp_path / "estimates.parquet").filter(
        metric="retention", condition="memory", seed="all", length=16
    )
    by = {(b, g): v for b, g, v in found.select("by", "group", "value").rows()}
    assert by["domain", "news"] == pytest.approx(0.6, abs=0.02)
    assert by["domain", "mathematics"] == pytest.approx(0.3, abs=0.02)
    assert by["position", "14-15"] / by["position", "0-1"] == pytest.approx(1.87, abs=0.2)


def test_the_written_table_is_the_schemas(tmp_path: Path) -> None:
    study = make_run(tmp_path, dialect=True)
    estimate(tmp_path, study)
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "estimates.parquet")
    assert table.schema.equals(schema.arrow("estimates"))
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert set(frame["by"]) == {"all", "domain", "dialect", "position"}
    assert set(frame.filter(by="all")["seed"]) == {"all", "0", "1"}
    assert set(frame.filter(pl.col("by") != "all")["seed"]) == {"all"}
    assert not frame.filter(metric="retention", condition="none").height
    # 12 documents x 3 windows x 64 tokens, each counted once though two seeds read it; windows are counted as windows
    cell = frame.filter(by="all", length=64, condition="memory", seed="all")
    assert cell.filter(metric="omission_in_place")["n_tokens"].item() == 12 * 3 * 64
    assert cell.filter(metric="exact")["n_tokens"].item() == 12 * 3
    assert {p.name for p in tmp_path.iterdir()} == {f"{t}.parquet" for t in _TABLES}


@pytest.mark.parametrize(
    ("length", "bins", "groups"),
    [(4, 16, ["0-0", "1-1", "2-2", "3-3"]), (16, 4, ["0-3", "4-7", "8-11", "12-15"]), (5, 2, ["0-2", "3-4"])],
)
def test_position_bins_share_the_window_out(tmp_path: Path, length: int, bins: int, groups: list[str]) -> None:
    make_run(tmp_path, lengths=(length,), windows=1)
    found = {r.key["group"] for r in sums(tmp_path, ["position"], Estimates(position_bins=bins), ["nats"])}
    assert sorted(found, key=lambda g: int(g.split("-")[0])) == groups


def test_without_none_there_is_no_retention(tmp_path: Path) -> None:
    study = make_run(tmp_path, conditions=("memory",))
    estimate(tmp_path, study)
    found = set(pl.read_parquet(tmp_path / "estimates.parquet")["metric"])
    assert "retention" not in found
    assert "nats" in found


@pytest.mark.parametrize("spoil", ["missing", "twice", "another token", "extra"])
def test_conditions_that_do_not_pair_are_refused(tmp_path: Path, spoil: str) -> None:
    make_run(tmp_path, lengths=(16,), windows=1)
    tokens = pl.read_parquet(tmp_path / "tokens.parquet")
    memory = tokens.filter(condition="memory")
    others = tokens.filter(pl.col("condition") != "memory")
    spoilt = {
        "missing": memory.slice(1),
        "twice": pl.concat([memory.slice(1), memory.slice(1, 1)]),
        "another token": memory.with_columns(token_id=pl.col("token_id") + 1),
        "extra": pl.concat([memory, memory.head(1).with_columns(position=pl.lit(99, pl.Int32))]),
    }[spoil]
    pl.concat([spoilt, others]).write_parquet(tmp_path / "tokens.parquet")
    with pytest.raises(RunError, match="one to one"):
        list(sums(tmp_path, ["all"], FOUR, ["retention"]))


@pytest.mark.parametrize(("metric", "ends"), [("omission_in_place", (0, 1)), ("bits_retained", (None, None))])
def test_an_interval_ends_where_the_metric_does(metric: str, ends: tuple[int | None, int | None]) -> None:
    """Two seeds, one of which loses half and one everything: Student's t with one degree of freedom reaches far."""
    den = np.full(8, 10.0)
    by_seed = np.stack([np.column_stack([share * den, den]) for share in (0.5, 1.0)])
    key = {"run": "r", "model": "m", "decoder": "d", "condition": "memory", "seed": "all", "metric": metric}
    key |= {"unit": "fraction", "length": 16, "by": "all", "group": "all"}
    row = Sums(key, [f"d{i}" for i in range(8)], by_seed[..., 0].sum(0), by_seed[..., 1].sum(0), 80, by_seed)
    (found,) = compute([row], seed=0, confidence=0.95, resamples=200).iter_rows(named=True)
    assert found["value"] == 0.75
    low, high = (found[end] if wanted is None else wanted for end, wanted in zip(("low", "high"), ends, strict=True))
    assert (found["low"], found["high"]) == (low, high)
    assert (low < 0 and high > 1) == (ends == (None, None))


def test_a_decoder_without_guesses_of_its_own_is_lent_anothers(tmp_path: Path) -> None:
    """Its nats are half of the lender's, so it keeps 1 - (1 - kept) / 2 where the lender keeps ``kept``."""
    make_run(tmp_path, lengths=(16,), windows=3, seeds=(0, 1))
    tokens = pl.read_parquet(tmp_path / "tokens.parquet")
    memory = tokens.filter(condition="memory", seed=0)
    lender = memory["decoder"][0]
    other = memory.with_columns(decoder=pl.lit("other"), nats=pl.col("nats") / 2)
    pl.concat([tokens, other]).write_parquet(tmp_path / "tokens.parquet")

    def kept(guesses: str | None) -> dict[tuple[str, str], float]:
        found = sums(tmp_path, ["all"], Estimates(guesses=guesses), ["retention"])
        return {
            (r.key["decoder"], r.key["seed"]): r.num.sum() / r.den.sum()
            for r in found
            if r.key["condition"] == "memory"
        }

    own = kept(None)
    assert {decoder for decoder, _ in own} == {lender}
    both = kept(lender)
    assert both.items() >= own.items()
    assert {key for key in both if key[0] == "other"} == {("other", "0"), ("other", "all")}
    assert both["other", "0"] == pytest.approx(1 - (1 - own[lender, "0"]) / 2)


def test_annotated_tokens_are_grouped_by_label(tmp_path: Path) -> None:
    """One span over the first token of each window of one document; the other documents are not annotated."""
    make_run(tmp_path, lengths=(16,), windows=3, seeds=(0,))
    (tmp_path / "annotations").mkdir()
    tokens = pl.read_parquet(tmp_path / "tokens.parquet").filter(doc_id="news-02", condition="memory")
    first = tokens.filter(position=0).select("doc_id", "char_start", "char_end", label=pl.lit("FIRST"))
    first.write_parquet(tmp_path / "annotations" / "place.parquet")
    for metric in ("omission_in_place", "retention"):
        found = {r.key["group"]: r for r in sums(tmp_path, ["place"], FOUR, [metric]) if r.key["condition"] == "memory"}
        assert {g: r.units for g, r in found.items()} == {"FIRST": 3, "(unlabelled)": 45}
    lost = (~tokens.filter(position=0)["recovered_in_place"]).sum()
    rows = [r for r in sums(tmp_path, ["place"], FOUR, ["omission_in_place"]) if r.key["condition"] == "memory"]
    assert {r.key["group"]: r.num.sum() for r in rows}["FIRST"] == lost


def test_statistics_do_not_import_torch() -> None:
    code = "import sys, mnemoscope.stats.estimate, mnemoscope.stats.compare; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_groups_and_missing_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        list(sums(tmp_path, ["all"], FOUR))
    make_run(tmp_path, lengths=(16,), windows=1)
    with pytest.raises(RunError, match="'mood'"):
        list(sums(tmp_path, ["mood"], FOUR))


def test_growing_against_fixed(tmp_path: Path) -> None:
    """The fixed decoder was planted to keep 0.8 of what the growing one keeps: the difference is 0.2 of it."""
    study = make_run(tmp_path, decoders=("growing", "fixed"))
    found = between(tmp_path, study, "retention", {"decoder": "growing"}, {"decoder": "fixed"})
    estimate(tmp_path, study)
    values = pl.read_parquet(tmp_path / "estimates.parquet").filter(metric="retention", seed="all", by="all")
    for r in found.filter(condition="memory").iter_rows(named=True):
        growing = values.filter(decoder="growing", condition="memory", length=r["length"])["value"].item()
        fixed = values.filter(decoder="fixed", condition="memory", length=r["length"])["value"].item()
        assert r["value"] == pytest.approx(growing - fixed, abs=1e-12)
        assert 0 < r["low"] < 0.2 * growing < r["high"]
        assert "paired by document" in r["method"]
