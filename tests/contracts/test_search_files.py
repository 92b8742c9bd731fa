"""Every file in codec/search/ keeps the protocol; a new one is picked up by listing the folder."""

from __future__ import annotations

from pathlib import Path

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

FILES = sorted(p.stem for p in Path(search.__file__).parent.glob("*.py") if not p.stem.startswith("_"))
#: one of each file, those that need an argument with one that will do
NAMES = [
    f"{name}:{found.example}" if isinstance(found := plugins.find("search", name), type) else name for name in FILES
]
LENGTH, WINDOWS = 4, 5


def test_the_folder_is_listed() -> None:
    assert plugins.names("search") == FILES
    assert {"greedy", "beam", "reencode"} <= set(FILES)


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer(Native.from_encoder(tiny.adapter("mamba"), 0, 0).eval())


@pytest.fixture(scope="module")
def memory() -> Memory:
    return encode(tiny.adapter("mamba"), tiny.ids(WINDOWS, LENGTH, seed=4))


@pytest.mark.parametrize("name", NAMES)
class TestEverySearch:
    @pytest.fixture
    def made(self, name: str) -> Search:
        found: Search = plugins.load("search", name)
        return found

    def write(self, made: Search, writer: Writer, memory: Memory) -> list[Reconstruction]:
        adapter = tiny.adapter("mamba")
        judge = Judge(lambda ids: encode(adapter, ids), lambda: [encode(adapter, tiny.ids(9, LENGTH))])
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
        file = name.partition(":")[0]
        with pytest.raises(ConfigError, match=f"the search '{file}' .*Write {file}"):
            plugins.load("search", f"{file}:what")
