"""Does a class still matter once other things are held constant?

    y = f(intercept + controls + class)        effect of a class = mean over all tokens of
                                                   y as if it were of the class - y as if it were of the base class

Losses (0 or 1) by a logistic regression, bits by a linear one, retention, a ratio of sums, by a linear one of each
token's own ratio weighted by its denominator; the effect is the average marginal effect, in the unit of y in any case.
A control of numbers enters as a cubic spline of its rank, so that nobody has to choose between a count and its
logarithm; one of few values or of names enters as one column a value.  Controls add up: an effect that holds in part of
their range only is averaged.

Errors are clustered by document: the effect's influence function, summed within documents, is its sandwich variance
(Liang & Zeger 1986) by the delta method, and counts besides that another sample would hold other tokens.  t with one
degree of freedom less than the effective number of documents; decoder seeds as a second level
(:mod:`mnemoscope.stats.seeds`): each seed is fitted by itself, and the effect is the mean.

Symbols: S seeds, N tokens, K columns, D documents.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.interpolate import BSpline
from scipy.special import expit

from mnemoscope.stats import seeds
from mnemoscope.stats.bootstrap import FloatArray, effective
from mnemoscope.stats.compare import Difference

IntArray = npt.NDArray[np.int64]

#: a control of numbers with no more values than this has one column a value
_FEW = 8
_KNOTS = (0.25, 0.5, 0.75)
#: of a null direction's length, what a column may have of it and still be told from the others
_NOTHING = 1e-3


class Effect(NamedTuple):
    """The effect of a class, with the mean of y as if all tokens were of the class, and as if of the base."""

    difference: Difference
    group_value: float
    base_value: float


class _Design(NamedTuple):
    """Attributes:
    controls: [N, K1], the intercept first.
    groups: the classes that can be told apart, without the base; ``own`` [N] is each token's, -1 for the base.
    """

    controls: FloatArray
    groups: list[str]
    own: IntArray


def marginal_effects(
    y: FloatArray,
    group: npt.ArrayLike,
    controls: Mapping[str, npt.NDArray[Any]],
    document: npt.ArrayLike,
    *,
    base: str,
    logistic: bool,
    confidence: float,
    weights: FloatArray | None = None,
) -> dict[str, Effect]:
    """The effect of each class but the base.

    What cannot be told is NaN, and its method says why: fewer than two documents; a class that is lost whole or not at
    all (a logistic regression has no finite answer to that); a class that only comes with a value of the controls that
    no other class has; a fit that does not come to an end, for some mixture of columns parts kept from lost.  No
    interval is given for fewer documents than columns.  Constant controls say nothing and are left out; of controls
    that say the same, one is.

    Args:
        y: [S, N], per decoder seed the same tokens; 0 or 1 if ``logistic``.
        group, document: [N].
        controls: name -> [N], numbers or texts, none missing.
        base: the class that the others are compared with.
        weights: [S, N], not negative, of a linear regression; a ratio of sums is the mean of the tokens' ratios, each
            weighing as much as its denominator.
    """
    y = np.atleast_2d(np.asarray(y, np.float64))
    if not np.isfinite(y).all() or (logistic and not np.isin(y, (0, 1)).all()):
        raise ValueError("an outcome is missing, or is not 0 or 1")
    weights = np.ones_like(y) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
    if weights.shape != y.shape or (logistic and (weights != 1).any()):
        raise ValueError("weights are one for each outcome, and of linear regressions alone")
    names, code = np.unique(np.asarray(group), return_inverse=True)
    _, documents = np.unique(np.asarray(document), return_inverse=True)
    refused: dict[str, str] = {}
    if base not in names:
        refused = dict.fromkeys(names.tolist(), f"none: no token of {base}")
    factors = {name: _levels(values) for name, values in controls.items()}
    keep = np.ones(y.shape[1], bool)
    while not refused.get(base) and len(refused) < len(names) - (base in names):
        if logistic:
            keep, lost = _mixed(y, keep, [code, *(f for f in factors.values() if f is not None)])
            # the first reason stands: a class that went for another has no tokens left here
            refused = {str(names[c]): "none: every token of the class was lost, or none" for c in lost} | refused
        design = _design(names, code, {n: (controls[n], factors[n]) for n in controls}, keep, base)
        if refused.get(base) or design is None:
            break
        unknown = _confounded(design)
        if not unknown:
            break
        refused |= dict.fromkeys(unknown, "none: the class comes only with values of the controls that no other has")
        keep &= ~np.isin(code, [np.flatnonzero(names == n)[0] for n in unknown])
    others = [str(n) for n in names if n != base]
    if base in refused:
        refused = dict.fromkeys(others, refused[base])
    out: dict[str, Effect] = {}
    kept = [n for n in others if n not in refused]
    if kept:
        assert design is not None
        used = documents[keep]
        out = _fit(y[:, keep], weights[:, keep], design, used, logistic, confidence, int((~keep).sum()))
    n_documents = len(np.unique(documents))
    for name in others:
        if name not in out:
            out[name] = _nothing(refused[name], y.shape[1], n_documents)
    return {name: out[name] for name in others}


def _nothing(why: str, tokens: int, documents: int) -> Effect:
    nan = math.nan
    return Effect(Difference(nan, nan, nan, tokens, documents, why, nan), nan, nan)


# ---- columns --------------------------------------------------------------------------------------------------------


def _levels(values: npt.NDArray[Any]) -> IntArray | None:
    """Each token's level of a control that enters as levels; None if it enters as a spline."""
    found, level = np.unique(np.asarray(values), return_inverse=True)
    return level if found.dtype.kind in "OUSTb" or len(found) <= _FEW else None


