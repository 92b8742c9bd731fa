"""The regression against statsmodels, against theory, on simulated corpora, and where it has nothing to say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.api as sm
from scipy.special import expit

from mnemoscope.stats import regress
from mnemoscope.stats.bootstrap import FloatArray
from mnemoscope.stats.regress import Effect, marginal_effects


def corpus(
    seed: int, documents: int = 40, tokens: int = 40, effect: float = 0.0, seeds: int = 1
) -> tuple[FloatArray, npt.NDArray[np.str_], dict[str, FloatArray], npt.NDArray[np.int64]]:
    """Losses [S, N] that follow frequency and a luck that a document's tokens share; numbers are rarer than words, and
    ``effect`` says how much more they are lost than words as rare (in logits)."""
    rng = np.random.default_rng(seed)
    n = documents * tokens
    document = np.repeat(np.arange(documents), tokens)
    frequency = rng.normal(size=n)
    kind = np.where(rng.random(n) < expit(-1 - 1.2 * frequency), "number", "word")
    logit = -0.5 - frequency + rng.normal(0, 0.7, documents)[document] + effect * (kind == "number")
    y = (rng.random((seeds, n)) < expit(logit)).astype(float)
    return y, kind, {"frequency": frequency, "position": np.tile(np.arange(tokens), documents)}, document


def effect_of(group: str, *data: object, logistic: bool = True, base: str = "word") -> Effect:
    return marginal_effects(*data, base=base, logistic=logistic, confidence=0.95)[group]  # type: ignore[arg-type]


def design(kind: npt.NDArray[np.str_], controls: dict[str, FloatArray]) -> FloatArray:
    columns = [np.ones((len(kind), 1)), *(regress._spline(c) for c in controls.values())]
    return np.column_stack([*columns, kind == "number"]).astype(float)


# ---- statsmodels


def test_the_linear_effect_and_its_error_are_statsmodels() -> None:
    y, kind, controls, document = corpus(0)
    bits = y[0] + np.random.default_rng(1).normal(size=y.shape[1])
    found = effect_of("number", bits, kind, controls, document, logistic=False).difference
    X = design(kind, controls)
    theirs = sm.OLS(bits, X).fit(cov_type="cluster", cov_kwds={"groups": document, "use_correction": False})
    error = theirs.bse[-1] * np.sqrt(40 / 39)
    assert found.value == pytest.approx(theirs.params[-1], rel=1e-9)
    assert (found.high - found.low) / 2 / error == pytest.approx(2.03, rel=0.01)  # t of somewhat under 39 degrees


def test_the_logistic_effect_is_statsmodels_margin() -> None:
    """Of two classes, the average marginal effect; and its error by the delta method on a clustered covariance, once
    what ours counts besides, that another sample would hold other tokens, is taken away."""
    y, kind, controls, document = corpus(2, effect=0.5)
    X = design(kind, controls)
    theirs = sm.Logit(y[0], X).fit(disp=0, cov_type="cluster", cov_kwds={"groups": document, "use_correction": False})
    margin = theirs.get_margeff(dummy=True)
    found = effect_of("number", y, kind, controls, document)
    assert found.difference.value == pytest.approx(margin.margeff[-1], rel=1e-6)
    assert found.group_value - found.base_value == pytest.approx(found.difference.value)
    own = np.where(kind == "number", 0, -1)
    starts = np.arange(0, len(kind), 40)
    even = np.ones(len(X))
    fitted = regress._coefficients(y[0], even, X, True)
    fit = regress._effects(X, even, *fitted, regress._Design(X[:, :-1], ["number"], own), starts, True)
    linear = X[:, :-1] @ theirs.params[:-1]
    each = expit(linear + theirs.params[-1]) - expit(linear)
    of_tokens = np.add.reduceat(each - each.mean(), starts) / len(kind)
    error = np.sqrt(((fit.influence[:, 0] - of_tokens) ** 2).sum())
    assert error == pytest.approx(margin.margeff_se[-1], rel=1e-4)


def test_a_ratio_of_sums_is_statsmodels_weighted_regression() -> None:
    y, kind, controls, document = corpus(5)
    rng = np.random.default_rng(6)
    ratio, weight = y[0] + rng.normal(size=y.shape[1]), rng.gamma(1.0, size=y.shape[1])
    data = (ratio, kind, controls, document)
    found = marginal_effects(*data, base="word", logistic=False, confidence=0.95, weights=weight)["number"]
    theirs = sm.WLS(ratio, design(kind, controls), weights=weight).fit(
        cov_type="cluster", cov_kwds={"groups": document, "use_correction": False}
    )
    error = theirs.bse[-1] * np.sqrt(40 / 39)
    assert found.difference.value == pytest.approx(theirs.params[-1], rel=1e-9)
    assert (found.difference.high - found.difference.low) / 2 / error == pytest.approx(2.03, rel=0.01)
    # nothing held constant, it is the difference of the ratios of sums
    plain = marginal_effects(ratio, kind, {}, document, base="word", logistic=False, confidence=0.95, weights=weight)
    number = kind == "number"
    of = [(ratio * weight)[rows].sum() / weight[rows].sum() for rows in (number, ~number)]
    assert plain["number"].group_value == pytest.approx(of[0])
    assert plain["number"].difference.value == pytest.approx(of[0] - of[1])
    with pytest.raises(ValueError, match="weights"):
        marginal_effects(y, kind, {}, document, base="word", logistic=True, confidence=0.95, weights=weight)


# ---- theory


def test_without_controls_it_is_the_difference_of_shares() -> None:
    """Three classes, a document effect or none: fitted shares are the observed ones."""
    rng = np.random.default_rng(3)
    kind = rng.choice(["a", "b", "c"], 600)
    y = (rng.random(600) < np.select([kind == "a", kind == "b"], [0.2, 0.5], 0.7)).astype(float)
    found = marginal_effects(y, kind, {}, np.arange(600) // 20, base="a", logistic=True, confidence=0.95)
    for group in ("b", "c"):
        assert found[group].difference.value == pytest.approx(y[kind == group].mean() - y[kind == "a"].mean(), abs=1e-9)
        assert found[group].base_value == pytest.approx(y[kind == "a"].mean(), abs=1e-9)


def test_a_control_may_be_counted_or_its_logarithm() -> None:
    y, kind, controls, document = corpus(4)
    found = effect_of("number", y, kind, controls, document).difference
    counts = {**controls, "frequency": np.exp(3 * controls["frequency"])}
    assert effect_of("number", y, kind, counts, document).difference == found


def test_the_order_of_tokens_does_not_matter() -> None:
    y, kind, controls, document = corpus(5, seeds=2)
    found = effect_of("number", y, kind, controls, document).difference
    order = np.random.default_rng(0).permutation(len(kind))
    mixed = {k: v[order] for k, v in controls.items()}
    again = effect_of("number", y[:, order], kind[order], mixed, document[order]).difference
    assert (again.value, again.low, again.p) == pytest.approx((found.value, found.low, found.p), rel=1e-6)


# ---- coverage


@pytest.mark.parametrize("effect", [0.0, 0.8])
def test_intervals_cover_the_planted_effect_and_the_plain_difference_is_far_off(effect: float) -> None:
    """150 corpora of 40 documents; the truth from 2 million tokens, with and without the effect."""
    rng = np.random.default_rng(6)
    logit = -0.5 - rng.normal(size=2_000_000) + rng.normal(0, 0.7, 2_000_000)
    truth = (expit(logit + effect) - expit(logit)).mean()
    covered, plain = 0, []
    for seed in range(150):
        y, kind, controls, document = corpus(100 + seed, tokens=30, effect=effect)
        found = effect_of("number", y, kind, controls, document).difference
        covered += found.low <= truth <= found.high
        plain.append(y[0, kind == "number"].mean() - y[0, kind == "word"].mean())
    assert abs(covered / 150 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 150)
    assert np.mean(plain) > truth + 0.12


def test_seeds_that_disagree_are_in_the_interval() -> None:
    """Each seed's decoder loses numbers by another measure."""
    y, kind, controls, document = corpus(7, seeds=3)
    rng = np.random.default_rng(0)
    alike = effect_of("number", y, kind, controls, document).difference
    for row, more in zip(y, (0.0, 0.3, 0.6), strict=True):
        row[(kind == "number") & (rng.random(len(kind)) < more)] = 1
    apart = effect_of("number", y, kind, controls, document).difference
    assert apart.high - apart.low > 3 * (alike.high - alike.low)
    assert "3 decoder seeds" in apart.method


