"""What each annotation says of texts worked by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnemoscope import plugins
from mnemoscope.annotate import Span, collect, project, table
from mnemoscope.annotate._gold import chunks
from mnemoscope.errors import ConfigError, TextError
from mnemoscope.frequency.words import words
from mnemoscope.text import sentences
from mnemoscope.text.tokens import Encoding
from mnemoscope.types import Document, Window


def document(text: str, **more: Any) -> Document:
    return Document("a", text, domain="", source="s", where="corpus:7", **more)


def of_tokens(*given: list[str]) -> Document:
    text, places = sentences.join((tokens, [True] * len(tokens)) for tokens in given)
    return document(text, tokens=places)


def labels(
    kind: str, argument: str, given: Document | str, record: dict[str, Any] | None = None
) -> list[tuple[str, str]]:
    """(text, label) of each span."""
    given = document(given) if isinstance(given, str) else given
    spans = plugins.load("annotation", kind)(argument).spans(given, record or {})
    return [(given.text[s.char_start : s.char_end], s.label) for s in spans]


# ---- gold -----------------------------------------------------------------------------------------------------------


def test_tags() -> None:
    given = of_tokens(["Ada", "slept"], ["日本", "!"])
    record = {"upos": [["PROPN", "VERB"], ["PROPN", "_"]]}
    assert labels("tags", "upos", given, record) == [("Ada", "PROPN"), ("slept", "VERB"), ("日本", "PROPN")]
    assert labels("tags", "upos", of_tokens([]), {"upos": [[]]}) == []


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        # IOB2: two persons side by side
        ("B-P I-P B-P O", [(0, 1, "P"), (2, 2, "P"), (3, 3, "O")]),
        # IOB1: I begins after O and after another label; B only between two of a kind
        ("I-P I-P O I-L I-P B-P", [(0, 1, "P"), (2, 2, "O"), (3, 3, "L"), (4, 4, "P"), (5, 5, "P")]),
        # BIOES and BILOU: what follows an end begins
        ("S-P B-L I-L E-L E-L", [(0, 0, "P"), (1, 3, "L"), (4, 4, "L")]),
        ("U-P U-P B-L L-L I-L", [(0, 0, "P"), (1, 1, "P"), (2, 3, "L"), (4, 4, "L")]),
        ("O O", [(0, 1, "O")]),
        ("_ B-creative-work", [(0, 0, "O"), (1, 1, "creative-work")]),
        ("", []),
    ],
)
def test_chunks(tags: str, found: list[tuple[int, int, str]]) -> None:
    assert list(chunks(tags.split())) == found


tag = st.one_of(st.just("O"), st.none(), st.builds("{}-{}".format, st.sampled_from("BIESLUM"), st.sampled_from("XY")))


@given(st.lists(tag, max_size=12))
def test_chunks_cover_every_token_once_with_its_label(tags: list[str | None]) -> None:
    found = list(chunks(tags))
    assert [n for first, last, _ in found for n in range(first, last + 1)] == list(range(len(tags)))
    for first, last, label in found:
        assert {(t or "O").partition("-")[2] or "O" for t in tags[first : last + 1]} == {label}
        assert all((t or "O")[0] not in "BSU" or label == "O" for t in tags[first + 1 : last + 1])
        assert all((t or "O")[0] not in "ELSU" or label == "O" for t in tags[first:last])


def test_entities() -> None:
    given = of_tokens(["Ada", "Lovelace", "of", "London"], ["London", "."])
    record = {"ner": [["B-PER", "I-PER", "O", "I-LOC"], ["I-LOC", "O"]]}
    # an entity does not run over the end of its sentence
    assert labels("entities", "ner", given, record) == [
        ("Ada Lovelace", "PER"), ("of", "O"), ("London", "LOC"), ("London", "LOC"), (".", "O")
    ]  # fmt: skip
    with pytest.raises(TextError, match="corpus:7: document 'a', field 'ner': 'PER' is no tag"):
        labels("entities", "ner", given, {"ner": [["PER", "O", "O", "O"], ["O", "O"]]})
    for bad in ("B-", "O-PER", "X-PER", "B"):
        with pytest.raises(TextError, match=f"'{bad}' is no tag"):
            labels("entities", "ner", of_tokens(["x"]), {"ner": [[bad]]})


@pytest.mark.parametrize("kind", ["tags", "entities"])
def test_gold_that_does_not_fit_is_refused(kind: str) -> None:
    with pytest.raises(TextError, match="comes without tokens"):
        labels(kind, "x", "Ada slept", {"x": ["A", "B"]})
    with pytest.raises(TextError, match=r"no field 'x'.*there: y"):
        labels(kind, "x", of_tokens(["Ada"]), {"y": [["A"]]})
    for bad in (["O", "O"], [], [1], "O", None):
        with pytest.raises(TextError, match=r"sentence 2: field 'x' does not list a label .* each of its 1 tokens"):
            labels(kind, "x", of_tokens(["Ada"], ["slept"]), {"x": [["O"], bad]})


def test_value() -> None:
    assert labels("value", "g", "some text", {"g": "news"}) == [("some text", "news")]
    assert labels("value", "g", "some text", {"g": 1998}) == [("some text", "1998")]
    assert labels("value", "g", "some text", {"g": True}) == [("some text", "true")]
    for nothing in (None, ""):
        assert labels("value", "g", "some text", {"g": nothing}) == []
    assert labels("value", "g", "", {"g": "news"}) == []
    # of tokens, each sentence has its own
    given = of_tokens(["Ada", "slept"], [], ["Yes"])
    assert labels("value", "g", given, {"g": ["A", "B", "C"]}) == [("Ada slept", "A"), ("Yes", "C")]
    with pytest.raises(TextError, match="no field 'h'"):
        labels("value", "h", "text", {"g": 1})
    with pytest.raises(TextError, match="field 'g' is not one value"):
        labels("value", "g", "text", {"g": [1]})


# ---- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7 of 12, 007", [("7", "1 digit"), ("12", "2 digits"), ("007", "3 digits")]),
        ("1,234,567 but 1,5", [("1,234,567", "7+ digits"), ("1", "1 digit"), ("5", "1 digit")]),
        ("123456 12345678", [("123456", "6 digits"), ("12345678", "7+ digits")]),
        ("3.50, .5, 1.5e-3, 1,000.25", [(x, "decimal") for x in ("3.50", ".5", "1.5e-3", "1,000.25")]),
        ("at 5. Then", [("5", "1 digit")]),
        ("1499 1500 2099 2100", [("1499", "4 digits"), ("1500", "year"), ("2099", "year"), ("2100", "4 digits")]),
        ("the 1990s, 2,000", [("1990s", "year"), ("2,000", "4 digits")]),
        ("2024-01-31 31/12/99 1.2.1999", [(x, "date") for x in ("2024-01-31", "31/12/99", "1.2.1999")]),
        ("March 12, 2007; 5 May, Dec. 1st", [(x, "date") for x in ("March 12, 2007", "5 May", "Dec. 1st")]),
        ("3-4 May 2008", [("3", "1 digit"), ("4 May 2008", "date")]),
        ("12:30 9:05:07", [("12:30", "time"), ("9:05:07", "time")]),
        ("B2B 1st x86 v2 10km 3.11.4", [(x, "compound") for x in ("B2B", "1st", "x86", "v2", "10km", "3.11.4")]),
        ("may 2 be", [("2", "1 digit")]),
        ("$5 -3 50%", [("5", "1 digit"), ("3", "1 digit"), ("50", "2 digits")]),
        ("٣٤ and 日本3", [("٣٤", "2 digits"), ("日本3", "compound")]),
        ("", []),
        ("three", []),
    ],
)
def test_numbers(text: str, found: list[tuple[str, str]]) -> None:
    assert labels("numbers", "", text) == found


@given(st.text(st.sampled_from("019ab.,/-:_e+ é日\u0301'²"), max_size=20))
@settings(deadline=None)
def test_every_figure_is_in_a_number(text: str) -> None:
    spans = plugins.load("annotation", "numbers")("").spans(document(text), {})
    covered = {n for span in spans for n in range(span.char_start, span.char_end)}
    assert [n for n, c in enumerate(text) if c.isdecimal() and n not in covered] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            r"so $\alpha x^2\le 3$.",
            [("$", "delimiter"), (r"\alpha", "command"), ("x", "variable"), ("^", "operator"), ("2", "number"),
             (r"\le", "command"), ("3", "number"), ("$", "delimiter")],
        ),
        ("Pay $2 or $3 now", [("2", "number"), ("3", "number")]),
        ("3 + 4 = 7", [("3", "number"), ("+", "operator"), ("4", "number"), ("=", "operator"), ("7", "number")]),
        ("3-4 well-known and/or", [("3", "number"), ("-", "operator"), ("4", "number")]),
        (
            r"\[a \text{if } b\]",
            [(r"\[", "delimiter"), ("a", "variable"), (r"\text", "command"), ("b", "variable"), (r"\]", "delimiter")],
        ),
        (
            r"\begin{align*}y&=1\end{align*}",
            [(r"\begin", "command"), ("y", "variable"), ("&", "delimiter"), ("=", "operator"), ("1", "number"),
             (r"\end", "command")],
        ),
        (r"\emph{word} B2B", [(r"\emph", "command")]),
        # a formula does not run over an empty line
        ("$a\n\nb$", []),
        (r"cost \$5", [("5", "number")]),
        ("∀ε ≥ 0", [("∀", "operator"), ("≥", "operator"), ("0", "number")]),
        ("", []),
    ],
)  # fmt: skip
def test_mathematics(text: str, found: list[tuple[str, str]]) -> None:
    assert labels("mathematics", "", text) == found


PYTHON = "def f(x):  # why\n    return 'é b' + g(x) and 3.5\n"


def test_code() -> None:
    found = [
        ("def", "keyword"), ("f", "identifier"), ("(", "punctuation"), ("x", "identifier"), ("):", "punctuation"),
        ("# why", "comment"), ("return", "keyword"), ("'é b'", "string"), ("+", "operator"), ("g", "identifier"),
        ("(", "punctuation"), ("x", "identifier"), (")", "punctuation"), ("and", "keyword"), ("3.5", "number"),
    ]  # fmt: skip
    assert labels("code", "python", PYTHON) == found
    assert labels("code", "field:lang", PYTHON, {"lang": "python"}) == found
    assert labels("code", "field:path", PYTHON, {"path": "repo:src/a.py"}) == found
    # of what Pygments does not know nothing is said
    for unknown in ("a.unheard", "", None, 3):
        assert labels("code", "field:path", PYTHON, {"path": unknown}) == []
    assert labels("code", "c", "#include <x.h>\n")[0] == ("#include", "directive")
    with pytest.raises(ConfigError, match="Pygments knows no language 'klingon'"):
        plugins.load("annotation", "code")("klingon")
    with pytest.raises(TextError, match="no field 'path'"):
        labels("code", "field:path", PYTHON, {})


hostile = st.text(st.sampled_from("ab1.,$\\(){}[]^_-/:& \n\r\t'\"é日∑\u0301\u200b"), max_size=60)


@given(hostile)
@settings(deadline=None)
@pytest.mark.parametrize(("kind", "argument"), [("numbers", ""), ("mathematics", ""), ("code", "python")])
def test_rules_give_spans_in_order_that_do_not_overlap(kind: str, argument: str, text: str) -> None:
    spans = list(plugins.load("annotation", kind)(argument).spans(document(text), {}))
    at = 0
    for span in spans:
        assert at <= span.char_start < span.char_end <= len(text)
        assert text[span.char_start : span.char_end].strip()
        at = span.char_end


def test_rules_take_time_in_proportion_to_the_text() -> None:
    """Texts that make a careless pattern try everything again at every character."""
    for text in ("$" * 20_000, "1" * 20_000, "1," * 10_000, r"\begin{align}" * 2_000, "a1" * 10_000, "$a " * 7_000):
        for kind in ("numbers", "mathematics"):
            labels(kind, "", text)


def test_words() -> None:
    text = "Don't pay 3.50 to O'Brien-Smith, cafe\u0301s 'so' 日本語。"
    assert [w for *_, w in words(text)] == [
        "Don't", "pay", "3", "50", "to", "O'Brien", "Smith", "cafe\u0301s", "so", "日本語"
    ]  # fmt: skip
    assert all(text[a:b] == w for a, b, w in words(text))


# ---- what reads tokens, windows, or the model -----------------------------------------------------------------------


class Reader:
    """A reader of one text: tokens of three characters, two windows of four tokens and one of eight."""

    def __init__(self, text: str):
        start = np.arange(0, len(text), 3)
        self.encoding = Encoding(np.arange(len(start)), start, np.minimum(start + 3, len(text)))

    def tokens(self, text: str) -> Encoding:
        return self.encoding

    def text(self, ids: list[int]) -> str:
        return f"token {ids[0]}"

    def windows(self, doc_id: str) -> list[Window]:
        made = []
        for length, first in ((4, 0), (4, 4), (8, 0)):
            columns = (column[first : first + length] for column in self.encoding)
            made.append(Window(f"{doc_id}:{length}:{first}", doc_id, *columns, "", "", "", "none"))
        return made

    def nats(self, windows: list[Window]) -> list[np.ndarray]:
        """Of token n of a window n bits; the first is never predicted."""
        return [np.array([np.nan, *range(1, w.length)]) * np.log(2) for w in windows]


TEXT = "the sea, The sea the sea"
#       012345678901234567890123   tokens |the| se|a, |The| se|a t|he |sea|; the first four end with "The"


def made(kind: str, argument: str, text: str = TEXT) -> pl.DataFrame:
    annotator = plugins.load("annotation", kind)(argument, Reader(text))
    return collect(annotator, [(document(text), {})])


def test_subwords() -> None:
    # the 0-3: |the|; sea 4-7: | se|a, |; The 9-12: |The|; sea 13-16: | se|a t|; the 17-20: |a t|he |; sea 21-24: |sea|
    assert made("subwords", "")["label"].to_list() == [
        "1 token", "2 tokens", "1 token", "2 tokens", "2 tokens", "1 token"
    ]  # fmt: skip
    assert made("subwords", "", "abcdefghijkl")["label"].to_list() == ["4+ tokens"]


def test_repetition() -> None:
    of_document = made("repetition", "document")
    assert of_document["label"].to_list() == ["first", "first", "repeated", "repeated", "repeated", "repeated"]
    assert of_document["window_id"].is_null().all()
    # the second window of four is " sea the sea": it has read no sea before, and the sea at its end is a repetition
    of_window = made("repetition", "window").filter(window_id="a:4:4")
    assert of_window.select("char_start", "label").rows() == [(13, "first"), (17, "first"), (21, "repeated")]
    with pytest.raises(ConfigError, match=r"the argument 'page'.*window or document"):
        made("repetition", "page")


def test_a_label_of_a_window_is_for_its_tokens_alone() -> None:
    spans = made("repetition", "window")
    rows = [(w, 17, 20, "xxx") for w in ("a:4:4", "a:8:0", "b:8:0")]
    schema = {"window_id": pl.String, "char_start": pl.Int32, "char_end": pl.Int32, "token": pl.String}
    tokens = pl.DataFrame(rows, schema=schema, orient="row")
    assert project(spans, tokens).to_list() == ["first", "repeated", None]
    # a table made before there were such labels
    old = table([Span("a", 0, 3, "X")]).drop("window_id")
    assert project(old, pl.DataFrame({"doc_id": ["a"], "char_start": 0, "char_end": 3, "token": "the"})).item() == "X"


def test_surprisal() -> None:
    spans = made("surprisal", "2 4.5")
    # bits 1 2 3 | 1 2 3 | 1 2 3 4 5 6 7, an edge belongs to the bin above it
    four = ["0-2 bits", "2-4.5 bits", "2-4.5 bits"]
    assert spans["label"].to_list() == [*four, *four, *four, "2-4.5 bits", *["4.5+ bits"] * 3]
    assert spans.filter(window_id="a:4:4")["char_start"].to_list() == [15, 18, 21]
    for bad in ("x", "2 1", "0 1", "-1", "1 1", "nan", "inf", " "):
        with pytest.raises(ConfigError, match="surprisal annotation"):
            made("surprisal", bad)


def test_frequency_of_words(tmp_path: Path) -> None:
    file = tmp_path / "own.parquet"
    # of 10^6: the 99,999 is below 10^5, The 100,000 is at it, others make the rest
    pl.DataFrame({"item": ["the", "The", "x"], "count": [99_999, 100_000, 800_001]}).write_parquet(file)
    assert made("frequency", f"word {file}")["label"].to_list() == [
        "10000-100000 per million", "unseen", "100000-1e+06 per million", "unseen", "10000-100000 per million", "unseen"
    ]  # fmt: skip


def counted(file: Path, texts: list[str], least: int) -> Path:
    """As ``mnemoscope count`` writes."""
    frame = pl.DataFrame(
        {"kind": ["token"] * 3 + ["word", "token"], "n": [1, 1, 1, 1, 2], "item": [*texts, "sea", "two"],
         "ids": [[0], [1], [7], None, [0, 1]], "count": [1, 20, 300, 5, 999]},
    )  # fmt: skip
    facts = {"totals": {"token": [1_000_000, 1], "word": [50]}, "request": {"least": least}}
    frame.write_parquet(file, metadata={"mnemoscope.counts": json.dumps(facts)})
    return file


def test_frequency_of_tokens_by_mnemoscope_count(tmp_path: Path) -> None:
    file = counted(tmp_path / "c.parquet", ["token 0", " token 1", "token 7"], least=1)
    assert made("frequency", f"token {file}")["label"].to_list() == [
        "1-10 per million", "10-100 per million", *["unseen"] * 5, "100-1000 per million"
    ]  # fmt: skip
    assert made("frequency", f"word {counted(file, list('abc'), 5)}")["label"].to_list() == [
        "under 5 times", "100000-1e+06 per million", *["under 5 times", "100000-1e+06 per million"] * 2
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="tokens of another tokenizer: 'c' is none"):
        made("frequency", f"token {file}")


def test_counts_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="frequency annotation"):
        made("frequency", "ngram c.parquet")
    with pytest.raises(TextError, match=r"absent\.parquet: no counts"):
        made("frequency", f"word {tmp_path / 'absent.parquet'}")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(TextError, match=r"torn\.parquet: no counts"):
        made("frequency", f"word {tmp_path / 'torn.parquet'}")
    pl.DataFrame({"item": ["a"], "many": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(TextError, match=r"other\.parquet: no counts"):
        made("frequency", f"word {tmp_path / 'other.parquet'}")
    pl.DataFrame({"item": ["a"], "count": [1]}).write_parquet(tmp_path / "words.parquet")
    with pytest.raises(TextError, match="no counts of tokens, where item is a whole number"):
        made("frequency", f"token {tmp_path / 'words.parquet'}")


# ---- spaCy ----------------------------------------------------------------------------------------------------------


def pipeline(folder: Path) -> str:
    """A pipeline of rules: names by a list, parts of speech by a word's form."""
    spacy = pytest.importorskip("spacy", reason="spaCy's pipelines are optional dependencies")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])
    rules = nlp.add_pipe("attribute_ruler")
    rules.add([[{"IS_ALPHA": True}]], {"POS": "X"})
    rules.add([[{"LOWER": "slept"}]], {"POS": "VERB"})
    nlp.to_disk(folder)
    return str(folder)


