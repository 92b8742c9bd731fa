"""convergence.parquet -> charts: how far from converged the decoders are.  Pure functions.

A loss is an upper bound on what was forgotten; these say how much of it more training would have read.
"""

from __future__ import annotations

import polars as pl

from mnemoscope.report import words
from mnemoscope.report.charts import PALETTE, Chart, Panel, band, series

#: shown, the first that a decoder has: bits need a decoder that was trained without memory
_METRICS = ("retention", "nats")
#: lines of the chart by length
_KINDS = {"learning": "after training", "asymptote": "extrapolated", "prequential": "learning counted"}
#: on the axis of tokens, before there are powers of ten alone
_TICKS = 7


def of_training(convergence: pl.DataFrame, decoders: list[str]) -> list[Chart]:
    """What is kept against tokens of training, and where that is going, under the real memory, seeds pooled.

    Args:
        convergence: by ``schema.CONVERGENCE``.
        decoders: that are to be shown, in order; those that training was not evaluated for have no panel.
    """
    pooled = convergence.filter(seed="all", condition="memory")
    shown = []
    for decoder in decoders:
        rows = pooled.filter(decoder=decoder)
        metric = next((m for m in _METRICS if m in set(rows["metric"])), None)
        if metric is not None:
            shown.append((decoder, rows.filter(metric=metric)))
    if not shown:
        return []
    return [_against_tokens(shown), _against_length(shown)]


def _title(metric: str, decoder: str, among: int) -> str:
    return words.name(metric) + (f", decoder {decoder}" if among > 1 else "")


def _against_tokens(shown: list[tuple[str, pl.DataFrame]]) -> Chart:
    panels, seen = [], []
    for decoder, rows in shown:
        # the point before the first step has no place on a logarithmic axis
        points = rows.filter(pl.col("kind") == "learning", pl.col("tokens") > 0).sort("tokens")
        lines = []
        for i, length in enumerate(points["length"].unique().sort()):
            line = points.filter(length=length)
            seen += line["tokens"].to_list()
            lines.append(
                series(line, words.count(length, "token"), PALETTE[i % len(PALETTE)], line["tokens"].to_list())
            )
        metric = rows["metric"][0]
        panels.append(Panel(_title(metric, decoder, len(shown)), metric, rows["unit"][0], lines))
    caption = (
        "Held-out text, measured while the decoder trained; the prior is the fully trained decoder’s. A line that "
        "still rises belongs to a decoder that could read more."
    )
    return Chart(
        "convergence",
        "What is kept, as the decoder learns to read",
        caption,
        "lines",
        "window tokens seen in training",
        panels,
        band(shown[0][1]),
        _round(min(seen), max(seen)),
    )


def _round(least: int, most: int) -> tuple[float, ...]:
    """Few round numbers, the first no more than the least and the last no less than the most."""
    for steps in ((1, 2, 5), (1,)):
        numbers = [float(m * 10**k) for k in range(19) for m in steps]
        first = max(i for i, n in enumerate(numbers) if n <= least)
        last = min(i for i, n in enumerate(numbers) if n >= most)
        if last - first < _TICKS:
            break
    return tuple(numbers[first : last + 1])


def _against_length(shown: list[tuple[str, pl.DataFrame]]) -> Chart:
    panels, lengths, unknown = [], set(), []
    for decoder, rows in shown:
        last = rows.filter((pl.col("kind") != "learning") | (pl.col("tokens") == pl.col("tokens").max().over("length")))
        lines = []
        for i, (kind, label) in enumerate(_KINDS.items()):
            line = last.filter(kind=kind).sort("length")
            lengths |= set(line["length"])
            unknown += [
                f"{words.count(r['length'], 'token')} ({decoder}): {r['method'].removeprefix('none: ')}"
                for r in line.filter(pl.col("value").is_nan()).iter_rows(named=True)
            ]
            known = line.filter(pl.col("value").is_not_nan())
            if known.height:
                lines.append(series(known, label, PALETTE[i], known["length"].to_list()))
        metric = rows["metric"][0]
        panels.append(Panel(_title(metric, decoder, len(shown)), metric, rows["unit"][0], lines))
    caption = (
        "Where the curves are going, if they follow a + b · tokens^−c for ever; and what is kept on average while the "
        "decoder learns (the prequential code), in which who learns sooner does better."
    )
    if unknown:
        caption += f" Not known, and so not drawn: {'; '.join(unknown)}."
    return Chart(
        "asymptote",
        "What more training would read",
        caption,
        "lines",
        "window length, tokens",
        panels,
        band(shown[0][1]),
        tuple(float(n) for n in sorted(lengths)),
    )
