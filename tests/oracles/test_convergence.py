"""Prequential codes against hand-worked sums, asymptotes against planted curves and scipy's own fit."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import optimize

from mnemoscope import config, schema
from mnemoscope.stats.asymptote import Asymptote, asymptote, fit
from mnemoscope.stats.bootstrap import FloatArray
from mnemoscope.stats.convergence import convergence
from mnemoscope.stats.prequential import code_length

POINTS = np.geomspace(1e5, 1e6, 8)


def law(a: float, b: float, c: float, tokens: FloatArray = POINTS) -> FloatArray:
    return a + b * (tokens / 1e5) ** -c


def of(curve: FloatArray, *, resamples: int = 200, seed: int = 0, documents: int = 30) -> Asymptote:
    """Of documents of unequal length that all have the curve."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(100, 900, documents).astype(np.float64)
    return asymptote(
        POINTS[: len(curve)],
        weights[:, None] * curve,
        weights,
        weights[:, None],
        confidence=0.95,
        resamples=resamples,
        rng=rng,
    )


class TestPrequential:
    def test_by_hand(self) -> None:
        """Of 4 kinds, in blocks that end at 2, 6 and 16 tokens; 2, 1.5 and 0.5 bits a token: 2 * 2 + 4 * 1.5 + 10 * 0.5
        are 15 bits, where a uniform code takes 32 (section 2.2.2: t_1 log2 K, then each block by those before)."""
        ends = np.array([2, 6, 16])
        assert code_length(ends, np.array([math.log2(4), 1.5, 0.5])) == pytest.approx(15)
        assert code_length(ends, np.full(3, math.log2(4))) == pytest.approx(32)

    def test_it_is_the_sum_over_symbols(self) -> None:
        """Of a coin with p(heads) learnt from the blocks before, as Voita & Titov's code would send it."""
        rng = np.random.default_rng(0)
        coins, ends = rng.random(64) < 0.9, np.array([4, 8, 16, 32, 64])
        rates, total = [], 0.0
        for first, last in zip([0, *ends[:-1]], ends, strict=True):
            p = (coins[:first].sum() + 1) / (first + 2)
            cost = -np.log2(np.where(coins[first:last], p, 1 - p))
            rates.append(cost.mean())
            total += cost.sum()
        assert code_length(ends, np.array(rates)) == pytest.approx(total)

    def test_who_learns_sooner_has_the_shorter_code(self) -> None:
        ends = np.array([1, 2, 4, 8])
        slow, fast = code_length(ends, np.array([[3.0, 3, 3, 1], [3.0, 1, 1, 1]]))
        assert fast < slow


class TestFit:
    @pytest.mark.parametrize(("a", "b", "c"), [(2.0, 1.0, 1.0), (0.5, 3.0, 0.3), (1.0, 0.2, 2.5)])
    def test_a_planted_law_is_found(self, a: float, b: float, c: float) -> None:
        found = of(law(a, b, c))
        assert found.reason == ""
        assert found.value == pytest.approx(a, abs=1e-4)
        assert found.exponent == pytest.approx(c, rel=1e-3)

    def test_as_scipy_fits(self) -> None:
        rng = np.random.default_rng(3)
        for _ in range(5):
            curve = law(2.0, 1.0, 0.8) + rng.normal(0, 0.01, 8)
            theirs, _ = optimize.curve_fit(law_of, POINTS, curve, p0=(2, 1, 0.8), bounds=(0, np.inf))
            assert of(curve).value == pytest.approx(theirs[0], abs=1e-3)

    def test_many_at_once_are_each_alone(self) -> None:
        rng = np.random.default_rng(1)
        curves = law(1.0, 1.0, 0.7) + rng.normal(0, 0.02, (600, 8))
        together = fit(POINTS, curves)
        for row in (0, 299, 599):
            alone = fit(POINTS, curves[row : row + 1])
            assert alone.exponent[0] == together.exponent[row]
            assert alone.level[0] == pytest.approx(together.level[row], rel=1e-9)

    @pytest.mark.parametrize(("documents", "noise"), [(0.0, 0.01), (0.3, 0.002), (0.2, 0.01)])
    def test_intervals_cover_what_was_planted(self, documents: float, noise: float) -> None:
        """200 curves of 40 documents that differ in level by ``documents`` and points that scatter by ``noise``.  With
        95 % intervals 95 % of 200 are 190 with a standard deviation of 3; 180 to 199 is three and more of them."""
        rng = np.random.default_rng(7)
        covered = known = 0
        for _ in range(200):
            weights = rng.integers(200, 2000, 40).astype(np.float64)
            own = 2.0 * (rng.lognormal(-(documents**2) / 2, documents, 40) - 1)
            curve = law(2.0, 1.0, 0.8) + rng.normal(0, noise, 8)
            losses = weights[:, None] * (own[:, None] + curve)
            found = asymptote(POINTS, losses, weights, weights[:, None], confidence=0.95, resamples=200, rng=rng)
            if found.reason:
                continue
            low, high = found.ends(found.levels)
            known += 1
            covered += low <= 2.0 <= high
        assert known > 190
        assert 0.90 * known <= covered < known


def law_of(tokens: FloatArray, a: float, b: float, c: float) -> FloatArray:
    return a + b * (tokens / 1e5) ** -c