def _spline(values: npt.NDArray[Any]) -> FloatArray:
    """Cubic B-splines of the ranks in [0, 1], knots at the quartiles; the first is left out, for the intercept."""
    rank = (stats.rankdata(values) - 0.5) / len(values)
    knots = np.concatenate([np.zeros(4), _KNOTS, np.ones(4)])
    basis: FloatArray = BSpline.design_matrix(rank, knots, 3).toarray()
    return basis[:, 1:]


def _dummies(level: IntArray) -> FloatArray:
    """A column for each level but the first."""
    present, level = np.unique(level, return_inverse=True)
    return np.asarray(level[:, None] == np.arange(1, len(present)), np.float64)


def _mixed(
    y: FloatArray, keep: npt.NDArray[np.bool_], factors: list[IntArray]
) -> tuple[npt.NDArray[np.bool_], IntArray]:
    """The tokens that have losses and no losses beside them, at every level that they belong to and for every seed; and
    the levels of the first factor that went."""
    keep = keep.copy()
    gone: set[int] = set()
    while True:
        before = keep.sum()
        for number, level in enumerate(factors):
            count = np.bincount(level[keep], minlength=level.max() + 1)
            lost = np.stack([np.bincount(level[keep], row[keep], minlength=level.max() + 1) for row in y])
            pure = (((lost == 0) | (lost == count)) & (count > 0)).any(0)
            keep &= ~pure[level]
            gone |= set(np.flatnonzero(pure).tolist()) if number == 0 else set()
        if keep.sum() == before:
            # a class whose tokens all went with a control's levels went too
            left = np.bincount(factors[0][keep], minlength=factors[0].max() + 1)
            return keep, np.array(sorted(gone | set(np.flatnonzero(left == 0).tolist())), np.int64)


