"""What a window costs where its end is read by undoing the first layer and its beginning is written by a decoder:
`python -m benchmarks.undone runs/best-mini bridged-10x runs/undo-mini --length 256 --windows 16 --out FILE.jsonl`.

A code of three parts, all made from the memory: k, how many tokens at the end are undone (log of how many k may be);
these, which cost nothing, as they are read without a trained decoder; and the L - k before them, each at what the run's
decoder pays for it where those before it are told.  k is the greatest number at which the likeliest text so far is the
window's own, so the code is one that a reader of the memory can decode: it is told when to stop.  Divided by what the
windows cost without a memory it is one minus the retention, of mnemoscope.undo and the decoder together::

    retention = 1 - sum over windows (log(L - 2) + nats of the first L - k tokens) / sum of nats without a memory

Windows are drawn from the run's, by a seed; a line of the file each, and those that are there are not read again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median_high
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.decoders import ratios
from mnemoscope.codec.decoder import encode
from mnemoscope.errors import RunError
from mnemoscope.memory.load import load
from mnemoscope.memory.memory import Memory
from mnemoscope.rundir import RunDir
from mnemoscope.undo.distribution import Distribution
from mnemoscope.undo.reader import EFFORTS, Reader


def undone(reader: Reader, memory: Memory, window: Sequence[int]) -> int:
    """k of a window, whose memory is the only one of ``memory``."""
    right = 0
    ssm, conv = (memory[f"layers.0.{part}"][0] for part in ("ssm", "conv"))
    for texts in reader.backwards(ssm, conv, len(window), EFFORTS[0]):
        ends = [text == list(window[-len(text) :]) for text in texts]
        if not any(ends):
            break
        if ends[0]:
            right = len(texts[0])
    return right


def costs(k: int, nats: Sequence[float], width: int) -> float:
    """Nats of a window in the code.

    Args:
        k: tokens at the end that are undone.
        nats: of each token by the decoder [L].
        width: of the convolution, K: k is K - 1 at least.
    """
    return math.log(len(nats) - width + 2) + float(np.sum(nats[: len(nats) - k]))


def summary(rows: Sequence[dict[str, Any]], seed: int) -> str:
    """One line of Markdown: windows, k, whole ones, retention of the decoder alone and of the code."""
    table = pl.DataFrame(rows).group_by("doc_id").agg(pl.col("nats", "code", "guessed").sum()).sort("doc_id")
    paid, guessed = table.select("nats", "code").to_numpy(), table.select("guessed").to_numpy().repeat(2, 1)
    kept = ratios(guessed - paid, guessed, list(table["doc_id"]), seed)
    k = sorted(row["k"] for row in rows)
    whole = sum(row["k"] == row["length"] for row in rows)
    return (
        f"| {rows[0]['length']} | {len(rows)} | {median_high(k)} ({k[0]} to {k[-1]}) | {whole} of {len(rows)} "
        f"| {kept[0]} | {kept[1]} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that was measured (reconstruct)")
    parser.add_argument("decoder", help="that writes the beginning")
    parser.add_argument("distribution", type=Path, help="folder that mnemoscope undo made, of the run's model")
    parser.add_argument("--length", type=int, required=True, help="tokens of the windows")
    parser.add_argument("--windows", type=int, required=True, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of the resampling")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th of them from the i-th, for several processes")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, a window each")
    given = parser.parse_args()
    run = RunDir.open(given.run)
    model, guessing = run.study.model, run.study.estimate.guesses
    if model is None or guessing is None:
        raise RunError("a run of one model with a decoder that guesses is needed", remedy="See studies/best-mini.toml")

    def decoded(name: str, condition: str) -> pl.DataFrame:
        file = f"{name}.seed-0.{condition}.L{given.length}.parquet"
        return pl.read_parquet(run.path / "decoded" / file).sort("window_id")

    windows, guesses = decoded(given.decoder, "memory"), decoded(guessing, "none")
    drawn = np.random.default_rng(given.seed).permutation(len(windows))[: given.windows]
    first, step = (int(n) for n in given.part.split("/"))
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    there = {(row["window_id"], row["decoder"]) for row in map(json.loads, lines)}
    adapter = load(model.name).adapter.requires_grad_(False)
    reader = Reader(adapter, Distribution.load(given.distribution))
    for index in drawn[first::step]:
        row, guess = windows.row(int(index), named=True), guesses.row(int(index), named=True)
        assert row["window_id"] == guess["window_id"]
        if (row["window_id"], given.decoder) in there:
            continue
        began = time.monotonic()
        k = undone(reader, encode(adapter, torch.tensor([row["reference_ids"]])), row["reference_ids"])
        line = {key: row[key] for key in ("window_id", "doc_id", "domain", "length")} | {"decoder": given.decoder}
        line |= {"k": k, "nats": sum(row["token_nats"]), "guessed": sum(guess["token_nats"])}
        line |= {"code": costs(k, row["token_nats"], reader.layer.width), "seconds": time.monotonic() - began}
        with given.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    rows = [json.loads(line) for line in given.out.read_text().splitlines()]
    mine = [row for row in rows if (row["length"], row["decoder"]) == (given.length, given.decoder)]
    print("| tokens | windows | undone: upper median (range) | whole | retention: decoder alone | of the code |")
    print(summary(mine, given.seed))


if __name__ == "__main__":
    main()
