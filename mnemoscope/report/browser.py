"""The windows that the page lets one browse: text, reconstruction, and what each token cost with and without memory.

A page holds so many windows that their data stay below a budget; which ones, a seed decides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

#: bytes of the windows' data, most of what the page weighs beside plotly's 5 MB
BUDGET = 5_000_000
#: windows of one length and domain, at most
MOST = 40
_MATCH, _SUBSTITUTE, _OMIT = "m", "s", "o"


def payload(run_folder: Path, decoders: list[str], seed: int) -> dict[str, Any]:
    """What the page's script needs, as JSON; empty lists if there is no window.

    ``decoders`` keep their order; ``windows`` come in one drawn at random.  A window's
    ``runs["<decoder>/<condition>"]`` hold the reconstruction's ``text``, a letter per token in ``ops`` (m, s, o:
    match, substitute, omit; capital: written, but elsewhere) and ``cost``, hundredths of a bit per token (-log2 p;
    null if missing).  Bits retained are a difference of two costs.  Of a decoder's seeds, the least is shown.
    """
    table = pl.scan_parquet(run_folder / "reconstructions.parquet")
    least = table.group_by("decoder").agg(pl.col("seed").min())
    shown = table.filter(pl.col("decoder").is_in(decoders)).join(least, on=["decoder", "seed"])
    known = shown.select("window_id", "length", "domain").unique().collect().sort("length", "domain", "window_id")
    runs = shown.select("decoder", "condition").unique().collect().height
    chosen, cap = _choose(known, runs, seed)
    rows = shown.filter(pl.col("window_id").is_in(chosen)).collect().sort("decoder", "condition")
    tokens = (
        pl.scan_parquet(run_folder / "tokens.parquet")
        .filter(pl.col("window_id").is_in(chosen))
        .join(least, on=["decoder", "seed"])
        .sort("position")
        .group_by("window_id", "decoder", "condition", maintain_order=True)
        .agg("char_start", "char_end", "token", "operation", "recovered_anywhere", "nats")
        .collect()
    )
    by_run = {(t["window_id"], t["decoder"], t["condition"]): t for t in tokens.iter_rows(named=True)}
    windows: dict[str, dict[str, Any]] = {}
    for row in rows.iter_rows(named=True):
        of = by_run.get((row["window_id"], row["decoder"], row["condition"]))
        if of is None:
            continue
        window = windows.setdefault(
            row["window_id"],
            {
                **{c: row[c] for c in ("window_id", "doc_id", "length", "domain", "source", "dialect")},
                "pieces": pieces(row["reference"], of["char_start"], of["char_end"], of["token"]),
                "runs": {},
            },
        )
        window["runs"][f"{row['decoder']}/{row['condition']}"] = {
            "text": row["reconstruction"],
            "ops": "".join(map(_letter, of["operation"], of["recovered_anywhere"])),
            "cost": [round(100 * n / math.log(2)) if math.isfinite(n) else None for n in of["nats"]],
        }
    order = [w for w in chosen if w in windows]
    return {
        "decoders": decoders,
        "windows": [windows[w] for w in order],
        "cap": cap,
        "of": known.height,
        "seeds": {d: s for d, s in sorted(least.collect().rows()) if d in decoders},
    }


def nothing(decoders: list[str]) -> dict[str, Any]:
    """The payload of a page that shows no text."""
    return {"decoders": decoders, "windows": [], "cap": 0, "of": 0, "seeds": {}}


def _choose(known: pl.DataFrame, runs: int, seed: int) -> tuple[list[str], int]:
    """Window ids in random order, and the cap per length and domain that keeps them in budget."""
    cells: dict[tuple[int, str], list[str]] = defaultdict(list)
    for window, length, domain in known.rows():
        cells[length, domain].append(window)
    rng = np.random.default_rng([seed % 2**64, 1])
    mixed = {cell: [str(w) for w in rng.permutation(ids)] for cell, ids in sorted(cells.items())}

    def weight(cap: int) -> int:  # a piece with its quotes, and per run a cost, a letter and the text again
        return sum(min(cap, len(ids)) * length * (9 + 11 * runs) for (length, _), ids in mixed.items())

    cap = next((c for c in range(MOST, 1, -1) if weight(c) <= BUDGET), 1)
    return [str(w) for w in rng.permutation([w for ids in mixed.values() for w in ids[:cap]])], cap


def pieces(reference: str, start: list[int], end: list[int], tokens: list[str]) -> list[str]:
    """The window's text cut at its tokens; what lies between two tokens goes to the later one.

    A token within a character that an earlier token has already shown is shown as the tokenizer spells it, in
    angle quotes.
    """
    out, shown = [], start[0]
    for first, last, token in zip(start, end, tokens, strict=True):
        if last > shown:
            out.append(reference[shown - start[0] : last - start[0]])
            shown = last
        else:
            out.append(f"‹{token}›" if first < shown else "")
    return out


def _letter(operation: str, anywhere: bool) -> str:
    letter = {"match": _MATCH, "substitute": _SUBSTITUTE, "omit": _OMIT}[operation]
    return letter.upper() if anywhere and letter != _MATCH else letter
