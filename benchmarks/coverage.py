"""How often intervals hold the truth: `python -m benchmarks.coverage docs/results/coverage.md` writes the table again.

Simulated corpora whose tokens are clustered as real ones are: documents differ in size by a factor of ten and more, a
class of tokens is rare and unevenly spread, what a document's tokens share decides how many are lost, and long
documents lose more.  The truth is that of four million documents.  Beside ours stands the t-test that takes every token
for independent (as the published analysis does), and what the intervals would be without their corrections.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import expit

from mnemoscope.stats.bootstrap import FloatArray, ratio_intervals
from mnemoscope.stats.compare import difference
from mnemoscope.stats.estimate import Sums

CORPORA = 2000
_TRUTH = 4_000_000
#: standard deviation, in logits, of what a decoder seed does to one class and not to the other
_LUCK = 0.15

Ends = tuple[float, float]


def corpus(rng: np.random.Generator, documents: int, seeds: int = 1, luck: float = 0.0) -> FloatArray:
    """[S, D, 4]: of each decoder seed and document the tokens of a rare class that were lost, its tokens, and the same
    of all other tokens."""
    size = np.exp(rng.normal(4.5, 0.6, documents)).astype(int) + 8
    rare = rng.binomial(size, rng.beta(1, 9, documents))
    shared = rng.normal(0, 0.7, documents) + 0.3 * (np.log(size) - 4.5)
    own = rng.normal(0, 0.4, documents)
    out = np.empty((seeds, documents, 4))
    for s, of_seed in enumerate(rng.normal(0, luck, seeds)):
        lost = rng.binomial(rare, expit(-0.6 + shared + own + of_seed))
        out[s] = np.stack([lost, rare, rng.binomial(size - rare, expit(-1.2 + shared)), size - rare], axis=1)
    return out


def truth(luck: float = 0.0) -> float:
    """The difference of the two shares lost, of all documents and all seeds there could be."""
    rng = np.random.default_rng(0)
    return float(np.mean([_ratio(corpus(rng, _TRUTH // 1000, 1, luck)[0].sum(0)) for _ in range(1000)]))


def _ratio(sums: FloatArray) -> float:
    return float(sums[0] / sums[1] - sums[2] / sums[3])


def sides(found: FloatArray, apart: bool = False) -> tuple[Sums, Sums]:
    """Both classes as the package's sums, of documents where either is, named alike or as if of two corpora."""
    pooled = found.sum(0)

    def side(first: int, name: str) -> Sums:
        here = np.flatnonzero(pooled[:, first + 1])
        documents = [f"{name}{i:05d}" for i in here]
        by_seed = found[:, here, first : first + 2]
        return Sums({}, documents, pooled[here, first], pooled[here, first + 1], int(by_seed[0, :, 1].sum()), by_seed)

    return side(0, "d"), side(2, "e" if apart else "d")


def ours(found: FloatArray, apart: bool = False) -> Ends:
    end = difference(*sides(found, apart), confidence=0.95)
    return end.low, end.high


def of_tokens(found: FloatArray) -> Ends:
    """Student's t, equal variances, over one 0 or 1 a token."""
    lost_a, n_a, lost_b, n_b = found[0].sum(0)
    p, q = lost_a / n_a, lost_b / n_b
    pooled = (n_a * p * (1 - p) + n_b * q * (1 - q)) / (n_a + n_b - 2)
    half = stats.t.ppf(0.975, n_a + n_b - 2) * np.sqrt(pooled * (1 / n_a + 1 / n_b))
    return p - q - half, p - q + half


def share(documents: int, corpora: int) -> tuple[float, float]:
    """Coverage of an estimate, the share of the rare class that is lost: BCa as the package widens it, and the same
    percentile levels unwidened."""
    rng = np.random.default_rng(1)
    big = corpus(rng, _TRUTH)[0].sum(0)
    expected = big[0] / big[1]
    hits = [0, 0]
    for seed in range(corpora):
        rng = np.random.default_rng([2, documents, seed])
        lost, there = corpus(rng, documents)[0, :, :2].T
        lost, there = lost[there > 0], there[there > 0]
        found = ratio_intervals(lost[:, None], there[:, None], confidence=0.95, resamples=999, rng=rng)
        hits[0] += bool(found.low[0] <= expected <= found.high[0])
        drawn = rng.integers(len(lost), size=(999, len(lost)))
        ends = np.quantile(lost[drawn].sum(1) / there[drawn].sum(1), [0.025, 0.975])
        hits[1] += bool(ends[0] <= expected <= ends[1])
    return hits[0] / corpora, hits[1] / corpora


