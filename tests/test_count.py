"""Counting a corpus: hand-worked, against a plain Counter over many pieces, stopped and resumed, within its memory."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import child
import numpy as np
import polars as pl
import pytest
import small
import zstandard
from polars.testing import assert_frame_equal
from tokenizers import Tokenizer, models

from mnemoscope import schema
from mnemoscope.cli.shared import Bars
from mnemoscope.errors import CountError, MnemoscopeError
from mnemoscope.frequency import count as count_
from mnemoscope.frequency import metadata
from mnemoscope.frequency.count import Request, count
from mnemoscope.frequency.pieces import Budget, Database
from mnemoscope.frequency.spelling import Spelling, read_tokenizer
from mnemoscope.frequency.table import Frequencies
from mnemoscope.frequency.words import WORD

pytest.importorskip("duckdb", reason="the library that counts corpora is an optional dependency")

WORDS = Request(tokens=None, words=True, ngrams=1, least=1, text="text")


def write(file: Path, texts: Sequence[str]) -> Path:
    file.write_text("".join(f"{json.dumps({'text': t})}\n" for t in texts), encoding="utf-8")
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tokenizer whose tokens are bytes."""
    small.tokenizer(tmp_path / "model")
    return tmp_path / "model"


def random_texts(documents: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    letters = ["a", "b", "ñ", "日", "🙂", " ", " ", "'", "-"]
    return ["".join(rng.choices(letters, k=rng.choice([0, 1, 2, 40]))) for _ in range(documents)]


def corpus(folder: Path, documents: int = 60) -> list[str]:
    """A folder with a file of every format; the texts in it."""
    folder.mkdir()
    texts = random_texts(documents, seed=7)
    shares = [texts[n::4] for n in range(4)]
    write(folder / "a.jsonl", shares[0])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(write(folder / "b", shares[1]).read_bytes()))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(write(folder / "c", shares[2]).read_bytes()))
    pl.DataFrame({"text": shares[3]}).write_parquet(folder / "d.parquet")
    (folder / "e.txt").write_text(plain := "a plain text\nof two lines", encoding="utf-8")
    return [*texts, plain]


def by_hand(units: Sequence[Sequence[Any]], n: int) -> dict[Any, tuple[int, int]]:
    """Row of n units -> (count, documents), by a Counter."""
    rows = [[tuple(u[i : i + n]) for i in range(len(u) - n + 1)] for u in units]
    counts = Counter(row for r in rows for row in r)
    documents = Counter(row for r in rows for row in set(r))
    return {row: (c, documents[row]) for row, c in counts.items()}


def table(file: Path, kind: str, n: int) -> dict[Any, tuple[int, int]]:
    found = pl.read_parquet(file).filter(pl.col("kind") == kind, pl.col("n") == n)
    keys = [tuple(i) for i in found["ids"]] if kind == "token" else [tuple(i.split(" ")) for i in found["item"]]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, zip(found["count"], found["documents"], strict=True), strict=True))


# ---- what is counted ------------------------------------------------------------------------------------------------


def test_hand_worked(tmp_path: Path, model: Path) -> None:
    """Two documents, "no no é" and "no": the pairs of words are (no no) and (no é), none across the documents."""
    text = write(tmp_path / "a.jsonl", ["no no é", "", "no"])
    file = count([str(text)], tmp_path / "out" / "c.parquet", Request(str(model), True, 2, 1, "text"))
    found = pl.read_parquet(file)
    assert pl.read_parquet_schema(file) == pl.from_arrow(schema.arrow("counts").empty_table()).schema  # type: ignore[union-attr]
    words = found.filter(pl.col("kind") == "word").select("n", "item", "ids", "count", "documents")
    assert words.rows() == [
        (1, "no", None, 3, 2),
        (1, "é", None, 1, 1),
        (2, "no no", None, 1, 1),
        (2, "no é", None, 1, 1),
    ]
    # é is the bytes C3 A9, each a token of its own and no text; together they are
    tokens = found.filter(pl.col("kind") == "token")
    assert dict(tokens.filter(pl.col("n") == 1).select("item", "count").rows()) == {"n": 3, "o": 3, " ": 2, "�": 1}
    pairs = tokens.filter(pl.col("n") == 2)
    assert dict(pairs.select("item", "count").rows()) == {"no": 3, "o ": 2, " n": 1, " �": 1, "é": 1}
    assert tokens.filter(pl.col("n") == 1)["count"].is_sorted(descending=True)
    facts = metadata.read(file)
    assert facts["totals"] == {"token": [10, 8], "word": [4, 2]}
    assert (facts["documents"], facts["text_bytes"], facts["kept"]) == (3, 10, {"token": [5, 5], "word": [2, 2]})
    assert facts["inputs"][0]["name"] == "a.jsonl"
    assert len(facts["inputs"][0]["sha256"]) == len(facts["tokenizer"]) == 64
    assert not (tmp_path / "out" / "c.parquet.parts").exists()


