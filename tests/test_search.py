"""Searches against their definitions: greedy, every text there is, and toys whose memories say what is in them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pytest
import tiny
import torch
from toy_memory import DropClass, LastK, Perfect, Toy

from mnemoscope import plugins
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native
from mnemoscope.codec.generate import Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.codec.search.beam import hypotheses
from mnemoscope.codec.search.reencode import Reencode, go_on, likely_changes
from mnemoscope.errors import ConfigError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory

BOS = EOS = 0
#: of toys: BOS, the blank, and ten letters
VOCABULARY, BLANK = 12, 1


def judge_of(adapter: Adapter, windows: torch.Tensor) -> Judge:
    return Judge(lambda ids: encode(adapter, ids), lambda: [encode(adapter, windows)], adapter)


def nats_of(decoder: Native, memory: Memory, ids: Sequence[int], stopped: bool) -> float:
    """-ln p of a text, its EOS included if it has one, token by token."""
    with torch.no_grad():
        logits, _ = decoder.adapter(torch.tensor([[decoder.bos, *ids]]), memory)
    likely = torch.log_softmax(logits[0].double(), -1)
    targets = [*ids, decoder.eos][: len(ids) + stopped]
    return -sum(float(likely[place, token]) for place, token in enumerate(targets))


@pytest.fixture(scope="module")
def decoder() -> Native:
    return Native.from_encoder(tiny.adapter("mamba"), BOS, EOS).eval()


@pytest.fixture(scope="module")
def memory() -> Memory:
    return encode(tiny.adapter("mamba"), tiny.ids(9, 6, seed=4))


class TestBeam:
    def test_of_one_is_greedy(self, decoder: Native, memory: Memory) -> None:
        writer = Writer(decoder)
        judge = judge_of(decoder.adapter, tiny.ids(2, 6))
        greedy = plugins.load("search", "greedy").write(writer, memory, 6, judge)
        assert plugins.load("search", "beam:1").write(writer, memory, 6, judge) == greedy
        assert {r.stopped for r in greedy} == {True, False}, "only one way of ending is tried"

    @pytest.mark.parametrize("width", [2, 3, 8])
    def test_writes_nothing_less_likely_than_greedy_does(self, decoder: Native, memory: Memory, width: int) -> None:
        writer = Writer(decoder)
        greedy = writer.write(memory, 6)
        found = hypotheses(writer, memory, 6, width, 1)
        gains = []
        for row, ((best,), plain) in enumerate(zip(found, greedy, strict=True)):
            own = memory.rows(torch.tensor([row]))
            assert best.nats == pytest.approx(nats_of(decoder, own, best.ids, best.stopped), abs=1e-4)
            gains.append(nats_of(decoder, own, plain.ids, plain.stopped) - best.nats)
        assert min(gains) > -1e-4
        assert max(gains) > 0.1, "the search has found nothing that greedy had not"

    def test_as_wide_as_there_are_texts_it_is_exhaustive(self) -> None:
        """Of three tokens, one of them EOS, texts of at most 4: 1 + 2 + 4 + 8 that end, and 16 that do not."""
        decoder = Native.from_encoder(tiny.adapter("mamba", vocab_size=3), BOS, EOS).eval()
        memory = encode(decoder.adapter, tiny.ids(5, 2) % 3)
        texts = [(t, True) for n in range(4) for t in itertools.product((1, 2), repeat=n)]
        texts += [(t, False) for t in itertools.product((1, 2), repeat=4)]
        found = hypotheses(Writer(decoder), memory, 2, 40, 40)
        for row, some in enumerate(found):
            own = memory.rows(torch.tensor([row]))
            nats = {(t, stopped): nats_of(decoder, own, t, stopped) for t, stopped in texts}
            assert [(tuple(h.ids), h.stopped) for h in some] == sorted(nats, key=lambda t: nats[t])
            assert [h.nats for h in some] == pytest.approx(sorted(nats.values()), abs=1e-5)

    @pytest.mark.parametrize("rows", [1, 7, 64])
    def test_windows_do_not_influence_one_another(self, decoder: Native, memory: Memory, rows: int) -> None:
        writer = Writer(decoder)
        writer.rows = rows
        together = hypotheses(writer, memory, 6, 3, 3)
        writer.stride = 5
        assert [h.ids for some in hypotheses(writer, memory, 6, 3, 3) for h in some] == [
            h.ids for some in together for h in some
        ]
        for row, some in enumerate(together):
            (alone,) = hypotheses(writer, memory.rows(torch.tensor([row])), 6, 3, 3)
            assert [h.ids for h in alone] == [h.ids for h in some]

    def test_stops_where_greedy_does(self, decoder: Native, memory: Memory) -> None:
        for some in hypotheses(Writer(decoder), memory, 3, 4, 4):
            assert all(len(h.ids) <= 6 and EOS not in h.ids for h in some)
            assert all(h.stopped or len(h.ids) == 6 for h in some)


@pytest.mark.parametrize(
    "spelt",
    [
        *("beam", "beam:", "beam:0", "beam:04", "beam:-1", "beam:2:3", "beams:2", "greedy:1", "greedy:"),
        *("reencode", "reencode:0", "reencode:2:0", "reencode:2:", "reencode:2:3:4"),
    ],
)
def test_what_is_no_search_is_refused(spelt: str) -> None:
    with pytest.raises(ConfigError):
        plugins.load("search", spelt)


class Doubting(Toy):
    """Knows every token as well as :class:`Perfect`, and holds another one a little likelier where ``doubtful``."""

    def __init__(self, doubtful: dict[int, int]):
        super().__init__(VOCABULARY, BOS, BLANK, room=64)
        for token, other in doubtful.items():
            belief = torch.full((VOCABULARY,), 1e-3)
            belief[token], belief[other] = 0.45, 0.5
            self.beliefs[token + 1] = belief.log()


def of_toy(toy: Toy) -> Native:
    return Native(toy.eval(), BOS, EOS)


class TestReencode:
    windows = torch.tensor([[2, 3, 4, 5], [5, 4, 3, 2], [6, 6, 7, 8], [9, 10, 11, 2]])

    def write(self, spelt: str, toy: Toy, given: Memory | None = None) -> list[list[int]]:
        judge = judge_of(toy, self.windows)
        memory = encode(toy, self.windows) if given is None else given
        return [r.ids for r in plugins.load("search", spelt).write(Writer(of_toy(toy)), memory, 4, judge)]

    def test_takes_the_window_where_it_is_a_candidate(self) -> None:
        """Greedily 7 is written for 3: in two windows the text is wrong, though a likelier one is never found."""
        toy = Doubting({3: 7})
        greedy = [[2, 7, 4, 5], [5, 4, 7, 2], *self.windows.tolist()[2:]]
        assert self.write("greedy", toy) == self.write("beam:3", toy) == greedy
        assert self.write("reencode:2", toy) == self.windows.tolist()

    def test_changes_find_the_window_where_no_candidate_is_it(self) -> None:
        """One candidate, and 9 for 2 and 7 for 3: the first window needs one change after the other."""
        toy = Doubting({3: 7, 2: 9})
        assert self.write("reencode:1", toy) == self.write("greedy", toy) != self.windows.tolist()
        assert self.write("reencode:1:64", toy) == self.windows.tolist()

    def test_under_another_memory_it_is_the_other_window(self) -> None:
        toy = Doubting({3: 7})
        turned = self.windows.roll(1, 0)
        assert self.write("reencode:2", toy, encode(toy, turned)) == turned.tolist()

    def test_under_no_memory_the_likeliest_stays(self) -> None:
        """Every text is as far from nothing, if what is read is not handed over."""
        toy = Perfect(VOCABULARY, BOS, BLANK)
        judge = Judge(lambda ids: toy.empty(len(ids)), lambda: [toy.empty(3)], toy)
        writer = Writer(of_toy(toy))
        (found,) = plugins.load("search", "reencode:4:16").write(writer, toy.empty(1), 3, judge)
        ((likeliest,),) = (hypotheses(writer, toy.empty(1), 3, 4, 1),)
        assert (found.ids, found.stopped) == (likeliest[0].ids, likeliest[0].stopped)

    @pytest.mark.parametrize(
        "toy", [LastK(VOCABULARY, BOS, BLANK, 2), DropClass(VOCABULARY, BOS, BLANK, [2, 5])], ids=["LastK", "DropClass"]
    )
    def test_what_is_lost_is_not_found_again(self, toy: Toy) -> None:
        """Texts that differ only there are as near as the window, and the likeliest of the nearest is no better than a
        guess: over many windows, what is kept is all right, and what is lost is right by chance."""
        ids = torch.randint(2, VOCABULARY, (200, 4), generator=torch.Generator().manual_seed(0))
        judge = judge_of(toy, ids)
        search = plugins.load("search", "reencode:4:24")
        texts = [r.ids for r in search.write(Writer(of_toy(toy)), encode(toy, ids), 4, judge)]
        right, lost = [], []
        for window, text in zip(ids.tolist(), texts, strict=True):
            for place, token in enumerate(window):
                forgotten = place < 2 if isinstance(toy, LastK) else token in (2, 5)
                hit = place < len(text) and text[place] == token
                (lost if forgotten else right).append(hit)
        assert all(right)
        # of ten letters, or of two and the blank
        most = 1 / 10 if isinstance(toy, LastK) else 1 / 2
        assert sum(lost) <= len(lost) * most + 4 * math.sqrt(len(lost) * most * (1 - most))

    @pytest.mark.parametrize(("spelt", "most"), [("reencode:1", 1), ("reencode:3", 3), ("reencode:2:5", 7)])
    def test_budgets_are_kept(self, decoder: Native, memory: Memory, spelt: str, most: int) -> None:
        read: list[int] = []

        def counted(ids: torch.Tensor) -> Memory:
            read.append(len(ids))
            return encode(decoder.adapter, ids)

        judge = Judge(counted, lambda: [memory], decoder.adapter)
        plugins.load("search", spelt).write(Writer(decoder), memory, 6, judge)
        assert 0 < sum(read) <= most * memory.batch

    @pytest.mark.parametrize("budget", ["", ":24"])
    def test_no_farther_than_the_candidates(self, decoder: Native, memory: Memory, budget: str) -> None:
        writer, judge = Writer(decoder), judge_of(decoder.adapter, tiny.ids(9, 6, seed=4))
        search = Reencode(f"4{budget}")
        written = [r.ids for r in search.write(writer, memory, 6, judge)]
        ours = judge.distances(memory, range(9), written, 9)
        for row, some in enumerate(hypotheses(writer, memory, 6, 4, 4)):
            theirs = judge.distances(memory, [row] * len(some), [h.ids for h in some], 9)
            assert ours[row] <= min(theirs) + 1e-5

    def test_windows_do_not_influence_one_another(self, decoder: Native, memory: Memory) -> None:
        writer, judge = Writer(decoder), judge_of(decoder.adapter, tiny.ids(9, 6, seed=4))
        search = Reencode("2:20")
        together = [r.ids for r in search.write(writer, memory, 6, judge)]
        writer.rows = 16
        assert [r.ids for r in search.write(writer, memory, 6, judge)] == together


class TestJudge:
    def test_the_same_is_the_same_to_the_last_bit(self) -> None:
        """Where a difference is too small for its square to be told from 0, the distance is 0."""
        given = Memory({"a": torch.tensor([[1.0, 1e-30], [2.0, 3e-30]])})
        other = Memory({"a": torch.tensor([[1.0, 2e-30]])})
        judge = Judge(
            lambda ids: given.rows(torch.tensor([0])) if ids[0, 0] else other, lambda: [given], tiny.adapter("mamba")
        )
        assert judge.distances(given, [0, 0], [[0], [1]], 1) == [0, 0]
        assert [judge.same(given, 0, [text]) for text in (0, 1)] == [False, True]

    def test_by_hand(self) -> None:
        """Two parts.  a is [0, 0], [2, 4] over two windows: variances 1 and 4, s^2 = 2.5.  b is 10, 10: no spread, and
        rounding alone.  From [0, 0], 10 the text 5 is [1, 2], 10 away: (1 + 4) / 2 / 2.5 = 1, and 0; the mean is 1 / 2.
        """
        sample = Memory({"a": torch.tensor([[0.0, 0], [2, 4]]), "b": torch.tensor([[10.0], [10]])})
        memories = {5: ([1.0, 2], 10.0), 6: ([0.0, 0], 10.0), 7: ([0.0, 0], 10.01)}

        def read(ids: torch.Tensor) -> Memory:
            found = [memories[int(row[0])] for row in ids]
            return Memory({"a": torch.tensor([a for a, _ in found]), "b": torch.tensor([[b] for _, b in found])})

        def halves() -> Iterator[Memory]:
            yield from (sample.rows(torch.tensor([row])) for row in range(2))

        judge = Judge(read, halves, tiny.adapter("mamba"))
        assert judge.spread == pytest.approx({"a": math.sqrt(2.5), "b": 10 * 2**-23})
        near, same, other, nothing = judge.distances(sample, [0, 0, 0, 0], [[5], [6], [7], []], 2)
        assert near == pytest.approx(math.sqrt(0.5))
        assert same == 0
        assert other > 1000
        assert nothing == math.inf

    def test_windows_are_about_as_far_apart_as_stated(self) -> None:
        adapter = tiny.adapter("mamba")
        ids = tiny.ids(64, 8)
        judge = judge_of(adapter, ids)
        distances = judge.distances(encode(adapter, ids), range(64), ids.roll(1, 0).tolist(), 16)
        assert sum(distances) / 64 == pytest.approx(math.sqrt(2), rel=0.1)


def test_going_on_is_greedy_from_where_the_beginning_ends(decoder: Native, memory: Memory) -> None:
    greedy = Writer(decoder).write(memory, 6)
    assert go_on(decoder, memory, [r.ids[:2] for r in greedy], 12) == greedy
    forced = go_on(decoder, memory, [[7, 8]] * 9, 12)
    assert all(r.ids[:2] == [7, 8] for r in forced)


def test_changes_are_the_likeliest_first(decoder: Native, memory: Memory) -> None:
    texts = [[3, 4, 5], [6], [1, 2, 3, 4]] * 3
    for row, (text, changes) in enumerate(zip(texts, likely_changes(decoder, memory, texts, 12), strict=True)):
        own = memory.rows(torch.tensor([row]))
        with torch.no_grad():
            likely = torch.log_softmax(decoder.adapter(torch.tensor([[BOS, *text]]), own)[0][0], -1)
        gaps = [float(likely[place, [*text, EOS][place]] - likely[place, token]) for place, token in changes]
        assert gaps == pytest.approx(sorted(gaps), abs=1e-5)
        assert len(set(changes)) == len(changes) == 8 * (len(text) + 1)
        assert all(token != [*text, EOS][place] for place, token in changes)
