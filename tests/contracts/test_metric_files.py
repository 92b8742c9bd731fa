"""Every file in score/metrics/ keeps the protocol; a new one is picked up by listing the folder."""

from __future__ import annotations

import inspect
from pathlib import Path

import polars as pl
import pytest

from mnemoscope import plugins, schema
from mnemoscope.score import metrics
from mnemoscope.score.metrics import Metric

TABLE = {"token": "tokens", "window": "reconstructions"}
FILES = sorted(p.stem for p in Path(metrics.__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def test_the_folder_is_listed():
    assert plugins.names("metric") == FILES
    assert len(FILES) >= 11


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_it_is(name):
    metric = plugins.load("metric", name)
    assert isinstance(metric, Metric)
    assert metric.name == name
    assert metric.unit
    assert metric.direction in {"kept", "lost"}
    assert metric.level in TABLE
    assert isinstance(metric.paired, bool)


@pytest.mark.parametrize("name", FILES)
def test_its_docstring_says_what_is_left_out(name):
    doc = inspect.cleandoc(type(plugins.load("metric", name)).__dict__["__doc__"])
    for heading in ("Does not count: ", "NaN: "):
        said = [line for line in doc.splitlines() if line.startswith(heading)]
        assert len(said) == 1, f"{name} has {len(said)} lines that start with {heading!r}"
        assert len(said[0]) > len(heading) + 10


@pytest.mark.parametrize("name", FILES)
def test_it_reads_columns_that_the_schema_has(name):
    metric = plugins.load("metric", name)
    known = set(schema.arrow(TABLE[metric.level]).names)
    read = {*metric.numerator.meta.root_names(), *metric.denominator.meta.root_names()}
    assert read
    assert read - known == ({"nats_none"} if metric.paired else set())


@pytest.mark.parametrize("name", FILES)
def test_a_row_gives_a_numerator_and_a_denominator(name):
    metric = plugins.load("metric", name)
    table = schema.arrow(TABLE[metric.level]).empty_table()
    frame = pl.from_arrow(table).clear(3).with_columns(nats_none=pl.lit(None, pl.Float32))
    found = frame.select(num=metric.numerator, den=metric.denominator)
    # three rows in, three out: a constant would be one; nothing measured, nothing summed
    assert found.height == 3
    assert found.schema["num"] == pl.Float64
    assert found.schema["den"] in (pl.Int64, pl.Float64)
    assert found["num"].null_count() == 3
    assert found["den"].fill_null(0).sum() == 0
