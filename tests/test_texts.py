"""Nothing is written twice, and every row is what it would be if each had been written for itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import torch

from mnemoscope import config, measuring, pipeline, plugins, zoo
from mnemoscope.codec.generate import Reconstruction, Texts, Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.config import Study
from mnemoscope.memory.memory import Memory
from mnemoscope.rundir import RunDir
from mnemoscope.train import decoders
from mnemoscope.workshop import Workshop

CONDITIONS = ("wrong", "none", "memory")
LENGTHS = (6, 16)


def study(tmp_path: Path) -> Study:
    values = {
        "name": "shared",
        "seed": 0,
        "model": {"name": "mamba-nano"},
        # several batches a length
        "compute": {"device": "cpu", "batch_tokens": 32},
        "text": {"measure": [{"path": "embedded:sampler", "where": {"split": "measure"}}]},
        "windows": {"lengths": list(LENGTHS), "tokens_per_length": 64},
        "decoders": [
            {"name": "shipped", "recipe": "trained", "weights": "mamba-nano", "seeds": [0], "conditions": [*CONDITIONS]}
        ],
    }
    return config.load(small.write(values, tmp_path / "study.toml"))


def test_rows_are_those_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[int] = Counter()
    write = Writer.write

    def counted(self: Writer, memory: Memory, length: int) -> list[Reconstruction]:
        asked[length] += memory.batch
        return write(self, memory, length)

    monkeypatch.setattr(Writer, "write", counted)
    run = pipeline.run(study(tmp_path), tmp_path / "run", until="reconstruct")

    shop = Workshop(RunDir.open(run.path))
    decoder = shop.decoder(run.study.decoders[0]).eval()
    missed: Counter[int] = Counter()
    for name in CONDITIONS:
        condition = plugins.load("condition", name)
        decoders.load_weights(decoder, zoo.folder() / f"mamba-nano/decoders/seed-0/{condition.trained_as}.safetensors")
        for length in LENGTHS:
            rows = pq.read_table(run.path / "decoded" / f"shipped.seed-0.{name}.L{length}.parquet").to_pylist()
            windows = shop.windows.windows[length]
            assert [row["window_id"] for row in rows] == [w.window_id for w in windows]
            for row, window, source in zip(rows, windows, condition.windows_to_read(windows), strict=True):
                memory = shop.start(condition, torch.from_numpy(source.token_ids[None]))
                (alone,) = write(Writer(decoder), memory, length)
                assert (row["reconstruction_ids"], row["stopped"]) == (alone.ids, alone.stopped)
                with torch.no_grad():
                    nats, predicted = decoder(memory, torch.from_numpy(window.token_ids[None]))
                assert row["predicted_ids"] == predicted[0, :-1].tolist()
                # in a batch products are summed in another order: what costs 24 nats is known to 1e-4 at best
                np.testing.assert_allclose(row["token_nats"], nats[0, :-1].numpy(), rtol=1e-5, atol=1e-4)
                if name == "memory":
                    missed[length] += alone.ids != window.token_ids.tolist() or not alone.stopped
    # some are predicted rightly and some not, or this would show little
    assert 0 < sum(missed.values()) < sum(len(shop.windows.windows[length]) for length in LENGTHS)
    # without a memory there is one text a length, and ``wrong`` is what ``memory`` is
    assert asked == {length: missed[length] + 1 for length in LENGTHS}


def test_a_slow_search_is_given_few_windows_at_once(tmp_path: Path) -> None:
    """So that each thread has its own and progress is told often; the rows are the same."""
    run = pipeline.run(study(tmp_path), tmp_path / "run", until="prepare")
    shop = Workshop(RunDir.open(run.path))
    writer = Writer(shop.decoder(run.study.decoders[0]).eval())
    decoders.load_weights(writer.decoder, zoo.folder() / "mamba-nano/decoders/seed-0/memory.safetensors")

    class Careful:
        follows = True
        together = 1

        def __init__(self) -> None:
            self.asked: list[int] = []

        def write(self, writer: Writer, memory: Memory, length: int, judge: Judge) -> list[Reconstruction]:
            self.asked.append(memory.batch)
            return writer.write(memory, length)

    windows = shop.windows.windows[16]
    key = {"run": "r", "model": "m", "decoder": "d", "condition": "memory", "length": 16, "seed": 0}
    careful = Careful()
    slowly = list(measuring.measure(shop, writer, "memory", windows, key, Texts(), careful))
    assert [table.num_rows for table in slowly] == [1] * len(windows)
    assert set(careful.asked) == {1}
    ids = [row for table in slowly for row in table["reconstruction_ids"].to_pylist()]
    at_once = list(measuring.measure(shop, writer, "memory", windows, key, Texts()))
    assert len(at_once) < len(slowly)
    assert ids == [row for table in at_once for row in table["reconstruction_ids"].to_pylist()]


@pytest.mark.parametrize(("windows", "threads", "together"), [(16, 1, 16), (16, 2, 8), (10, 4, 4), (1000, 2, 128)])
def test_every_thread_has_windows_to_write(
    windows: int, threads: int, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many at once as there is room for, 128, if that leaves some for the others."""
    shop = Workshop(RunDir(tmp_path / "run", study(tmp_path)))
    writer = Writer(shop.decoder(shop.study.decoders[0]).eval())
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert measuring.together_written(writer, shop.windows.windows[16][:1] * windows) == together