def test_spacy(tmp_path: Path) -> None:
    name = pipeline(tmp_path / "nlp")
    text = "Ada Lovelace  slept.\nÉté 日本"
    assert labels("spacy", f"ner {name}", text) == [("Ada Lovelace", "PERSON"), ("slept.\nÉté 日本", "O")]
    assert labels("spacy", f"pos {name}", text) == [
        ("Ada", "X"), ("Lovelace", "X"), ("slept", "VERB"), ("Été", "X"), ("日本", "X")
    ]  # fmt: skip
    assert labels("spacy", f"ner {name}", "") == labels("spacy", f"pos {name}", "") == []
    annotator = plugins.load("annotation", "spacy")(f"pos {name}")
    annotator._nlp.max_length = 4
    with pytest.raises(TextError, match="longer than the 4 characters"):
        list(annotator.spans(document("Ada slept"), {}))


def test_a_pipeline_that_is_not_there_or_says_nothing(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy's pipelines are optional dependencies")
    with pytest.raises(ConfigError, match=r"'en_no_such' cannot be loaded .*python -m spacy download en_no_such"):
        plugins.load("annotation", "spacy")("pos en_no_such")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ConfigError, match=r"\(empty\) gives no entities"):
        plugins.load("annotation", "spacy")(f"ner {tmp_path / 'blank'}")
    with pytest.raises(ConfigError, match="gives no parts of speech"):
        labels("spacy", f"pos {tmp_path / 'blank'}", "Ada")
    for bad in ("pos", "lemma en_core_web_sm", "en_core_web_sm"):
        with pytest.raises(ConfigError, match=r"spacy annotation. Give pos or ner"):
            plugins.load("annotation", "spacy")(bad)


