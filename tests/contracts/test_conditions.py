"""Every file in controls/ is a condition: it pairs windows with windows of the same length, and hands a memory over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnemoscope import plugins
from mnemoscope.codec.decoder import encode
from mnemoscope.controls import Condition
from mnemoscope.errors import TextError
from mnemoscope.types import Window

FILES = plugins.names("condition")
#: one of each file, those that need an argument with one that will do, and a few as another's decoder meets them
NAMES = [
    *(
        f"{name}:{found.example}" if isinstance(found := plugins.find("condition", name), type) else name
        for name in FILES
    ),
    *("ssm_only@memory", "bits:2@bits:8", "wrong@ssm_only", "none@memory"),
]
IDS = tiny.ids(2, 5)
SEED = 5


def window(document: int, place: int, length: int = 3) -> Window:
    ids = np.array([document, place, *range(length - 2)], dtype=np.int64)
    span = np.arange(length, dtype=np.int64)
    doc_id = f"d{document}"
    return Window(f"{doc_id}:{length}:{place * length}", doc_id, ids, span, span + 1, "news", "s", "", "none")


def windows(held: Sequence[int]) -> list[Window]:
    """Of each document as many windows as ``held`` says."""
    return [window(d, w) for d, count in enumerate(held) for w in range(count)]


def ids(some: Sequence[Window]) -> list[str]:
    return [w.window_id for w in some]


#: windows of each document; two windows at least, which a pairing needs
held = st.lists(st.integers(1, 6), min_size=1, max_size=8).filter(lambda counts: sum(counts) > 1)


def test_the_three_are_there() -> None:
    assert {"memory", "none", "wrong"} <= set(FILES)


@pytest.mark.parametrize("name", NAMES)
class TestEveryCondition:
    @pytest.fixture
    def condition(self, name: str) -> Condition:
        found: Condition = plugins.load("condition", name)
        return found

    def test_attributes(self, condition: Condition) -> None:
        assert isinstance(condition.reads, bool)
        # the decoder that it uses is one that is trained: its own, or another condition's own
        used = plugins.load("condition", condition.trained_as)
        assert used.trained_as == condition.trained_as

    @settings(deadline=None, max_examples=30)
    @given(held=held)
    def test_a_window_of_the_same_length_for_each(self, name: str, held: list[int]) -> None:
        given_windows = windows(held)
        before = ids(given_windows)
        read = plugins.load("condition", name).windows_to_read(given_windows)
        assert len(read) == len(given_windows)
        assert all(a.length == b.length for a, b in zip(read, given_windows, strict=True))
        assert set(ids(read)) <= set(before)
        assert ids(given_windows) == before

    @settings(deadline=None, max_examples=30)
    @given(held=held, seed=st.integers(0, 99))
    def test_the_order_of_windows_does_not_matter(self, name: str, held: list[int], seed: int) -> None:
        condition = plugins.load("condition", name)
        straight = windows(held)
        mixed = [straight[i] for i in np.random.default_rng(seed).permutation(len(straight))]
        pairs = dict(zip(ids(straight), ids(condition.windows_to_read(straight)), strict=True))
        assert dict(zip(ids(mixed), ids(condition.windows_to_read(mixed)), strict=True)) == pairs

    def test_hands_over_a_memory_with_the_same_parts(self, condition: Condition) -> None:
        memory = encode(tiny.adapter("mamba"), IDS)
        kept = {part: value.clone() for part, value in memory.items()}
        given_over = condition.hand_over(memory, IDS, SEED)
        assert {n: (p.shape, p.dtype) for n, p in given_over.items()} == {
            n: (p.shape, p.dtype) for n, p in memory.items()
        }
        assert all(torch.equal(memory[part], kept[part]) for part in kept), "the memory that it was given is changed"

    def test_writes_as_a_condition_that_hands_over_the_same(self, condition: Condition) -> None:
        other = plugins.load("condition", condition.written_as)
        assert other.written_as == condition.written_as
        assert (other.trained_as, other.reads) == (condition.trained_as, condition.reads)
        memory = encode(tiny.adapter("mamba"), IDS)
        one, two = condition.hand_over(memory, IDS, SEED), other.hand_over(memory, IDS, SEED)
        assert all(torch.equal(one[part], two[part]) for part in memory)

    def test_what_reads_is_of_the_encoders_shape_and_made_once(self, condition: Condition) -> None:
        encoder = tiny.adapter("mamba")
        reader = condition.reader(encoder, SEED)
        assert reader is condition.reader(encoder, SEED)
        assert (reader.spec(), reader.vocabulary, reader.device) == (encoder.spec(), encoder.vocabulary, encoder.device)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_row_of_a_batch_is_that_row_alone(self, condition: Condition, dtype: torch.dtype) -> None:
        """Wherever it stands: in a batch of one, of three, or in another order; to rounding, where there are sums."""
        reader = condition.reader(tiny.adapter("mamba", dtype), SEED)
        ids = tiny.ids(3, 5)
        memory = encode(reader, ids)
        whole = condition.hand_over(memory, ids, SEED)
        for rows in (torch.tensor([2]), torch.tensor([2, 0, 1])):
            some = condition.hand_over(memory.rows(rows), ids[rows], SEED)
            for part in memory:
                rounding = torch.finfo(dtype).eps * whole[part].abs().max().item()
                torch.testing.assert_close(some[part], whole[part][rows], rtol=0, atol=rounding)

    def test_again_is_the_same(self, name: str) -> None:
        memory = encode(tiny.adapter("mamba"), IDS)
        one, two = (plugins.load("condition", name).hand_over(memory, IDS, SEED) for _ in range(2))
        assert all(torch.equal(one[part], two[part]) for part in memory)

    def test_what_reads_nothing_hands_nothing_over(self, condition: Condition) -> None:
        memory = encode(tiny.adapter("mamba"), IDS)
        if not condition.reads:
            assert all(not part.any() for part in condition.hand_over(memory, IDS, SEED).values())


def test_memory_is_the_windows_own_untouched() -> None:
    condition = plugins.load("condition", "memory")
    some = windows([2, 3])
    assert ids(condition.windows_to_read(some)) == ids(some)
    memory = encode(tiny.adapter("mamba"), IDS)
    assert all(torch.equal(condition.hand_over(memory, IDS, SEED)[part], memory[part]) for part in memory)


def test_none_is_zero() -> None:
    memory = encode(tiny.adapter("mamba"), IDS)
    assert any(part.any() for part in memory.values())
    assert all(not part.any() for part in plugins.load("condition", "none").hand_over(memory, IDS, SEED).values())


class TestWrong:
    wrong: Condition = plugins.load("condition", "wrong")

    @settings(deadline=None, max_examples=200)
    @given(held=held)
    def test_every_window_is_read_once_and_never_for_itself(self, held: list[int]) -> None:
        given_windows = windows(held)
        read = self.wrong.windows_to_read(given_windows)
        assert Counter(ids(read)) == Counter(ids(given_windows))
        assert all(a.window_id != b.window_id for a, b in zip(read, given_windows, strict=True))

    @settings(deadline=None, max_examples=200)
    @given(held=held.filter(lambda counts: 2 * max(counts) <= sum(counts)))
    def test_another_document_unless_one_holds_more_than_half(self, held: list[int]) -> None:
        given_windows = windows(held)
        read = self.wrong.windows_to_read(given_windows)
        assert all(a.doc_id != b.doc_id for a, b in zip(read, given_windows, strict=True))

    def test_by_hand(self) -> None:
        # in order a0 a1 b0 b1 c0; a document has two windows at most, so each reads the one two places on
        read = self.wrong.windows_to_read(windows([2, 2, 1]))
        assert ids(read) == ["d1:3:0", "d1:3:3", "d2:3:0", "d0:3:0", "d0:3:3"]

    def test_one_window_is_refused(self) -> None:
        with pytest.raises(TextError, match="needs two windows of a length, there is 1"):
            self.wrong.windows_to_read(windows([1]))
