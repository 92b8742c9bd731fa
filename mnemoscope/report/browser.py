"""The windows that the page lets one browse: text, reconstruction, and what each token cost with and without memory.

A page holds so many windows that their data stay below a budget; which ones, a seed decides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tokenizers import decoders as spelling

from mnemoscope.report import words
from mnemoscope.stats.estimate import annotated, with_group

#: bytes of the windows' data, most of what the page weighs beside plotly's 5 MB
BUDGET = 5_000_000
#: windows of one length and domain, at most
MOST = 2_000
#: characters of a token, a name, and a reconstruction that are shown, at most
_PIECE, _NAME, _TEXT = 200, 200, 20_000
_MATCH, _SUBSTITUTE, _OMIT = "m", "s", "o"
_NAMES = ("window_id", "doc_id", "domain", "source", "dialect")


def payload(
    run_folder: Path, decoders: list[str], seed: int, annotations: Iterable[str] = (), budget: int | None = None
) -> dict[str, Any]:
    """What the page's script needs, as JSON; empty lists if there is no window.

    ``decoders`` keep their order; ``windows`` come in one drawn at random.  A window's
    ``runs["<decoder>/<condition>"]`` hold the reconstruction's ``text``, a letter per token in ``ops`` (m, s, o:
    match, substitute, omit; capital: written, but elsewhere), ``cost``, hundredths of a bit per token (-log2 p;
    null if missing), and what was ``written`` for each token (0: the token itself; the first of those that spell one
    character has it for all), which is absent of runs scored by a version that did not keep it.  Bits retained are a
    difference of two costs.  Of a decoder's seeds, the least is
    shown.  ``labels["<annotation>"]`` of a window are places in ``classes["<annotation>"]``, a token each (-1: none).

    Args:
        annotations: those whose labels are wanted; one that the run has not is left out.
        budget: bytes of windows, instead of ``BUDGET``.
    """
    table = pl.scan_parquet(run_folder / "reconstructions.parquet")
    least = table.group_by("decoder").agg(pl.col("seed").min())
    shown = table.filter(pl.col("decoder").is_in(decoders)).join(least, on=["decoder", "seed"])
    wanted = [name for name in annotations if name in annotated(run_folder)]
    known = shown.select("window_id", "length", "domain", *_bytes(len(wanted)))
    known = known.group_by("window_id", "length", "domain").agg(pl.col("own").first(), pl.col("run").sum())
    of = known.collect().sort("length", "domain", "window_id")
    chosen, cap = _choose(of, seed, BUDGET if budget is None else budget)
    rows = shown.filter(pl.col("window_id").is_in(chosen)).collect().sort("decoder", "condition")
    scanned = pl.scan_parquet(run_folder / "tokens.parquet")
    columns = ["char_start", "char_end", "token", "operation", "recovered_anywhere", "nats"]
    columns += ["written"] if "written" in scanned.collect_schema().names() else []
    mine = scanned.filter(pl.col("window_id").is_in(chosen)).join(least, on=["decoder", "seed"])
    tokens = (
        mine.sort("position")
        .group_by("window_id", "decoder", "condition", maintain_order=True)
        .agg(columns)
        .collect(engine="streaming")
    )
    by_run = {(t["window_id"], t["decoder"], t["condition"]): t for t in tokens.iter_rows(named=True)}
    windows: dict[str, dict[str, Any]] = {}
    for row in rows.iter_rows(named=True):
        found = by_run.get((row["window_id"], row["decoder"], row["condition"]))
        if found is None:
            continue
        cut = pieces(row["reference"], found["char_start"], found["char_end"])
        window = windows.setdefault(
            row["window_id"],
            {
                **{c: words.clipped(row[c], _NAME) for c in _NAMES},
                "length": row["length"],
                "pieces": [words.clipped(p, _PIECE) for p in cut],
                "labels": {},
                "runs": {},
            },
        )
        window["runs"][f"{row['decoder']}/{row['condition']}"] = {
            "text": words.clipped(row["reconstruction"], _TEXT),
            "ops": "".join(map(_letter, found["operation"], found["recovered_anywhere"])),
            "cost": [round(100 * n / math.log(2)) if math.isfinite(n) else None for n in found["nats"]],
            **({"written": _written(found, cut)} if "written" in found else {}),
        }
    classes = {name: _label(run_folder, mine, name, windows) for name in wanted}
    return {
        "decoders": decoders,
        "windows": [windows[w] for w in chosen if w in windows],
        "classes": {name: labels for name, labels in classes.items() if labels},
        "cap": cap,
        "of": of.height,
        "seeds": {d: s for d, s in sorted(least.collect().rows()) if d in decoders},
    }


def nothing(decoders: list[str]) -> dict[str, Any]:
    """The payload of a page that shows no text."""
    return {"decoders": decoders, "windows": [], "classes": {}, "cap": 0, "of": 0, "seeds": {}}


def _bytes(labels: int) -> tuple[pl.Expr, pl.Expr]:
    """About how many bytes of data a window takes (``own``), and one of its runs (``run``)."""
    length = pl.col("length").cast(pl.Int64)

    def most(column: str, characters: pl.Expr | int) -> pl.Expr:
        return pl.min_horizontal(pl.col(column).str.len_bytes().cast(pl.Int64), 2 * characters)

    # a piece has quotes and a comma, a label two or three digits; a run has a cost, a letter, its text, and that again
    # token by token
    own = 300 + most("reference", _PIECE * length) + (3 + 3 * labels) * length
    run = 60 + most("reconstruction", _TEXT) + most("reconstruction", _PIECE * length) + 8 * length
    return own.alias("own"), run.alias("run")


def _choose(known: pl.DataFrame, seed: int, budget: int) -> tuple[list[str], int]:
    """Window ids in random order, and the cap per length and domain that keeps them in budget."""
    cells: dict[tuple[int, str], list[tuple[str, int]]] = defaultdict(list)
    for window, length, domain, own, run in known.rows():
        cells[length, domain].append((window, own + run))
    rng = np.random.default_rng([seed % 2**64, 1])
    mixed = {cell: [ids[i] for i in rng.permutation(len(ids))] for cell, ids in sorted(cells.items())}
    # what the next window of every cell would add, cap by cap
    deepest = min(MOST, max(map(len, mixed.values()), default=0))
    weight = cap = 0
    while cap < deepest:
        weight += sum(ids[cap][1] for ids in mixed.values() if len(ids) > cap)
        if weight > budget and cap:
            break
        cap += 1
    chosen = [window for ids in mixed.values() for window, _ in ids[:cap]]
    return [str(w) for w in rng.permutation(chosen)], cap


def _label(run_folder: Path, tokens: pl.LazyFrame, name: str, windows: dict[str, dict[str, Any]]) -> list[str]:
    """Puts the annotation's labels into the windows, and returns what they are called."""
    once = tokens.select("doc_id", "window_id", "char_start", "char_end", "token", "length", "position").unique()
    found = with_group(once, run_folder, name, 1).select("window_id", "position", "group").collect()
    labels = sorted(set(found["group"]))
    number = {label: i for i, label in enumerate(labels)}
    for window, position, group in found.rows():
        if window in windows:
            of = windows[window]["labels"].setdefault(name, [-1] * windows[window]["length"])
            of[position] = number[group]
    return list(words.names(labels).values())


