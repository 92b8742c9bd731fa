"""The first sentence: made from the estimates, and naming no more than the intervals say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from synthetic_run import make_run, study

from mnemoscope import schema
from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.report import browser, catalogue, html, words
from mnemoscope.report.opening import lede, opening
from mnemoscope.stats.estimate import estimate

NAN = float("nan")


def row(group: str, value: float, low: float, high: float, **other: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"run": "r", "model": "m", "decoder": "growing", "condition": "memory", "seed": "all"}
    found |= {"metric": "retention", "unit": "fraction", "length": 64, "by": "kinds", "group": group}
    found |= {"value": value, "low": low, "high": high, "confidence": 0.95, "n_tokens": 900, "n_documents": 30}
    return found | {"method": "BCa"} | other


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    found = pl.from_arrow(pl.DataFrame(rows).to_arrow().cast(schema.arrow("estimates")))
    assert isinstance(found, pl.DataFrame)
    return found


def said(*rows: dict[str, Any]) -> list[str]:
    """The clauses of what ``rows`` say, beside a whole of 50 %."""
    whole = row("all", 0.5, 0.48, 0.52, by="all")
    return ["".join(clause) for clause in opening(table(whole, *rows), study(), ["growing"]).clauses]


def test_worst_and_best_stand_apart() -> None:
    # figures end at 0.3, before names (0.35) and words (0.4) begin; words begin at 0.7, after all others end
    rows = [row("figures", 0.25, 0.2, 0.3), row("names", 0.4, 0.35, 0.45), row("words", 0.75, 0.7, 0.8)]
    assert said(*rows) == ["of the kinds, figures fares worst, words best"]


def test_nothing_is_said_where_intervals_overlap() -> None:
    assert said(row("figures", 0.3, 0.2, 0.41), row("names", 0.4, 0.35, 0.45), row("words", 0.45, 0.4, 0.6)) == []


def test_two_are_named_together_where_only_together_they_stand_apart() -> None:
    rows = [row("a", 0.2, 0.1, 0.3), row("b", 0.25, 0.2, 0.32), row("c", 0.5, 0.45, 0.6), row("d", 0.5, 0.4, 0.55)]
    # c and d overlap each other, and stand apart from a and b
    assert said(*rows) == ["of the kinds, a and b fare worst, c and d best"]


def test_who_is_not_compared() -> None:
    """Groups without an interval, of few documents, and tokens without a label; one that is left has no other."""
    rows = [row("a", 0.2, 0.1, 0.3), row("b", 0.5, NAN, NAN), row("c", 0.6, 0.5, 0.7, n_documents=4)]
    assert said(*rows, row("(unlabelled)", 0.9, 0.8, 0.95)) == []
    assert said(*rows, row("d", 0.6, 0.5, 0.7)) == ["of the kinds, a fares worst, d best"]


def test_a_quantity_has_ends_and_no_worst() -> None:
    assert said(row("0-2 bits", 0.2, 0.1, 0.3), row("2-4 bits", 0.5, 0.4, 0.6), row("4+ bits", 0.8, 0.7, 0.9)) == []
    assert said(row("0-7", 0.2, 0.1, 0.3, by="position"), row("8-15", 0.8, 0.7, 0.9, by="position")) == []


def test_where_only_losses_were_measured_the_greatest_is_the_worst() -> None:
    lost = {"metric": "omission_in_place"}
    whole = row("all", 0.5, 0.48, 0.52, by="all", **lost)
    rows = [row("news", 0.2, 0.1, 0.3, by="domain", **lost), row("code", 0.8, 0.7, 0.9, by="domain", **lost)]
    found = opening(table(whole, *rows), study(), ["growing"])
    assert (found.measure, found.value) == ("omission_in_place", "50\u202f%")
    assert ["".join(c) for c in found.clauses] == ["of the kinds of text, code fares worst, news best"]
    assert found.numbers[0] == ("the whole", "50.0\u202f%", "48.0 to 52.0\u202f%", "900 tokens, 30 documents")
    assert [n[0] for n in found.numbers[1:]] == ["domain: code", "domain: news"]


def test_it_speaks_of_64_tokens_or_else_of_the_longest() -> None:
    rows = [row("all", 0.9 - n / 1000, 0.1, 0.95, by="all", length=n) for n in (16, 64, 256)]
    assert opening(table(*rows), study(), ["growing"]).before.startswith("After 64 tokens")
    assert opening(table(rows[0], rows[2]), study(), ["growing"]).before.startswith("After 256 tokens")
    assert (
        "".join(lede(table(*rows), ["growing"])[0][::2])
        == "Of 16 tokens it gives back 88.4\u202f%, of 256 tokens 64.4\u202f%."
    )


def test_what_a_search_finds_is_said_where_the_intervals_stand_apart() -> None:
    lost = {"metric": "omission_in_place", "by": "all"}
    greedy, beam = row("all", 0.7, 0.65, 0.75, **lost), row("all", 0.66, 0.6, 0.7, decoder="growing.beam", **lost)
    undo = row("all", 0.03, 0.0, 0.15, decoder="growing.undo", **lost)
    searched = {"growing.beam": "beam:4", "growing.undo": "undo:runs/x"}
    sentences = ["".join(p[::2]) for p in lede(table(greedy, beam, undo), ["growing"], searched)]
    assert sentences == [
        "Written back from the memory alone, 64 tokens lose 70.0\u202f% from their place.",
        "Sought by ‘undo:runs/x’ from the same memory they lose 3.0\u202f%: what is found so was not forgotten.",
    ]
    # beam's interval overlaps greedy's
    assert len(lede(table(greedy, beam), ["growing"], searched)) == 1


def ceiling(group: str, value: float, low: float, high: float, **other: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"run": "r", "model": "m", "length": 64, "by": "all", "group": group, "precision": "fp32"}
    found |= {f"{end}{of}": 0.0 for end in ("floor", "gap") for of in ("", "_low", "_high")}
    found |= {"ceiling": value, "ceiling_low": low, "ceiling_high": high, "guessed": 0.0, "confidence": 0.95}
    found |= {"n_tokens": 900, "n_certified": 9, "n_documents": 30, "decoders": "growing.undo/seed-0", "method": "BCa"}
    return found | other


def searched(*searches: str) -> Study:
    """A decoder, growing, and by other searches."""
    one = study().decoders[0]
    others = {"recipe": "trained", "of": "growing", "tokens": None, "batch_tokens": None, "optimiser": None}
    more = [one.model_copy(update=others | {"name": f"growing.{s.partition(':')[0]}", "search": s}) for s in searches]
    return study().model_copy(update={"decoders": [one, *more]})


def test_the_best_reader_of_a_bracket_speaks_first_and_the_decoder_beside_it() -> None:
    rows = [row("all", 0.58, 0.55, 0.6, by="all"), row("all", 0.7, 0.65, 0.75, by="all", metric="omission_in_place")]
    bracket = pl.DataFrame(
        [
            ceiling("all", 0.015, 0.0, 0.08),
            ceiling("code", 0.3, 0.2, 0.4, by="domain"),
            ceiling("news", 0.0, 0.0, 0.1, by="domain"),
            ceiling("all", 0.9, 0.8, 0.95, length=256),
        ]
    )
    found = opening(table(*rows), searched("undo:a/b/undo-nano"), ["growing"], bracket)
    assert found.measure == "written_back"
    assert found.before == (
        "Of 64 tokens, the best reader of mamba-nano’s memory, ‘undo:undo-nano’ with the decoder growing, wrote back"
    )
    # nothing is measured anew: 1 less the ceiling, and 1 less the decoder's own loss
    assert (found.value, found.after, found.interval) == ("98\u202f%", "in place", "92 to 100\u202f%")
    assert ["".join(c) for c in found.clauses] == [
        "the decoder growing alone wrote back 30\u202f%",
        "of the kinds of text, code fares worst, news best",
    ]
    assert found.numbers[:2] == [
        ("the best reader", "98.5\u202f%", "92.0 to 100.0\u202f%", "900 tokens, 30 documents"),
        ("the decoder growing alone", "30.0\u202f%", "25.0 to 35.0\u202f%", "900 tokens, 30 documents"),
    ]
    # the decoder's information, and not the search that the first sentence is of
    undo = row("all", 0.015, 0.0, 0.08, by="all", metric="omission_in_place", decoder="growing.undo")
    names = {"growing.undo": "undo:undo-nano"}
    assert ["".join(p[::2]) for p in lede(table(*rows, undo), ["growing"], names, 64)] == [
        "Of 64 tokens the decoder growing gives back 58.0\u202f% of the information.",
        "Written back by the decoder growing from the memory alone, 64 tokens lose 70.0\u202f% from their place.",
    ]
    assert "Sought by" in str(lede(table(*rows, undo), ["growing"], names, 16))


def test_a_decoder_that_is_the_best_reader_has_nobody_beside_it() -> None:
    rows = [row("all", 0.7, 0.65, 0.75, by="all", metric="omission_in_place")]
    mine = pl.DataFrame([ceiling("all", 0.71, 0.66, 0.76, decoders="growing/seed-0, growing/seed-1", guessed=0.01)])
    found = opening(table(*rows), searched("undo:x"), ["growing"], mine)
    assert found.before.endswith("memory, the decoder growing, wrote back")
    assert found.after == "in place, certain guesses left out"
    assert found.clauses == []
    # halves that are read by two
    two = pl.DataFrame([ceiling("all", 0.6, 0.5, 0.7, decoders="growing/seed-0, growing.beam/seed-0")])
    both = opening(table(*rows), searched("beam:4"), ["growing"], two)
    assert both.before.endswith("the decoder growing or ‘beam:4’ with the decoder growing, wrote back")
    assert len(both.clauses) == 1


# ---- what the page is made of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    estimate(folder, make_run(folder, lengths=(16,), seeds=(0,), resamples=50))
    return folder


def test_a_certificate_of_another_model_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = pl.read_parquet(run / "tokens.parquet").filter(condition="memory")
    rows = tokens.with_columns(
        model=pl.lit("another"), weight=1.0, substitute_id=0, precision=pl.lit("fp32"), equal=True
    )
    rows = rows.with_columns(differing=0, ulps=0, apart=0.0, substitute_nats=1.0)
    wanted = schema.arrow("certificate")
    (run / "certificate").mkdir()
    pq.write_table(rows.select(wanted.names).to_arrow().cast(wanted), run / "certificate" / "L16.parquet")
    with pytest.raises(RunError, match=r"'another'.*'mamba-nano'"):
        html.write(run, study(), {})


def test_a_run_of_before_says_not_what_was_written(run: Path) -> None:
    """Token tables had no column ``written``: the page then shows the operations alone."""
    file = run / "tokens.parquet"
    whole = file.read_bytes()
    assert browser.payload(run, ["growing"], 0)["windows"][0]["runs"]["growing/memory"]["written"]
    pl.read_parquet(file).drop("written").write_parquet(file)
    assert "written" not in browser.payload(run, ["growing"], 0)["windows"][0]["runs"]["growing/memory"]
    file.write_bytes(whole)


def test_spelled_tokens_as_text() -> None:
    """Byte-level alphabets and SentencePiece's; half a character is no text."""
    cases = {"Ġthe": " the", "âĤ¬": "€", "Ċ": "\n", "▁the": " the", "Ġ1Ċ": " 1\n", "": "", "日本": "日本"}
    assert {token: browser.unspelled(token) for token in cases} == cases
    assert browser.unspelled("âĤ") == "\ufffd"


def test_long_names_are_cut_and_stay_apart() -> None:
    long = "x" * 500
    shown = words.names(["a", long + "1", long + "2", "a"], most=10)
    assert list(shown) == ["a", long + "1", long + "2"]
    assert list(shown.values()) == ["a", "xxxxxxxxxx… (501 characters)", "xxxxxxxxxx… (501 characters) #2"]


def test_every_chart_by_group_has_its_part_of_the_page(run: Path) -> None:
    shown = catalogue.of_run(
        pl.read_parquet(run / "estimates.parquet"), pl.read_parquet(run / "curves.parquet"), ["growing"]
    )
    parts = {s.anchor: [c.name for c in s.charts] for s in catalogue.sections(shown)}
    assert list(parts) == ["length", "text", "position"]
    assert sorted(n for names in parts.values() for n in names) == sorted({c.name for c in shown} - {"learning"})
