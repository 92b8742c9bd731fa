"""Every file in codec/search/ keeps the protocol; a new one is picked up by listing the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from mnemoscope import plugins
from mnemoscope.codec import search
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native
from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.search import Search
from mnemoscope.codec.search._judge import Judge
from mnemoscope.errors import ConfigError
from mnemoscope.memory.memory import Memory
from mnemoscope.progress import Silent
from mnemoscope.types import IntArray
from mnemoscope.undo import Distribution

FILES = sorted(p.stem for p in Path(search.__file__).parent.glob("*.py") if not p.stem.startswith("_"))
LENGTH, WINDOWS = 4, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the search ``undo`` needs of the model."""

    def draw(rng: np.random.Generator, length: int, count: int) -> IntArray:
        return rng.integers(0, tiny.SIZES["vocab_size"], (count, length))

    found = Distribution.fit(tiny.adapter("mamba"), draw, torch.ones(tiny.SIZES["vocab_size"]), 6, 900, 0, Silent())
    found.save(place := tmp_path_factory.mktemp("undo"))
    return place


def test_the_folder_is_listed() -> None:
    assert plugins.names("search") == FILES
    assert {"greedy", "beam", "reencode"} <= set(FILES)


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer(Native.from_encoder(tiny.adapter("mamba"), 0, 0).eval())


@pytest.fixture(scope="module")
def memory() -> Memory:
    return encode(tiny.adapter("mamba"), tiny.ids(WINDOWS, LENGTH, seed=4))


@pytest.mark.parametrize("name", FILES)
class TestEverySearch:
    @pytest.fixture
    def made(self, name: str, folder: Path) -> Search:
        """Those that need an argument with one that will do."""
        found = plugins.find("search", name)
        example = str(folder) if name == "undo" else getattr(found, "example", None)
        made: Search = plugins.load("search", f"{name}:{example}" if isinstance(found, type) else name)
        return made

    def write(self, made: Search, writer: Writer, memory: Memory) -> list[Reconstruction]:
        adapter = tiny.adapter("mamba")
        judge = Judge(lambda ids: encode(adapter, ids), lambda: [encode(adapter, tiny.ids(9, LENGTH))], adapter)
        return made.write(writer, memory, LENGTH, judge)

    def test_a_text_for_each_window(self, made: Search, writer: Writer, memory: Memory) -> None:
        kept = {part: value.clone() for part, value in memory.items()}
        texts = self.write(made, writer, memory)
        assert len(texts) == WINDOWS
        for text in texts:
            assert 0 not in text.ids, "EOS is written"
            assert len(text.ids) < 2 * LENGTH if text.stopped else len(text.ids) == 2 * LENGTH
        assert all(torch.equal(memory[part], kept[part]) for part in kept), "the memory that it was given is changed"

    def test_again_is_the_same(self, made: Search, writer: Writer, memory: Memory) -> None:
        assert self.write(made, writer, memory) == self.write(made, writer, memory)

    def test_a_row_of_a_batch_is_that_row_alone(self, made: Search, writer: Writer, memory: Memory) -> None:
        together = self.write(made, writer, memory)
        for rows in (torch.tensor([2]), torch.tensor([4, 0])):
            assert self.write(made, writer, memory.rows(rows)) == [together[row] for row in rows.tolist()]

    def test_what_it_says_of_greedy_is_so(self, made: Search, writer: Writer, memory: Memory) -> None:
        """Rows are not written for whom the most likely tokens are the window's own: what it writes must be these."""
        assert isinstance(made.follows, bool)
        if made.follows:
            assert self.write(made, writer, memory) == writer.write(memory, LENGTH)

    def test_an_argument_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"the search '{name}' .*Write {name}"):
            plugins.load("search", f"{name}:what")
