"""Runs compared: differences worked by hand, pairing, tokenizers that differ, refusals, exit codes, the page."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats as scipy_stats
from synthetic_run import make_run, study
from test_report import HOSTILE, Page
from typer.testing import CliRunner

from mnemoscope import cli, config, schema
from mnemoscope.errors import RunError
from mnemoscope.report import compare as page
from mnemoscope.stats import runs

CLI = CliRunner()
T2 = float(scipy_stats.t.ppf(0.975, 2))  # 4.3027


def belongs(folder: Path, made: config.Study) -> Path:
    """Makes a run folder of what lies in ``folder``."""
    (folder / "study.toml").write_text(config.dump(made), encoding="utf-8")
    manifest = {"study": made.digest(), "measured": made.digest(analysis=False), "name": made.name, "stages": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def synthetic(folder: Path, **options: Any) -> Path:
    return belongs(folder, make_run(folder, **({"lengths": (16,), "windows": 1} | options)))


def by_hand(folder: Path, memory: Sequence[float], lost: Sequence[bool], text: str = "sea", **options: Any) -> Path:
    """A run of windows of one token, one a document; 4 nats each without memory."""
    key = {"run": "r", "model": "m", "decoder": "growing", "length": 1, "seed": 0, "domain": "news", "source": "s"}
    key |= {"dialect": "", "prefix": "none"}
    tokens, windows = [], []
    for condition, nats in (("memory", memory), ("none", [4.0] * len(memory))):
        for i, (cost, gone) in enumerate(zip(nats, lost, strict=True)):
            row = key | {"condition": condition, "doc_id": f"d{i}", "window_id": f"d{i}:1:0"}
            token = {"position": 0, "char_start": 0, "char_end": len(text), "token_id": 1, "token": text}
            operation = "omit" if gone else "match"
            token |= {"predicted_id": 1, "operation": operation, "recovered_in_place": not gone}
            tokens.append(row | token | {"recovered_anywhere": not gone, "nats": cost})
            windows.append(row | {"reference": text, "reconstruction": "" if gone else text, "exact": not gone})
    folder.mkdir()
    for name, rows in (("tokens", tokens), ("reconstructions", windows)):
        pq.write_table(pa.Table.from_pylist(rows, schema=schema.arrow(name)), folder / f"{name}.parquet")
    made = {"lengths": (1,), "seeds": (0,), "conditions": ("memory", "none"), "by": ("domain",)}
    return belongs(folder, study(**(made | options)))  # type: ignore[arg-type]


def change(folder: Path, table: str, **columns: pl.Expr) -> None:
    file = folder / f"{table}.parquet"
    pl.read_parquet(file).with_columns(**columns).write_parquet(file)


def only(table: pl.DataFrame, **key: Any) -> dict[str, Any]:
    return table.filter(**key).row(0, named=True)


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_differences_worked_by_hand(tmp_path: Path) -> None:
    """Three documents of one token, 4 nats without memory: with one sum a document of equal weight it is the paired t.

    ::

        memory's nats   a  2 2 2   kept 6 of 12 = 0.5          lost  a  0 1 1 = 2/3
                        b  1 2 1   kept 8 of 12 = 0.6667             b  0 0 0 = 0
        b - a, each        .25 0 .25  mean 1/6, sd .1443, se .0833   0 -1 -1  mean -2/3, sd .5774, se 1/3
    """
    a = by_hand(tmp_path / "a", [2, 2, 2], [False, True, True])
    b = by_hand(tmp_path / "b", [1, 2, 1], [False, False, False])
    found = runs.compare([a, b])
    assert found.same_tokens
    assert found.notes == []
    kept = only(found.table, metric="retention", by="all")
    assert (kept["run"], kept["base"], kept["n_documents"], kept["n_tokens"]) == ("b", "a", 3, 3)
    assert (kept["base_value"], kept["run_value"], kept["value"]) == pytest.approx((0.5, 2 / 3, 1 / 6))
    assert (kept["low"], kept["high"]) == pytest.approx((1 / 6 - T2 / 12, 1 / 6 + T2 / 12))
    assert kept["p"] == pytest.approx(scipy_stats.ttest_rel([0.75, 0.5, 0.75], [0.5] * 3).pvalue)
    bits = only(found.table, metric="bits_retained", by="all")
    assert bits["value"] == pytest.approx((8 - 6) / 3 / math.log(2))
    lost = only(found.table, metric="omission_in_place", by="all")
    assert (lost["value"], lost["low"]) == pytest.approx((-2 / 3, -2 / 3 - T2 / 3))
    # the domain is the whole text here: two comparisons of a metric, so Holm doubles the smaller p
    assert (kept["family"], kept["p_adjusted"]) == (2, pytest.approx(2 * kept["p"]))
    assert set(found.table["by"]) == {"all", "domain"}


def test_a_run_and_itself_differ_by_nothing(tmp_path: Path) -> None:
    a = synthetic(tmp_path / "a")
    b = Path(shutil.copytree(a, tmp_path / "b"))
    table = runs.compare([a, b]).table
    assert table["value"].abs().max() == 0
    assert set(table["by"]) == {"all", "domain", "position"}
    assert table["p_adjusted"].is_nan().all()


def test_only_windows_that_all_have(tmp_path: Path) -> None:
    """What one run alone measured, however it fared there, changes nothing."""
    a = by_hand(tmp_path / "a", [2, 2, 2], [False, True, True])
    b = by_hand(tmp_path / "b", [1, 2, 1, 0], [False, False, False, True])
    found = runs.compare([a, b])
    assert found.notes == ["1 of 4 windows of b are not in every run and are left out."]
    alone = runs.compare([a, by_hand(tmp_path / "c", [1, 2, 1], [False, False, False])]).table
    columns = [c for c in alone.columns if c != "run"]
    assert found.table.select(columns).equals(alone.select(columns))


def test_other_tokens_are_counted_in_characters(tmp_path: Path) -> None:
    """b's tokenizer cuts ``sea`` into ``s`` and ``ea``: 3 characters of 4 nats in a, of 2 * 4 nats in b."""
    a = by_hand(tmp_path / "a", [2, 2, 2], [False, True, True])
    b = by_hand(tmp_path / "b", [1, 2, 1], [True, False, False])
    file = b / "tokens.parquet"
    whole = pl.read_parquet(file)
    first = whole.with_columns(char_end=pl.lit(1, pl.Int32))
    rest = whole.with_columns(
        char_start=pl.lit(1, pl.Int32), position=pl.lit(1, pl.Int32), recovered_in_place=pl.lit(True)
    )
    pl.concat([first, rest]).write_parquet(file)
    for name in ("tokens", "reconstructions"):
        change(b, name, window_id=pl.col("doc_id") + ":2:0")
    found = runs.compare([a, b])
    assert not found.same_tokens
    assert "other tokens" in found.notes[0]
    assert set(found.table["metric"]) == {"retention", "bits_per_character", "omission_of_characters"}
    bits = only(found.table, metric="bits_per_character", by="all")
    assert bits["base_value"] == pytest.approx(6 / 9 / math.log(2))
    assert bits["run_value"] == pytest.approx(2 * 8 / 9 / math.log(2))
    assert (bits["unit"], bits["n_tokens"]) == ("bits/character", 9)
    lost = only(found.table, metric="omission_of_characters", by="all")
    assert (lost["base_value"], lost["run_value"]) == pytest.approx((6 / 9, 1 / 9))