# ---- facts by rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("on 2024-01-31 at 09:30, or 4 pm", [("2024-01-31", "date"), ("09:30", "time"), ("4 pm", "time")]),
        ("the 3rd of May 2021, a Tuesday", [("the 3rd of May 2021", "date"), ("Tuesday", "weekday")]),
        ("March 3, 1999; May 2024; 31/12/99", [("March 3, 1999", "date"), ("May 2024", "date"), ("31/12/99", "date")]),
        ("since 1998, 250 of them, in 4.2 m", [("1998", "year")]),
        ("Monday mayor 3pm", [("Monday", "weekday"), ("3pm", "time")]),
        ("no date, 12 apples, may be", []),
    ],
)
def test_dates(text: str, found: list[tuple[str, str]]) -> None:
    assert labels("dates", "", text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see https://a.example/x?y=1, or www.b.org.", [("https://a.example/x?y=1", "url"), ("www.b.org", "url")]),
        ("write to ada.l@mail.example.org!", [("ada.l@mail.example.org", "email")]),
        ("invoice INV-2024-0031 for B2B", [("INV-2024-0031", "code"), ("B2B", "code")]),
        ("ISBN 978-0-13-468599-1 of 2024-01-31", [("978-0-13-468599-1", "code")]),
        ("from 10.0.0.12:80 to /usr/lib/x.so.", [("10.0.0.12:80", "ip"), ("/usr/lib/x.so", "path")]),
        ("commit 9fceb02 and 1234567", [("9fceb02", "hash")]),
        ("id 123e4567-e89b-12d3-a456-426614174000", [("123e4567-e89b-12d3-a456-426614174000", "uuid")]),
        ("call +44 20 7946 0958 now", [("+44 20 7946 0958", "phone")]),
        (
            "set max_length or maxLength in run()",
            [("max_length", "symbol"), ("maxLength", "symbol"), ("run()", "symbol")],
        ),
        ("thanks @ada_l, the 1st in the 1990s", [("@ada_l", "handle")]),
        ("a well-known and/or plain sentence, e.g. this.", []),
    ],
)
def test_identifiers(text: str, found: list[tuple[str, str]]) -> None:
    assert labels("identifiers", "", text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Then Ada met Charles Babbage in London.", [("Ada", "name"), ("Charles Babbage", "name"), ("London", "name")]),
        ("Ada slept. Ada Lovelace woke.", [("Lovelace", "name")]),
        ("He met Dr. Jones of the Bank of England", [("Dr", "name"), ("Jones of the Bank of England", "name")]),
        ("so NATO and I said", [("NATO", "acronym")]),
        ('she said, "Where is Tom?"\nNobody knew', [("Tom", "name")]),
        ("near São Paulo, Łódź and the O'Neill house", [("São Paulo", "name"), ("Łódź", "name"), ("O'Neill", "name")]),
        ("- Item one: The rest", []),
        ("no capitals 日本 here", []),
    ],
)
def test_names(text: str, found: list[tuple[str, str]]) -> None:
    assert labels("names", "", text) == found


@pytest.mark.parametrize("kind", ["dates", "identifiers", "names"])
@settings(deadline=None, max_examples=60)
@given(text=st.text(st.sampled_from("aB1.,@/:-_#() \n'é日\u0301"), max_size=80))
def test_rules_take_any_text(kind: str, text: str) -> None:
    """Spans rise, do not overlap, are not empty, and neither begin nor end with white space."""
    last = 0
    for span in plugins.load("annotation", kind)("").spans(document(text), {}):
        assert last <= span.char_start < span.char_end <= len(text)
        inside = text[span.char_start : span.char_end]
        assert inside == inside.strip()
        last = span.char_end


@pytest.mark.parametrize("kind", ["dates", "identifiers", "names"])
@pytest.mark.parametrize("piece", ["a", "A", "1", "1-", "a.", "/a", "A ", "_a", "of ", "+1 "])
def test_rules_on_one_long_line(kind: str, piece: str) -> None:
    """In seconds: no pattern goes back over what it has read."""
    made = plugins.load("annotation", kind)("")
    started = time.monotonic()
    list(made.spans(document(piece * 50_000), {}))
    assert time.monotonic() - started < 5