class TestUnknown:
    @pytest.mark.parametrize(
        ("curve", "reason"),
        [
            (law(2, 1, 1)[:4], "4 points of training, and 5 are needed"),
            (np.full(8, 2.0), "does not change"),
            (law(2, -1, 1), "do not fall"),
            (law(0, 3, 0.3), "fall as if for ever"),
            # a straight line in the logarithm of the tokens
            (3 - 0.2 * np.log(POINTS / 1e5), "fall as if for ever"),
            (np.append(law(2, 1, 1)[:7], np.nan), "not finite"),
        ],
        ids=["few", "flat", "rising", "no floor", "line", "nan"],
    )
    def test_is_nan_with_a_reason(self, curve: FloatArray, reason: str) -> None:
        found = of(curve)
        assert reason in found.reason
        assert math.isnan(found.value)
        assert not len(found.levels)

    def test_of_noise_alone(self) -> None:
        """Curves without a trend: most are refused, and no interval of the others is narrower than the noise."""
        rng = np.random.default_rng(5)
        known = [found for _ in range(40) if not (found := of(2 + rng.normal(0, 0.05, 8))).reason]
        assert len(known) < 30
        assert all(np.diff(found.ends(found.levels))[0] > 0.02 for found in known)

    def test_of_one_document(self) -> None:
        assert "fewer than two documents" in of(law(2, 1, 1), documents=1).reason


STUDY = {
    "name": "s",
    "seed": 1,
    "model": {"name": "m"},
    "text": {},
    "windows": {"lengths": [4]},
    "decoders": [
        {
            **{"name": "d", "recipe": "growing", "seeds": [0, 1], "conditions": ["memory", "none"], "growth": 0.15},
            **{"tokens": 10**6, "batch_tokens": 64, "optimiser": {"learning_rate": 1e-3, "warmup": 0.02}},
            "evaluate": {"tokens": 100, "times": 8, "first": 0.1},
        }
    ],
    "estimate": {"resamples": 100},
}


def learning_table(pairs: bool = False) -> pl.DataFrame:
    """Two seeds, six documents; under memory 1 + (n / 1e5)^-1 nats a token, the second seed 0.02 more; under none 3."""
    rows = []
    for seed in (0, 1):
        for condition in ("memory", "none"):
            for step, tokens in enumerate([0, *POINTS.round().astype(int).tolist()]):
                for doc in range(6):
                    read = 4.0 if tokens == 0 else 1 + (tokens / 1e5) ** -1 + 0.02 * seed
                    rate = 3.0 if condition == "none" else read
                    n = 40 + 4 * doc
                    name = f"p{doc // 2}/{'AB'[doc % 2]}" if pairs else f"d{doc}"
                    key = {"run": "s", "model": "m", "decoder": "d", "condition": condition, "length": 4, "seed": seed}
                    key |= {"doc_id": name, "dialect": "AB"[doc % 2] if pairs else "", "step": step, "tokens": tokens}
                    rows.append(key | {"n_tokens": n, "nats": n * rate})
    return pl.DataFrame(rows, infer_schema_length=None)


class TestTable:
    study = config.Study.model_validate(STUDY)

    def test_by_hand(self) -> None:
        table = convergence(learning_table(), self.study)
        assert table.columns == [c.name for c in schema.CONVERGENCE]

        def value(**key: object) -> float:
            (found,) = table.filter(condition="memory", **key)["value"]
            return float(found)

        last = 1 + 1 / 10
        assert value(seed="0", kind="learning", metric="nats", tokens=10**6) == pytest.approx(last)
        assert value(seed="all", kind="learning", metric="nats", tokens=10**6) == pytest.approx(last + 0.01)
        assert value(seed="0", kind="learning", metric="retention", tokens=10**6) == pytest.approx(1 - last / 3)
        assert value(seed="0", kind="learning", metric="bits_retained", tokens=0) == pytest.approx(-1 / math.log(2))
        assert value(seed="0", kind="asymptote", metric="nats") == pytest.approx(1, abs=1e-3)
        assert value(seed="all", kind="asymptote", metric="retention") == pytest.approx(1 - 1.01 / 3, abs=1e-3)
        assert value(seed="1", kind="asymptote", metric="bits_retained") == pytest.approx(1.98 / math.log(2), abs=1e-3)
        # the first block at 4 nats, each other one at the loss of the point before it
        ends = POINTS.round()
        blocks = np.diff(ends, prepend=0)
        code = blocks @ np.array([4, *(1 + (ends[:-1] / 1e5) ** -1)]) / 1e6
        assert value(seed="0", kind="prequential", metric="nats") == pytest.approx(code)
        assert value(seed="0", kind="prequential", metric="retention") == pytest.approx(1 - code / 3)

    def test_points_before_all_lengths_are_in_are_left_out(self) -> None:
        """growth is 0.15, and the first two of the eight points are at 0.1 and 0.139."""
        table = convergence(learning_table(), self.study).filter(condition="memory", kind="asymptote", metric="nats")
        assert table["method"].str.contains("through 6 points").all()

    def test_texts_of_a_pair_are_one(self) -> None:
        table = convergence(learning_table(pairs=True), self.study)
        assert set(table["n_documents"]) == {3}

    def test_the_order_of_rows_does_not_matter(self) -> None:
        table = learning_table()
        mixed = table.sample(fraction=1, shuffle=True, seed=3)
        assert convergence(mixed, self.study).equals(convergence(table, self.study), null_equal=True)

    def test_without_a_decoder_that_has_no_memory_there_are_nats_alone(self) -> None:
        table = convergence(learning_table().filter(condition="memory"), self.study)
        assert set(table["metric"]) == {"nats"}
