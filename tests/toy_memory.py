"""Toy architectures whose forgetting is known exactly, so that what the pipeline says of them can be wrong.

A toy keeps what it has read as numbers, and writes them back from there::

    reads        t h e   c a t                 Perfect        [the cat]
                                               LastK(3)       [_ _ _ _ c a t]
                                               DropClass(ae)  [t h ? _ c ? t]
                                               Zero           []
    BOS          begins to write: predicts the first token, at every further input the next one, then EOS

What it kept it predicts with p = 1 - EPSILON; of what it has lost it knows nothing: every token is as likely as any
other, but for the ``blank``, which no text holds and which is likelier by a hair, so that greedy writing marks a loss
without ever hitting a true token by luck. A number that was changed it takes for the nearest whole one. While it reads
it predicts what it would write first: that is how far its memory can be seen before BOS.

Encoder and decoder are one: training moves a single parameter, a shift of all logits, which the softmax does not see.
Symbols: B windows, L tokens, V vocabulary, K tokens that the memory has room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace

import polars as pl
import torch
from torch import Tensor, nn

from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory, MemorySpec, Part

#: what a toy leaves to all tokens but the one that it is sure of
EPSILON = 1e-3
#: what makes the blank the likeliest among equals, in nats
HAIR = 1e-4

#: the characters that are annotated ``vowel``, and that a toy which drops a class drops
VOWELS = "aeiou"

TOKENS, PLACE = "layers.0.tokens", "layers.0.place"


class _Shift(nn.Module):
    """What stands for a language model: a configuration, and the one parameter."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocabulary)
        self.shift = nn.Parameter(torch.zeros(1))


class Toy(Adapter):
    """Keeps the last ``room`` tokens; of those in ``dropped`` only that one of them stood there.

    The memory, by window: ``tokens`` [K], newest last, what is known of each (0: nothing; i + 1: it is token i; V + 1:
    it is one of ``dropped`` or the blank), and ``place`` [2], the number of tokens read and, from BOS on, the number of
    the token to be written next (1-based; 0 while reading).

    Args:
        vocabulary: V.
        bos: the token that begins and ends a text; the encoder must not be given it (prefix ``none``).
        blank: a token that no text holds.
    """

    model_type = "toy"
    beliefs: Tensor
    known: Tensor

    def __init__(self, vocabulary: int, bos: int, blank: int, *, room: int, dropped: Iterable[int] = ()):
        super().__init__(_Shift(vocabulary))
        self.bos, self.room, self.dropped = bos, room, sorted({*dropped, blank})
        everything = list(range(vocabulary))
        beliefs = [_even(everything, vocabulary, blank)]
        beliefs += [_even([i], vocabulary, blank) for i in everything]
        beliefs += [_even(self.dropped, vocabulary, blank)]
        self.register_buffer("beliefs", torch.stack(beliefs), persistent=False)
        known = torch.arange(1, vocabulary + 1)
        if dropped:
            known[self.dropped] = vocabulary + 1
        self.register_buffer("known", known, persistent=False)

    def spec(self) -> MemorySpec:
        dtype = self.model.shift.dtype
        return MemorySpec((Part(TOKENS, (self.room,), dtype), Part(PLACE, (2,), dtype)))

    def hidden(self, ids: Tensor, start: Memory | None) -> tuple[Tensor, Memory]:
        """What is known of the token to come, as a number [B, L, 1]."""
        memory = self.empty(len(ids)) if start is None else start
        tokens, (read, writing) = memory[TOKENS], memory[PLACE].unbind(1)
        to_come = []
        for token in ids.unbind(1):
            begins = token == self.bos
            reads = ~begins & (writing == 0)
            kept = torch.cat([tokens, self.known[token].to(tokens).unsqueeze(1)], 1)[:, 1:]
            tokens = torch.where(reads.unsqueeze(1), kept, tokens)
            read = read + reads
            writing = torch.where(begins, torch.ones_like(writing), writing + (writing > 0))
            number = (writing - 1).clamp(min=0)
            slot = self.room - read.round() + number
            belief = tokens.gather(1, slot.long().clamp(0, self.room - 1).unsqueeze(1)).squeeze(1)
            belief = torch.where(slot < 0, torch.zeros_like(belief), belief)
            belief = torch.where(slot >= self.room, torch.full_like(belief, self.bos + 1), belief)
            # who has read nothing knows nothing, the length included
            to_come.append(torch.where(read == 0, torch.zeros_like(belief), belief))
        return torch.stack(to_come, 1).unsqueeze(2), Memory({TOKENS: tokens, PLACE: torch.stack([read, writing], 1)})

    def head(self, hidden: Tensor) -> Tensor:
        numbers = hidden.squeeze(-1).round().long().clamp(0, len(self.beliefs) - 1)
        logits: Tensor = self.beliefs[numbers] + self.model.shift
        return logits


class Perfect(Toy):
    """Forgets nothing, of windows of up to 64 tokens."""

    def __init__(self, vocabulary: int, bos: int, blank: int):
        super().__init__(vocabulary, bos, blank, room=64)


class LastK(Toy):
    """Keeps the last ``k`` tokens, and how many there were."""

    def __init__(self, vocabulary: int, bos: int, blank: int, k: int):
        super().__init__(vocabulary, bos, blank, room=k)


