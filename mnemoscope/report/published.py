"""What was published (arXiv 2512.15653), to be laid beside ours where the metric is the same by definition.

The numbers are in ``published.json``, each group of them with what it measures; they come without intervals.  Other
models, other texts and another training of the decoders stand behind them: only shapes can be compared.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from math import nan
from typing import Any

from mnemoscope.report import words
from mnemoscope.report.charts import PALETTE, Panel, Point, Series

#: where they come from
SOURCE = "arXiv 2512.15653"
#: said wherever the published ROUGE-1 stands beside ours
ROUGE = (
    f"Published ({SOURCE}): ROUGE-1 F1 of Mamba, other texts, without intervals. Ours leaves out windows that hold no "
    "word of ASCII letters or digits, which the library rouge-score counts as 0."
)
#: tokens of a passage whose perplexity was published
PASSAGES = 256
#: said beside published omission by class
OMISSION = (
    f"Published ({SOURCE}): CoNLL-2003, 256 tokens, without intervals; ours beside it is the same measure, first "
    "decoder seed, and has no interval either."
)
#: passages behind a published bin of perplexity, for the bin to be shown
_LEAST = 10
_COLOURS = {"130m": "#117733", "370m": "#56B4E9", "790m": "#E69F00", "1.4b": "#882255"}


@cache
def _numbers() -> Any:
    return json.loads(resources.files("mnemoscope.report").joinpath("published.json").read_text(encoding="utf-8"))


def rouge(by: str) -> list[Panel]:
    """ROUGE-1 by window length, a line per model (``length``), or a panel per model and a line per group (``domain``,
    ``dialect``); on the scale ``rouge1``."""
    found, names = _numbers()["rouge1"][by], _numbers()["models"]
    if by == "length":
        lines = [_over_length(names[size], _COLOURS[size], values) for size, values in found.items()]
        return [Panel("ROUGE-1, published", "rouge1", "fraction", lines)]
    panels = []
    for size, groups in found.items():
        lines = [
            _over_length(group.replace("_", " "), PALETTE[i % len(PALETTE)], values)
            for i, (group, values) in enumerate(groups.items())
        ]
        panels.append(Panel(f"ROUGE-1, published, {names[size]}", "rouge1", "fraction", lines))
    return panels


def _over_length(label: str, colour: str, values: dict[str, float]) -> Series:
    return Series(label, colour, [_point(float(length), value / 100) for length, value in values.items()])


def _point(x: float | str, value: float, note: str = "not published") -> Point:
    return Point(x, value, nan, nan, note)


def omission(by: str, length: int, groups: list[str]) -> list[Series]:
    """The published omission rate of words by class (``pos``, ``entity``), of those of ``groups`` that it has, a
    series per model; none at other lengths than that published."""
    found = _numbers()["omission_published"]
    if by not in ("pos", "entity") or length != found["length"]:
        return []
    out = []
    for size, rates in found[by].items():
        called = {found["called"].get(label, label): rate / 100 for label, rate in rates.items()}
        points = [_point(group, called[group]) for group in groups if group in called]
        if points:
            out.append(Series(f"published, {_numbers()['models'][size]}", _COLOURS[size], points))
    return out


def losses(bins: list[tuple[int, int]], length: int) -> list[Series]:
    """The share of all omitted tokens in each bin of positions (0-based, both ends inclusive); none unless the bins
    are those published."""
    out = []
    for size, by_length in _numbers()["lost_by_position"].items():
        omitted = by_length.get(str(length), []) if size in _COLOURS else []
        width = length // len(omitted) if omitted else 0
        if omitted and bins == [(i * width, (i + 1) * width - 1) for i in range(len(omitted))]:
            points = [
                _point((lo + hi) / 2, n / sum(omitted), words.count(n, "token"))
                for (lo, hi), n in zip(bins, omitted, strict=True)
            ]
            out.append(Series(f"published, {_numbers()['models'][size]}", _COLOURS[size], points))
    return out


def by_perplexity(tab: str) -> Panel:
    """Omission of passages by their perplexity: another quantity than a token's surprisal, on an axis of its own."""
    bins = _numbers()["omission_by_perplexity"]["bins"]
    points = [_point(low + 2.5, v / 100, words.count(n, "passage")) for low, n, v in bins if n >= _LEAST]
    line = Series("published", _COLOURS["130m"], points)
    label = "perplexity of the passage"
    return Panel("words lost, published", "omission_in_place", "fraction", [line], tab, label)
