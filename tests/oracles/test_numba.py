"""What Numba compiles for the CPU against its slow twins in float64: outputs and every gradient, on poisoned memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mnemoscope.kernels import (
    conv_numba,
    conv_ref,
    cross_entropy_numba,
    cross_entropy_ref,
    norm_numba,
    norm_ref,
    scan_numba,
    scan_ref,
)

BLOCK = scan_numba.BLOCK


def results(function, given: list[Tensor | None], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Outputs and gradients of all that is given, under random gradients to all outputs that can have one."""
    leaves = [None if v is None else v.detach().to(dtype or v.dtype).requires_grad_() for v in given]
    outputs = [o for o in function(*leaves) if o.is_floating_point()]
    torch.manual_seed(1)
    up = [torch.randn(o.shape).to(o.dtype) for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, [v for v in leaves if v is not None], up)]


def compare(fast: list[Tensor], slow: list[Tensor], tolerance: float = 1e-5) -> None:
    for number, (a, b) in enumerate(zip(fast, slow, strict=True)):
        assert torch.isfinite(a).all(), f"output {number} is not finite"
        error = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12)
        assert error < tolerance, f"output {number}: relative error {error:.2e}"


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nothing was written to is NaN."""
    torch.manual_seed(0)
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)

        def poison(*a, make=make, **k):
            made = make(*a, **k)
            return made.fill_(float("nan")) if made.is_floating_point() else made

        monkeypatch.setattr(torch, name, poison)


def scan_inputs(batch: int, length: int, channels: int, groups: int, n: int, gate: bool, bias: bool):
    """As a mixer has them: slices of wider tensors."""
    B, C = torch.randn(batch, length, 2 * groups * n + 3)[..., 3:].unflatten(-1, (2, groups, n)).unbind(2)
    u, z = torch.randn(batch, length, 2 * channels).chunk(2, dim=-1)
    dt, A = torch.rand(batch, length, channels), -torch.rand(channels, n) * 3
    D, start = torch.randn(channels), torch.randn(batch, channels, n)
    return [u, dt, A, B, C, D, z if gate else None, torch.randn(channels) if bias else None, start]


# channels below, at and above a block; groups that blocks do not cross
@pytest.mark.parametrize(
    ("batch", "length", "channels", "groups", "n", "gate", "bias"),
    [
        (2, 17, BLOCK + 7, 1, 16, True, True),
        (1, 33, BLOCK, 1, 5, True, False),
        (3, 1, 12, 3, 8, False, True),
        (2, 6, 2 * BLOCK + 6, 2, 16, False, False),
        (1, 3, 2, 1, 128, True, True),
    ],
)
def test_scan(batch, length, channels, groups, n, gate, bias) -> None:
    given = scan_inputs(batch, length, channels, groups, n, gate, bias)
    slow = results(scan_ref.selective_scan, given, torch.float64)
    compare(results(scan_numba.selective_scan, given), slow)


@pytest.mark.parametrize("shift", [-60.0, -12.0, 12.0, 60.0])
def test_scan_of_extreme_steps(shift) -> None:
    """Steps of e^-60 to 60, gates far from zero: nothing overflows, and what is small stays right."""
    given = scan_inputs(2, 9, 8, 1, 4, True, True)
    given[6], given[7] = given[6] * 40, torch.full((8,), shift)
    slow = results(scan_ref.selective_scan, given, torch.float64)
    compare(results(scan_numba.selective_scan, given), slow)


def test_scan_in_bfloat16() -> None:
    given = scan_inputs(2, 9, 24, 1, 16, True, True)
    half = [v if v is None or i in (2, 5, 7, 8) else v.bfloat16() for i, v in enumerate(given)]
    fast, slow = results(scan_numba.selective_scan, half), results(scan_ref.selective_scan, half, torch.float64)
    assert [f.dtype for f in fast[2:]] == [v.dtype for v in half if v is not None]
    compare(fast, slow, 2**-8)


@pytest.mark.parametrize("number", [0, 1, 3, 6, 8])
def test_nan_stays_nan(number) -> None:
    """A training that diverges must be seen."""
    given = scan_inputs(1, 3, 4, 1, 4, True, True)
    given[number] = given[number].clone()
    given[number].view(-1)[0] = float("nan")
    y, _ = scan_numba.selective_scan(*given)
    assert y.isnan().any()


def test_twice_the_same() -> None:
    given = scan_inputs(3, 20, 130, 1, 16, True, True)
    one, two = (results(scan_numba.selective_scan, given) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# windows shorter than the taps, one half of a linear map's result
@pytest.mark.parametrize(
    ("batch", "length", "channels", "taps", "bias"),
    [(2, 1, 24, 4, True), (1, 2, BLOCK + 3, 4, True), (2, 35, 20, 4, False), (1, 66, 8, 3, True), (2, 9, 12, 2, True)],
)
def test_conv(batch, length, channels, taps, bias) -> None:
    x, b = torch.randn(batch, length, 2 * channels)[..., channels:], torch.randn(channels) if bias else None
    given = [x, torch.randn(channels, taps), b, torch.randn(batch, channels, taps - 1)]
    compare(results(conv_numba.causal_conv, given), results(conv_ref.causal_conv, given, torch.float64))


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (2, 17, 33), (70, 1, 64)])
def test_norm(shape, added) -> None:
    given = [torch.randn(shape), torch.randn(shape) if added else None, torch.randn(shape[-1])]

    def normed(backend, dtype):
        return lambda h, y, weight: backend.add_norm(h, y, weight, 1e-5, dtype)

    slow = results(normed(norm_ref, torch.float64), given, torch.float64)
    compare(results(normed(norm_numba, torch.float32), given), slow)


# vocabularies below and above the lanes of the maximum; chunks of one token, of some and of all
@pytest.mark.parametrize("logits", [1, 300, 2**23])
@pytest.mark.parametrize(("tokens", "width", "vocabulary"), [(5, 8, 7), (13, 16, 64), (3, 4, 203)])
def test_cross_entropy(tokens, width, vocabulary, logits, monkeypatch) -> None:
    monkeypatch.setattr(cross_entropy_numba, "LOGITS", logits)
    targets = torch.randint(0, vocabulary, (tokens,))
    given = [torch.randn(tokens, width) * 3, torch.randn(vocabulary, width)]
    fast = results(lambda h, w: cross_entropy_numba.linear_cross_entropy(h, w, targets), given)
    compare(fast, results(lambda h, w: cross_entropy_ref.linear_cross_entropy(h, w, targets), given, torch.float64))
    predicted = cross_entropy_numba.linear_cross_entropy(*given, targets)[1]
    assert torch.equal(predicted, cross_entropy_ref.linear_cross_entropy(*given, targets)[1])


def test_cross_entropy_of_equals_and_strangers() -> None:
    """The first of equals is predicted; a target that is no token is refused; NaN stays NaN."""
    hidden, weight = torch.ones(2, 1), torch.tensor([[0.0], [2.0], [2.0]])
    assert cross_entropy_numba.linear_cross_entropy(hidden, weight, torch.tensor([0, 1]))[1].tolist() == [1, 1]
    for stranger in (-1, 3):
        with pytest.raises(IndexError, match="no token"):
            cross_entropy_numba.linear_cross_entropy(hidden, weight, torch.tensor([0, stranger]))
    assert cross_entropy_numba.linear_cross_entropy(hidden * torch.nan, weight, torch.tensor([0, 1]))[0].isnan().all()


def test_float64_is_the_references() -> None:
    given = scan_inputs(1, 2, 4, 1, 4, True, True)
    x, weight = torch.zeros(1, 2, 4), torch.zeros(4, 3)
    with pytest.raises(TypeError):
        scan_numba.selective_scan(*given[:8], given[8].double())
    with pytest.raises(TypeError):
        conv_numba.causal_conv(x, weight, None, torch.zeros(1, 4, 2).double())
    with pytest.raises(TypeError):
        norm_numba.add_norm(x.double(), None, torch.ones(4), 1e-5, torch.float64)
    with pytest.raises(TypeError):
        cross_entropy_numba.linear_cross_entropy(x[0].double(), weight.T, torch.tensor([0, 1]))
