"""Which tokens of a window have a substitute that its memory does not tell from them: forward passes only.

    reads      t h e   c a t   s a t           the window; its memory after every chunk
    at 4       . . . . b a t   s a t           a substitute for c goes on from the memory before its chunk
    at 4       . . . . r a t   s a t           another; all that are on their way read the next chunk in one batch
    at 8       . . . . . . . . m a t           joins them in its own chunk
                                    ^ whose memory here equals the window's?

A row whose memory has become the window's, bit for bit, stays so: it is equal at every precision and reads no further.
The window is read in the same batches as its substitutes, so that they share their arithmetic.

Symbols: L tokens of the window, P positions, k substitutes each, R = P k rows, S precisions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope.certificate import storage
from mnemoscope.errors import ModelError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory, together
from mnemoscope.types import IntArray

#: tokens that rows read between two looks at whether they have become the window
CHUNK = 64
#: positions whose logits are held at once
_LOGITS = 256
_FIRST, _FIRST_AND_LAST = torch.tensor([0]), torch.tensor([0, -1])


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What was found of one window.

    Attributes:
        positions: int64 [P], rising.
        weights: float64 [P], how many of the window's tokens each stands for.
        substitutes: int64 [P, k], most plausible first.
        nats, substitute_nats: -ln p of the tokens [P] and of their substitutes [P, k], float32.
        ulps: the largest distance of any two numbers of the memories, int64 [P, k, S]; 0 if and only if all are equal.
        differing: how many numbers differ, int64 [P, k, S].
        apart: how far the memories lie apart as computed, float64 [P, k], see :func:`apart`.
        copies, unlike: how often the window was read again, in another place or batch, and how often that left another
            memory.
    """

    positions: IntArray
    weights: npt.NDArray[np.float64]
    substitutes: IntArray
    nats: npt.NDArray[np.float32]
    substitute_nats: npt.NDArray[np.float32]
    ulps: IntArray
    differing: IntArray
    apart: npt.NDArray[np.float64]
    copies: int
    unlike: int


def strata(length: int) -> Iterator[range]:
    """The positions of a window by their distance to its end, L - 1 - position: 0, 1, 2-3, 4-7, 8-15, ..."""
    low, high = 0, 1
    while low < length:
        yield range(length - min(high, length), length - low)
        low, high = high, 2 * high


