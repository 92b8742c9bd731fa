"""Corpora: every format, every way a file can be bad, and what each message must say."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from mnemoscope.config import Corpus
from mnemoscope.errors import TextError
from mnemoscope.text import corpora, files
from mnemoscope.types import Document

# Unicode's other line breaks, a lone carriage return, and decomposed accents: text like any other
ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\rg\r\nh e\u0301 日本 🙂 "


def corpus(path: Path | str, **options: object) -> Corpus:
    return Corpus(path=str(path), **options)  # type: ignore[arg-type]


def documents(path: Path | str, **options: object) -> list[Document]:
    return list(corpora.read([corpus(path, **options)]))


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in records)


def long_zstd(data: bytes) -> bytes:
    """As ``zstd --long=28`` writes: the frame asks for a window that the library refuses unless told otherwise."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return writer.compress(data) + writer.flush()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": long_zstd,
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("suffix", files.JSON_LINES)
def test_json_lines_split_on_newline_only(tmp_path: Path, suffix: str, packing: str) -> None:
    file = tmp_path / f"a{suffix}{packing}"
    file.write_bytes(PACKED[packing](jsonl({"text": ODD}, {"text": "second"})))
    first, second = documents(file)
    assert first == Document(f"{file.name}:1", ODD, "", file.name, "", f"{file}:1")
    assert (second.text, second.where) == ("second", f"{file}:2")


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("suffix", files.PLAIN_TEXT)
@pytest.mark.parametrize("text", [ODD, ODD + "\n", "\n\n"])
def test_plain_text_is_one_document_kept_exactly(tmp_path: Path, suffix: str, packing: str, text: str) -> None:
    file = tmp_path / f"a{suffix}{packing}"
    file.write_bytes(PACKED[packing](text.encode()))
    [document] = documents(file, domain_name="notes", dialect_name="scots")
    assert document == Document(f"{file.name}:1", text, "notes", file.name, "scots", f"{file}:1")


def test_parquet_reads_the_named_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = {"body": [ODD, ""], "id": [7, 8], "kind": ["x", "y"], "unused": [1.5, None]}
    pq.write_table(pa.table(rows), file)
    first, second = documents(file, text="body", doc_id="id", domain="kind")
    assert first == Document("7", ODD, "x", "a.parquet", "", f"{file}:1")
    assert (second.doc_id, second.text, second.domain) == ("8", "", "y")


def test_named_fields_reach_the_document(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(jsonl({"t": "x", "i": "one", "k": "news", "s": "paper", "d": "scots"}))
    [document] = documents(file, text="t", doc_id="i", domain="k", source="s", dialect="d")
    assert document == Document("one", "x", "news", "paper", "scots", f"{file}:1")


def test_the_long_window_of_these_tests_is_one() -> None:
    with pytest.raises(zstandard.ZstdError, match="too much memory"):
        zstandard.ZstdDecompressor().decompressobj().decompress(long_zstd(RECORDS))


def test_frames_one_after_another_are_one_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.zst"
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    file.write_bytes(long_zstd(jsonl({"text": "a"})) + skippable + long_zstd(jsonl({"text": "b"})))
    assert [d.text for d in documents(file)] == ["a", "b"]


def test_a_line_longer_than_a_piece_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.zst"
    text = "long " * 600_000  # 3 MB: three pieces
    file.write_bytes(long_zstd(jsonl({"text": text}, {"text": "b"})))
    assert [d.text for d in documents(file)] == [text, "b"]


def test_blank_lines_hold_no_record_but_count_as_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "a"}\r\n\n  \n{"text": "b"}')
    assert [d.doc_id for d in documents(file)] == ["a.jsonl:1", "a.jsonl:4"]


def test_a_folder_and_a_glob_give_their_files_sorted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.jsonl", "a.jsonl", "sub/a.jsonl"):
        (tmp_path / name).write_bytes(jsonl({"text": name}))
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    # a document is named by its place in the folder, so files of one name in two folders do not clash
    assert [d.doc_id for d in documents(tmp_path)] == ["a.jsonl:1", "b.jsonl:1", "sub/a.jsonl:1"]
    assert [d.doc_id for d in documents(tmp_path / "*.jsonl")] == ["a.jsonl:1", "b.jsonl:1"]
    assert [d.doc_id for d in documents(tmp_path / "**" / "a.*")] == ["a.jsonl:1", "sub/a.jsonl:1"]


