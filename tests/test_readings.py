"""What was read of windows is kept for every seed and condition that is given them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import tiny
import torch
from torch import Tensor

from mnemoscope import config, pipeline, workshop
from mnemoscope.codec import readings
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.readings import Readings
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory

LENGTHS = (4, 6)
#: 24 windows of 4 tokens, 16 of 6
TOKENS = 96
#: three of them hand over what the encoder read
CONDITIONS = ("memory", "none", "wrong", "bits:4@memory")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Tokens read of windows of each length, whether kept or not; and none is written, which takes long."""
    counts: Counter[int] = Counter()

    def counted(reader: Adapter, ids: Tensor, *, bos: int | None = None, start: Memory | None = None) -> Memory:
        counts[ids.shape[1]] += ids.numel()
        return encode(reader, ids, bos=bos, start=start)

    monkeypatch.setattr(readings, "encode", counted)
    monkeypatch.setattr(workshop, "encode", counted)
    monkeypatch.setattr(Writer, "write", lambda _, memory, length: [Reconstruction([1], True)] * memory.batch)
    return counts


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose decoders are trained."""
    folder = tmp_path_factory.mktemp("readings")
    small.study(folder)
    values = small.values(folder)
    values["decoders"] = [values["decoders"][0] | {"tokens": 200, "seeds": [0, 1]}]
    pipeline.run(config.load(small.write(values, folder / "training.toml")), folder / "run", until="train")
    return folder


def measured(folder: Path, out: Path, **decoder: object) -> dict[str, list[Any]]:
    """The columns of all rows, of decoders that were trained before, in batches of 5 and 3 windows."""
    weights = {"name": "d", "recipe": "trained", "weights": str(folder / "run" / "checkpoints" / "growing")}
    values = small.values(folder, windows={"lengths": [*LENGTHS], "tokens_per_length": TOKENS})
    values["compute"]["batch_tokens"] = 20
    values["decoders"] = [{**weights, "seeds": [0, 1], "conditions": [*CONDITIONS], **decoder}]
    pipeline.run(config.load(small.write(values, folder / "measuring.toml")), out, until="reconstruct")
    columns: dict[str, list[Any]] = {}
    for file in sorted((out / "decoded").glob("*.parquet")):
        for name, column in pq.read_table(file).to_pydict().items():
            columns.setdefault(name, []).extend(column)
    return columns


# room for all windows; and for five, which are read once, the others for each of two seeds and three conditions
@pytest.mark.parametrize(
    ("room", "tokens"), [(24, {4: TOKENS, 6: TOKENS}), (5, {4: 6 * TOKENS - 5 * 5 * 4, 6: 6 * TOKENS - 5 * 5 * 6})]
)
def test_windows_are_read_once(
    room: int,
    tokens: dict[int, int],
    trained: Path,
    tmp_path: Path,
    read: Counter[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = (16 * 2) * (4 + 3) * 2 * 4  # channels, numbers of each, layers, bytes
    monkeypatch.setattr(readings, "BYTES", 0)
    expected = measured(trained, tmp_path / "each")
    assert read == {4: 6 * TOKENS, 6: 6 * TOKENS}
    read.clear()
    monkeypatch.setattr(readings, "BYTES", room * state)
    found = measured(trained, tmp_path / "kept")
    assert read == tokens
    nats, of_each = found.pop("token_nats"), expected.pop("token_nats")
    np.testing.assert_allclose(np.concatenate(nats), np.concatenate(of_each), rtol=1e-4, atol=1e-5)
    assert found == expected


def test_what_is_interrupted_goes_on(trained: Path, tmp_path: Path, read: Counter[int]) -> None:
    """A file that is missing is made from what is read for it alone, and is the same."""
    expected = measured(trained, tmp_path / "run")
    read.clear()
    (tmp_path / "run" / "decoded" / "d.seed-1.wrong.L6.parquet").unlink()
    pipeline.again("reconstruct", tmp_path / "run")
    assert read == {6: TOKENS}
    assert measured(trained, tmp_path / "run") == expected


def test_what_only_one_asks_for_is_not_kept(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take memory for nothing."""
    monkeypatch.setattr(Writer, "write", lambda _, memory, length: [Reconstruction([1], True)] * memory.batch)
    made: list[Adapter] = []

    class Seen(Readings):
        def __init__(self, reader: Adapter, *arguments: Any):
            super().__init__(reader, *arguments)
            made.append(reader)

    monkeypatch.setattr(workshop, "Readings", Seen)
    measured(trained, tmp_path / "one", seeds=[0], conditions=["memory", "none"])
    assert not made
    measured(trained, tmp_path / "two", seeds=[0], conditions=["memory", "wrong"])
    assert len(made) == 1


def test_memories_of_one_length_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there is room for; a passage whose beginning was read is read from nothing."""
    reader, ids = tiny.adapter("mamba"), tiny.ids(6, 6)
    monkeypatch.setattr(readings, "BYTES", 4 * reader.spec().bytes)
    counts: Counter[int] = Counter()

    def counted(reader: Adapter, ids: Tensor, *, bos: int | None = None, start: Memory | None = None) -> Memory:
        assert start is None
        counts[ids.shape[1]] += len(ids)
        return encode(reader, ids, bos=bos, start=start)

    monkeypatch.setattr(readings, "encode", counted)
    kept = Readings(reader, None, 6, nested=False)
    for length, order in ((4, range(6)), (4, [5, 0, 3, 4, 1, 2]), (6, range(6)), (6, range(6)), (4, range(6))):
        some = torch.tensor(list(order))
        found = kept.after([str(n) for n in order], ids[some, :length])
        expected = encode(reader, ids[some, :length])
        for name, part in expected.items():
            torch.testing.assert_close(found[name], part)
    # six, and the two that found no room; then the other length; then the first anew
    assert counts == {4: 6 + 2 + 6, 6: 6 + 2}
