"""Spans from records and files, and their way to tokens."""

from __future__ import annotations

import json
from itertools import pairwise

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnemoscope import plugins, schema
from mnemoscope.annotate import Span, collect, project, table, write
from mnemoscope.errors import RunError, TextError
from mnemoscope.types import Document

TEXT = "Ada Lovelace slept in Turin."
#       0123456789...  Ada 0-3, Lovelace 4-12, slept 13-18, in 19-21, Turin 22-27


def tokens(*spans: tuple[int, int, str], doc_id: str = "a") -> pl.DataFrame:
    types = {"char_start": pl.Int32, "char_end": pl.Int32, "token": pl.String}
    return pl.DataFrame(list(spans), schema=types, orient="row").with_columns(doc_id=pl.lit(doc_id))


def document(doc_id: str = "a", text: str = TEXT) -> Document:
    return Document(doc_id, text, domain="news", source="s", where="corpus.jsonl:7")


SOME = tokens(
    (0, 3, "Ada"),
    (3, 8, "ĠLove"),
    (8, 12, "lace"),
    (12, 18, "Ġslept"),
    (18, 21, "Ġin"),
    (21, 27, "ĠTurin"),
    (27, 28, "."),
)


def test_by_hand():
    spans = table([Span("a", 0, 12, "PERSON"), Span("a", 22, 27, "PLACE"), Span("b", 0, 28, "ALL")])
    found = project(spans, SOME)
    assert found.name == "label"
    assert found.to_list() == ["PERSON", "PERSON", "PERSON", None, None, "PLACE", None]


def test_the_space_before_a_word_belongs_to_no_span():
    # the span ends with the space before "slept": only white space is shared
    assert project(table([Span("a", 0, 13, "X")]), SOME).to_list()[:4] == ["X", "X", "X", None]
    # as text, and as SentencePiece spells it
    assert (
        project(table([Span("a", 0, 13, "X")]), tokens((12, 18, " slept"), (12, 18, "▁slept"))).to_list() == [None] * 2
    )
    # a token of white space only has nothing else to go by
    assert project(table([Span("a", 2, 4, "X")]), tokens((2, 4, "ĊĊ"))).to_list() == ["X"]


def test_most_characters_win_then_the_earlier():
    token = tokens((0, 6, "abcdef"))
    assert project(table([Span("a", 0, 2, "P"), Span("a", 2, 6, "Q")]), token).to_list() == ["Q"]
    assert project(table([Span("a", 3, 9, "Q"), Span("a", 0, 3, "P")]), token).to_list() == ["P"]
    assert project(table([Span("a", 0, 9, "second"), Span("a", 0, 7, "third")]), token).to_list() == ["second"]


def test_documents_do_not_run_into_each_other():
    spans = table([Span("a", 20, 28, "X"), Span("b", 0, 4, "Y")])
    both = pl.concat([tokens((24, 28, "last")), tokens((0, 4, "frst"), (4, 8, "next"), doc_id="b")])
    assert project(spans, both).to_list() == ["X", "Y", None]
    assert project(spans, both.reverse()).to_list() == [None, "Y", "X"]


def test_nothing_to_project():
    assert project(table([]), SOME).to_list() == [None] * 7
    assert project(table([Span("a", 0, 3, "X")]), SOME.clear()).to_list() == []


def by_definition(spans: list[Span], token: dict) -> str | None:
    stripped = token["token"].lstrip(" ")
    start = token["char_start"] + (len(token["token"]) - len(stripped) if stripped else 0)
    best, label = 0, None
    for span in sorted(spans, key=lambda s: s.char_start):
        shared = min(span.char_end, token["char_end"]) - max(span.char_start, start)
        if span.doc_id == token["doc_id"] and shared > best:
            best, label = shared, span.label
    return label


@st.composite
def spans_and_tokens(draw):
    spans, rows = [], []
    for doc_id in ("a", "b", "c"):
        for number in range(draw(st.integers(0, 5))):
            start = draw(st.integers(0, 28))
            spans.append(Span(doc_id, start, draw(st.integers(start + 1, 30)), f"{doc_id}{number}"))
        # tokens of one cutting, then of another: they overlap, as windows of two lengths do
        for _ in range(draw(st.integers(1, 2))):
            cuts = sorted(draw(st.sets(st.integers(1, 29), max_size=8)) | {0, 30})
            for start, end in pairwise(cuts):
                spaces = draw(st.integers(0, end - start))
                rows.append((start, end, " " * spaces + "x" * (end - start - spaces), doc_id))
    rows = draw(st.permutations(rows))
    types = {"char_start": pl.Int32, "char_end": pl.Int32, "token": pl.String, "doc_id": pl.String}
    return spans, pl.DataFrame(rows, schema=types, orient="row")


@given(spans_and_tokens())
@settings(deadline=None)
def test_any_spans_against_the_definition(case):
    spans, rows = case
    expected = [by_definition(spans, token) for token in rows.iter_rows(named=True)]
    assert project(table(spans), rows).to_list() == expected


def test_a_span_outside_its_document_is_refused():
    for start, end in ((-1, 3), (4, 4), (5, 4)):
        with pytest.raises(TextError, match=f"span {start} to {end} does not lie in document 'a'"):
            project(table([Span("a", 0, 3, "X"), Span("a", start, end, "X")]), SOME)
    with pytest.raises(TextError, match="span 27 to 29 does not lie in document 'a', whose text has 28 characters"):
        project(table([Span("a", 27, 29, "X")]), SOME, {"a": 28})
    project(table([Span("a", 27, 28, "X"), Span("unknown", 27, 29, "X")]), SOME, {"a": 28})