def _design(
    names: npt.NDArray[Any],
    code: IntArray,
    controls: Mapping[str, tuple[npt.NDArray[Any], IntArray | None]],
    keep: npt.NDArray[np.bool_],
    base: str,
) -> _Design | None:
    """The columns of the tokens kept, of full rank among the controls; None if no two classes are left."""
    present = [str(n) for n in names[np.unique(code[keep])] if n != base]
    if not keep.any() or not present or len(present) == len(np.unique(code[keep])):
        return None
    columns = [np.ones((int(keep.sum()), 1))]
    for values, level in controls.values():
        columns.append(_dummies(level[keep]) if level is not None else _spline(np.asarray(values)[keep]))
    whole = np.concatenate(columns, axis=1)
    place = {n: i for i, n in enumerate(present)}
    own = np.array([place.get(str(n), -1) for n in names], np.int64)[code[keep]]
    return _Design(whole[:, _independent(whole)], present, own)


def _independent(columns: FloatArray) -> IntArray:
    """The columns that those before them do not make up, the first among them."""
    gram = _correlations(columns)
    chosen: list[int] = []
    for i in range(len(gram)):
        rest = gram[i, i]
        if chosen:
            rest -= gram[i, chosen] @ np.linalg.solve(gram[np.ix_(chosen, chosen)], gram[chosen, i])
        if rest > 1e-7:
            chosen.append(i)
    return np.array(chosen, np.int64)


def _correlations(columns: FloatArray) -> FloatArray:
    """The products of columns scaled to length 1 with each other, [K, K]; of a column of nothing, 0."""
    gram = columns.T @ columns
    scale = np.sqrt(gram.diagonal())
    scale = np.where(scale > 0, scale, 1)
    return np.asarray(gram / scale / scale[:, None], np.float64)


def _matrix(design: _Design) -> FloatArray:
    return np.concatenate([design.controls, _indicators(design)], axis=1)


def _indicators(design: _Design) -> FloatArray:
    return np.asarray(design.own[:, None] == np.arange(len(design.groups)), np.float64)


def _confounded(design: _Design) -> list[str]:
    """The classes whose coefficients other columns can make up for: those in a direction in which nothing changes."""
    values, vectors = np.linalg.eigh(_correlations(_matrix(design)))
    null = np.abs(vectors[len(design.controls[0]) :, values < 1e-9])
    return [g for g, row in zip(design.groups, null, strict=True) if row.size and row.max() > _NOTHING]


# ---- fit ------------------------------------------------------------------------------------------------------------


class _Fit(NamedTuple):
    """effect, group_value, base_value: [classes]; influence: [D, classes], of each document on the effect."""

    effect: FloatArray
    group_value: FloatArray
    base_value: FloatArray
    influence: FloatArray


def _fit(
    y: FloatArray,
    weights: FloatArray,
    design: _Design,
    documents: IntArray,
    logistic: bool,
    confidence: float,
    left_out: int,
) -> dict[str, Effect]:
    sizes = np.bincount(documents)
    sizes = sizes[sizes > 0]
    tokens, n_documents, n_seeds = len(documents), len(sizes), len(y)
    if n_documents < 2:
        return {g: _nothing("none: fewer than two documents", tokens, n_documents) for g in design.groups}
    order = np.argsort(documents, kind="stable")
    starts = np.cumsum(sizes) - sizes
    design = _Design(design.controls[order], design.groups, design.own[order])
    X = _matrix(design)
    fits = []
    weights = weights[:, order]
    for row, weight in zip(y[:, order], weights, strict=True):
        coefficients, residuals, information = _coefficients(row, weight, X, logistic)
        if coefficients is None:
            why = "none: some mixture of the columns parts what was lost from what was not"
            return {g: _nothing(why, tokens, n_documents) for g in design.groups}
        fits.append(_effects(X, weight, coefficients, residuals, information, design, starts, logistic))
    mean = _Fit(*(np.mean(np.stack(part), axis=0) for part in zip(*fits, strict=True)))
    # leaving a document out moves an effect by its influence, to first order
    without = np.stack([f.effect - f.influence * n_documents / (n_documents - 1) for f in fits])
    variance = (mean.influence**2).sum(0) * n_documents / (n_documents - 1)
    kind = "logistic" if logistic else "linear"
    aside = f", {left_out} tokens left out where all was lost or nothing" if left_out else ""
    classes = np.column_stack([design.own == -1, _indicators(design)])
    worth = effective(np.add.reduceat(classes * weights.mean(0)[:, None], starts, axis=0)) - 1
    out = {}
    for i, group in enumerate(design.groups):
        freedom = float(min(worth[0], worth[i + 1]))
        of_seeds = seeds.variance(np.array([f.effect[i] for f in fits]), [without[:, :, i]])
        spread = seeds.Spread(float(variance[i]), freedom, of_seeds, n_seeds)
        value, half = float(mean.effect[i]), math.nan
        method = f"{kind} regression, clustered by document, t, {seeds.named(n_seeds)}{aside}"
        if n_documents <= X.shape[1]:
            method = f"none: {n_documents} documents for {X.shape[1]} columns"
        elif freedom <= 0:
            method = "none: all of the class or of the base in one document"
        else:
            half = spread.half(confidence)
        p = spread.p(value) if math.isfinite(half) else math.nan
        found = Difference(value, value - half, value + half, tokens, n_documents, method, p)
        out[group] = Effect(found, float(mean.group_value[i]), float(mean.base_value[i]))
    return out