def test_a_name_with_brackets_is_not_a_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_bytes(jsonl({"text": "x"}))
    assert len(documents(tmp_path / "a[1].jsonl")) == 1


def test_reading_is_lazy(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(jsonl({"text": "good"}) + b"not json\n")
    stream = corpora.read([corpus(file)])
    assert next(stream).text == "good"
    with pytest.raises(TextError):
        next(stream)


# Every bad input: the file's name, its bytes, the corpus's options, the line told (None: the file alone), and words
# that the message must hold.
RECORDS = jsonl({"text": "good"})
GOOD = jsonl({"text": "one"}, {"text": "two"}, {"text": "three " * 2000})
BAD = {
    "empty file": ("a.jsonl", b"", {}, None, ["empty"]),
    "empty compressed file": ("a.jsonl.zst", long_zstd(b""), {}, None, ["empty"]),
    "empty plain text": ("a.txt", b"", {}, None, ["empty"]),
    "only blank lines": ("a.jsonl", b"\n\n", {}, None, ["no record"]),
    "not JSON": ("a.jsonl", RECORDS + b'{"text": "cut of\n', {}, 2, ["not JSON", "whole JSON object"]),
    "JSON too deep": ("a.jsonl", RECORDS + b"[" * 200_000 + b"\n", {}, 2, ["not JSON"]),
    "byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + RECORDS, {}, 1, ["BOM"]),
    "a list": ("a.jsonl", RECORDS + b'["text"]\n', {}, 2, ["a list, not an object", '{"text": "..."}']),
    "a string": ("a.jsonl", RECORDS + b'"text"\n', {}, 2, ["a string, not an object"]),
    "null": ("a.jsonl", RECORDS + b"null\n", {}, 2, ["null, not an object"]),
    "missing field": (
        "a.jsonl",
        RECORDS + jsonl({"body": "x", "id": "y"}),
        {},
        2,
        ["no field 'text' (the corpus's text)", "fields there: body, id"],
    ),
    "missing domain": ("a.jsonl", RECORDS, {"domain": "kind"}, 1, ["no field 'kind' (the corpus's domain)"]),
    "text is a number": ("a.jsonl", RECORDS + jsonl({"text": 3}), {}, 2, ["'text'", "is a number, not a string"]),
    "text is null": ("a.jsonl", RECORDS + jsonl({"text": None}), {}, 2, ["is null, not a string"]),
    "id is true": (
        "a.jsonl",
        jsonl({"text": "x", "id": True}),
        {"doc_id": "id"},
        1,
        ["is true or false, not a string"],
    ),
    "half a surrogate": ("a.jsonl", RECORDS + b'{"text": "ab\\ud83d"}\n', {}, 2, ["surrogate", "character 2"]),
    # the line before holds 17 bytes and this one 10 before the bad one
    "not UTF-8": ("a.jsonl", RECORDS + b'{"text": "\xff"}\n', {}, 2, ["not UTF-8", "0xff", f"byte offset {17 + 10}"]),
    "overlong UTF-8": ("a.txt", b"one\ntwo \xc0\x80", {}, 2, ["not UTF-8", "byte offset 8"]),
    "not UTF-8, compressed": ("a.txt.gz", gzip.compress(b"a\n\xe9"), {}, 2, ["byte offset 2 of the uncompressed text"]),
    "truncated gzip": ("a.jsonl.gz", gzip.compress(GOOD)[:-9], {}, None, ["cannot be read", "Restore"]),
    "truncated zstd": ("a.jsonl.zst", long_zstd(GOOD)[:-2], {}, None, ["cannot be read", "Restore"]),
    "not gzip": ("a.jsonl.gz", GOOD, {}, 1, ["cannot be read"]),
    "not zstd": ("a.jsonl.zst", GOOD, {}, 1, ["cannot be read"]),
    "unknown suffix": ("a.docx", b"x", {}, None, ["'.docx'", ".jsonl", ".parquet"]),
    "no suffix": ("a", b"x", {}, None, ["''", ".jsonl"]),
    "compressed parquet": ("a.parquet.gz", b"x", {}, None, ["'.parquet.gz'"]),
    "fields of plain text": ("a.txt", b"x", {"domain": "kind"}, None, ["plain text", "domain = 'kind'", "domain_name"]),
    "not parquet": ("a.parquet", b"PAR1 but no more", {}, None, ["unreadable as Parquet"]),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("entry", ["read", "check"])
def test_bad_input_names_file_line_and_remedy(tmp_path: Path, case: str, entry: str) -> None:
    name, content, options, line, words = BAD[case]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(TextError) as caught:
        list(getattr(corpora, entry)([corpus(file, **options)]))
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: " if line else f"{file}:")
    assert caught.value.remedy in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_truncation_is_told_after_the_lines_that_were_whole(tmp_path: Path, packing: str, kept: float) -> None:
    # 300 distinct lines compress to many blocks; a cut anywhere must raise, and only after true lines
    records = [{"text": hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() * 400} for i in range(300)]
    packed = PACKED[packing](jsonl(*records))
    file = tmp_path / f"a.jsonl{packing}"
    file.write_bytes(packed[: int(len(packed) * kept)])
    seen: list[str] = []
    with pytest.raises(TextError, match="cannot be read") as caught:
        seen.extend(d.text for d in corpora.read([corpus(file)]))
    assert seen == [r["text"] for r in records[: len(seen)]]
    assert caught.value.line == len(seen) + 1


def test_bad_parquet_names_its_columns_and_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "id": ["y"]}), file)
    with pytest.raises(TextError, match=r"no field 'text' .*fields there: body, id") as caught:
        documents(file)
    assert str(caught.value).startswith(f"{file}: ")

    pq.write_table(pa.table({"text": ["x", None]}), file)
    with pytest.raises(TextError, match="is null, not a string") as caught:
        documents(file)
    assert str(caught.value).startswith(f"{file}:2: ")

    pq.write_table(pa.table({"text": pa.array([], pa.string())}), file)
    with pytest.raises(TextError, match="no record"):
        documents(file)

    binary = pa.array([b"fine", b"\xff"]).view(pa.string())  # a file by a writer that did not check
    pq.write_table(pa.table({"text": binary}), file)
    with pytest.raises(TextError, match="unreadable as Parquet") as caught:
        documents(file)
    assert str(caught.value).startswith(f"{file}:")