def pieces(reference: str, start: list[int], end: list[int]) -> list[str]:
    """The window's text cut at its tokens: together the pieces are the text.

    What lies between two tokens goes to the later one.  A character that several tokens spell goes to the first of
    them, and the piece of each other is empty: they are shown as one (:func:`wholes`).
    """
    out, shown = [], start[0]
    for last in end:
        out.append(reference[shown - start[0] : max(shown, last) - start[0]])
        shown = max(shown, last)
    return out


def wholes(pieces: list[str]) -> list[range]:
    """The tokens that are shown as one: each with those after it whose pieces are empty."""
    begins = [i for i, piece in enumerate(pieces) if piece or i == 0]
    return [range(*ends) for ends in pairwise([*begins, len(pieces)])]


def _written(tokens: dict[str, Any], pieces: list[str]) -> list[str | int]:
    """What was written for each token, as text; 0 for the token itself.  Of tokens that are shown as one, the first
    has what was written for all."""
    out: list[str | int] = [0] * len(pieces)
    for whole in wholes(pieces):
        written = [tokens["written"][i] for i in whole]
        if written != [tokens["token"][i] for i in whole]:
            out[whole.start : whole.stop] = [
                words.clipped(unspelled("".join(written)), _PIECE),
                *[""] * (len(whole) - 1),
            ]
    return out


def unspelled(token: str) -> str:
    """The text of a token, or several, as a byte-level tokenizer or SentencePiece spells it; bytes that are no text
    become U+FFFD."""
    text: str = spelling.ByteLevel().decode([token])
    return text.replace("▁", " ")


def _letter(operation: str, anywhere: bool) -> str:
    letter = {"match": _MATCH, "substitute": _SUBSTITUTE, "omit": _OMIT}[operation]
    return letter.upper() if anywhere and letter != _MATCH else letter
