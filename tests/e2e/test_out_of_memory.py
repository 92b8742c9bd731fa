"""A device that holds fewer windows than the study asks for measures and trains the same, in smaller batches."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import small
import torch

from mnemoscope import config, pipeline
from mnemoscope.codec.decoder import Decoder
from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.errors import RunError
from mnemoscope.learning import by_document
from mnemoscope.memory.memory import Memory
from mnemoscope.rundir import RunDir
from mnemoscope.workshop import Workshop


def run(study: Path, out: Path) -> dict[str, list[object]]:
    """The decoded windows of a run, less what a rounding error may change."""
    pipeline.run(config.load(study), out, until="reconstruct")
    files = sorted((out / "decoded").glob("*.parquet"))
    kept = ["window_id", "condition", "length", "reference_ids", "reference", "reconstruction_ids"]
    rows: dict[str, list[object]] = {}
    for file in files:
        for name, column in pq.read_table(file, columns=[*kept, "token_nats"]).to_pydict().items():
            rows.setdefault(name, []).extend(column)
    return rows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def whole(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """What a device with room enough gives."""
    return run(study, tmp_path_factory.mktemp("whole"))


def narrow(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Lets a decoder take ``rows`` windows at once."""
    whole = Decoder.forward

    def forward(self: Decoder, memory: Memory, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(ids) > rows:
            raise torch.OutOfMemoryError("no room")
        return whole(self, memory, ids)

    monkeypatch.setattr(Decoder, "forward", forward)


def test_a_smaller_device_gives_the_same_numbers(
    study: Path,
    whole: dict[str, list[object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = dict(whole)
    narrow(monkeypatch, 3)
    with caplog.at_level(logging.WARNING):
        found = run(study, tmp_path / "narrow")
    nats, nats_expected = found.pop("token_nats"), expected.pop("token_nats")
    assert found == expected
    assert torch.allclose(
        torch.tensor([n for row in nats for n in row]),  # type: ignore[attr-defined]
        torch.tensor([n for row in nats_expected for n in row]),  # type: ignore[attr-defined]
        rtol=1e-3,
    )
    assert "a step's windows are now taken in 8 parts" in caplog.text
    assert "windows of 4 tokens are now measured 3 at a time" in caplog.text


def test_a_smaller_device_sees_the_same_learning(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Workshop(RunDir(tmp_path / "run", config.load(study)))
    decoder, windows = shop.decoder(shop.study.decoders[0]).eval(), shop.windows.windows[4]
    expected = by_document(shop, decoder, "memory", windows)
    narrow(monkeypatch, 3)
    with caplog.at_level(logging.WARNING):
        found = by_document(shop, decoder, "memory", windows)
    costs = [[row.pop("nats") for row in rows] for rows in (expected, found)]
    assert found == expected
    assert costs[1] == pytest.approx(costs[0])
    assert "windows of 4 tokens are now measured 3 at a time" in caplog.text


def test_a_device_that_holds_no_window_is_named(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, 0)
    with pytest.raises(RunError, match="does not hold 1 windows of 4 tokens"):
        run(study, tmp_path / "run")


def test_a_device_that_writes_fewer_windows_at_once_writes_the_same(
    study: Path,
    whole: dict[str, list[object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_all = Writer.write

    def write(self: Writer, memory: Memory, length: int) -> list[Reconstruction]:
        if memory.batch > 2:
            raise torch.OutOfMemoryError("no room")
        return write_all(self, memory, length)

    monkeypatch.setattr(Writer, "write", write)
    with caplog.at_level(logging.WARNING):
        found = run(study, tmp_path / "narrow")
    assert {k: v for k, v in found.items() if k != "token_nats"} == {
        k: v for k, v in whole.items() if k != "token_nats"
    }
    assert "windows of 4 tokens are now written" in caplog.text
