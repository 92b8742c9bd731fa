"""A run folder with a truth planted in it: what the memory keeps is known before anything is measured.

Retention falls linearly with the distance from the end of the window, and mathematics keeps half of what news keeps.
No model and no tokenizer is involved: a token is a word with the space before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mnemoscope import schema
from mnemoscope.config import Study

_TEXT = {
    "news": "the minister said on Tuesday that a new bridge over the river will open before winter , after two years "
    "of delay and a dispute about who should pay for it . Residents of both towns welcomed the plan",
    "mathematics": "let x be a root of f ( x ) = 3 x ^ 2 + 7 x - 12 and let y denote the other one ; then x + y = "
    "- 7 / 3 , whence the product is - 4 .",
    "fiction": "she closed the door behind her and stood in the dark hall , listening . Somewhere above a clock was "
    "ticking ; nobody had wound it since her grandfather died , and yet it went on , patient and slow",
}
WORDS = {domain: text.split() for domain, text in _TEXT.items()}
VOCABULARY = sorted({w for words in WORDS.values() for w in words})
#: share of the information that the memory keeps of a token at the window's end; at its start it keeps half of that
KEPT = {"news": 0.8, "fiction": 0.7, "mathematics": 0.4}


def study(
    *,
    decoders: tuple[str, ...] = ("growing",),
    conditions: tuple[str, ...] = ("memory", "none", "wrong"),
    lengths: tuple[int, ...] = (16, 64),
    seeds: tuple[int, ...] = (0, 1),
    by: tuple[str, ...] = ("domain", "dialect", "position"),
    resamples: int = 500,
    position_bins: int = 8,
) -> Study:
    optimiser = {"learning_rate": 1e-3}
    return Study.model_validate(
        {
            "name": "synthetic",
            "seed": 7,
            "model": {"name": "mamba-nano"},
            "text": {},
            "windows": {"lengths": list(lengths)},
            "decoders": [
                {
                    "name": d,
                    "recipe": "fixed" if d == "fixed" else "growing",
                    "seeds": list(seeds),
                    "conditions": list(conditions),
                    "tokens": 1_000_000,
                    "batch_tokens": 8192,
                    "optimiser": optimiser,
                }
                for d in decoders
            ],
            "estimate": {"by": list(by), "resamples": resamples, "position_bins": position_bins},
        }
    )


def make_run(
    folder: Path,
    *,
    documents: int = 12,
    windows: int = 3,
    dialect: bool = False,
    token: str | None = None,
    seed: int = 3,
    **of_study: Any,
) -> Study:
    """Writes tokens, reconstructions and curves into ``folder``, and returns the study that would have made them.

    Args:
        token: a text that stands as the first token of every window, e.g. a hostile one.
        of_study: see :func:`study`.
    """
    made = study(**of_study)
    assert made.windows is not None
    rng = np.random.default_rng(seed)
    tokens: list[dict[str, Any]] = []
    reconstructions: list[dict[str, Any]] = []
    for length in made.windows.lengths:
        for number in range(documents):
            domain = sorted(WORDS)[number % len(WORDS)]
            easy = rng.normal(0, 0.2)  # what the words of a document share
            start_char = 0
            for index in range(windows):
                words = list(rng.choice(WORDS[domain], length))
                if token is not None:
                    words[0] = token
                start = start_char + np.concatenate([[0], np.cumsum([len(w) + 1 for w in words])])
                start_char = int(start[-1])
                none_nats = rng.gamma(4, 1, length) * np.exp(easy)
                for decoder in made.decoders:
                    for s in decoder.seeds:
                        for condition in decoder.conditions:
                            key = {
                                "run": made.name,
                                "model": "mamba-nano",
                                "decoder": decoder.name,
                                "condition": condition,
                                "length": length,
                                "seed": s,
                                "doc_id": f"{domain}-{number:02d}",
                                "window_id": f"{domain}-{number:02d}:{length}:{index * length}",
                                "domain": domain,
                                "source": "made up",
                                "dialect": ("north" if number % 2 else "south") if dialect else "",
                                "prefix": "none",
                            }
                            kept = _kept(condition, domain, length, decoder.recipe)
                            nats = np.maximum(none_nats * (1 - kept) + rng.normal(0, 0.3, length) * (kept != 0), 0.001)
                            _add(tokens, reconstructions, key, words, start, nats, kept, rng)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tokens.parquet", "tokens", tokens)
    _write(folder / "reconstructions.parquet", "reconstructions", reconstructions)
    _write(folder / "curves.parquet", "curves", _curves(made))
    return made


def _kept(condition: str, domain: str, length: int, recipe: str) -> np.ndarray:
    if condition == "none":
        return np.zeros(length)
    if condition == "wrong":
        return np.full(length, -0.1)
    share = KEPT[domain] * (16 / length) ** 0.3 * (0.8 if recipe == "fixed" else 1)
    return share * np.linspace(0.5, 1, length)


def _add(
    tokens: list[dict[str, Any]],
    reconstructions: list[dict[str, Any]],
    key: dict[str, Any],
    words: list[str],
    start: np.ndarray,
    nats: np.ndarray,
    kept: np.ndarray,
    rng: np.random.Generator,
) -> None:
    luck = rng.random(len(words))
    p = np.clip(kept, 0.05, 1)
    operation = np.where(luck < p, "match", np.where(luck < p + 0.6 * (1 - p), "substitute", "omit"))
    ids = {w: i for i, w in enumerate(VOCABULARY)}
    stands = [
        w if o == "match" else "" if o == "omit" else str(rng.choice(VOCABULARY))
        for w, o in zip(words, operation, strict=True)
    ]
    written = [w for w in stands if w]
    left: dict[str, int] = {}
    for w in written:
        left[w] = left.get(w, 0) + 1
    anywhere = []
    for w in words:
        anywhere.append(left.get(w, 0) > 0)
        left[w] = left.get(w, 0) - 1
    for i, w in enumerate(words):
        tokens.append(
            key
            | {
                "position": i,
                "char_start": int(start[i]),
                "char_end": int(start[i + 1]),
                "token_id": ids.get(w, len(ids)),
                "token": "Ġ" + w,
                "predicted_id": ids.get(w, len(ids)) if operation[i] == "match" else 0,
                "operation": str(operation[i]),
                "written": "Ġ" + stands[i] if stands[i] else "",
                "recovered_in_place": bool(operation[i] == "match"),
                "recovered_anywhere": anywhere[i],
                "nats": float(nats[i]),
            }
        )
    matched = int((operation == "match").sum())
    reconstructions.append(
        key
        | {
            "reference": " " + " ".join(words),
            "reconstruction": " " + " ".join(written),
            "exact": matched == len(words),
            "rouge1": matched / len(words),
            "rouge2": (matched / len(words)) ** 2 if len(words) > 1 else float("nan"),
            "rougeL": matched / len(words),
            "token_accuracy": matched / len(words),
            "matched": matched,
            "substituted": int((operation == "substitute").sum()),
            "omitted": int((operation == "omit").sum()),
            "inserted": 0,
            "words": len(words),
            "words_recovered_anywhere": sum(anywhere),
            "nats": float(nats.sum()),
            "stopped": True,
        }
    )


def _curves(made: Study) -> list[dict[str, Any]]:
    assert made.windows is not None
    out = []
    for decoder in made.decoders:
        for s in decoder.seeds:
            for condition in {"memory", "none"} & set(decoder.conditions):
                for step in range(1, 120):
                    length = made.windows.lengths[step % len(made.windows.lengths)]
                    floor = 4.0 if condition == "none" else 1.5
                    out.append(
                        {
                            "run": made.name,
                            "decoder": decoder.name,
                            "condition": condition,
                            "seed": s,
                            "length": length,
                            "step": step,
                            "tokens": step * 8192,
                            "nats": floor + 3 * float(np.exp(-step / 30)) + 0.01 * length / 16,
                            "learning_rate": 1e-3,
                            "seconds": step * 0.5,
                        }
                    )
    return out


def _write(path: Path, table: str, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.arrow(table)), path)


def shuffle(path: Path, seed: int = 0) -> None:
    """The same table with its rows in another order."""
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows))), path)
