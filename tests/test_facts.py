"""Facts of texts: found by rules, measured by hand-worked numbers, checked from end to end with the embedded model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
from test_compare import by_hand
from test_report import HOSTILE, Page
from tokenizers import Tokenizer
from typer.testing import CliRunner

from mnemoscope import cli, config, facts, schema
from mnemoscope.errors import ConfigError, MnemoscopeError, ModelError, RunError, TextError
from mnemoscope.facts.find import KINDS, Fact, Rules, find
from mnemoscope.report.facts import headline
from mnemoscope.stats import facts as table
from mnemoscope.text.tokens import encode
from mnemoscope.types import Document

CLI = CliRunner()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A token for each byte."""
    folder = tmp_path_factory.mktemp("tokenizer")
    small.tokenizer(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def document(text: str, name: str = "a.txt", line: int = 1) -> Document:
    return Document(f"{name}:{line}", text, domain="", source=name, where=f"/x/{name}:{line}")


def found_in(tokenizer: Tokenizer, given: Document, *kinds: str) -> list[Fact]:
    return Rules(kinds or KINDS).facts(given, {}, encode(tokenizer, given.text))


# ---- finding --------------------------------------------------------------------------------------------------------


def test_of_facts_that_overlap_the_first_kinds_is_kept(tokenizer: Tokenizer) -> None:
    """The year in the identifier, and the figures of the date, are no facts of their own."""
    text = "paid INV-2024-0031 on\n3 May 2024 to Ada,\n7 times"
    found = found_in(tokenizer, document(text))
    assert [(f.fact, f.kind, f.line) for f in found] == [
        ("INV-2024-0031", "identifiers", 1),
        ("3 May 2024", "dates", 2),
        ("Ada", "names", 2),
        ("7", "numbers", 3),
    ]
    first = found[0]
    # tokens are bytes: the place of a fact is its place in the text
    assert (first.first, first.tokens, first.char_start, first.char_end) == (5, 13, 5, 18)
    assert (first.before, first.following) == ("paid ", " on\n3 May 2024 to Ada,\n7 times")


def test_a_records_line_is_its_own(tokenizer: Tokenizer) -> None:
    assert found_in(tokenizer, document("a\nb 12", "a.jsonl", 9))[0].line == 9
    assert found_in(tokenizer, document("a\nb 12", "a.py", 1))[-1].line == 2


def test_code_is_what_a_files_name_says(tokenizer: Tokenizer) -> None:
    text = "def area(width):\n    return width * 3.5  # of 2024-01-31\n"
    found = found_in(tokenizer, document(text, "shape.py"))
    assert [(f.fact, f.label) for f in found] == [
        *(("area", "identifier"), ("width", "identifier"), ("width", "identifier"), ("3.5", "number")),
        ("2024-01-31", "date"),
    ]
    assert [f.fact for f in found_in(tokenizer, document(text, "shape.txt"))] == ["3.5", "2024-01-31"]
    assert "area" in [f.fact for f in found_in(tokenizer, document(text, "shape.txt"), "code:python")]


def test_windows_begin_with_the_facts(tokenizer: Tokenizer) -> None:
    """Of 20 characters: at 5 tokens the fact at 17 is too near the end, and the one of 6 digits does not fit."""
    given = document("see 42, 123456 or 7 !")
    wanted: dict[str, Any] = {"seed": 0, "most": None}
    found = find(iter([(given, {})]), tokenizer, Rules(["numbers"]), [3, 5, 9], **wanted)
    assert found.total == 3
    assert {n: [f.fact for f in some] for n, some in found.facts.items()} == {
        3: ["42", "7"],
        5: ["42"],
        9: ["42", "123456"],
    }
    window = found.windows.windows[9][1]
    assert (window.window_id, window.char_start[0], window.length) == ("a.txt:1:9:8", 8, 9)
    with pytest.raises(TextError, match="no fact of these texts has 30 tokens"):
        find(iter([(given, {})]), tokenizer, Rules(["numbers"]), [30], **wanted)
    with pytest.raises(TextError, match="hold no fact"):
        find(iter([(document("none at all"), {})]), tokenizer, Rules(["numbers"]), [3], **wanted)


def test_facts_are_drawn_evenly_over_documents(tokenizer: Tokenizer) -> None:
    many = [(document(f"{'12 ' * n}and the rest", f"{n}.txt"), {}) for n in (9, 1, 4)]
    found = find(iter(many), tokenizer, Rules(["numbers"]), [5], seed=0, most=6)
    held = [f.file for f in found.facts[5]]
    assert {file: held.count(file) for file in held} == {"/x/9.txt": 3, "/x/1.txt": 1, "/x/4.txt": 2}
    assert found.held == {5: 14}


def test_kinds_that_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"no annotation named 'number'\. Did you mean 'numbers'"):
        Rules(["number"])
    with pytest.raises(ConfigError, match="'repetition' labels windows"):
        Rules(["repetition"])
    with pytest.raises(ConfigError, match="'dates' are asked for twice"):
        Rules(["dates", "dates"])


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_bits_worked_by_hand(tmp_path: Path) -> None:
    """Three documents of one fact of one token, 4 nats each without memory; 1, 2 and 5 with it, the last one lost.

    ::

        kept        3 2 -1 nats of 4     0.75 0.5 -0.25        all: 4 of 12 nats = 1/3
        whole       1 1 0                                      2/3
    """
    run = by_hand(tmp_path / "run", [1, 2, 5], [False, False, True])
    windows = pl.read_parquet(run / "reconstructions.parquet")
    windows.with_columns(reference=pl.lit("sea, sea and sea")).write_parquet(run / "reconstructions.parquet")
    some = [Fact(f"d{i}", "a.txt", i + 1, ("names", "dates")[i // 2], "x", 0, 3, "sea", "", "", 0, 1) for i in range(3)]
    study = config.load(run / "study.toml")
    table.write(run, {1: some}, study)
    found = pl.read_parquet(run / "facts.parquet")
    assert pq.read_schema(run / "facts.parquet").equals(schema.arrow("facts"))
    assert found["doc_id"].to_list() == ["d2", "d1", "d0"]
    assert found["retention"].to_list() == pytest.approx([-0.25, 0.5, 0.75])
    assert found["bits"].to_list() == pytest.approx([4 / math.log(2)] * 3)
    assert found["bits_retained"].to_list() == pytest.approx([n / math.log(2) for n in (-1, 2, 3)])
    assert found["whole"].to_list() == [0, 1, 1]
    assert found["again"].to_list() == [2, 2, 2]
    summary = pl.read_parquet(run / "facts_summary.parquet")
    value = {(r["group"], r["metric"]): (r["value"], r["n_tokens"]) for r in summary.iter_rows(named=True)}
    assert value["all", "retention"] == pytest.approx((1 / 3, 3))
    assert value["all", "whole"] == pytest.approx((2 / 3, 3))
    assert value["names", "retention"] == pytest.approx((5 / 8, 2))
    assert value["dates", "omission_in_place"] == (1, 1)
    assert value["all", "bits_retained"][0] == pytest.approx(4 / 3 / math.log(2))
    alone = summary.filter(group="dates", metric="whole")
    assert math.isnan(alone["low"][0])
    both = summary.filter(group="all", metric="whole")
    assert both["low"][0] < 2 / 3 < both["high"][0]


def test_seeds_are_pooled(tmp_path: Path) -> None:
    """A second decoder pays 3 nats for each: a fact's bits are the mean of both, and a fact counts once."""
    run = by_hand(tmp_path / "run", [1, 1], [False, False])
    other = by_hand(tmp_path / "other", [3, 3], [True, True])
    for name in ("tokens", "reconstructions"):
        frames = [pl.read_parquet(f / f"{name}.parquet") for f in (run, other)]
        pq.write_table(
            pa.concat_tables(
                f.with_columns(seed=pl.lit(s)).to_arrow().cast(schema.arrow(name)) for s, f in enumerate(frames)
            ),
            run / f"{name}.parquet",
        )
    some = [Fact(f"d{i}", "a.txt", 1, "names", "x", 0, 3, "sea", "", "", 0, 1) for i in range(2)]
    table.write(run, {1: some}, config.load(run / "study.toml"))
    found = pl.read_parquet(run / "facts.parquet")
    assert found["retention"].to_list() == pytest.approx([0.5, 0.5])
    assert found["whole"].to_list() == [0.5, 0.5]
    assert found["seeds"].to_list() == [2, 2]
    whole = pl.read_parquet(run / "facts_summary.parquet").filter(group="all", metric="whole")
    assert (whole["value"][0], whole["n_tokens"][0]) == (0.5, 2)


# ---- requests -------------------------------------------------------------------------------------------------------


def test_what_a_request_is_refused_for(tmp_path: Path) -> None:
    def refused(kind: type[MnemoscopeError], match: str, **wanted: Any) -> None:
        with pytest.raises(kind, match=match):
            facts.Request(**{"model": "mamba-nano", "files": ["a.txt"], "after": "8", **wanted}).study()

    refused(
        ConfigError, r"no decoder is shipped with 'other/model'.*--decoder RUN/checkpoints/NAME", model="other/model"
    )
    refused(ConfigError, "whole numbers with commas", after="8,many")
    refused(ConfigError, "trained on windows of 4 to 256 tokens: what is missing after 300", after="8,300")
    refused(ConfigError, r"windows\.lengths: lengths must rise", after="16,8")
    refused(ModelError, "there are none", decoder=tmp_path)
    for name in ("one", "two"):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "decoder.json").write_text(json.dumps({"lengths": [8], "seeds": [0, 1], "encoder": "e"}))
    refused(ModelError, "there are several: .*one, .*two", decoder=tmp_path)
    made = facts.Request(model="m", files=["a.txt"], after="8", decoder=tmp_path / "checkpoints" / "two").study()
    assert made.decoders[0].seeds == [0, 1]


# ---- from end to end ------------------------------------------------------------------------------------------------

_TEXT = (
    "Then the ship left for Bergen on 3 May 2024 with 214 crates of fish, and came back to the harbour in the rain. "
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """Three files, one of them code and one hostile, checked with the embedded model: folder, command, output."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "plain.txt").write_text(_TEXT, encoding="utf-8")
    (folder / "hostile.txt").write_text(
        f"So we met Ada {HOSTILE} in 1812, \u202eright to left\u202c. {_TEXT}", encoding="utf-8"
    )
    (folder / "code.py").write_text("total_price = 4711 * rate\nprint(total_price)\n" * 4, encoding="utf-8")
    command = ["check", "mamba-nano", *(str(folder / f) for f in ("plain.txt", "hostile.txt", "code.py"))]
    command += ["--out", str(folder / "run"), "--after", "8,16", "--most", "12", "--device", "cpu"]
    done = CLI.invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    return folder, command, done.output


def test_a_check_of_texts(checked: tuple[Path, list[str], str]) -> None:
    folder, _, said = checked
    found = pl.read_parquet(folder / "run" / "facts.parquet")
    assert dict(found.group_by("after").len().iter_rows()) == {8: 12, 16: 12}
    assert {"code", "dates", "names", "numbers"} <= set(found["kind"])
    assert {Path(f).name for f in found["file"]} == {"plain.txt", "hostile.txt", "code.py"}
    for row in found.iter_rows(named=True):
        text = Path(row["file"]).read_text(encoding="utf-8")
        assert text[row["char_start"] : row["char_end"]] == row["fact"]
        assert row["fact"] in text.split("\n")[row["line"] - 1]
    # the worst first, at each length
    for _, some in found.group_by("after", maintain_order=True):
        assert some["retention"].is_sorted()
    # the shipped decoder knows 8 tokens nearly by heart: what it is known for is what is measured here
    summary = pl.read_parquet(folder / "run" / "facts_summary.parquet").filter(by="all", metric="retention")
    near, far = summary.sort("length")["value"]
    assert 1 > near > far > 0.3
    assert near > 0.9
    assert "after 16 tokens, worst first" in said
    assert "After 8 tokens, mamba-nano’s memory gives back" in said


def test_the_facts_page_is_only_text(checked: tuple[Path, list[str], str]) -> None:
    page = Page((checked[0] / "run" / "facts.html").read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in page.tags}
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert {name for _, held in page.tags for name in held if name.startswith("on")} == {"onsubmit"}
    assert "<img src=x" in page.text
    assert sum(tag == "mark" for tag, _ in page.tags) == 24


@pytest.mark.parametrize(("documents", "low"), [(1, float("nan")), (3, 0.5)])
def test_brackets_are_explained_where_there_are_any(documents: int, low: float) -> None:
    row = {"by": "all", "metric": "whole", "length": 8, "value": 0.7, "low": low, "high": low + 0.4, "unit": "fraction"}
    summary = pl.DataFrame([row | {"n_tokens": 9, "n_documents": documents}])
    (told,) = headline(summary, SimpleNamespace(model=None))  # type: ignore[arg-type]
    assert told["known"] == (documents > 1)


def test_the_same_check_again(checked: tuple[Path, list[str], str]) -> None:
    """Nothing is measured twice; another check does not take the folder over."""
    folder, command, _ = checked
    before = {f: f.stat().st_mtime_ns for f in (folder / "run" / "decoded").iterdir()}
    numbers = pl.read_parquet(folder / "run" / "facts.parquet")
    assert CLI.invoke(cli.app, command).exit_code == 0
    assert {f: f.stat().st_mtime_ns for f in (folder / "run" / "decoded").iterdir()} == before
    assert pl.read_parquet(folder / "run" / "facts.parquet").equals(numbers)
    done = CLI.invoke(cli.app, [*command, "--find", "dates"])
    assert isinstance(done.exception, RunError)
    assert "the check of this run changed" in str(done.exception)


def test_one_fact_alone_is_an_ordinary_window(checked: tuple[Path, list[str], str]) -> None:
    """The nats of a fact are those of its tokens in tokens.parquet, with memory and without."""
    run = checked[0] / "run"
    row = pl.read_parquet(run / "facts.parquet").row(0, named=True)
    tokens = pl.read_parquet(run / "tokens.parquet").filter(window_id=row["window_id"])
    mine = tokens.filter(pl.col("position") < row["tokens"])
    nats = {c: mine.filter(condition=c)["nats"].cast(pl.Float64).sum() for c in ("memory", "none")}
    assert row["bits"] == pytest.approx(nats["none"] / math.log(2))
    assert row["bits_retained"] == pytest.approx((nats["none"] - nats["memory"]) / math.log(2))
    # its tokens hold all of it, the first of them its first character and the last its last
    assert mine["char_start"].min() <= row["char_start"]
    assert mine["char_end"].max() >= row["char_end"]
    assert mine.filter(condition="memory").height == row["tokens"]