class DropClass(Toy):
    """Keeps all but which member of a class stood where one did: for it the stand-in of the class is kept."""

    def __init__(self, vocabulary: int, bos: int, blank: int, members: Iterable[int]):
        super().__init__(vocabulary, bos, blank, room=64, dropped=members)


class Quantised(Toy):
    """Keeps of each token only in which cell of the vocabulary it lies, two tokens to a cell, i with i + 1 for every
    even i of ``coarse``; all others exactly.  Writing, it guesses the first of the two."""

    def __init__(self, vocabulary: int, bos: int, blank: int, coarse: Iterable[int]):
        super().__init__(vocabulary, bos, blank, room=64)
        known, beliefs = self.known.clone(), self.beliefs.clone()
        for first in {i - i % 2 for i in coarse} - {bos - bos % 2, blank - blank % 2}:
            known[first + 1] = known[first]
            beliefs[first + 1] = _even([first, first + 1], vocabulary, blank)
        self.known, self.beliefs = known, beliefs


class Forgetful(Toy):
    """Forgets each token with a chance of its own, as by a throw of dice that what was read before decides.

    Args:
        chances: token -> chance in [0, 1] that it is forgotten; 0 for those not named.
    """

    def __init__(self, vocabulary: int, bos: int, blank: int, chances: Mapping[int, float]):
        super().__init__(vocabulary, bos, blank, room=64)
        odds = torch.zeros(vocabulary)
        odds[list(chances)] = torch.tensor(list(chances.values()))
        self.register_buffer("odds", odds, persistent=False)

    def hidden(self, ids: Tensor, start: Memory | None) -> tuple[Tensor, Memory]:
        memory = self.empty(len(ids)) if start is None else start
        out = []
        for token in ids.unbind(1):
            before = memory[TOKENS].long()
            dice = (before * torch.arange(1, self.room + 1)).sum(1) * 7919 + token * 104729
            column, memory = super().hidden(token.unsqueeze(1), memory)
            lost = (dice % 1009 / 1009 < self.odds[token]) & (memory[PLACE][:, 1] == 0)
            kept = memory[TOKENS].clone()
            kept[:, -1] = torch.where(lost, torch.zeros_like(kept[:, -1]), kept[:, -1])
            memory = Memory({TOKENS: kept, PLACE: memory[PLACE]})
            out.append(column)
        return torch.cat(out, 1), memory


class InTwo(Toy):
    """Forgets nothing, of windows of up to 64 tokens: as a Mamba does, it keeps the last three tokens apart.

    The memory, by window: ``layers.0.ssm`` [61 + 2], all tokens but the last three, and the place; ``layers.1.conv``
    [3 + 2], the last three, and the place once more, so that either half can be written from.
    """

    SSM, CONV = "layers.0.ssm", "layers.1.conv"

    def __init__(self, vocabulary: int, bos: int, blank: int):
        super().__init__(vocabulary, bos, blank, room=64)

    def spec(self) -> MemorySpec:
        dtype = self.model.shift.dtype
        return MemorySpec((Part(self.SSM, (63,), dtype), Part(self.CONV, (5,), dtype)))

    def hidden(self, ids: Tensor, start: Memory | None) -> tuple[Tensor, Memory]:
        halves = self.empty(len(ids)) if start is None else start
        early, late = halves[self.SSM], halves[self.CONV]
        whole = {TOKENS: torch.cat([early[:, :-2], late[:, :-2]], 1), PLACE: torch.maximum(early[:, -2:], late[:, -2:])}
        out, end = super().hidden(ids, Memory(whole))
        tokens, place = end[TOKENS], end[PLACE]
        return out, Memory(
            {self.SSM: torch.cat([tokens[:, :-3], place], 1), self.CONV: torch.cat([tokens[:, -3:], place], 1)}
        )


class Zero(Toy):
    """Keeps nothing, not even that it has read."""

    def __init__(self, vocabulary: int, bos: int, blank: int):
        super().__init__(vocabulary, bos, blank, room=1)

    def hidden(self, ids: Tensor, start: Memory | None) -> tuple[Tensor, Memory]:
        return torch.zeros(*ids.shape, 1, device=self.device), self.empty(len(ids))


def _even(likely: list[int], vocabulary: int, blank: int) -> Tensor:
    """ln p [V]: the ``likely`` tokens share 1 - EPSILON, all others EPSILON; all V alike if all are likely."""
    logits = torch.full((vocabulary,), EPSILON / max(1, vocabulary - len(likely)), dtype=torch.float64)
    logits[likely] = (1 - EPSILON) / len(likely)
    logits = logits.log()
    if len(likely) > 1:
        logits[blank] += HAIR
    return torch.log_softmax(logits, 0).float()


def group(by: str) -> pl.Expr:
    """The group of a row of tokens.parquet, by a test's own reckoning; at most 16 bins, so each holds one position."""
    return {
        "all": pl.lit("all"),
        "domain": pl.col("domain"),
        "position": pl.format("{}-{}", "position", "position"),
        "sound": pl.when(pl.col("token").is_in(list(VOWELS))).then(pl.lit("vowel")).otherwise(pl.lit("(unlabelled)")),
    }[by]
