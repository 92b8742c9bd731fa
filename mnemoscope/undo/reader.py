"""From a first layer's memory to the tokens that it read, from the last to the first.

With the last K - 1 tokens before a step known, each token of the vocabulary is tried as the next older one: the step is
undone with it, and what is left is judged by how states are distributed there (symbols as in layer.py)::

    score = sum over channels of  -(n_c + 3) / 2  log(1 + |y_c|^2 / 3)  -  sum of log decays  +  log frequency

y are the standardised rests, whitened channel by channel, n_c of a channel's numbers; heavy tails (Student's t of three
degrees), since a channel or two of a real state are often far from what is expected.  The decays are the Jacobian of
undoing.  Numbers that have decayed so far that rounding hides them are left out, and rounding widens the others: it is
taken as 3.4 units in the last place of the sum of the magnitudes of what was taken away.  Before the first step the
state is none but that of the first K - 1 tokens, and is judged by rounding alone.

A few texts are kept where the scores are close.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mnemoscope.memory.adapter import Adapter
from mnemoscope.undo.distribution import Distribution, Group, regressors
from mnemoscope.undo.layer import FirstLayer, require

Floats = npt.NDArray[np.floating]

FREEDOM = 3.0
#: rounding, in units in the last place
ROUNDING = 3.4
#: added to the variances of standardised rests, whose covariance is estimated
RIDGE = 1e-4
#: numbers whose rounding is less than this share of their deviation are looked at
CLEAR = 0.5
#: numbers by which all candidates are judged, and then the best of them; at the far end
FEW, MORE, EXACT = 256, 800, 300
#: candidates that are judged together, so that a processor's cache holds them
TOGETHER = 512


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried.

    Attributes:
        keep: texts that are gone on with.
        sure: lead of a score, in nats, with which one is gone on with alone.
        behind: how far behind the best a text may be.
        best: candidates that are judged by more numbers, and by all.
    """

    keep: int
    sure: float
    behind: float
    best: tuple[int, int]


#: what is tried, one after the other, until a text is accepted
EFFORTS = (Effort(4, 60.0, 400.0, (2000, 300)), Effort(16, 300.0, 3000.0, (8000, 1200)))


@dataclass(frozen=True, slots=True)
class _Path:
    """A text read so far.

    Attributes:
        tokens: known ones, oldest first.
        added: what the steps that were undone have put into the final state [M] float64.
        magnitude: the sum of the magnitudes of what they put in [M].
        decay: the logarithm of what they left of what was there before them [M].
        prior: log frequency of the tokens that were found.
    """

    tokens: list[int]
    added: Tensor
    magnitude: Tensor
    decay: Tensor
    prior: float


