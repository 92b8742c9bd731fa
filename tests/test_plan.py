"""Window lengths and the weight of a step, against what their definitions say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnemoscope import config
from mnemoscope.errors import ConfigError, RunError
from mnemoscope.pipeline import _named
from mnemoscope.rundir import RunDir
from mnemoscope.train.decoders import Job
from mnemoscope.train.plan import FLOOR, Plan, fixed, growing
from mnemoscope.train.processes import accelerator
from mnemoscope.train.step import Step

LADDER = (4, 8, 16)


def test_lengths_grow_in_equal_spans() -> None:
    lengths = growing(LADDER, 3000, 0.6, (0,))
    for rank, longest in enumerate(LADDER):
        span = lengths[rank * 600 : (rank + 1) * 600]
        assert span.max() == longest
        # half take the longest in play, the others any of those in play
        assert (span == longest).mean() == pytest.approx(0.5 + 0.5 / (rank + 1), abs=0.07)


@pytest.mark.parametrize(("shares", "expected"), [(None, [1 / 6, 2 / 6, 3 / 6]), ([5.0, 1.0, 4.0], [0.5, 0.1, 0.4])])
def test_shares_hold_once_all_lengths_are_in(shares: list[float] | None, expected: list[float]) -> None:
    lengths = growing(LADDER, 20000, 0.25, (1,), shares)[5000:]
    assert [(lengths == n).mean() for n in LADDER] == pytest.approx(expected, abs=0.02)


def _training(recipe: str, tokens: int, lengths: tuple[int, ...] = (4, 8)) -> Job:
    """Steps of 16 tokens."""
    values = {"name": "d", "recipe": recipe, "seeds": [0], "conditions": ["memory"], "tokens": tokens}
    values |= {"batch_tokens": 16, "optimiser": {"learning_rate": 1.0}}
    length = lengths[-1] if recipe == "fixed" else None
    return Job(config.Decoder.model_validate(values), 0, "memory", lengths, length)


@pytest.mark.parametrize(
    ("recipe", "tokens", "told"),
    [
        ("growing", 15, r"'d' would be trained for 0 steps of 16 tokens, and never on windows of 4, 8 tokens"),
        (
            "growing",
            31,
            r"for 1 step of 16 tokens, and never on windows of 4 tokens\. Raise its tokens from 31 to",
        ),
        ("fixed", 31, r"for 0 steps of 16 tokens for each length, and never on windows of 8 tokens.*to 640 at least"),
    ],
)
def test_a_training_that_does_not_meet_its_lengths_is_refused(recipe: str, tokens: int, told: str) -> None:
    """2 lengths * 20 steps * 16 tokens = 640."""
    with pytest.raises(ConfigError, match=told):
        _training(recipe, tokens).plan(0)


@pytest.mark.parametrize("recipe", ["growing", "fixed"])
def test_a_training_of_hardly_any_steps_is_said_to_be_one(recipe: str) -> None:
    short, whole = _training(recipe, 639), _training(recipe, 640)
    steps = {"growing": "39 steps of 16 tokens:", "fixed": "19 steps of 16 tokens for each length:"}[recipe]
    assert f"{steps} hardly a beginning" in short.caution
    assert "Raise its tokens from 639 to 640 at least (20 steps a length)" in short.caution
    assert whole.caution == ""
    assert short.plan(0).steps < whole.plan(0).steps == {"growing": 40, "fixed": 20}[recipe]


class Scaled(nn.Module):
    """Nats that are proportional to the one weight, so that the gradient is known: d(w * x)/dw = x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight * ids.float()


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balance_divides_the_gradient(balance: float) -> None:
    """Nats 2 * mean(3, 1, 2, 2) = 4, gradient 2; divided by 4 ** balance, by hand."""
    module = Scaled()
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    settings = config.Optimiser(learning_rate=1.0, clip=100.0)
    plan = Plan(fixed(4, 1), 4, settings, 1, balance)
    step = Step(module, optimiser, lambda m, ids: m(ids), plan, accelerator(config.Compute(device="cpu")))
    assert step(torch.tensor([[3, 1, 2, 2]]), 1, 1.0) == pytest.approx(4.0)
    assert 2.0 - module.weight.item() == pytest.approx(2.0 / (4.0 + FLOOR) ** balance, rel=1e-6)


@pytest.mark.parametrize("balance", [0.0, 0.5])
@pytest.mark.parametrize("fits", [1, 2, 3, 6])
def test_a_step_that_does_not_fit_is_taken_in_parts(fits: int, balance: float) -> None:
    """The same loss and the same update, whatever number of windows the device holds."""
    ids = torch.tensor([[3, 1], [2, 2], [4, 1], [1, 1], [2, 5], [2, 0]])  # mean 2: nats 4, gradient 2

    def loss(module: nn.Module, part: Tensor) -> Tensor:
        if len(part) > fits:
            raise torch.OutOfMemoryError("no room")
        nats: Tensor = module(part)
        return nats

    module = Scaled()
    plan = Plan(fixed(2, 1), 12, config.Optimiser(learning_rate=1.0, clip=100.0), 1, balance)
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    step = Step(module, optimiser, loss, plan, accelerator(config.Compute(device="cpu")))
    assert step(ids, 6, 1.0) == pytest.approx(4.0)
    assert 2.0 - module.weight.item() == pytest.approx(2.0 / (4.0 + FLOOR) ** balance, rel=1e-6)


def test_one_window_that_does_not_fit_is_an_error() -> None:
    def loss(module: nn.Module, part: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    module = Scaled()
    plan = Plan(fixed(2, 1), 4, config.Optimiser(learning_rate=1.0), 1)
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    step = Step(module, optimiser, loss, plan, accelerator(config.Compute(device="cpu")))
    with pytest.raises(RunError, match="does not hold 1 windows of 2 tokens"):
        step(torch.tensor([[3, 1], [2, 2]]), 2, 1.0)
    assert module.weight.item() == 2.0


def test_fixed_has_one_length() -> None:
    assert np.unique(fixed(7, 5)).tolist() == [7]
    assert len(fixed(7, 5)) == 5


def test_decoders_are_picked_by_the_whole_parts_of_their_names_in_the_order_asked_for(tmp_path: Path) -> None:
    run = cast(RunDir, SimpleNamespace(path=tmp_path))
    names = ["a/seed-1/memory", "a/seed-10/memory", "b/seed-1/memory", "b/seed-1/none"]
    things = {name: name for name in names}
    assert _named((), things, run) == names
    assert _named(["a/seed-1"], things, run) == names[:1]
    assert _named(["b/seed-1/none", "b", "a/seed-1"], things, run) == [names[3], names[2], names[0]]
    with pytest.raises(RunError, match="'a/seed-2'"):
        _named(["b", "a/seed-2"], things, run)
