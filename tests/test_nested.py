"""Nested windows: the beginnings of the same passages, each token of which is read once, whatever the conditions."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import tiny
import torch
from torch import Tensor

from mnemoscope import config, pipeline, plugins, workshop
from mnemoscope.codec import readings
from mnemoscope.codec.decoder import Decoder, encode
from mnemoscope.codec.generate import Reconstruction, Texts, Writer
from mnemoscope.codec.readings import Readings
from mnemoscope.measuring import measure
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.continuity import TOLERANCE
from mnemoscope.memory.memory import Memory
from mnemoscope.rundir import RunDir
from mnemoscope.train import decoders
from mnemoscope.workshop import Workshop

_R = TypeVar("_R")

LENGTHS = (4, 6, 12)
#: of what the encoder reads; and of what another model does
CONDITIONS = ("memory", "none", "wrong", "bits:4@memory", "ssm_only@memory")
UNTRAINED = "random_encoder@memory"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[Adapter]:
    """Tokens that each model reads of nested windows."""
    counts: Counter[Adapter] = Counter()

    def counted(reader: Adapter, ids: Tensor, *, bos: int | None = None, start: Memory | None = None) -> Memory:
        counts[reader] += ids.numel()
        return encode(reader, ids, bos=bos, start=start)

    monkeypatch.setattr(readings, "encode", counted)
    return counts


def error(expected: Memory, found: Memory) -> float:
    """As of continuity: the worst part's max |x - y| / max |x|."""
    assert list(expected) == list(found)
    return max(((expected[n] - found[n]).abs().max() / expected[n].abs().max()).item() for n in expected)


@pytest.mark.parametrize(("model_type", "dtype", "bos"), [("mamba", torch.float64, 3), ("mamba2", torch.float32, None)])
def test_memories_are_those_read_separately(
    model_type: str, dtype: torch.dtype, bos: int | None, read: Counter[Adapter]
) -> None:
    """Eight passages in batches that shrink, then in another order: each token is read once."""
    reader, ids = tiny.adapter(model_type, dtype), tiny.ids(8, 12)
    kept = Readings(reader, bos, 8 * len(LENGTHS))
    for order in (torch.arange(8), torch.arange(7, -1, -1)):
        for length, size in zip(LENGTHS, (8, 5, 3), strict=True):
            for some in order.split(size):
                found = kept.after([str(n) for n in some.tolist()], ids[some, :length])
                assert error(encode(reader, ids[some, :length], bos=bos), found) < TOLERANCE[dtype]
    assert read[reader] == ids.numel()


@pytest.mark.parametrize(("room", "tokens"), [(0, 88), (1, 68), (2, 48), (4, 28), (6, 24)])
def test_memory_is_bounded(room: int, tokens: int, monkeypatch: pytest.MonkeyPatch, read: Counter[Adapter]) -> None:
    """Two passages read to 4, 6 and 12 tokens twice over: 88 tokens, if none is kept.

    Room for one: a is read on twice, 12 + 12; b never, 22 + 22.  For two: both are read on, twice.  For four: each
    gives up its 6 for 12, so that the 2 between 4 and 6 are read again.  For six: each token once.
    """
    reader, ids = tiny.adapter("mamba"), tiny.ids(2, 12)
    monkeypatch.setattr(readings, "BYTES", room * reader.spec().bytes)
    kept = Readings(reader, None, 6)
    for length in LENGTHS * 2:
        found = kept.after(["a", "b"], ids[:, :length])
        assert error(encode(reader, ids[:, :length]), found) < TOLERANCE[torch.float32]
    assert read[reader] == tokens


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> config.Study:
    folder = tmp_path_factory.mktemp("nested")
    small.study(folder)
    values = small.values(folder)
    values["windows"] = {"lengths": [*LENGTHS], "tokens_per_length": 96, "nested": True}
    values["decoders"] = [values["decoders"][0] | {"tokens": 200, "conditions": [*CONDITIONS, UNTRAINED]}]
    return config.load(small.write(values, folder / "study.toml"))