def test_three_runs_each_with_the_first(tmp_path: Path) -> None:
    folders = [by_hand(tmp_path / name, [n, 2, n], [False] * 3) for name, n in (("a", 2), ("b", 1), ("c", 3))]
    table = runs.compare(folders).table.filter(by="all", metric="retention")
    assert dict(table.select("run", "value").iter_rows()) == pytest.approx({"b": 1 / 6, "c": -1 / 6})
    assert set(table["family"]) == {2}


def test_recipes_by_their_decoders(tmp_path: Path) -> None:
    """A run of growing and one of fixed: each has one decoder only.  The fixed one is made to keep a fifth less."""
    both = synthetic(tmp_path / "both", documents=24, decoders=("growing", "fixed"))
    a, b = (Path(shutil.copytree(both, tmp_path / name)) for name in ("a", "b"))
    for folder, decoder in ((a, "growing"), (b, "fixed")):
        for name in ("tokens", "reconstructions"):
            file = folder / f"{name}.parquet"
            pl.read_parquet(file).filter(decoder=decoder).write_parquet(file)
    row = only(runs.compare([a, b]).table, by="all", metric="retention")
    assert (row["decoder"], row["base_decoder"]) == ("fixed", "growing")
    assert row["high"] < 0
    assert row["value"] == pytest.approx(-0.2 * row["base_value"], abs=0.03)
    assert only(runs.compare([a, both]).table, by="all")["decoder"] == "growing"
    chosen = runs.compare([a, both], ["growing", "fixed"]).table
    assert set(chosen["decoder"]) == {"fixed"}