@pytest.mark.parametrize("piece", [1, 5000, 10**6])
def test_as_a_counter_counts(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Every format, pieces of a batch, of some documents and of whole files."""
    texts = corpus(tmp_path / "corpus")
    monkeypatch.setattr(Budget, "piece", piece)
    monkeypatch.setattr(count_, "_BATCH", 60)
    file = count([str(tmp_path / "corpus")], tmp_path / "c.parquet", Request(str(model), True, 3, 1, "text"))
    tokenizer, _ = read_tokenizer(str(model))
    ids = [tokenizer.encode(t).ids for t in texts]
    for n in (1, 2, 3):
        assert table(file, "token", n) == by_hand(ids, n)
        assert table(file, "word", n) == by_hand([WORD.findall(t) for t in texts], n)
    assert metadata.read(file)["totals"]["token"] == [sum(max(0, len(i) - n + 1) for i in ids) for n in (1, 2, 3)]


def test_the_pieces_do_not_show(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus(tmp_path / "corpus")
    request = Request(str(model), True, 2, 1, "text")
    whole = count([str(tmp_path / "corpus")], tmp_path / "whole.parquet", request)
    monkeypatch.setattr(Budget, "piece", 1500)
    pieces = count([str(tmp_path / "corpus")], tmp_path / "pieces.parquet", request, "1GB")
    assert_frame_equal(pl.read_parquet(whole), pl.read_parquet(pieces))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't pay 3.50 to O'Brien-Smith!", ["Don't", "pay", "3", "50", "to", "O'Brien", "Smith"]),
        ("l’été 'quoted' rock 'n' roll's", ["l’été", "quoted", "rock", "n", "roll's"]),
        ("cafe\u0301 हिन्दी x2 __init__ ½", ["cafe\u0301", "हिन्दी", "x2", "init", "½"]),
        ("東京は 大きい", ["東京は", "大きい"]),
        ("... — 🙂", []),
    ],
)
def test_what_a_word_is(text: str, words: list[str]) -> None:
    assert WORD.findall(text) == words


def test_tokens_that_are_not_bytes_stand_as_they_are_spelt() -> None:
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "##é": 1, "a": 2}, "[UNK]"))
    assert Spelling(made).items(np.array([[2, 1], [0, 2]])).to_pylist() == ["a##é", "[UNK]a"]


# ---- read back ------------------------------------------------------------------------------------------------------


def test_frequencies(tmp_path: Path, model: Path) -> None:
    text = write(tmp_path / "a.jsonl", ["a b a", "a c"])
    file = count([str(text)], tmp_path / "c[1].parquet", Request(str(model), True, 2, 1, "text"))
    words = Frequencies.load(file, "word")
    assert words.count(["c", "a", "z", "a"]).tolist() == [1, 3, 0, 3]
    assert words.per_million(["a", "z"]) == pytest.approx([600_000, 0])
    assert words.documents(["a", "b", "z"]).tolist() == [2, 1, 0]
    assert Frequencies.load(file, "word", 2).count(["a b", "b a", "a a"]).tolist() == [1, 1, 0]
    vocabulary = read_tokenizer(str(model))[0].get_vocab()
    a, space = vocabulary["a"], vocabulary["Ġ"]
    tokens = Frequencies.load(file, "token")
    assert tokens.count(np.array([a, space, 256])).tolist() == [3, 3, 0]
    assert Frequencies.load(file, "token", 2).count([(a, space), [space, a], [a, a]]).tolist() == [2, 1, 0]
    assert tokens.tokenizer == metadata.read(file)["tokenizer"]
    assert tokens.count([]).tolist() == []
    with pytest.raises(CountError, match=r"no counts of word 3-grams. There are: token 1 to 2, word 1 to 2"):
        Frequencies.load(file, "word", 3)
    with pytest.raises(CountError, match="7 is not a string"):
        words.count(["a", 7])
    with pytest.raises(CountError, match="is not a row of 2 token ids"):
        Frequencies.load(file, "token", 2).count([[a, a], [a]])
    with pytest.raises(CountError, match=r"not a file of counts"):
        Frequencies.load(text, "word")


def test_what_was_left_out_is_unknown_not_zero(tmp_path: Path) -> None:
    text = write(tmp_path / "a.jsonl", ["a a b"])
    file = count([str(text)], tmp_path / "c.parquet", Request(None, True, 1, 2, "text"))
    words = Frequencies.load(file, "word")
    assert words.total == 3
    np.testing.assert_array_equal(words.count(["a", "b", "z"]), [2, np.nan, np.nan])


def test_a_corpus_without_a_word(tmp_path: Path) -> None:
    file = count([str(write(tmp_path / "a.jsonl", ["", "..."]))], tmp_path / "c.parquet", WORDS)
    words = Frequencies.load(file, "word")
    assert (words.total, words.count(["a"]).tolist()) == (0, [0])
    assert np.isnan(words.per_million(["a"])).all()


# ---- stopped and resumed --------------------------------------------------------------------------------------------


class StoppedError(Exception):
    pass


def test_resumed_within_a_file_counts_nothing_twice(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.jsonl", random_texts(40, seed=1))
    request = Request(str(model), True, 2, 1, "text")
    whole = count([str(tmp_path / "a.jsonl")], tmp_path / "whole.parquet", request)
    monkeypatch.setattr(count_, "_BATCH", 30)
    collect, calls, seen = count_._collect, Counter[int](), []

    def stop_at_third(batch: Any, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise StoppedError
        seen.extend(d.doc_id for d in batch)
        collect(batch, *arguments)

    monkeypatch.setattr(count_, "_collect", stop_at_third)
    out, stops = tmp_path / "c.parquet", 0
    while not out.exists():
        # another bound makes other pieces, which fit together all the same
        monkeypatch.setattr(Budget, "piece", 1 + 1000 * (stops % 2))
        try:
            count([str(tmp_path / "a.jsonl")], out, request)
        except StoppedError:
            stops += 1
    assert stops > 3
    assert len(seen) == len(set(seen)) == 40
    assert_frame_equal(pl.read_parquet(whole), pl.read_parquet(out))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("rename", "at"), [("plan.json", 1), ("piece-*", 1), ("c.parquet", 1)])
def test_killed_and_resumed(tmp_path: Path, rename: str, at: int, before: bool) -> None:
    corpus(tmp_path / "corpus", documents=12)
    whole = count([str(tmp_path / "corpus")], tmp_path / "whole.parquet", WORDS)
    out = tmp_path / "c.parquet"
    command = ["count", str(tmp_path / "corpus"), "--words", "--out", str(out)]
    kill = child.Kill(rename=rename, before=before, count=at)
    assert child.run(command, tmp_path / "log", kill) == -signal.SIGKILL
    kept = len(list(tmp_path.glob("c.parquet.parts/piece-????????")))
    assert kept == {"plan.json": 0, "piece-*": int(not before), "c.parquet": 1}[rename]
    count([str(tmp_path / "corpus")], out, WORDS)
    assert_frame_equal(pl.read_parquet(whole), pl.read_parquet(out))
    assert {p.name for p in tmp_path.glob("*c.parquet*")} == {"c.parquet"}


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in the midst: 130, a line that says how to go on, and the same command does."""
    write(tmp_path / "a.jsonl", [f"word{n} " * 50 for n in range(20_000)])
    out = tmp_path / "c.parquet"
    process = child.start(["count", str(tmp_path / "a.jsonl"), "--words", "--out", str(out)], tmp_path / "log")
    while not (tmp_path / "c.parquet.parts" / "plan.json").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    said = (tmp_path / "log").read_text()
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said
    assert not out.exists()
    count([str(tmp_path / "a.jsonl")], out, WORDS)
    assert Frequencies.load(out, "word").total == 1_000_000


def test_done_is_done_and_another_count_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = write(tmp_path / "a.jsonl", ["a b"]), tmp_path / "c.parquet"
    count([str(text)], out, WORDS)
    made = out.stat().st_mtime_ns
    assert count([str(text)], out, WORDS, progress=Bars()).stat().st_mtime_ns == made
    assert f"nothing to do: {out} holds these counts" in capsys.readouterr().err.replace("\n", "")
    with pytest.raises(CountError, match=r"c.parquet: these are counts of something else \(differing: request\)"):
        count([str(text)], out, Request(None, True, 2, 1, "text"))
    # a file that changed between the halves of a count
    out.unlink()
    monkeypatch.setattr(Database, "add_up", lambda *_: (_ for _ in ()).throw(StoppedError))
    with pytest.raises(StoppedError):
        count([str(text)], out, WORDS)
    write(text, ["a c"])
    with pytest.raises(CountError, match=r"plan.json: these are counts of something else \(differing: inputs\)"):
        count([str(text)], out, WORDS)


# ---- its memory -----------------------------------------------------------------------------------------------------

#: ru_maxrss would be the test's own where that is more: a process takes it over from the one that starts it
_PEAK = """
import re, sys
from mnemoscope.frequency.count import Request, count
count([sys.argv[1]], sys.argv[2], Request(None, True, 1, 1, "text"), sys.argv[3])
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024)
"""


def test_the_bound_is_obeyed(tmp_path: Path) -> None:
    """Words that hardly repeat, so that there is as much to hold as there can be: more than the bound where it is
    large, less than it where it is small; and the counts are the same."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc that tells a process's peak")
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 10**7, size=(600, 2500))
    write(tmp_path / "a.jsonl", [" ".join(map(str, row)) for row in numbers])
    peak = {}
    for memory in ("512MB", "8GB"):
        command = [sys.executable, "-c", _PEAK, str(tmp_path / "a.jsonl"), str(tmp_path / f"{memory}.parquet"), memory]
        peak[memory] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peak["512MB"] < 512e6 < peak["8GB"] < 8e9, peak
    found = Frequencies.load(tmp_path / "512MB.parquet", "word")
    once, times = np.unique(numbers, return_counts=True)
    assert metadata.read(tmp_path / "512MB.parquet")["kept"]["word"][0] == len(once)
    assert found.count(list(map(str, once[:1000]))).tolist() == times[:1000].tolist()


def test_a_document_too_long_for_the_memory(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.txt"):
        text = "a" * (Budget(512 * 10**6).document + 1)
        file = tmp_path / name
        file.write_text(text) if name == "b.txt" else write(file, [text])
        with pytest.raises(
            CountError, match=r"a document of [\d,]+ characters; .* Give more --memory \(51\dMB will do"
        ):
            count([str(file)], tmp_path / f"{name}.parquet", WORDS, "512MB")
        count([str(file)], tmp_path / f"{name}.parquet", WORDS, "550MB")


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "request_", "memory", "said"),
    [
        ('{"text": "a"}\n', Request(None, False, 1, 1, "text"), "1GB", "nothing is to be counted. Give --tokens MODEL"),
        ('{"text": "a"}\n', WORDS, "2", "'2' is no amount of memory. Give --memory such as"),
        ('{"text": "a"}\n', WORDS, "100MB", "100MB are too little to count in. Give --memory 512MB"),
        ('{"text": "a"}\n', Request(None, True, 0, 1, "text"), "1GB", "n-grams and the least count begin at 1"),
        ("", WORDS, "1GB", "a.jsonl:1: the file is empty|a.jsonl: the file is empty"),
        ("\n\n", WORDS, "1GB", "a.jsonl: no record in it. Put text into it"),
        ('{"text": 7}\n', WORDS, "1GB", "a.jsonl:1: field 'text'"),
        ('{"body": "a"}\n', WORDS, "1GB", r"a.jsonl:1: no field 'text' .* there: body"),
        ('{"text": "a"}\n', Request("nobody", True, 1, 1, "text"), "1GB", "nobody"),
    ],
)
def test_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, request_: Request, memory: str, said: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(MnemoscopeError, match=said):
        count([str(tmp_path / "a.jsonl")], tmp_path / "c.parquet", request_, memory)
    assert not (tmp_path / "c.parquet").exists()


def test_paths_that_are_refused(tmp_path: Path) -> None:
    text = write(tmp_path / "a.jsonl", ["a"])
    out = tmp_path / "c.parquet"
    with pytest.raises(MnemoscopeError, match="no such file or folder"):
        count([str(tmp_path / "b.jsonl")], out, WORDS)
    with pytest.raises(MnemoscopeError, match=r"a.jsonl: this file is named twice"):
        count([str(text), str(tmp_path / "*.jsonl")], out, WORDS)
    with pytest.raises(CountError, match="this is a folder"):
        count([str(text)], tmp_path, WORDS)
    with pytest.raises(CountError, match=r"a.jsonl: not a file of counts"):
        count([str(text)], text, WORDS)
    (tmp_path / "c.parquet.parts").mkdir()
    (tmp_path / "c.parquet.parts" / "mine").touch()
    with pytest.raises(CountError, match="this folder is not ours"):
        count([str(text)], out, WORDS)


def test_without_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(CountError, match=r"pip install 'mnemoscope\[count\]'"):
        count([str(write(tmp_path / "a.jsonl", ["a"]))], tmp_path / "c.parquet", WORDS)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up(tmp_path: Path, disk: Path) -> None:
    texts = [" ".join(map(str, np.random.default_rng(n).integers(0, 10**9, 1000))) for n in range(40)]
    text, out = write(tmp_path / "a.jsonl", texts), disk / "c.parquet"
    for size in (40, 200, 400):
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
        with pytest.raises(MnemoscopeError, match=r"no space left on the disk.*\. Free some and give the same command"):
            count([str(text)], out, WORDS)
        assert not out.exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    count([str(text)], out, WORDS)
    assert Frequencies.load(out, "word").total == 40_000
    assert sorted(p.name for p in disk.iterdir()) == ["c.parquet"]
