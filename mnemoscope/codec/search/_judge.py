"""How near a text's memory is to one that was handed over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory

#: windows whose memories say how far memories of a length differ
SAMPLE = 256


class Judge:
    """Distances between memories of one condition and length.

        d(a, b)^2 = mean over parts p of  mean over the part's numbers i of (a_i - b_i)^2 / s_p^2
        s_p^2     = mean over the part's numbers of their variance over windows

    Two windows drawn at random are about sqrt(2) apart, the same one is 0 from itself.  A part in which windows differ
    by no more than rounding is divided by that rounding: a text whose part differs there is far away.

    Args:
        read: texts [n, T] int64 to their memories, as the condition hands them over; what it leaves to chance must not
            be what was handed over.
        sample: memories of windows of the length, at most :data:`SAMPLE`, whatever the batches.
        encoder: the study's model.
    """

    def __init__(self, read: Callable[[Tensor], Memory], sample: Callable[[], Iterable[Memory]], encoder: Adapter):
        self.read, self.sample, self.encoder = read, sample, encoder

    @cached_property
    def spread(self) -> dict[str, float]:
        """s_p of each part."""
        count = 0
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for memory in self.sample():
            count += memory.batch
            for name, part in memory.items():
                # float64 is not on every device
                numbers = part.cpu().double()
                total, square = sums.get(name, (0, 0))
                sums[name] = total + numbers.sum(0), square + numbers.square().sum(0)
        rounding = torch.finfo(torch.float32).eps
        found = {}
        for name, (total, square) in sums.items():
            scale = float(square.mean()) / count
            variance = float((square / count - (total / count).square()).mean())
            found[name] = math.sqrt(max(variance, rounding**2 * scale, torch.finfo(torch.float32).tiny))
        return found

    def distances(
        self, given: Memory, rows: Sequence[int], texts: Sequence[Sequence[int]], together: int
    ) -> list[float]:
        """Of each text from one of the memories given; infinite for a text without tokens, which is no window.

        Args:
            rows: which memory each text is compared with.
            together: texts that are read at once, at most.
        """
        out = [math.inf] * len(texts)
        by_length: dict[int, list[int]] = {}
        for index, text in enumerate(texts):
            by_length.setdefault(len(text), []).append(index)
        by_length.pop(0, None)
        for _, same in sorted(by_length.items()):
            for start in range(0, len(same), together):
                part = same[start : start + together]
                for index, distance in zip(part, self._batch(given, rows, texts, part), strict=True):
                    out[index] = distance
        return out

    def same(self, given: Memory, row: int, text: Sequence[int]) -> bool:
        """Whether a text is read into one of the memories given, to the last bit of every part: a distance of 0 would
        pass over differences whose squares are too small for a float32."""
        memory = self.read(torch.tensor([list(text)], device=next(iter(given.values())).device))
        return all(torch.equal(memory[name][0], part[row]) for name, part in given.items())

    def _batch(
        self, given: Memory, rows: Sequence[int], texts: Sequence[Sequence[int]], indices: Sequence[int]
    ) -> list[float]:
        device = next(iter(given.values())).device
        memory = self.read(torch.tensor([list(texts[i]) for i in indices], device=device))
        wanted = given.rows(torch.tensor([rows[i] for i in indices], device=device))
        squares = [
            ((memory[name].float() - part.float()) / self.spread[name]).square().flatten(1).mean(1)
            for name, part in wanted.items()
        ]
        return [float(d) for d in torch.stack(squares).mean(0).sqrt()]
