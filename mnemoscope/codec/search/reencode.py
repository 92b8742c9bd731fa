"""``reencode:k`` and ``reencode:k:n``: the text whose own memory is nearest to the one that was handed over.

The k likeliest texts of ``beam:k`` are read by the model that read the window, under the same condition, and the one is
taken whose memory is nearest (:class:`mnemoscope.codec.search._judge.Judge` says by which measure); of several as near,
the likeliest.  So the encoder itself is the judge, and a text that the decoder held less likely may win.

With ``:n``, as many as n further texts of each window are read: changes of the best so far, at the tokens that the
decoder was least certain of.  A change puts another likely token in the place of one, and either leaves what follows
or writes it anew, greedily; what brings the memory nearer is kept, and the search goes on from there.  It ends when n
texts have been read or no change is left.

What is compared is what was handed over: under ``wrong`` the memory of the other window, under ``none`` nothing, from
which every text is as far, so that the likeliest stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope.codec.decoder import Decoder
from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.search import counts
from mnemoscope.codec.search._judge import Judge
from mnemoscope.codec.search.beam import hypotheses
from mnemoscope.memory.memory import Memory

#: other tokens that are tried in a place
ALTERNATIVES = 8
#: changes that are tried before the best of them is gone on from
ROUND = 8


class Reencode:
    example = "8:64"
    follows = False

    def __init__(self, argument: str):
        wanted = "a number of candidates, and if they are to be changed how many times, each 1 or more"
        width, budget = counts(r"([1-9]\d*)(?::([1-9]\d*))?", argument, "reencode", wanted, self.example)
        assert width is not None
        self.width, self.budget = width, budget or 0

    def write(self, writer: Writer, memory: Memory, length: int, judge: Judge) -> list[Reconstruction]:
        found = hypotheses(writer, memory, length, self.width, self.width)
        texts = [(row, h.ids) for row, some in enumerate(found) for h in some]
        together = writer.size(writer.rows, length)
        distances = iter(judge.distances(memory, *_columns(texts), together))
        sought = []
        for row, some in enumerate(found):
            # the first of the nearest is the likeliest
            distance, best = min(((next(distances), h) for h in some), key=lambda pair: pair[0])
            sought.append(_Sought(row, best.ids, best.stopped, distance, self.budget, {tuple(h.ids) for h in some}))
        while open_ := [s for s in sought if s.budget > 0 and s.distance > 0 and not s.exhausted]:
            windows = max(1, together // ROUND)
            for part in range(0, len(open_), windows):
                _round(writer.decoder, memory, open_[part : part + windows], 2 * length, judge, together)
        return [Reconstruction(s.ids, s.stopped) for s in sought]


@dataclass(slots=True)
class _Sought:
    """The best text of a window so far.

    Attributes:
        row: of its memory.
        budget: texts that may still be read.
        tried: texts that were read, or need not be.
        changes: (place, token) still to be tried, the likeliest first; None where they are not known yet.
    """

    row: int
    ids: list[int]
    stopped: bool
    distance: float
    budget: int
    tried: set[tuple[int, ...]]
    changes: list[tuple[int, int]] | None = field(default=None)

    @property
    def exhausted(self) -> bool:
        return self.changes == []


def _round(decoder: Decoder, memory: Memory, sought: list[_Sought], limit: int, judge: Judge, together: int) -> None:
    """Tries the next changes of each window."""
    fresh = [s for s in sought if s.changes is None]
    if fresh:
        rows = _rows(memory, [s.row for s in fresh])
        for s, changes in zip(fresh, likely_changes(decoder, rows, [s.ids for s in fresh], limit), strict=True):
            s.changes = changes
    changed = []
    for s in sought:
        assert s.changes is not None
        now, s.changes = s.changes[:ROUND], s.changes[ROUND:]
        changed += [(s, place, token) for place, token in now]
    if not changed:
        return
    prefixes = [[*s.ids[:place], token] for s, place, token in changed]
    anew = go_on(decoder, _rows(memory, [s.row for s, *_ in changed]), prefixes, limit)
    texts: list[tuple[_Sought, Reconstruction]] = []
    for (s, place, token), written in zip(changed, anew, strict=True):
        for text in (*_left(s, place, token, decoder.eos), written):
            if s.budget > 0 and tuple(text.ids) not in s.tried:
                s.tried.add(tuple(text.ids))
                s.budget -= 1
                texts.append((s, text))
    distances = judge.distances(memory, *_columns([(s.row, t.ids) for s, t in texts]), together)
    for (s, text), distance in zip(texts, distances, strict=True):
        if distance < s.distance:
            s.ids, s.stopped, s.distance, s.changes = text.ids, text.stopped, distance, None


def _left(s: _Sought, place: int, token: int, eos: int) -> Iterator[Reconstruction]:
    """The text with one token changed and what follows left, unless it would be what is written anew anyway."""
    if token != eos and place + 1 < len(s.ids):
        yield Reconstruction([*s.ids[:place], token, *s.ids[place + 1 :]], s.stopped)


@torch.no_grad()
def likely_changes(decoder: Decoder, memory: Memory, texts: list[list[int]], limit: int) -> list[list[tuple[int, int]]]:
    """(place, token) of each text [N]: other tokens than its own, those first that the decoder held likeliest beside
    it; EOS is a token, and what stands after the text, within ``limit``, is EOS."""
    longest = min(limit, max(len(t) for t in texts) + 1)
    padded = [[*t, *[decoder.eos] * longest][:longest] for t in texts]
    own = torch.tensor(padded, device=decoder.device)
    state, token = decoder.start(memory, limit), torch.full_like(own[:, 0], decoder.bos)
    gaps, others = [], []
    for place in range(longest):
        logits, state = decoder.step(state, token)
        token = own[:, place]
        likely = F.log_softmax(logits.float(), -1)
        mine = likely.gather(1, token.unsqueeze(1))
        best = likely.scatter(1, token.unsqueeze(1), -torch.inf).topk(min(ALTERNATIVES, likely.shape[1] - 1))
        gaps.append(mine - best.values)
        others.append(best.indices)
    gap, other = torch.stack(gaps, 1), torch.stack(others, 1)
    out = []
    for text, mine, tokens in zip(texts, gap, other, strict=True):
        places = min(len(text) + 1, longest)
        order = mine[:places].flatten().sort(stable=True).indices
        found = zip((order // tokens.shape[1]).tolist(), tokens[:places].flatten()[order].tolist(), strict=True)
        out.append(list(found))
    return out


@torch.no_grad()
def go_on(decoder: Decoder, memory: Memory, prefixes: list[list[int]], limit: int) -> list[Reconstruction]:
    """Texts [N] that begin so and go on greedily, to EOS, or to ``limit`` tokens."""
    device = decoder.device
    lengths = torch.tensor([len(p) for p in prefixes], device=device)
    longest = int(lengths.max())
    given = torch.tensor([[*p, *[decoder.eos] * longest][:longest] for p in prefixes], device=device)
    state, token = decoder.start(memory, limit), torch.full_like(lengths, decoder.bos)
    ended = torch.zeros_like(lengths, dtype=torch.bool)
    written: list[Tensor] = []
    for step in range(limit):
        logits, state = decoder.step(state, token)
        free = logits.argmax(-1)
        token = torch.where(lengths > step, given[:, min(step, longest - 1)], free)
        token = torch.where(ended, decoder.eos, token)
        ended = ended | (token == decoder.eos)
        written.append(token)
        if bool(ended.all()):
            break
    texts = torch.stack(written, 1).tolist()
    return [
        Reconstruction(text[: text.index(decoder.eos)], True) if decoder.eos in text else Reconstruction(text, False)
        for text in texts
    ]


def _rows(memory: Memory, rows: list[int]) -> Memory:
    return memory.rows(torch.tensor(rows, device=next(iter(memory.values())).device))


def _columns(texts: list[tuple[int, list[int]]]) -> tuple[list[int], list[list[int]]]:
    return [row for row, _ in texts], [ids for _, ids in texts]


SEARCH = Reencode
