"""From decoded windows to the two tables of a run."""

from __future__ import annotations

import polars as pl
import pyarrow.parquet as pq
import pytest
from decoded import decoded, window

from mnemoscope import schema
from mnemoscope.errors import RunError
from mnemoscope.score import records as records_
from mnemoscope.score.records import records, write


def rows(count: int, length: int = 4, **columns):
    out = []
    for i in range(count):
        source = [(i + j) % 7 for j in range(length)]
        out.append(window(source, source[::-1], window_id=f"d{i}:{length}:0", doc_id=f"d{i}", **columns))
    return out


def put(path, *windows):
    pq.write_table(decoded(*windows), path)
    return path


def test_the_tables_are_the_schemas(tmp_path):
    assert write(put(tmp_path / "decoded.parquet", *rows(5)), tmp_path, str) == (5, 20)
    for name, height in (("reconstructions", 5), ("tokens", 20)):
        file = pq.ParquetFile(tmp_path / f"{name}.parquet")
        assert file.schema_arrow.equals(schema.arrow(name), check_metadata=True)
        assert file.metadata.num_rows == height
        column = file.metadata.row_group(0).column(0)
        assert column.compression == "ZSTD"
        assert "RLE_DICTIONARY" in column.encodings
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "decoded.parquet",
        "reconstructions.parquet",
        "tokens.parquet",
    ]


def test_a_row_of_tokens(tmp_path):
    row = window([5, 6, 8], [5, 8], predicted_ids=[5, 1, 1], token_nats=[0.5, 1.5, 2.5], dialect="aave")
    tokens = pl.from_arrow(records(decoded(row), lambda i: f"<{i}>")[1])
    found = tokens.select("window_id", "dialect", "position", "char_start", "char_end", "token_id", "token").row(1)
    assert found == ("d:3:0", "aave", 1, 3, 6, 6, "<6>")
    assert tokens["predicted_id"].to_list() == [5, 1, 1]
    assert tokens["operation"].to_list() == ["match", "omit", "match"]
    assert tokens["nats"].to_list() == [0.5, 1.5, 2.5]
    assert tokens["written"].to_list() == ["<5>", "", "<8>"]


def test_parts_and_files_make_no_difference(tmp_path, monkeypatch):
    some = [*rows(40, 4), *rows(13, 9, condition="none")]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut, cut / "decoded"):
        folder.mkdir()
    write(put(whole / "decoded.parquet", *some), whole, str)
    monkeypatch.setattr(records_, "TOKENS_PER_PART", 30)
    monkeypatch.setattr(records_, "_ROWS_READ", 3)
    put(cut / "decoded" / "0.parquet", *some[:17])
    put(cut / "decoded" / "1.parquet", *some[17:])
    assert write(cut / "decoded", cut, str) == (53, 40 * 4 + 13 * 9)
    for name in ("reconstructions", "tokens"):
        assert pl.read_parquet(whole / f"{name}.parquet").equals(pl.read_parquet(cut / f"{name}.parquet"))
    assert pq.ParquetFile(cut / "tokens.parquet").num_row_groups > 5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"char_start": [0, 1, 2]}, "char_start"),
        ({"predicted_ids": []}, "predicted_ids"),
        ({"token_nats": None}, "token_nats"),
        ({"token_nats": [1.0, float("nan"), 1.0, 1.0]}, "token_nats"),
        ({"token_nats": [1.0, float("inf"), 1.0, 1.0]}, "token_nats"),
        ({"token_nats": [1.0, None, 1.0, 1.0]}, "token_nats"),
        ({"reconstruction_ids": None}, "reconstruction_ids"),
        ({"reconstruction_ids": [1, None]}, "reconstruction_ids"),
        ({"reference_ids": [], "length": 0}, "no token"),
        ({"length": 5}, "reference_ids"),
        ({"reconstruction": None}, "reconstruction"),
    ],
)
def test_a_bad_window_is_named_and_nothing_is_written(tmp_path, change, problem):
    some = rows(4)
    some[2] |= change
    path = put(tmp_path / "decoded.parquet", *some)
    (tmp_path / "tokens.parquet").write_text("of before")
    with pytest.raises(RunError, match=rf"(?s)decoded\.parquet: window 'd2:4:0'.*{problem}"):
        write(path, tmp_path, str)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["decoded.parquet", "tokens.parquet"]
    assert (tmp_path / "tokens.parquet").read_text() == "of before"


def test_the_same_window_twice_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"same window twice: .*window_id 'd1:4:0'"):
        write(put(tmp_path / "decoded.parquet", *rows(3), rows(2)[1]), tmp_path, str)
    # another condition is another row
    write(put(tmp_path / "decoded.parquet", *rows(3), *rows(3, condition="none")), tmp_path, str)


def test_what_is_no_table_of_windows_is_refused(tmp_path):
    with pytest.raises(RunError, match="no decoded window"):
        write(put(tmp_path / "empty.parquet"), tmp_path, str)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RunError, match=r"torn\.parquet: unreadable as Parquet"):
        write(tmp_path / "torn.parquet", tmp_path, str)
    with pytest.raises(RunError, match=r"absent\.parquet: unreadable"):
        write(tmp_path / "absent.parquet", tmp_path, str)
    pq.write_table(decoded(*rows(2)).drop_columns(["token_nats"]), tmp_path / "short.parquet")
    with pytest.raises(RunError, match=r"short\.parquet: columns missing .*token_nats"):
        write(tmp_path / "short.parquet", tmp_path, str)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        write(put(tmp_path / "decoded.parquet", *rows(2)), tmp_path / "absent", str)


def test_tables_of_other_libraries_are_taken(tmp_path):
    # polars writes large lists and large strings
    pl.from_arrow(decoded(*rows(3))).write_parquet(tmp_path / "decoded.parquet")
    assert write(tmp_path / "decoded.parquet", tmp_path, str) == (3, 12)
