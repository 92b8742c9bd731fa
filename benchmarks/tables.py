"""What follows the decoder, at size: `python -m benchmarks.tables DATA [--page PATH]`, with nothing decoded by a model.

The text of Universal Dependencies (DATA/annotated/ud_ewt.train and ud_gum.train), again and again under new ids, is cut
into windows of 64 tokens; a made-up decoder keeps, replaces or drops each token, under ``memory`` and ``none``.  What
follows runs as a study runs it, each stage in a process of its own: annotate, score, estimate.

The page is a Markdown file, with the numbers as JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

_LENGTH = 64
_STAGES = ("annotate", "score", "estimate")
_STUDY = """
name = "tables"
seed = 0
model.name = "mamba-nano"
windows.lengths = [64]
estimate.by = ["domain", "position", "pos", "numbers", "subwords", "mention"]

[[text.measure]]
path = "text.jsonl"
tokens = "tokens"
space_after = "space_after"
doc_id = "id"
domain = "genre"

[[annotations]]
name = "pos"
kind = "tags"
argument = "upos"

[[annotations]]
name = "numbers"
kind = "numbers"

[[annotations]]
name = "subwords"
kind = "subwords"

[[annotations]]
name = "mention"
kind = "repetition"
argument = "window"

[[effects]]
by = "pos"
metrics = ["omission_anywhere", "omission_in_place", "bits_retained", "retention"]
controls = ["surprisal", "position", "subwords", "repetition"]

[[decoders]]
name = "made-up"
recipe = "trained"
weights = "mamba-nano"
seeds = [0]
conditions = ["memory", "none"]
"""


def make(data: Path, folder: Path, rows: int) -> None:
    """text.jsonl, study.toml and decoded/ for ``rows`` rows of tokens, half of them under each condition."""
    import zstandard

    from mnemoscope.memory.load import load
    from mnemoscope.text import corpora
    from mnemoscope.text.tokens import bare, encode

    records = []
    for name in ("ud_ewt", "ud_gum"):
        with zstandard.open(data / "annotated" / f"{name}.train.jsonl.zst", "rt", encoding="utf-8") as lines:
            for line in lines:
                r = json.loads(line)
                kept = {c: r[c] for c in ("tokens", "upos", "space_after", "genre")}
                records.append({"id": f"{name} {r['doc_id']}", **kept})
    (folder / "study.toml").write_text(_STUDY, encoding="utf-8")
    once = folder / "text.jsonl"
    once.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    study = config_of(folder)
    tokenizer = bare(load("mamba-nano").tokenizer)
    held = sum(len(encode(tokenizer, d.text).ids) // _LENGTH * _LENGTH for d in corpora.read(study.text.measure))
    with once.open("w", encoding="utf-8") as out:
        for turn in range(-(-rows // (2 * held))):
            out.writelines(json.dumps({**r, "id": f"{r['id']} {turn}"}) + "\n" for r in records)


def config_of(folder: Path) -> Any:
    from mnemoscope import config

    return config.load(folder / "study.toml", data=folder)


def decode(folder: Path) -> int:
    """decoded/ by schema.DECODED; returns the tokens in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mnemoscope import measuring, schema
    from mnemoscope.rundir import RunDir
    from mnemoscope.workshop import Workshop

    shop = Workshop(RunDir(folder / "run", config_of(folder)))
    windows = shop.windows.windows[_LENGTH]
    tokenizer, rng = shop.tokenizer, np.random.default_rng(0)
    (folder / "run" / "decoded").mkdir()
    wanted = schema.arrow("decoded")
    for condition, keep in (("memory", 0.7), ("none", 0.1)):
        path = folder / "run" / "decoded" / f"{condition}.parquet"
        with pq.ParquetWriter(path, wanted, compression="zstd") as out:
            for start in range(0, len(windows), 4096):
                some = windows[start : start + 4096]
                ids = np.stack([w.token_ids for w in some])
                luck = rng.random(ids.shape)
                other = rng.permutation(ids.ravel()).reshape(ids.shape)
                written = np.where(luck < keep, ids, other)
                dropped = luck > keep + 0.8 * (1 - keep)
                texts = [written[i][~dropped[i]].tolist() for i in range(len(some))]
                columns = {
                    "run": ["tables"] * len(some), "model": ["mamba-nano"] * len(some),
                    "decoder": ["made-up"] * len(some), "condition": [condition] * len(some),
                    "length": [_LENGTH] * len(some), "seed": [0] * len(some),
                    **{c: [getattr(w, c) for w in some] for c in measuring.OF_WINDOW},
                    "reference_ids": list(ids), "predicted_ids": list(written),
                    "char_start": [w.char_start for w in some], "char_end": [w.char_end for w in some],
                    "token_nats": list(rng.gamma(2, 2.5 if condition == "none" else 1, ids.shape)),
                    "reconstruction_ids": texts, "stopped": [True] * len(some),
                    "reference": [shop.windows.window_text(w) for w in some],
                    "reconstruction": tokenizer.batch_decode(texts, clean_up_tokenization_spaces=False),
                }  # fmt: skip
                out.write_table(pa.table([pa.array(columns[c.name]).cast(c.type) for c in wanted], schema=wanted))
    return 2 * len(windows) * _LENGTH


