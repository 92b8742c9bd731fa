"""Text built from tokens, and files of columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemoscope.config import Corpus
from mnemoscope.errors import TextError
from mnemoscope.text import corpora, sentences
from mnemoscope.types import Document


def documents(path: Path, **options: Any) -> list[tuple[Document, dict[str, Any]]]:
    return list(corpora.read_with_record([Corpus(path=str(path), **options)], []))


def jsonl(file: Path, *records: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return file


def test_by_hand() -> None:
    # Ada did|n't sleep|. Rain|fell       a space after Ada, n't and . alone
    text, places = sentences.join([(["Ada", "did", "n't", "sleep", "."], [1, 0, 1, 0, 1]), (["Rain", "fell"], [0, 1])])
    assert text == "Ada didn't sleep. Rainfell"
    assert places == (((0, 3), (4, 7), (7, 10), (11, 16), (16, 17)), ((18, 22), (22, 26)))


word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


@given(st.lists(st.lists(st.tuples(word, st.booleans()), max_size=4), max_size=4))
def test_every_token_stands_in_its_place(given_sentences: list[list[tuple[str, bool]]]) -> None:
    pairs = [([t for t, _ in s], [f for _, f in s]) for s in given_sentences]
    text, places = sentences.join(pairs)
    assert [[text[a:b] for a, b in spans] for spans in places] == [tokens for tokens, _ in pairs]
    # nothing else is in the text but the spaces asked for, and none after the last token
    everything = [pair for s in given_sentences for pair in s]
    assert text == "".join(t + " " * f for t, f in everything[:-1]) + "".join(t for t, _ in everything[-1:])


def test_successive_records_of_one_id_are_one_document(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "a.jsonl",
        {"d": 7, "w": ["日本", "語"], "s": [0, 1], "g": "news", "x": ["A", "B"]},
        {"d": 7, "w": ["e\u0301!"], "s": [0], "g": "news", "x": ["C"]},
        {"d": "b", "w": ["one"], "s": [1], "g": "law", "x": ["D"]},
    )
    (first, record), (second, _) = documents(file, tokens="w", space_after="s", doc_id="d", domain="g")
    assert first == Document("7", "日本語 e\u0301!", "news", "a.jsonl", "", f"{file}:1", (((0, 2), (2, 3)), ((4, 7),)))
    assert record["x"] == [["A", "B"], ["C"]]
    assert (second.doc_id, second.text, second.domain, second.where) == ("b", "one", "law", f"{file}:3")
    # without spacing a space after each; without an id each record is a document
    separate = documents(file, tokens="w")
    assert [(d.doc_id, d.text) for d, _ in separate] == [
        ("a.jsonl:1", "日本 語"), ("a.jsonl:2", "e\u0301!"), ("a.jsonl:3", "one")
    ]  # fmt: skip
    assert [r["x"] for _, r in separate] == [[["A", "B"]], [["C"]], [["D"]]]


def test_of_parquet_the_needed_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"w": [["a", "b"], []], "s": [[False, True], []], "ner": [["O", "B-X"], []]}), file)
    options: dict[str, Any] = {"path": str(file), "tokens": "w", "space_after": "s"}
    found = list(corpora.read_with_record([Corpus(**options)], ["ner"]))
    assert [(d.text, r["ner"]) for d, r in found] == [("ab", [["O", "B-X"]]), ("", [[]])]
    [checked] = corpora.check([Corpus(**options)])
    assert (checked.documents, checked.empty, checked.text_bytes) == (2, 1, 2)


@pytest.mark.parametrize(
    ("records", "options", "problem"),
    [
        ([{"w": "one two"}], {}, "1: the tokens are not a list of texts"),
        ([{"w": ["a", ""]}], {}, "1: the tokens are not a list of texts"),
        ([{"w": ["a", None]}], {}, "1: the tokens are not a list of texts"),
        ([{"w": ["\ud800"]}], {}, "1: a token holds half a surrogate pair"),
        ([{"w": ["a"]}], {"space_after": "s"}, r"1: no field 's' \(the corpus's space_after\).*there: w"),
        ([{"v": ["a"]}], {}, r"1: no field 'w' \(the corpus's tokens\).*there: v"),
        ([{"w": ["a"], "s": [1, 0]}], {"space_after": "s"}, "1: 1 tokens and 2 values of space_after"),
        ([{"w": ["a"], "s": ["no"]}], {"space_after": "s"}, "1: space_after is not a list of 1 and 0"),
        ([{"w": ["a"], "s": None}], {"space_after": "s"}, "1: space_after is not a list of 1 and 0"),
        ([{"w": ["a"], "d": "x"}, {"w": ["b"]}], {"doc_id": "d"}, r"2: no field 'd' \(the corpus's doc_id\)"),
        (
            [{"w": ["a"], "d": "x", "g": "news"}, {"w": ["b"], "d": "x", "g": "law"}],
            {"doc_id": "d", "domain": "g"},
            "2: the domain of document 'x' is 'news' in its first record and 'law' here",
        ),
        (
            [{"w": ["a"], "d": "x"}, {"w": ["b"], "d": "y"}, {"w": ["c"], "d": "x"}],
            {"doc_id": "d"},
            "3: document id 'x' was already given at",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, records: Any, options: dict[str, str], problem: str) -> None:
    file = jsonl(tmp_path / "a.jsonl", *records)
    with pytest.raises(TextError, match=rf"a\.jsonl:{problem}"):
        list(corpora.read([Corpus(path=str(file), tokens="w", **options)]))


def test_space_after_is_about_tokens() -> None:
    with pytest.raises(ValueError, match="space_after is about tokens"):
        Corpus(path="a", space_after="s")


# ---- files of columns -----------------------------------------------------------------------------------------------

CONLL = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
voted VBD I-VP O

# CD I-NP O
1 CD I-NP O
-DOCSTART- -X- -X- O
\u00a0 NN I-NP O
"""


