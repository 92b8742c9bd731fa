"""A linear map beside its input, against the two written one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope.kernels.linear import linear_beside


def plain(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x, F.linear(x, weight)


def gradients(function, x: Tensor, weight: Tensor, asked: tuple[int, ...]) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(0 in asked), weight.clone().requires_grad_(1 in asked)]
    beside, y = function(*leaves)
    # both of what comes out are used, and unlike each other
    total = (beside.float().sin() * 2).sum() + (y.float() ** 2).sum()
    return [beside, y, *torch.autograd.grad(total, [leaves[i] for i in asked])]


@pytest.mark.parametrize("asked", [(0, 1), (0,), (1,)])
def test_gradients_are_those_of_both(asked: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, 6), torch.randn(5, 6)
    for a, b in zip(gradients(linear_beside, x, weight, asked), gradients(plain, x, weight, asked), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_right() -> None:
    torch.manual_seed(0)
    x, weight = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 4), (5, 4)))
    assert torch.autograd.gradcheck(linear_beside, (x, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_weights_stay_wide_and_so_do_their_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(8, 6).to(dtype), torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        fast, slow = (gradients(f, x, weight, (0, 1)) for f in (linear_beside, plain))
    assert [g.dtype for g in fast] == [g.dtype for g in slow] == [dtype, torch.bfloat16, dtype, torch.float32]
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=0.03, atol=0.03)


def test_without_gradients_it_is_the_map() -> None:
    x, weight = torch.randn(2, 6), torch.randn(5, 6)
    with torch.no_grad():
        beside, y = linear_beside(x, weight)
    assert beside is x
    torch.testing.assert_close(y, F.linear(x, weight))