def test_a_parquet_file_cut_short_is_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 1000]}), file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TextError, match="unreadable as Parquet"):
        documents(file)


def test_a_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "wiki.jsonl").write_bytes(RECORDS)
    with pytest.raises(
        TextError, match=r"no such file.*holds no 'wikis.jsonl'\. Did you mean 'wiki.jsonl'\?"
    ) as caught:
        documents(tmp_path / "wikis.jsonl")
    assert str(caught.value).startswith(str(tmp_path / "wikis.jsonl"))
    # where a folder on the way is missing, that is what is told
    (tmp_path / "texts").mkdir()
    with pytest.raises(TextError, match=r"holds no 'text'\. Did you mean 'texts'\?"):
        documents(tmp_path / "text" / "wiki.jsonl")


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(TextError, match="no text in this folder"):
        documents(tmp_path)
    with pytest.raises(TextError, match="no file matches this glob"):
        documents(tmp_path / "*.jsonl")
    with pytest.raises(TextError, match=r"'\.pdf'"):
        documents(tmp_path / "*.pdf")


def test_one_id_twice_names_both_places(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(jsonl({"text": "x", "id": "one"}, {"text": "x", "id": "two"}))
    second.write_bytes(jsonl({"text": "x", "id": "three"}, {"text": "x", "id": "two"}))
    for entry in (corpora.read, corpora.check):
        with pytest.raises(TextError) as caught:
            list(entry([corpus(first, doc_id="id"), corpus(second, doc_id="id")]))
        assert str(caught.value).startswith(f"{second}:2: ")
        assert f"'two' was already given at {first}:2" in str(caught.value)


def test_check_counts_and_hashes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.txt"
    first.write_bytes(gzip.compress(jsonl({"text": "é"}, {"text": ""}, {"text": "abc"})))
    second.write_bytes(b"four")
    calls: list[tuple[int, int]] = []
    one, two = corpora.check([corpus(tmp_path)], lambda done, total: calls.append((done, total)))
    size = first.stat().st_size
    # two bytes of é, none, three of abc
    assert one == corpora.Input(str(first), 3, 1, size, 5, hashlib.sha256(first.read_bytes()).hexdigest())
    assert two == corpora.Input(str(second), 1, 0, 4, 4, hashlib.sha256(b"four").hexdigest())
    assert calls == [(size, size + 4), (size + 4, size + 4)]


def test_digest_follows_content_and_options_but_not_place(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "a.jsonl").write_bytes(jsonl({"text": "x", "body": "y"}))
    whole = corpora.digest([corpus(here)])
    assert corpora.digest([corpus(there)]) == whole
    assert corpora.digest([corpus(here, text="body")]) != whole
    assert corpora.digest([corpus(here, weight=2.0)]) != whole
    (there / "a.jsonl").write_bytes(jsonl({"text": "z", "body": "y"}))
    assert corpora.digest([corpus(there)]) != whole


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_a_data_set_is_read_by_its_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "test.jsonl").write_bytes(jsonl({"text": "a", "id": 1}, {"text": "b", "id": 2}))
    given = Corpus(dataset=str(folder), split="test", doc_id="id", domain_name="news")
    name = f"{folder}/test"
    assert list(corpora.read([given])) == [
        Document("1", "a", "news", name, "", f"{name}:1"),
        Document("2", "b", "news", name, "", f"{name}:2"),
    ]
    [found] = corpora.check([given])
    assert (found.name, found.documents, found.file_bytes, found.text_bytes) == (name, 2, 0, 2)
    whole = corpora.digest([given])
    (folder / "test.jsonl").write_bytes(jsonl({"text": "a", "id": 1}, {"text": "c", "id": 2}))
    assert corpora.digest([given]) != whole

    with pytest.raises(TextError, match="no field 'body'") as caught:
        list(corpora.read([given.model_copy(update={"text": "body"})]))
    assert str(caught.value).startswith(f"{name}:1: ")