def stage(name: str, folder: Path) -> None:
    """One stage, and on standard output what it took."""
    from mnemoscope import annotating, pipeline
    from mnemoscope.rundir import RunDir
    from mnemoscope.workshop import Workshop

    shop = Workshop(RunDir(folder / "run", config_of(folder)))
    began = time.perf_counter()
    {"annotate": annotating.annotate_windows, "score": pipeline.score, "estimate": pipeline.estimate}[name](shop)
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts = {"wall": time.perf_counter() - began, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1e6}
    print(json.dumps(facts))


def page(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    from mnemoscope.stats.covariates import MOST_TOKENS

    rows = [(name, *(s[c] for c in ("wall", "cpu", "peak", "load"))) for name, s in found["stages"].items()]
    _, wall, cpu, peak, _ = zip(*rows, strict=True)
    table = [f"| {name} | {a:.0f} | {b:.0f} | {c:.1f} | {d:.1f} |" for name, a, b, c, d in rows]
    on = found["machine"]
    versions = ", ".join(f"{k} {on['versions'][k]}" for k in ("python", "numpy", "polars", "scipy"))
    return f"""# Annotating, scoring and estimating at size

`python -m benchmarks.tables DATA --page docs/results/tables.md`: {found["rows"]:,} rows of tokens of
{found["documents"]:,} documents, half of them under `memory` and half under `none`, windows of {_LENGTH} tokens.
{on["cpu"]}, {on["date"]}, revision `{on["revision"]}`, {versions}.

| stage | seconds | CPU seconds | peak GB | load before |
| --- | ---: | ---: | ---: | ---: |
{chr(10).join(table)}
| together | {sum(wall):.0f} | {sum(cpu):.0f} | {max(peak):.1f} | |

- **annotate**: the text is cut into windows; gold parts of speech, and by rule numbers, words by their tokens, first
  and repeated mentions.
- **score**: alignment, words, ROUGE; `tokens.parquet` and `reconstructions.parquet`.
- **estimate**: {found["estimates"]:,} estimates with intervals, {found["effects"]:,} effects, among them the
  regressions of four metrics on part of speech and four controls, over whole documents with {MOST_TOKENS:,} tokens at
  most.
- Seconds are by the clock, without imports; CPU seconds are the whole process's, user and system; the peak is its
  resident memory. The load is the system's average over the minute before: where it is not near 0, the stage shared the
  cores with others, and the seconds are no measure of it.
- Text is Universal Dependencies (EWT and GUM) again and again under new ids; a made-up decoder keeps, replaces or drops
  each token, so the values mean nothing.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds annotated/")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of tokens, conditions together")
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it")
    parser.add_argument("--page", type=Path, help="write what was found to this Markdown file, and to JSON beside it")
    parser.add_argument("--stage", choices=_STAGES, help="this stage alone, of a folder that was kept")
    given = parser.parse_args()
    if given.stage:
        stage(given.stage, given.keep)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        make(given.data, folder, given.rows)
        found: dict[str, Any] = {"rows": decode(folder), "stages": {}}
        for name in _STAGES:
            call = [sys.executable, "-m", "benchmarks.tables", str(given.data), "--keep", str(folder), "--stage", name]
            load = os.getloadavg()[0]
            done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
            found["stages"][name] = {**json.loads(done.stdout), "load": load}
            print(name, found["stages"][name], flush=True)
        import torch

        from benchmarks.__main__ import machine
        from mnemoscope.rundir import RunDir, write_atomically

        run = RunDir.open(folder / "run")
        found |= {name: run.table(name).height for name in ("estimates", "effects")}
        found["documents"] = run.table("reconstructions")["doc_id"].n_unique()
        found["machine"] = machine(torch.device("cpu")) | {"command": "python -m benchmarks.tables"}
    print(page(found))
    if given.page:
        write_atomically(given.page, page(found))
        write_atomically(given.page.with_suffix(".json"), json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