def test_a_study_reads_each_passage_once(
    study: config.Study, tmp_path: Path, read: Counter[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    # what is written does not matter here, and takes long
    monkeypatch.setattr(Writer, "write", lambda _, memory, length: [Reconstruction([], True)] * memory.batch)
    run = pipeline.run(study, tmp_path / "run", until="reconstruct")
    # 8 passages of 12 tokens; the encoder, and the one that has learnt nothing
    assert sorted(read.values()) == [96, 96]

    shop = Workshop(RunDir.open(run.path))
    decoder = shop.decoder(study.decoders[0]).eval()
    folder = decoders.folder_of(study.decoders[0], run.checkpoints)

    def require(name: str, length: int) -> None:
        """Rows are those of windows each read for itself."""
        condition, windows = plugins.load("condition", name), shop.windows.windows[length]
        decoders.load_weights(decoder, decoders.find(folder, 0, condition.trained_as, length))
        rows = pq.read_table(run.path / "decoded" / f"growing.seed-0.{name.replace(':', '-')}.L{length}.parquet")
        assert rows["window_id"].to_pylist() == [w.window_id for w in windows]
        source, ids = (
            torch.from_numpy(np.stack([w.token_ids for w in some]))
            for some in (condition.windows_to_read(windows), windows)
        )
        with torch.no_grad():
            nats = decoder(shop.start(condition, source), ids)[0]
        np.testing.assert_allclose(rows["token_nats"].to_pylist(), nats[:, :-1].numpy(), rtol=1e-3, atol=1e-4)

    for name in (*CONDITIONS, UNTRAINED):
        for length in LENGTHS:
            require(name, length)

    # what was measured stays, and what is measured again is the same, though nothing is read on from
    read.clear()
    (run.path / "decoded" / "growing.seed-0.wrong.L12.parquet").unlink()
    before = (run.path / "decoded" / "growing.seed-0.memory.L4.parquet").stat().st_mtime_ns
    pipeline.again("reconstruct", run.path)
    assert (run.path / "decoded" / "growing.seed-0.memory.L4.parquet").stat().st_mtime_ns == before
    assert [*read.values()] == [96]
    require("wrong", 12)


@pytest.mark.parametrize("short_of", ["reading", "writing"])
def test_kept_memories_are_let_go_before_batches_are_halved(
    short_of: str,
    study: config.Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    read: Counter[Adapter],
) -> None:
    """A device without room for anything beside them; windows are then read from their beginning, as many at once."""
    alive: weakref.WeakSet[Readings] = weakref.WeakSet()

    class Seen(Readings):
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            alive.add(self)

    def where_there_is_room(work: Callable[..., _R]) -> Callable[..., _R]:
        def narrow(*arguments: Any) -> _R:
            if alive:
                raise torch.OutOfMemoryError("no room")
            return work(*arguments)

        return narrow

    def rows(folder: Path) -> list[pa.Table]:
        shop = Workshop(RunDir(folder, study))
        torch.manual_seed(0)
        writer = Writer(shop.decoder(study.decoders[0]).eval())
        key = {"run": "", "model": "", "decoder": "", "condition": "memory", "seed": 0}
        return [
            pa.concat_tables(measure(shop, writer, "memory", shop.windows.windows[n], {**key, "length": n}, Texts()))
            for n in LENGTHS
        ]

    monkeypatch.setattr(Writer, "write", lambda _, memory, length: [Reconstruction([1], True)] * memory.batch)
    expected = rows(tmp_path / "roomy")
    assert sum(read.values()) == 96  # as above: each token once
    monkeypatch.setattr(workshop, "Readings", Seen)
    if short_of == "reading":
        monkeypatch.setattr(Decoder, "forward", where_there_is_room(Decoder.forward))
    else:
        monkeypatch.setattr(Writer, "write", where_there_is_room(Writer.write))
    with caplog.at_level(logging.WARNING):
        found = rows(tmp_path / "narrow")
    for one, other in zip(expected, found, strict=True):
        assert one.drop_columns("token_nats") == other.drop_columns("token_nats")
        nats = [np.array(table["token_nats"].to_pylist()) for table in (one, other)]
        np.testing.assert_allclose(nats[1], nats[0], rtol=1e-4)
    assert [r.message for r in caplog.records] == [
        "out of memory: windows are now read from their beginning, each for itself"
    ]