@pytest.mark.usefixtures("offline")
def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    given = Corpus(dataset=str(tmp_path / "none"), split="test")
    with pytest.raises(TextError, match="cannot be read") as caught:
        list(corpora.read([given]))
    assert "split" in caught.value.remedy


def test_an_unknown_embedded_text_lists_what_there_is() -> None:
    with pytest.raises(TextError, match=r"^embedded:samplr: no embedded text 'samplr'\. There are: "):
        documents("embedded:samplr")


def test_the_embedded_sampler_is_a_corpus() -> None:
    found = documents("embedded:sampler", doc_id="doc_id", domain="domain", source="source")
    assert len({d.domain for d in found}) > 1
    assert all(d.text and d.domain and d.source for d in found)


# ---- fields within fields, the first records, sentences without documents -------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_field_within_a_field(tmp_path: Path, kind: str) -> None:
    records = [
        {"text": "a", "meta": {"set": "ArXiv", "of": {"id": "1"}}},
        {"text": "b", "meta": {"set": "Github", "of": {"id": "2"}}},
    ]
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        file.write_bytes(jsonl(*records))
    else:
        pq.write_table(pa.Table.from_pylist(records), file)
    found = documents(file, domain="meta.set", doc_id="meta.of.id")
    assert [(d.doc_id, d.domain) for d in found] == [("1", "ArXiv"), ("2", "Github")]
    assert [d.text for d in documents(file, where={"meta.set": "Github"})] == ["b"]
    for field in ("meta.sets", "meta.set.name", "mete.set"):
        with pytest.raises(TextError, match=f"no field '{field}'"):
            documents(file, domain=field)


def test_a_field_of_the_very_name_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl({"text": "a", "a.b": "plain", "a": {"b": "within"}}))
    assert documents(tmp_path / "a.jsonl", domain="a.b")[0].domain == "plain"


def test_the_first_records_that_where_admits_and_nothing_after_them(tmp_path: Path) -> None:
    whole = jsonl(*({"text": t, "kind": "xy"[n % 2]} for n, t in enumerate("abcdef")))
    (tmp_path / "a.jsonl").write_bytes(whole + b"this is never read\n")
    assert [d.text for d in documents(tmp_path / "a.jsonl", first=2, where={"kind": "y"})] == ["b", "d"]
    assert [d.text for d in documents(tmp_path / "a.jsonl", first=6)] == list("abcdef")
    with pytest.raises(TextError, match="not JSON"):
        documents(tmp_path / "a.jsonl", first=7)


def test_so_many_sentences_are_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(*({"w": [t, "."]} for t in "abcde")))
    found = documents(tmp_path / "a.jsonl", tokens="w", records_per_document=2)
    assert [(d.doc_id, len(d.tokens)) for d in found] == [("a.jsonl:1", 2), ("a.jsonl:3", 2), ("a.jsonl:5", 1)]
    assert [t for d in found for t in d.text.split()] == list("a.b.c.d.e.")
    with pytest.raises(ValueError, match="records_per_document is for sentences of tokens without doc_id"):
        corpus("a", records_per_document=2)