def _coefficients(
    y: FloatArray, weight: FloatArray, X: FloatArray, logistic: bool
) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    """Coefficients [K], residuals times weights [N] and information [K, K]; the first None if the fit does not end."""
    from statsmodels.discrete.discrete_model import Logit

    if not logistic:
        root = np.sqrt(weight)
        beta = np.asarray(np.linalg.lstsq(root[:, None] * X, root * y)[0], np.float64)
        return beta, weight * (y - X @ beta), X.T @ (weight[:, None] * X)
    nothing = np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is looked at here
        try:
            # the columns are independent, see _design and _confounded
            result = Logit(y, X, check_rank=False).fit(method="newton", maxiter=50, disp=0, warn_convergence=False)
        except np.linalg.LinAlgError:
            return None, nothing, nothing
    beta = np.asarray(result.params)
    p = expit(X @ beta)
    information = (X * (p * (1 - p))[:, None]).T @ X
    # at the end of a fit that has one, every coefficient has an error that is no multiple of what probabilities span
    sound = result.mle_retvals["converged"] and np.isfinite(beta).all() and np.linalg.cond(information) < 1e14
    return (beta if sound else None), y - p, information


def _effects(
    X: FloatArray,
    weight: FloatArray,
    coefficients: FloatArray,
    residuals: FloatArray,
    information: FloatArray,
    design: _Design,
    starts: IntArray,
    logistic: bool,
) -> _Fit:
    """The effects of one fit; tokens of a document stand together, from each of ``starts`` on."""
    n, k = design.controls.shape
    on_coefficients = np.linalg.solve(information, np.add.reduceat(X * residuals[:, None], starts, axis=0).T).T
    linear = design.controls @ coefficients[:k]
    as_base = expit(linear) if logistic else linear
    values: list[list[Any]] = [[], [], [], []]
    for j in range(len(design.groups)):
        moved = linear + coefficients[k + j]
        as_group = expit(moved) if logistic else moved
        each = as_group - as_base
        slope_group, slope_base = (as_group * (1 - as_group), as_base * (1 - as_base)) if logistic else (1.0, 1.0)
        gradient = np.zeros(len(coefficients))
        gradient[:k] = (slope_group - slope_base) @ design.controls / n if logistic else 0.0
        gradient[k + j] = np.mean(slope_group)
        of_tokens = np.add.reduceat(each - each.mean(), starts) / n
        means = [np.average(v, weights=weight) for v in (each, as_group, as_base)]
        found = (*means, of_tokens + on_coefficients @ gradient)
        for column, value in zip(values, found, strict=True):
            column.append(value)
    effect, group_value, base_value = (np.array(v) for v in values[:3])
    return _Fit(effect, group_value, base_value, np.stack(values[3], axis=1))
