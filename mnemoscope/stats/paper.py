"""The published test of the published omission rate, on our reconstructions: Student's t over words, Bonferroni.

Arxiv 2512.15653 compares every two classes of words by a t-test over one 0 or 1 a word, equal variances, all words
independent.  They are not, and :mod:`mnemoscope.stats.compare` says what is left when that is taken to heart; this is
here so that both can be read of the same reconstructions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from mnemoscope.config import Effects
from mnemoscope.errors import RunError
from mnemoscope.score import published
from mnemoscope.stats.estimate import UNLABELLED, annotated, cluster, scan

_KEY = ["run", "model", "decoder", "condition", "length"]
METRIC = "omission_published"


def require(run_folder: Path, wanted: Effects) -> None:
    """Raises RunError unless words and classes are annotations, ConfigError without NLTK's model."""
    for name in (wanted.words, wanted.by):
        if name not in annotated(run_folder):
            raise RunError(
                f"the published test needs annotated words and classes, and {name!r} is no annotation of this run",
                remedy=f"There are: {', '.join(annotated(run_folder)) or 'none'}",
                file=run_folder,
            )
    published.tokenizer(wanted.sentences)


def words(run_folder: Path, wanted: Effects) -> pl.DataFrame:
    """A row per reference word under the real memory, of each decoder's first seed: the key, ``unit`` (its document),
    ``group`` and ``omitted``.

    Reference words are the spans of the annotation ``wanted.words`` that lie whole in a window; of another annotation a
    word has the label that covers its first character, or none.
    """
    assert wanted.words is not None
    windows = scan(run_folder / "reconstructions.parquet").filter(pl.col("condition") == "memory")
    windows = windows.filter(pl.col("seed") == pl.col("seed").min().over("decoder"))
    bounds = (
        scan(run_folder / "tokens.parquet")
        .filter(pl.col("condition") == "memory")
        .group_by("window_id")
        .agg(first=pl.col("char_start").min(), last=pl.col("char_end").max())
    )
    spans = pl.read_parquet(run_folder / "annotations" / f"{wanted.words}.parquet")
    if wanted.by != wanted.words:
        classes = pl.read_parquet(run_folder / "annotations" / f"{wanted.by}.parquet")
        spans = _classed(spans, classes)
    columns = [*_KEY, "window_id", "reference", "reconstruction", "first", "last", "doc_id", "dialect"]
    table = windows.join(bounds, on="window_id").select(columns).with_columns(unit=cluster())
    tokenize = published.tokenizer(wanted.sentences)
    by_document = spans.sort("doc_id", "char_start").partition_by("doc_id", as_dict=True)
    rows: list[dict[str, Any]] = []
    for window in table.sort([*_KEY[2:], "window_id"]).collect(engine="streaming").iter_rows(named=True):
        here = by_document.get((window["doc_id"],))
        if here is None:
            continue
        inside = here.filter(pl.col("char_start") >= window["first"], pl.col("char_end") <= window["last"])
        ends = inside.select(pl.col("char_start", "char_end") - window["first"]).rows()
        texts = [window["reference"][start:end] for start, end in ends]
        lost = published.omitted(texts, window["reconstruction"], tokenize)
        key = {c: window[c] for c in (*_KEY, "unit")}
        rows += [{**key, "group": g, "omitted": bool(o)} for g, o in zip(inside["label"], lost, strict=True)]
    return pl.DataFrame(rows, infer_schema_length=None)


def _classed(spans: pl.DataFrame, classes: pl.DataFrame) -> pl.DataFrame:
    """The words, each with the label of the class that covers its first character."""
    starts = classes.select("doc_id", "char_start", reach="char_end", class_label="label").sort("char_start")
    ordered = spans.sort("char_start").join_asof(starts, on="char_start", by="doc_id", check_sortedness=False)
    inside = pl.col("char_start") < pl.col("reach")
    return ordered.with_columns(label=pl.when(inside).then("class_label").otherwise(pl.lit(UNLABELLED)))


def tests(run_folder: Path, wanted: Effects, confidence: float) -> Iterator[dict[str, Any]]:
    """Rows of effects.parquet of kind ``paper``, but for what the family decides: every pair of classes."""
    table = words(run_folder, wanted)
    if table.is_empty():
        return
    for cell in table.partition_by(_KEY, maintain_order=True):
        key = cell.select(_KEY).row(0, named=True)
        flags = {
            g[0]: (part["omitted"].to_numpy().astype(np.float64), set(part["unit"]))
            for g, part in cell.partition_by("group", as_dict=True).items()
        }
        sizes = {g: len(f) for g, (f, _) in flags.items()}
        first = wanted.base if wanted.base in sizes else min(sizes, key=lambda g: (-sizes[g], g))
        for base, group in combinations([first, *sorted(set(sizes) - {first})], 2):
            (a, in_a), (b, in_b) = flags[group], flags[base]
            yield {
                **key,
                "metric": METRIC,
                "unit": "fraction",
                "by": wanted.by,
                "group": group,
                "base": base,
                "kind": "paper",
                "controls": "",
                "group_value": float(a.mean()),
                "base_value": float(b.mean()),
                **_student(a, b, confidence),
                "n_tokens": len(a) + len(b),
                "n_documents": len(in_a | in_b),
                "size": math.nan,
                "size_kind": "",
            }


def _student(a: np.ndarray, b: np.ndarray, confidence: float) -> dict[str, Any]:
    """Difference, interval and p by Student's t, as if words were independent."""
    value, nan = float(a.mean() - b.mean()), math.nan
    pooled = sum(((x - x.mean()) ** 2).sum() for x in (a, b))
    if min(len(a), len(b)) < 2 or pooled == 0:
        return {"value": value, "low": nan, "high": nan, "p": nan, "method": "none: nothing varies, or one word only"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that is lost whole, beside one that is not
        found = stats.ttest_ind(a, b, equal_var=True)
    ends = found.confidence_interval(confidence)
    method = "Student's t over words taken for independent, first decoder seed, as published"
    return {
        "value": value,
        "low": float(ends.low),
        "high": float(ends.high),
        "p": float(found.pvalue),
        "method": method,
    }