def coverage(
    make: Callable[[np.random.Generator], FloatArray],
    expected: float,
    method: Callable[[FloatArray], Ends],
    corpora: int,
) -> float:
    """The share of simulated corpora whose interval holds the truth."""
    hits = 0
    for seed in range(corpora):
        low, high = method(make(np.random.default_rng([1, seed])))
        hits += low <= expected <= high
    return hits / corpora


def table(corpora: int) -> list[str]:
    """The page, line by line."""
    shown = lambda value: f"{100 * value:.1f} %"  # noqa: E731
    error = 100 * np.sqrt(0.95 * 0.05 / corpora)
    lines = [
        "# How often a 95 % interval holds the truth\n",
        f"Made by `python -m benchmarks.coverage`; {corpora:,} simulated corpora a row (binomial error of a coverage "
        f"of 95 %: {error:.1f} points), described in `benchmarks/coverage.py`.\n",
        "## Differences between two classes of tokens\n",
        "| documents | design | ours | Student's t over tokens |",
        "| ---: | --- | ---: | ---: |",
    ]
    expected = truth()
    for documents in (10, 20, 50, 100, 200, 1000):
        make = lambda rng, n=documents: corpus(rng, n)  # noqa: E731
        apart = lambda rng, n=documents: _mixed(corpus(rng, n), corpus(rng, n))  # noqa: E731
        lines.append(
            f"| {documents} | both classes in the same documents | {shown(coverage(make, expected, ours, corpora))} "
            f"| {shown(coverage(make, expected, of_tokens, corpora))} |"
        )
        lines.append(
            f"| {documents} each | documents of each class apart "
            f"| {shown(coverage(apart, expected, lambda x: ours(x, True), corpora))} "
            f"| {shown(coverage(apart, expected, of_tokens, corpora))} |"
        )
    lines += [
        "\n## Decoder seeds\n",
        f"Three seeds read the same documents; each loses the rare class by a measure of its own (standard deviation "
        f"{_LUCK} logits).\n",
        "| documents | seeds as a second level | seeds pooled, their spread ignored | Student's t over tokens |",
        "| ---: | ---: | ---: | ---: |",
    ]
    expected = truth(_LUCK)
    for documents in (20, 100, 1000):
        make = lambda rng, n=documents: corpus(rng, n, 3, _LUCK)  # noqa: E731
        both = coverage(make, expected, ours, corpora)
        ignored = coverage(make, expected, lambda x: ours(x.sum(0, keepdims=True)), corpora)
        tokens = coverage(make, expected, lambda x: of_tokens(x.sum(0, keepdims=True)), corpora)
        lines.append(f"| {documents} | {shown(both)} | {shown(ignored)} | {shown(tokens)} |")
    lines += [
        "\n## Single shares\n",
        "The share of the rare class that is lost, by the bootstrap.\n",
        "| documents | BCa widened to t of the effective documents | percentile bootstrap |",
        "| ---: | ---: | ---: |",
    ]
    for documents in (10, 20, 50, 100, 200):
        lines.append("| {} | {} | {} |".format(documents, *map(shown, share(documents, corpora))))
    return [*lines, ""]


def _mixed(a: FloatArray, b: FloatArray) -> FloatArray:
    """The rare class of one corpus beside the other tokens of another."""
    return np.concatenate([a[..., :2], b[..., 2:]], axis=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="Markdown file to write")
    parser.add_argument("--corpora", type=int, default=CORPORA)
    arguments = parser.parse_args()
    arguments.target.write_text("\n".join(table(arguments.corpora)), encoding="utf-8")
