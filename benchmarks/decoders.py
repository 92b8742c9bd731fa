"""What each decoder of a run recovers: `python -m benchmarks.decoders runs/best-mini docs/results/best.md`.

Writes tables of Markdown between the lines ``<!-- tables -->`` and ``<!-- end of tables -->`` of the page, from the
run's ``estimates.parquet`` and ``convergence.parquet``; decoders in the order of the study.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mnemoscope.errors import RunError
from mnemoscope.report import words
from mnemoscope.rundir import RunDir, write_atomically
from mnemoscope.stats.bootstrap import generator, ratio_intervals

BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
METRICS = {
    "retention": "Information kept (retention), in per cent",
    "nats": "Nats a token, the ones before it told",
    "omission_in_place": "Tokens lost from their place, in per cent",
    "omission_anywhere": "Tokens lost anywhere, in per cent",
    "exact": "Windows written back exactly, in per cent",
}
TOLD = ("retention", "nats")
Row = dict[str, Any]
FloatArray = npt.NDArray[np.float64]


def tables(run: RunDir) -> Iterator[str]:
    """Lines.  Of several seeds all together; under the memory, and the decoder that guesses under ``none``."""
    estimates = pl.read_parquet(run.path / "estimates.parquet").filter(by="all", seed="all")
    guesses = run.study.estimate.guesses
    for metric, title in METRICS.items():
        here = estimates.filter(metric=metric)
        # told the tokens before, a search has nothing to choose
        told = {d.name for d in run.study.decoders if d.search != "greedy"} if metric in TOLD else set()
        rows = {
            (row["decoder"], row["length"]): row
            for row in here.iter_rows(named=True)
            if row["condition"] == ("none" if row["decoder"] == guesses else "memory") and row["decoder"] not in told
        }
        yield from _table(title, rows, run, words.units(metric))
    yield from _limits(run)


def _table(title: str, rows: dict[tuple[str, int], Row], run: RunDir, counted: str) -> Iterator[str]:
    lengths = sorted({length for _, length in rows})
    decoders = [d.name for d in run.study.decoders if any(name == d.name for name, _ in rows)]
    yield f"**{title}**\n"
    yield "| decoder | " + " | ".join(str(length) for length in lengths) + " |"
    yield "| --- |" + " ---: |" * len(lengths)
    for name in decoders:
        yield f"| {name} | " + " | ".join(cell(rows.get((name, length))) for length in lengths) + " |"
    some = [next(r for (_, n), r in rows.items() if n == length) for length in lengths]
    yield "| *documents* | " + " | ".join(f"{r['n_documents']:,}" for r in some) + " |"
    yield f"| *{counted}s* | " + " | ".join(f"{r['n_tokens']:,}" for r in some) + " |\n"


def _limits(run: RunDir) -> Iterator[str]:
    """Where the learning curves go, where they tell."""
    if not (run.path / "convergence.parquet").exists():
        return
    table = pl.read_parquet(run.path / "convergence.parquet").filter(kind="asymptote", metric="retention", seed="all")
    rows = {(r["decoder"], r["length"]): r for r in table.iter_rows(named=True)}
    title = "Retention after endless training, drawn out from the learning curves, in per cent; –: they tell of no end"
    yield from _table(title, rows, run, words.units("retention"))


def cell(row: Row | None) -> str:
    """The value with its interval; a dash where there is none."""
    if row is None or not math.isfinite(row["value"]):
        return "–"
    digits = 1 if row["unit"] == "fraction" else 2
    value = words.number(row["value"], row["unit"], digits)
    return f"{value} ({words.interval(row, digits)})".replace(words.PERCENT, "")


def ratios(num: FloatArray, den: FloatArray, documents: list[str], seed: int) -> list[str]:
    """Ratios of sums over documents [n, k] with their intervals, as cells."""
    found = ratio_intervals(num, den, confidence=0.95, resamples=2000, rng=generator(seed, documents))
    spread = zip(found.value, found.low, found.high, strict=True)
    return [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in spread]


def put(page: Path, lines: str) -> None:
    """Replaces what stands between the marks.

    Raises:
        RunError: the page has not both.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RunError("the page lacks the marks of its tables", remedy=f"Write {BEGIN} and {END} on it", file=page)
    write_atomically(page, f"{before}{BEGIN}\n\n{lines}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("page", type=Path, help="Markdown file that has the marks")
    given = parser.parse_args()
    put(given.page, "\n".join(tables(RunDir.open(given.run))))


if __name__ == "__main__":
    main()