# ---- nothing to say


def refused(found: Effect, why: str) -> bool:
    d = found.difference
    return bool(np.isnan([d.low, d.high, d.p]).all()) and d.method.startswith("none") and why in d.method


def test_one_document_has_no_effect_and_few_have_no_interval() -> None:
    y, kind, controls, document = corpus(8, documents=8)
    one = effect_of("number", y, kind, controls, document * 0)
    assert refused(one, "fewer than two documents")
    assert np.isnan(one.difference.value)
    few = effect_of("number", y, kind, controls, document)
    assert refused(few, "8 documents for 14 columns")
    assert np.isfinite(few.difference.value)


def test_a_class_that_is_lost_whole_or_kept_whole_is_refused_and_the_others_are_not() -> None:
    y, kind, controls, document = corpus(9)
    kind = np.where(np.arange(len(kind)) % 9 == 0, "comma", kind)
    for outcome in (0.0, 1.0):
        y[0, kind == "comma"] = outcome
        found = marginal_effects(y, kind, controls, document, base="word", logistic=True, confidence=0.95)
        assert refused(found["comma"], "every token of the class was lost, or none")
        assert np.isnan(found["comma"].difference.value)
        rest = kind != "comma"
        alone = effect_of("number", y[:, rest], kind[rest], {k: v[rest] for k, v in controls.items()}, document[rest])
        assert found["number"].difference.value == pytest.approx(alone.difference.value)
    base = marginal_effects(y, kind, controls, document, base="comma", logistic=True, confidence=0.95)
    assert all(refused(e, "every token of the class was lost, or none") for e in base.values())
    # bits have no such end
    linear = marginal_effects(y, kind, controls, document, base="comma", logistic=False, confidence=0.95)
    assert all(np.isfinite(e.difference.low) for e in linear.values())