def test_without_a_decoder_that_had_no_memory(tmp_path: Path) -> None:
    a = synthetic(tmp_path / "a", conditions=("memory",))
    found = runs.compare([a, Path(shutil.copytree(a, tmp_path / "b"))])
    assert set(found.table["metric"]) == {"omission_in_place"}
    assert any("No retention" in note for note in found.notes)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_refusals(tmp_path: Path) -> None:
    a = by_hand(tmp_path / "a", [2, 2, 2], [False] * 3)
    with pytest.raises(RunError, match="compared with nothing"):
        runs.compare([a])
    with pytest.raises(RunError, match="given twice"):
        runs.compare([a, a])
    with pytest.raises(RunError, match=r"has no manifest\.json"):
        runs.compare([a, tmp_path])
    with pytest.raises(RunError, match=r"no decoder 'shrinking' was measured\. There are: growing"):
        runs.compare([a, by_hand(tmp_path / "b", [2], [False])], ["shrinking"])
    with pytest.raises(RunError, match="3 decoders are named for 2 runs"):
        runs.compare([a, tmp_path / "b"], ["x", "y", "z"])
    several = synthetic(tmp_path / "several", decoders=("one", "two"))
    with pytest.raises(RunError, match="no decoder of one name is in all runs"):
        runs.compare([a, several])


def test_no_common_document(tmp_path: Path) -> None:
    a = by_hand(tmp_path / "a", [2, 2], [False] * 2)
    b = by_hand(tmp_path / "b", [2, 2], [False] * 2)
    for name in ("tokens", "reconstructions"):
        change(b, name, doc_id="other " + pl.col("doc_id"), window_id="other " + pl.col("window_id"))
    with pytest.raises(
        RunError, match=r"no document in common at any length \(a: 'd0' and 1 more, lengths 1; b: 'other"
    ):
        runs.compare([a, b])


@pytest.mark.parametrize("text", ["see", "sail"])
def test_another_text_under_the_same_name(tmp_path: Path, text: str) -> None:
    """Of the same length as ``sea``, and of another one, which looks like another tokenizer's."""
    a = by_hand(tmp_path / "a", [2, 2], [False] * 2)
    b = by_hand(tmp_path / "b", [2, 2], [False] * 2, text=text)
    with pytest.raises(RunError, match=r"document 'd0' has another text in b than in a, from character [12] on"):
        runs.compare([a, b])


# ---- the command ----------------------------------------------------------------------------------------------------