class Reader:
    """Args:
    adapter: the model whose memory is read.
    distribution: of its first layer's states.

    Raises:
        ModelError: the architecture's steps are not undone.
        ConfigError: the distribution is another model's.
    """

    def __init__(self, adapter: Adapter, distribution: Distribution):
        require(adapter, distribution.model)
        self.distribution = distribution
        arguments = adapter, distribution.channels, distribution.frequency
        self.layer = FirstLayer(*arguments, torch.float32)
        self.exact = FirstLayer(*arguments, torch.float64)
        share = (distribution.frequency + 0.5).log()
        self.log_frequency = (share - share.logsumexp(0)).numpy()

    def read(self, ssm: Tensor, conv: Tensor, length: int, effort: Effort) -> list[list[int]]:
        """Texts of ``length`` tokens, the likeliest first; none where the numbers tell no more.

        Args:
            ssm, conv: of one window [D, N] and [D, K - 1].
        """
        *_, texts = self.backwards(ssm, conv, length, effort)
        return texts

    def backwards(self, ssm: Tensor, conv: Tensor, length: int, effort: Effort) -> Iterator[list[list[int]]]:
        """What is read so far: the last K - 1 tokens, and then, a token older each time, what ``read`` goes on with,
        the likeliest first; it ends with texts of ``length`` tokens, or with none."""
        with torch.no_grad():
            tail = self._last(conv)
        known = self.layer.width - 1
        if length <= known:
            yield [tail[known - length :]]
            return
        yield [tail]
        state = ssm[self.distribution.channels].double().flatten()
        epsilon = ROUNDING * torch.finfo(ssm.dtype).eps
        nothing = torch.zeros_like(state)
        paths = [_Path(tail, nothing, nothing, nothing, 0.0)]
        for position in range(length - 2, known - 2, -1):
            with torch.no_grad():
                paths = self._older(paths, state, epsilon, position, effort)
            yield [path.tokens for path in paths]
            if not paths:
                return

    def _last(self, conv: Tensor) -> list[int]:
        """The last K - 1 tokens: those whose inputs the convolution's memory is nearest to."""
        inputs = self.layer.inputs
        return [int((inputs - column).square().sum(1).argmin()) for column in conv.float().T]

    def _older(self, paths: list[_Path], state: Tensor, epsilon: float, position: int, effort: Effort) -> list[_Path]:
        """With the next older token each; ``position``: of the state that is left when a step more is undone."""
        left = [(state - path.added) / path.decay.exp() for path in paths]
        first = paths[0]
        rounding = epsilon * (first.magnitude + (state - first.added).abs()) / first.decay.exp() + 1e-12
        judge = (_Exact if position == self.layer.width - 2 else _Likely)(self, position, rounding)
        if not judge.stages:
            return []
        vocabulary = len(self.log_frequency)
        scores = np.full(len(paths) * vocabulary, -np.inf)

        def score(chosen: npt.NDArray[np.intp], numbers: int) -> None:
            for i, path in enumerate(paths):
                candidates = chosen[chosen // vocabulary == i] % vocabulary
                prior = path.prior + self.log_frequency[candidates]
                for some in range(0, len(candidates), TOGETHER):
                    part = slice(some, some + TOGETHER)
                    tokens = torch.from_numpy(candidates[part])
                    found = judge.score(path, left[i], tokens, numbers)
                    scores[i * vocabulary + candidates[part]] = found + prior[part]

        chosen = np.arange(len(scores))
        lead = -np.inf
        for stage, numbers in enumerate(judge.stages):
            if stage:
                chosen = chosen[: effort.best[stage - 1]]
            score(chosen, numbers)
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
            lead = scores[chosen[0]] - scores[chosen[1]] if len(chosen) > 1 else np.inf
            if stage and lead > effort.sure:
                break
        going_on = chosen[: 1 if lead > effort.sure else effort.keep]
        best = scores[going_on[0]]
        return [
            self._with(paths[i // vocabulary], int(i % vocabulary))
            for i in going_on
            if scores[i] >= best - effort.behind
        ]

    def _with(self, path: _Path, token: int) -> _Path:
        tokens = [token, *path.tokens]
        taps = [torch.tensor([x]) for x in tokens[: self.exact.width]]
        decay, added = (x[0] for x in self.exact.decay_and_input(taps))
        here = path.decay.exp() * added
        prior = path.prior + float(self.log_frequency[token])
        return _Path(tokens, path.added + here, path.magnitude + here.abs(), path.decay + decay, prior)

    def undone(self, path: _Path, left: Tensor, tokens: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What is left of the state with each token [n] as the next older one [n, M], the logarithm of the step's
        decay, and, of it, the tokens up to the state that is left."""
        known = [torch.tensor([x]) for x in path.tokens[: self.layer.width - 1]]
        decay, added = self.layer.decay_and_input([tokens, *known], numbers)
        return (left[numbers].float() - added) * torch.exp(-decay), decay, [tokens, *known[:-1]]


class _Likely:
    """Judges states by their distribution.

    Attributes:
        stages: how many of the clear numbers are looked at, from few to all.
    """

    def __init__(self, reader: Reader, position: int, rounding: Tensor):
        self.reader, self.position = reader, position
        group, place = reader.distribution.at(position)
        self.group: Group = group
        self.coefficients, self.deviation = group.coefficients[place], group.deviation[place]
        share = rounding.float() / self.deviation
        self.numbers = torch.nonzero(share < CLEAR)[:, 0]
        self.share = share[self.numbers]
        channel = (self.numbers // reader.layer.columns).numpy()
        self.begins = np.flatnonzero(np.diff(channel, prepend=-1))
        ends = [*self.begins[1:], len(channel)] if len(channel) else []
        # whole channels
        self.stages = sorted({next((int(e) for e in ends if e >= n), len(channel)) for n in (FEW, MORE)} - {0})
        if self.stages and self.stages[-1] < len(channel):
            self.stages.append(len(channel))
        self._factors: dict[int, Tensor] = {}

    def _factor(self, count: int) -> Tensor:
        if count not in self._factors:
            some = self.numbers[:count]
            covariance = self.group.covariance[some][:, some]
            covariance = covariance + torch.diag(RIDGE + self.share[:count].square())
            self._factors[count] = torch.linalg.cholesky(covariance)
        return self._factors[count]

    def score(self, path: _Path, left: Tensor, tokens: Tensor, count: int) -> Floats:
        numbers = self.numbers[:count]
        rest, decay, last = self.reader.undone(path, left, tokens, numbers)
        coefficients = self.coefficients[numbers]
        rest = rest - coefficients[:, -1]
        for i, part in enumerate(regressors(self.reader.layer, last, self.position, numbers)):
            rest = rest - part * coefficients[:, i]
        standard = (rest / self.deviation[numbers]).T
        white = torch.linalg.solve_triangular(self._factor(count), standard, upper=False).numpy()
        begins = self.begins[self.begins < count]
        sizes = np.diff(begins, append=count)
        energy = np.add.reduceat(np.square(white), begins, 0)
        likely = -0.5 * ((sizes + FREEDOM)[:, None] * np.log1p(energy / FREEDOM)).sum(0)
        jacobian = decay.double().sum(1).numpy() + float(path.decay[numbers].sum())
        return np.nan_to_num(likely.astype(np.float64) - jacobian, nan=-np.inf, posinf=-np.inf)


class _Exact:
    """Judges the state after the first K - 1 tokens, which these alone have made."""

    def __init__(self, reader: Reader, position: int, rounding: Tensor):
        self.reader, self.position, self.rounding = reader, position, rounding
        group, place = reader.distribution.at(reader.layer.width - 1)
        order = torch.argsort(rounding.float() / group.deviation[place])
        self.numbers = order[:EXACT]
        self.stages = [len(self.numbers)]

    def score(self, path: _Path, left: Tensor, tokens: Tensor, count: int) -> Floats:
        rest, decay, last = self.reader.undone(path, left, tokens, self.numbers)
        # of what stands before the first token nothing is left
        parts = regressors(self.reader.layer, last, self.position, self.numbers)[:-1]
        error = rest - torch.stack(parts).sum(0)
        size = torch.stack([p.abs() for p in parts]).sum(0)
        tolerance = self.rounding[self.numbers].float() * torch.exp(-decay) + 1e-6 * size + 1e-10
        found: Floats = -0.5 * torch.log1p((error / tolerance).square()).sum(1).double().numpy()
        return np.nan_to_num(found, nan=-np.inf, posinf=-np.inf)