def test_losses_that_a_mixture_of_columns_parts_are_refused() -> None:
    _, kind, controls, document = corpus(10)
    y = (regress._spline(controls["frequency"])[:, 3] + 0.2 * (kind == "number") > 0.3).astype(float)
    found = effect_of("number", y, kind, controls, document)
    assert refused(found, "parts what was lost")
    assert np.isnan(found.difference.value)


def test_constant_and_repeated_controls_change_nothing() -> None:
    y, kind, controls, document = corpus(11)
    found = effect_of("number", y, kind, controls, document).difference
    more = {**controls, "constant": np.full(len(kind), 3.0), "again": controls["frequency"], "text": kind.astype("U9")}
    more["text"][:] = "same"
    assert effect_of("number", y, kind, more, document).difference.value == pytest.approx(found.value, rel=1e-9)


def test_a_class_that_a_control_gives_away_is_refused_and_the_others_are_not() -> None:
    """All numbers have frequency class "rare", and no other token has: nobody can tell which of the two it was."""
    y, kind, controls, document = corpus(12)
    kind = np.where((kind == "word") & (np.arange(len(kind)) % 3 == 0), "verb", kind)
    told = {**controls, "band": np.where(kind == "number", "rare", "common")}
    for logistic in (True, False):
        found = marginal_effects(y, kind, told, document, base="word", logistic=logistic, confidence=0.95)
        assert refused(found["number"], "only with values of the controls")
        assert np.isfinite(found["verb"].difference.low)


def test_a_base_that_is_not_there_and_a_class_alone() -> None:
    y, kind, controls, document = corpus(13)
    assert refused(effect_of("number", y, kind, controls, document, base="verb"), "no token of verb")
    alone = np.full(len(kind), "word")
    assert marginal_effects(y, alone, controls, document, base="word", logistic=True, confidence=0.95) == {}
    with pytest.raises(ValueError, match="outcome"):
        effect_of("number", y + np.nan, kind, controls, document)


def test_a_class_in_one_document_has_no_interval() -> None:
    y, kind, controls, document = corpus(14)
    kind = np.where(kind == "number", "word", kind)
    kind[:20] = "rare"
    assert refused(effect_of("rare", y, kind, controls, document), "in one document")
