"""``beam:k``: the most likely text that a beam of k hypotheses comes upon.

    greedy's      the                   cat        sat   EOS
    likeliest     a    the             cat  dog    ...            k - 1 others, by ln p of the whole text so far
    next          ...

One place in the beam is greedy's own text's, so that none less likely is ever written, and ``beam:1`` is ``greedy``.  A
hypothesis that has ended keeps its place while k - 1 others are not likelier.  A window is done when the likeliest has
ended, which no other can then overtake, or at twice its length.  ln p is that of the whole text, its EOS included, and
is not divided by the length: what the decoder holds likeliest is what is wanted, even where that is short because it
knows nothing (Stahlberg & Byrne 2019, On NMT search errors and model errors).

Symbols: B windows, k hypotheses of each, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope.codec.generate import Reconstruction, Writer
from mnemoscope.codec.search import counts
from mnemoscope.codec.search._judge import Judge
from mnemoscope.memory.memory import Memory


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A text up to and without EOS, whether EOS came, and its -ln p under the decoder, that of EOS included."""

    ids: list[int]
    stopped: bool
    nats: float


class Beam:
    example = "4"
    follows = False

    def __init__(self, argument: str):
        (width,) = counts(r"([1-9]\d*)", argument, "beam", "a number of hypotheses, 1 or more", self.example)
        assert width is not None
        self.width = width

    def write(self, writer: Writer, memory: Memory, length: int, judge: Judge) -> list[Reconstruction]:
        found = hypotheses(writer, memory, length, self.width, 1)
        return [Reconstruction(best.ids, best.stopped) for best, *_ in found]


def hypotheses(writer: Writer, memory: Memory, length: int, width: int, wanted: int) -> list[list[Hypothesis]]:
    """Of each window the likeliest hypotheses of a beam, likeliest first; of two alike, greedy's.

    Args:
        width: k.
        wanted: how many of them, at most k; there are fewer if there are no more texts.
    """
    device, together = writer.decoder.device, max(1, writer.size(writer.rows, length) // width)
    out: list[list[Hypothesis]] = []
    for rows in torch.arange(memory.batch, device=device).split(together):
        out += _Beams(writer, memory.rows(rows), length, width, wanted).run(writer.stride)
    return out


class _Beams:
    """Beams of several windows.

    Attributes:
        state: of the decoder, a row a hypothesis [B * k].
        scores: ln p of each hypothesis [B, k]; -inf where there is none.  The first is greedy's.
        ended: [B, k] bool.
        texts: [B, k, limit] int64, EOS from the end on.
        window: [B] int64, which window of those given each is.
    """

    def __init__(self, writer: Writer, memory: Memory, length: int, width: int, wanted: int):
        decoder, device, batch, limit = writer.decoder, writer.decoder.device, memory.batch, 2 * length
        self.decoder, self.limit, self.width, self.wanted = decoder, limit, width, wanted
        self.window = torch.arange(batch, device=device)
        self.state = decoder.start(memory, writer.room(length)).rows(self.window.repeat_interleave(width))
        # sums over hundreds of tokens; Apple's GPUs know no float64
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.scores = torch.full((batch, width), -torch.inf, dtype=wide, device=device)
        self.scores[:, 0] = 0
        self.ended = torch.ones(batch, width, dtype=torch.bool, device=device)
        self.ended[:, 0] = False
        self.token = torch.full((batch * width,), decoder.bos, dtype=torch.int64, device=device)
        self.texts = torch.full((batch, width, limit), decoder.eos, dtype=torch.int64, device=device)
        self.found: list[list[Hypothesis]] = [[] for _ in range(batch)]

    @torch.no_grad()
    def run(self, stride: int) -> list[list[Hypothesis]]:
        """Looks every ``stride`` tokens whether windows are done: a look waits for the device."""
        for step in range(self.limit):
            self._advance(step)
            if (step + 1) % stride == 0 or step + 1 == self.limit:
                done = self._likeliest()[1].all(1) if step + 1 < self.limit else torch.ones_like(self.ended[:, 0])
                if 2 * int(done.sum()) >= len(done):
                    self._take(done)
                    if not len(self.window):
                        break
        return self.found

    def _likeliest(self) -> tuple[Tensor, Tensor]:
        """Places of the wanted hypotheses in each beam, likeliest first, and whether each has ended: [B, wanted]."""
        places = self.scores.sort(dim=1, descending=True, stable=True).indices[:, : self.wanted]
        return places, self.ended.gather(1, places)

    def _advance(self, step: int) -> None:
        """Writes one token in every hypothesis, and keeps the best."""
        eos, batch, width = self.decoder.eos, len(self.window), self.width
        logits, self.state = self.decoder.step(self.state, self.token)
        tokens, gains = _children(logits, width)
        tokens, gains = tokens.view(batch, width, -1), gains.view(batch, width, -1).to(self.scores)
        # what has ended goes on as itself
        tokens = torch.where(self.ended.unsqueeze(2), eos, tokens)
        nothing = torch.full_like(gains, -torch.inf)
        nothing[..., 0] = 0
        scores = (self.scores.unsqueeze(2) + torch.where(self.ended.unsqueeze(2), nothing, gains)).flatten(1)
        keys = scores.clone()
        keys[:, 0] = torch.inf
        kept = keys.sort(dim=1, descending=True, stable=True).indices[:, :width]
        parents = kept // tokens.shape[2]
        token = tokens.flatten(1).gather(1, kept)
        self.scores = scores.gather(1, kept)
        self.ended = self.ended.gather(1, parents) | (token == eos)
        self.texts = self.texts.gather(1, parents.unsqueeze(2).expand_as(self.texts))
        self.texts[:, :, step] = token
        first = torch.arange(batch, device=token.device).unsqueeze(1) * width
        self.state = self.state.rows((first + parents).flatten())
        self.token = token.flatten()

    def _take(self, done: Tensor) -> None:
        """Takes the hypotheses of the windows that are done, and makes an end of these."""
        places, ended = self._likeliest()
        texts = self.texts.gather(1, places.unsqueeze(2).expand(-1, -1, self.limit))
        scores = self.scores.gather(1, places).tolist()
        for row in done.nonzero().flatten().tolist():
            self.found[int(self.window[row])] = [
                Hypothesis(_up_to(text, self.decoder.eos), stopped, -score)
                for text, stopped, score in zip(texts[row].tolist(), ended[row].tolist(), scores[row], strict=True)
                if score > -torch.inf
            ]
        left = (~done).nonzero().flatten()
        rows = (left.unsqueeze(1) * self.width + torch.arange(self.width, device=left.device)).flatten()
        self.state, self.token = self.state.rows(rows), self.token[rows]
        self.window, self.scores, self.ended, self.texts = (
            part[left] for part in (self.window, self.scores, self.ended, self.texts)
        )


def _children(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The likeliest tokens after each hypothesis and their ln p, [N, min(most, V)] each; the first is the one that
    greedy writing takes, which of several alike is the first."""
    best = logits.argmax(-1, keepdim=True)
    gains = F.log_softmax(logits.float(), -1)
    first = gains.gather(1, best)
    others = gains.scatter(1, best, -torch.inf).topk(min(most, logits.shape[1]) - 1)
    return torch.cat([best, others.indices], 1), torch.cat([first, others.values], 1)


def _up_to(text: list[int], eos: int) -> list[int]:
    return text[: text.index(eos)] if eos in text else text


SEARCH = Beam