def invoke(*arguments: object) -> tuple[int, str]:
    """As a user would meet it: errors as ``main`` prints them."""
    done = CLI.invoke(cli.app, ["compare", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return getattr(done.exception, "exit_code", 1), str(done.exception)
    return done.exit_code, done.output


def test_exit_codes(tmp_path: Path) -> None:
    """b keeps exactly 25 points less of every document, so the interval is a point; c less too, but not surely."""
    a = by_hand(tmp_path / "a", [2, 2, 2], [False] * 3)
    b = by_hand(tmp_path / "b", [3, 3, 3], [True] * 3)
    c = by_hand(tmp_path / "c", [4, 2, 2], [False] * 3)
    out = tmp_path / "out"
    code, said = invoke(a, b, "--out", out)
    assert code == 0
    # 50 % less 25 %, of three documents
    assert [line.split() for line in said.splitlines() if " all " in line] == [
        ["all", "1", "50.0", "%", "25.0", "%", "−25.0", "−25.0", "to", "−25.0", "3"]
    ]
    assert (out / "compare.html").exists()
    assert pq.read_schema(out / "compare.parquet").equals(schema.arrow("compare"))
    code, said = invoke(a, b, "--out", out, "--fail-if-worse", 24)
    assert code == 4
    assert "2 of 2 are worse by more than 24 percentage points of retention" in said
    assert "b, the whole text, 1 tokens: −25.0" in said
    # by more than the margin: not by the margin itself
    assert invoke(a, b, "--out", out, "--fail-if-worse", 25)[0] == 0
    assert invoke(a, b, "--out", out, "--fail-if-worse", 99, "--metric", "omission")[0] == 4
    # a nat in bits is 1.44
    assert invoke(a, b, "--out", out, "--fail-if-worse", 1.4, "--metric", "bits")[0] == 4
    assert invoke(a, b, "--out", out, "--fail-if-worse", 1.5, "--metric", "bits")[0] == 0
    # better is not worse, and what could be chance does not fail
    assert invoke(b, a, "--out", out, "--fail-if-worse", 0)[0] == 0
    assert invoke(a, c, "--out", out, "--fail-if-worse", 0)[0] == 0
    assert invoke(a, b, "--out", out, "--fail-if-worse", -1)[0] == 2


def test_what_cannot_be_judged_does_not_pass(tmp_path: Path) -> None:
    a = by_hand(tmp_path / "a", [2], [False])
    b = by_hand(tmp_path / "b", [4], [True])
    code, said = invoke(a, b, "--out", tmp_path / "out", "--fail-if-worse", 5)
    assert code == 2
    assert "no class has an interval in retention: nothing can be judged" in said


# ---- the page -------------------------------------------------------------------------------------------------------


def test_no_text_breaks_out_of_the_page(tmp_path: Path) -> None:
    a, b = (synthetic(tmp_path / name, seed=n, by=("domain",)) for n, name in enumerate(("a", "<b onclick=x>")))
    for folder in (a, b):
        for name in ("tokens", "reconstructions"):
            change(folder, name, domain=pl.lit(HOSTILE), reference=pl.lit("x"))
    # the texts differ by their seed: what they hold is of no matter here
    shutil.copy(a / "tokens.parquet", b / "tokens.parquet")
    found = runs.compare([a, b])
    made = Page(page.write(found, tmp_path).read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in made.tags}
    attributes = {name for _, held in made.tags for name in held}
    assert {a for a in attributes if a.startswith("on")} == {"onsubmit"}
    assert HOSTILE in made.text
    assert "<b onclick=x>" in made.text


def test_the_pages_numbers(tmp_path: Path) -> None:
    a = by_hand(tmp_path / "a", [2, 2, 2], [False] * 3)
    b = by_hand(tmp_path / "b", [3, 3, 3], [True] * 3)
    found = runs.compare([a, b])
    # three documents that differ by one and the same amount: no spread, so no p, and no verdict
    said = page.headline(found, found.sides[1])
    assert said["value"] == "as much"
    row = only(found.table, by="all", metric="retention") | {"p_adjusted": 0.01}
    assert page.verdict(row) == "worse"
    assert page.verdict(row | {"direction": "lost"}) == "better"
    assert page.verdict(row | {"p_adjusted": 0.06}) == ""
    shown = page.shown(found)[0]
    assert (shown["base_value"], shown["run_value"], shown["value"]) == ("50.0\u202f%", "25.0\u202f%", "−25.0")
    assert shown["n"] == "3 tokens, 3 documents"