def choose(length: int, per_doubling: int | None, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Positions to look at, rising, and how many each stands for: at most ``per_doubling`` of each of :func:`strata`,
    drawn without replacement; all if None."""
    at, weights = [], []
    for stratum in strata(length):
        count = len(stratum) if per_doubling is None else min(per_doubling, len(stratum))
        at.append(np.sort(rng.choice(np.asarray(stratum), count, replace=False)))
        weights.append(np.full(count, len(stratum) / count))
    return np.concatenate(at[::-1]), np.concatenate(weights[::-1])


@torch.no_grad()
def propose(
    adapter: Adapter, ids: Tensor, at: Tensor, count: int, bos: int, allowed: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the model itself would rather expect at some positions of a window.

    Args:
        ids: [L] int64.
        at: [P] int64.
        count: k.
        bos: read before the window, so that the first token has a distribution too.
        allowed: bool [V], which tokens may stand in a text.

    Returns:
        the k likeliest allowed tokens but the true one, likeliest first [P, k] int64; -ln p of the true tokens [P] and
        of these [P, k], float32.
    """
    hidden, _ = adapter.hidden(F.pad(ids[:-1], (1, 0), value=bos).unsqueeze(0), None)
    tokens, own, theirs = [], [], []
    for some in at.split(_LOGITS):
        logp = adapter.head(hidden[0, some]).float().log_softmax(-1)
        true = ids[some].unsqueeze(1)
        own.append(-logp.gather(1, true).squeeze(1))
        others = logp.masked_fill(~allowed, -torch.inf).scatter(1, true, -torch.inf)
        best = others.topk(count)
        tokens.append(best.indices)
        theirs.append(-best.values)
    return torch.cat(tokens), torch.cat(own), torch.cat(theirs)


@torch.no_grad()
def compare(
    adapter: Adapter,
    ids: Tensor,
    start: Memory,
    at: Tensor,
    substitutes: Tensor,
    precisions: Sequence[str],
    batch_tokens: int,
) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """How far the memory of each substituted window lies from the window's own.

    Args:
        ids: [L] int64.
        start: the memory before the window, of a batch of one.
        at: [P] int64, rising.
        substitutes: [P, k] int64.
        batch_tokens: tokens read at once, about.

    Returns:
        ulps and numbers that differ, both int64 [P, k, S], and distances, float64 [P, k], on the CPU; copies and unlike
        as in :class:`Verdict`.

    Raises:
        ModelError: a memory holds what is no finite number.
    """
    k = substitutes.shape[1]
    place, token = at.repeat_interleave(k), substitutes.flatten()
    truth, states, alive = start, start.rows(torch.zeros(0, dtype=torch.int64)), place.new_zeros(0)
    copies = unlike = 0
    for begin in range(0, len(ids), CHUNK):
        chunk = ids[begin : begin + CHUNK]
        born = torch.nonzero((place >= begin) & (place < begin + len(chunk))).flatten()
        alive, states = torch.cat([alive, born]), together([states, truth.rows(torch.zeros_like(born))])
        texts = chunk.expand(len(alive), -1).clone()
        new = torch.arange(len(alive) - len(born), len(alive), device=ids.device)
        texts[new, place[born] - begin] = token[born]
        batches = _read(adapter, chunk, texts, truth, states, max(1, batch_tokens // CHUNK - 2))
        truth, states = batches[0].rows(_FIRST), together([_slice(end, 1, -1) for end in batches])
        copies += 2 * len(batches) - 1
        unlike += sum(int((~_same(truth, end.rows(_FIRST_AND_LAST))).sum()) for end in batches)
        still = torch.cat([~_same(end.rows(_FIRST), _slice(end, 1, -1)) for end in batches])
        states, alive = states.rows(still), alive[still]

    found = torch.zeros(2, len(place), len(precisions), dtype=torch.int64)
    squares = torch.zeros(len(place), dtype=torch.float64)
    rows = alive.cpu()
    for part in truth:
        if not (truth[part].isfinite().all() and states[part].isfinite().all()):
            raise ModelError(
                f"the memory holds what is no finite number, in {part}",
                remedy="Load the model in float32, and check its weights",
            )
        squares[rows] += apart(truth[part], states[part])
        for s, precision in enumerate(precisions):
            own, others = storage.store(truth[part], precision), storage.store(states[part], precision)
            ulps, differing = (x.cpu() for x in storage.apart(own, others, precision))
            found[0, rows, s] = torch.maximum(found[0, rows, s], ulps)
            found[1, rows, s] += differing
    shape = (len(at), k, len(precisions))
    return found[0].view(shape), found[1].view(shape), squares.sqrt().view(shape[:2]), copies, unlike


def apart(one: Tensor, rest: Tensor) -> Tensor:
    """The squared distance of a part of B memories [B, ...] from that of one [1, ...], in units of the standard
    deviation of the one's numbers: float64 [B] on the CPU; infinite where they differ and the one's are all the same.
    """
    # float64 is not on every device
    own = one.flatten(1).cpu().double()
    square = (rest.flatten(1).cpu().double() - own).square().sum(1)
    return torch.where(square > 0, square / own.var(correction=0), 0.0)


def _read(adapter: Adapter, chunk: Tensor, texts: Tensor, truth: Memory, states: Memory, size: int) -> list[Memory]:
    """The memories after a chunk [C] and after its substituted forms [R, C], ``size`` of those at a time: of each batch
    the first and the last are the chunk's own, as a check on whether the place in a batch makes a difference."""
    ends = []
    for first in range(0, max(1, len(texts)), size):
        ids = torch.cat([chunk.unsqueeze(0), texts[first : first + size], chunk.unsqueeze(0)])
        ends.append(adapter.hidden(ids, together([truth, _slice(states, first, first + size), truth]))[1])
    return ends


def judge(
    adapter: Adapter,
    token_ids: IntArray,
    *,
    prefix: str,
    bos: int,
    allowed: npt.NDArray[np.bool_],
    substitutes: int,
    per_doubling: int | None,
    precisions: Sequence[str],
    batch_tokens: int,
    rng: np.random.Generator,
) -> Verdict:
    """One window: positions, substitutes, comparison.

    Args:
        token_ids: int64 [L].
        prefix: ``bos`` if the encoder reads that token before the window, else ``none``.
        bos: its id; in either case the substitutes are those of the model that has read it.
        allowed: bool [V], tokens that may stand in a text.
        substitutes: k.
        per_doubling: positions of each stratum of distance, see :func:`choose`.
        batch_tokens: about so many are read at once.
        rng: draws the positions.
    """
    device = adapter.device
    positions, weights = choose(len(token_ids), per_doubling, rng)
    ids, at = torch.from_numpy(token_ids).to(device), torch.from_numpy(positions).to(device)
    tokens, nats, their_nats = propose(adapter, ids, at, substitutes, bos, torch.from_numpy(allowed).to(device))
    start = adapter.empty(1)
    if prefix == "bos":
        with torch.no_grad():
            _, start = adapter.hidden(torch.full((1, 1), bos, device=device), None)
    ulps, differing, distances, copies, unlike = compare(adapter, ids, start, at, tokens, precisions, batch_tokens)
    return Verdict(
        positions=positions,
        weights=weights,
        substitutes=tokens.cpu().numpy(),
        nats=nats.cpu().numpy(),
        substitute_nats=their_nats.cpu().numpy(),
        ulps=ulps.numpy(),
        differing=differing.numpy(),
        apart=distances.numpy(),
        copies=copies,
        unlike=unlike,
    )


def _slice(memory: Memory, first: int, end: int) -> Memory:
    return memory.map(lambda part: part[first:end])


def _same(one: Memory, rest: Memory) -> Tensor:
    """Whether each of B memories is ``one``, of a batch of one, bit for bit: bool [B]."""
    return torch.stack([storage.same(one[part], rest[part]) for part in one]).all(0)
