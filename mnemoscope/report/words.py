"""Numbers as people read them: percent, intervals, counts.  Every number on the page is written here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mnemoscope import plugins

#: what a metric is called; a metric that is not listed goes by the name of its file
NAMES = {
    "retention": "information kept",
    "bits_retained": "bits kept per token",
    "omission_in_place": "tokens lost from their place",
    "omission_anywhere": "tokens lost anywhere",
    "omission_words": "words lost anywhere",
    "omission_published": "words lost, as published",
    "certainly_lost": "tokens certainly lost",
    "lost_to_noise": "lost to noise (chances of error, added)",
    "exact": "windows written back exactly",
    "bits_per_character": "bits kept per character",
    "omission_of_characters": "characters lost from their place",
    "nats": "nats per token",
    "token_accuracy": "tokens right when told the ones before",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}
#: what the decoder was given under a condition, by its file; {} stands for the argument, and one not listed goes by its
#: name alone
GIVEN = {
    "ssm_only": "the recurrent (SSM) states only",
    "conv_only": "the convolution states only",
    "layers": "the memory of layers {} only, counted from 0",
    "layer_out": "the memory but for that of layer {}, counted from 0",
    "bits": "the memory with {} bits a number",
    "noise": "the memory with Gaussian noise of {} times its standard deviation",
    "random_encoder": "the memory of a model that was never trained",
}
PERCENT = "\u202f%"


def name(metric: str) -> str:
    return NAMES.get(metric, metric.replace("_", " "))


def given(condition: str) -> str:
    """What the decoder got under a condition, in words, and which decoder where it is not its own; empty if there are
    no words for it."""
    own, _, decoder = condition.partition("@")
    name, _, argument = own.partition(":")
    if name not in GIVEN and not decoder:
        return ""
    what = GIVEN[name].format(argument.replace("-", " to ")) if name in GIVEN else own
    return f"{what}, given to the decoder that was trained under {decoder}" if decoder else what


def number(value: float, unit: str, digits: int = 1) -> str:
    """Fractions in percent with ``digits`` decimals, the rest with one more; a true minus; a dash for NaN."""
    if value != value:
        return "–"
    scaled, digits, suffix = (100 * value, digits, PERCENT) if unit == "fraction" else (value, digits + 1, "")
    scaled = round(scaled, digits) + 0.0  # no minus zero
    return f"{scaled:.{digits}f}".replace("-", "−") + suffix


def interval(row: dict[str, Any], digits: int = 1) -> str:
    """``low to high`` of an estimate, or why there is none."""
    if row["low"] != row["low"]:
        return "no interval: one document" if row["n_documents"] == 1 else "no interval"
    low, high = (number(row[end], row["unit"], digits) for end in ("low", "high"))
    return f"{low.removesuffix(PERCENT)} to {high}"


def counted(row: dict[str, Any]) -> str:
    """n of an estimate: ``2,304 tokens, 12 documents``."""
    return f"{count(row['n_tokens'], units(row['metric']))}, {count(row['n_documents'], 'document')}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def spans(notes: Iterable[str]) -> str:
    """Of several ``counted`` or ``count``: ``16 to 2,304 tokens, 12 documents``; empty if there is none."""
    found: dict[str, list[int]] = {}
    for number, noun in (m.groups() for note in notes for m in re.finditer(r"([\d,]*\d) (\w+)", note)):
        found.setdefault(noun.removesuffix("s"), []).append(int(number.replace(",", "")))
    parts = []
    for noun, numbers in found.items():
        low, high = min(numbers), max(numbers)
        parts.append(count(high, noun) if low == high else f"{low:,} to {count(high, noun)}")
    return ", ".join(parts)


def units(metric: str) -> str:
    """What n counts, in the singular."""
    if metric in ("omission_words", "omission_published"):
        return "word"
    if metric == "whole":
        return "fact"
    if metric in ("bits_per_character", "omission_of_characters"):
        return "character"
    # no files of score/metrics: of a certificate, and of a bracket
    if metric in ("certainly_lost", "lost_to_noise", "written_back"):
        return "token"
    return str(plugins.load("metric", metric).level)


def aside(row: dict[str, Any]) -> str:
    """Interval and n in one line."""
    return f"{interval(row)}; {counted(row)}"


def clipped(text: str, most: int) -> str:
    """A text of ``most`` characters and how many there are, where there are more."""
    return text if len(text) <= most else f"{text[:most]}… ({count(len(text), 'character')})"


def names(texts: Iterable[str], most: int = 80) -> dict[str, str]:
    """Each text with one to show for it, of at most about ``most`` characters; those of different texts differ."""
    out: dict[str, str] = {}
    shown: set[str] = set()
    for text in dict.fromkeys(texts):
        name = stem = clipped(text, most)
        again = 1
        while name in shown:
            again += 1
            name = f"{stem} #{again}"
        shown.add(name)
        out[text] = name
    return out


def p_value(p: float) -> str:
    return "–" if p != p else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def effect(row: dict[str, Any]) -> dict[str, str]:
    """A row of effects.parquet as texts."""
    kind = f"{row['kind']} ({row['controls']})" if row["controls"] else row["kind"]
    return {
        **{c: str(row[c]) for c in ("decoder", "length", "by", "group", "base")},
        "kind": kind,
        "metric": name(row["metric"]) + (", without memory" if row["condition"] == "none" else ""),
        "value": number(row["value"], row["unit"]),
        "interval": interval(row) if row["low"] == row["low"] else row["method"].removeprefix("none: "),
        "p": p_value(row["p_adjusted"]),
        "size": "–" if not row["size_kind"] else f"{row['size_kind']} = {row['size']:.2f}".replace("-", "−"),
        "n": counted(row),
    }