def test_from_the_field_of_a_record():
    annotator = plugins.load("annotation", "fields")("spans")
    record = {
        "text": TEXT,
        "spans": [{"start": 0, "end": 12, "label": "PERSON"}, {"start": 22, "end": 27, "label": "PLACE"}],
    }
    found = collect(annotator, [(document(), record), (document("b"), {"spans": []})])
    assert found.rows() == [("a", 0, 12, "PERSON", None), ("a", 22, 27, "PLACE", None)]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"text": TEXT}, "no field 'spans'"),
        ({"spans": None}, "None is no span"),
        ({"spans": [{"start": 0, "end": 12}]}, "item 0: .* is no span"),
        ({"spans": [{"start": 0, "end": True, "label": "X"}]}, "is no span"),
        ({"spans": [{"start": 0, "end": 29, "label": "X"}]}, "span 0 to 29 does not lie in document 'a'"),
        ({"spans": []}, "no document has a span"),
    ],
)
def test_a_bad_record_is_refused(record, problem):
    with pytest.raises(TextError, match=problem):
        collect(plugins.load("annotation", "fields")("spans"), [(document(), record)])


def test_a_text_may_hold_nothing_that_a_rule_finds():
    """Labels that leave out all that there is are refused all the same."""
    numbers = plugins.load("annotation", "numbers")("")
    found = collect(numbers, [(document(), {})])
    assert found.is_empty()
    assert project(found, SOME).to_list() == [None] * len(SOME)
    with pytest.raises(TextError, match="no document has a span"):
        collect(numbers, [(document("a", "7 dwarfs"), {})], {"1 digit": ""})


LINES = [
    {"doc_id": "a", "char_start": 0, "char_end": 12, "label": "PERSON"},
    {"doc_id": "b", "char_start": 22, "char_end": 27, "label": "PLACE"},
    {"doc_id": "elsewhere", "char_start": 0, "char_end": 999, "label": "X"},
]


def test_from_a_file(tmp_path):
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, LINES)) + "\n\n")
    pl.DataFrame(LINES).with_columns(more=1).write_parquet(tmp_path / "s.parquet")
    for name in ("s.jsonl", "s.parquet"):
        annotator = plugins.load("annotation", "file")(str(tmp_path / name))
        found = collect(annotator, [(document("b"), {}), (document("a"), {}), (document("c"), {})])
        assert found.rows() == [("b", 22, 27, "PLACE", None), ("a", 0, 12, "PERSON", None)]
    with pytest.raises(TextError, match="no document has a span"):
        collect(annotator, [(document("c"), {})])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"doc_id": "a", "char_start": 0, "label": "X"}', "no char_end"),
        ('{"doc_id": "a", "char_start": 0, "char_end": "9", "label": "X"}', "char_end is '9', and no whole number"),
        ('{"doc_id": true, "char_start": 0, "char_end": 9, "label": "X"}', "doc_id is True, and no text or whole"),
        ('{"doc_id": "a", "char_start": 9, "char_end": 9, "label": "X"}', "9 to 9 are no span"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, problem):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + line + "\n")
    with pytest.raises(TextError, match=rf"s\.jsonl:2: .*{problem}"):
        plugins.load("annotation", "file")(str(path))


def test_a_bad_file_is_named(tmp_path):
    load = plugins.load("annotation", "file")
    pl.DataFrame(LINES).drop("label").write_parquet(tmp_path / "s.parquet")
    with pytest.raises(TextError, match=r"s\.parquet:1: no label"):
        load(str(tmp_path / "s.parquet"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(TextError, match=r"torn\.parquet: unreadable"):
        load(str(tmp_path / "torn.parquet"))
    with pytest.raises(TextError, match=r"s\.csv: not a file of spans"):
        load(str(tmp_path / "s.csv"))
    with pytest.raises(TextError, match=r"absent\.parquet: no such file of spans\. .* Did you mean"):
        load(str(tmp_path / "absent.parquet"))


def test_a_span_behind_its_document_is_named_where_it_stands(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(map(json.dumps, [LINES[0], {**LINES[1], "char_end": 4000}])))
    with pytest.raises(TextError, match=r"s\.jsonl:2: the span 22 to 4000 does not lie in document 'b'"):
        collect(plugins.load("annotation", "file")(str(path)), [(document("a"), {}), (document("b"), {})])


def test_ids_of_numbers_are_those_of_the_corpus(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({**LINES[0], "doc_id": 7}))
    assert collect(plugins.load("annotation", "file")(str(path)), [(document("7"), {})])["doc_id"].to_list() == ["7"]


def test_write(tmp_path):
    spans = table([Span("a", 0, 12, "PERSON")])
    path = write(spans, tmp_path, "names")
    assert path == tmp_path / "annotations" / "names.parquet"
    assert pq.read_schema(path).equals(schema.arrow("annotations"), check_metadata=True)
    assert pl.read_parquet(path).equals(spans)
    assert [p.name for p in path.parent.iterdir()] == ["names.parquet"]
    with pytest.raises(TextError, match="cannot be named"):
        write(spans, tmp_path, "../names")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write(spans, tmp_path / "file", "names")


def test_the_embedded_sampler_has_spans():
    """The documents that ship with the package are labelled in the form that ``fields`` reads."""
    from mnemoscope.text import files

    [(path, _)] = files.find("embedded:sampler")
    pairs = []
    for _, line in files.lines(path):
        record = json.loads(line)
        pairs.append((document(record["doc_id"], record["text"]), record))
    found = collect(plugins.load("annotation", "fields")("spans"), pairs)
    assert found["label"].n_unique() > 2