def test_conll(tmp_path: Path) -> None:
    """Two documents; # is a token; a no-break space is one, too, and a DOCSTART needs no empty line beside it."""
    file = tmp_path / "a.conll"
    file.write_text(CONLL, encoding="utf-8")
    with pytest.raises(TextError, match=r"a\.conll:3: no field 'text' .*there: document, 1, 2, 3, 4"):
        documents(file)
    (first, record), (second, _) = documents(file, tokens="1", doc_id="document")
    assert (first.doc_id, first.text, first.where) == ("a.conll:1", "U.N. voted # 1", f"{file}:3")
    assert record["4"] == [["I-ORG", "O"], ["O", "O"]]
    assert (second.doc_id, second.text) == ("a.conll:2", "\u00a0")
    file.write_text(CONLL.replace("1 CD I-NP O", "1 CD"), encoding="utf-8")
    with pytest.raises(TextError, match=r"a\.conll:7: 2 columns, where the sentence has 4"):
        documents(file, tokens="1")


def test_two_columns_with_tabs_and_no_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.bio"
    file.write_bytes(b"New York\tB-LOC\r\n.\tO\r\n\t\r\nYes\tO")
    pairs = documents(file, tokens="1")
    assert [(d.doc_id, d.text, r["2"]) for d, r in pairs] == [
        ("a.bio:1", "New York .", [["B-LOC", "O"]]), ("a.bio:4", "Yes", [["O"]])
    ]  # fmt: skip
    with pytest.raises(TextError, match="no field 'document'"):
        documents(file, tokens="1", doc_id="document")


CONLL_U = """# newdoc id = first
# meta::genre = news
# sent_id = 1
# text = Don't go du jour
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\tX=1|SpaceAfter=No
3.1\tgone\tgo\tVERB\tVB\t_\t_\t_\t_\t_
4-5\tdu\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
4\tde\tde\tADP\t_\t_\t6\tcase\t_\t_
5\tle\tle\tDET\t_\t_\t6\tdet\t_\t_
6\tjour\tjour\tNOUN\t_\t_\t3\tobl\t_\t_

# sent_id = 2
1\tA b\t_\tX\t_\t_\t0\troot\t_\t_

# newdoc
1\tEnd\t_\tNOUN\t_\t_\t0\troot\t_\t_
"""


def test_conll_u(tmp_path: Path) -> None:
    """Don't stands as its two words; du is not spelt by de + le, and stands for both; the empty node is left out."""
    file = tmp_path / "a.conllu"
    file.write_text(CONLL_U, encoding="utf-8")
    options = {"tokens": "form", "space_after": "space_after", "doc_id": "document"}
    (first, record), (second, _) = documents(file, **options)
    assert (first.doc_id, first.text) == ("first", "Don't godujour A b")
    assert record["form"] == [["Do", "n't", "go", "du", "jour"], ["A b"]]
    assert record["upos"] == [["AUX", "PART", "VERB", "ADP+DET", "NOUN"], ["X"]]
    assert (record["meta::genre"], record["sent_id"]) == (["news", "news"], ["1", "2"])
    assert (second.doc_id, second.text) == ("a.conllu:2", "End")
    # its comments hold text, too: a sentence is a document then
    with pytest.raises(TextError, match="no field 'text'"):
        documents(file)


def test_conll_u_plus_names_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.conllup"
    file.write_text("# global.columns = ID FORM NER:BIO\n1\tOslo\tB-LOC\n", encoding="utf-8")
    [(document, record)] = documents(file, tokens="form")
    assert (document.text, record["ner:bio"]) == ("Oslo", [["B-LOC"]])
    file.write_text("# global.columns = FORM\nOslo\n", encoding="utf-8")
    with pytest.raises(TextError, match=r"a\.conllup:2: no columns ID and FORM"):
        documents(file, tokens="form")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("1\tA\n", "1: 2 columns, where the sentence has 10"),
        ("# a = b\n1\tA\t_\t_\t_\t_\t_\t_\t_\t_\n\nx y z\n", "4: 1 columns"),
        ("1-x\tA\t_\t_\t_\t_\t_\t_\t_\t_\n", "1: the id '1-x' is no range"),
        ("2-1\tA\t_\t_\t_\t_\t_\t_\t_\t_\n", "1: the id '2-1' is no range"),
    ],
)
def test_bad_conll_u_is_named(tmp_path: Path, lines: str, problem: str) -> None:
    file = tmp_path / "a.conllu"
    file.write_text(lines, encoding="utf-8")
    with pytest.raises(TextError, match=rf"a\.conllu:{problem}"):
        documents(file, tokens="form")


def test_an_empty_file_of_columns(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("\n\n-DOCSTART- O\n\n")
    with pytest.raises(TextError, match="no record in it"):
        list(corpora.read([Corpus(path=str(tmp_path / "a.conll"), tokens="1")]))


def test_classes_of_a_data_set_are_named(tmp_path: Path) -> None:
    """The hub's CoNLL-2003 numbers its tags; the names are in the data set's features."""
    datasets = pytest.importorskip("datasets", reason="the library that reads data sets is an optional dependency")
    from mnemoscope.text.corpora import _classes, _named

    names = datasets.ClassLabel(names=["O", "B-PER"])
    features = datasets.Features(
        {"tags": datasets.Sequence(names), "kind": names, "words": datasets.Sequence(datasets.Value("string"))}
    )
    assert _classes(features) == {"tags": ["O", "B-PER"], "kind": ["O", "B-PER"]}
    assert _named([0, 1, -1], ["O", "B-PER"]) == ["O", "B-PER", None]
