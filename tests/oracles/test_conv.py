"""The convolution in Triton against its slow twin in float64, however its tokens are shared among programs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mnemoscope.kernels import conv, conv_ref

HAVE_GPU = torch.cuda.is_available()
# before 3.9 the interpreter does not run with NumPy 2.4
pytest.importorskip(
    "triton", minversion=None if HAVE_GPU else "3.9", reason="triton is an optional dependency; see tests/SKIPS.md"
)
from mnemoscope.kernels import conv_triton  # noqa: E402

DEVICE = "cuda" if HAVE_GPU else "cpu"


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape).to(DEVICE, dtype).requires_grad_()


def inputs(batch: int, length: int, d: int, taps: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x as one half of a linear map's result, weight, bias, start."""
    torch.manual_seed(length)
    half = drawn(batch, length, 2 * d, dtype=dtype).chunk(2, dim=-1)[1]
    return [half, drawn(d, taps), drawn(d), drawn(batch, d, taps - 1)]


def results(function, given: list[Tensor | None], dtype: torch.dtype | None, end: bool = True) -> list[Tensor]:
    """Outputs and gradients under random gradients to y and, unless it goes nowhere, to the end state."""
    leaves = [v if v is None or dtype is None else v.to(dtype) for v in given]
    outputs = function(*leaves)
    torch.manual_seed(1)
    up = [torch.randn(o.shape).to(o.device, o.dtype) for o in outputs]
    used = slice(None if end else 1)
    wanted = [v for v in given if v is not None]
    return [*outputs, *torch.autograd.grad(outputs[used], wanted, up[used], allow_unused=True)]


def compare(fast: list[Tensor], slow: list[Tensor], tolerance: float) -> None:
    for number, (a, b) in enumerate(zip(fast, slow, strict=True)):
        assert torch.isfinite(a).all(), f"output {number} is not finite"
        error = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12)
        assert error < tolerance, f"output {number}: relative error {error:.2e}"


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nothing was written to is NaN."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, make=make, **k: make(*a, **k).fill_(float("nan")))


# windows shorter than the taps; programs of one token, of parts of windows and of several; an odd number of channels
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("taps", "batch", "length", "d", "programs"),
    [
        (4, 3, 1, 5, 1),
        (4, 1, 1, 300, 1),
        (4, 3, 2, 5, 1000),
        (4, 2, 3, 5, 4),
        (4, 2, 4, 16, 1000),
        (4, 3, 5, 5, 1),
        (4, 3, 5, 5, 4),
        (4, 1, 33, 3, 5),
        (3, 3, 1, 5, 2),
        (3, 2, 2, 4, 1),
        (3, 2, 5, 3, 1000),
        (2, 2, 1, 5, 1),
        (2, 2, 4, 3, 3),
        (2, 1, 33, 2, 2),
    ],
)
def test_matches_float64(taps, batch, length, d, programs, monkeypatch):
    for name, number in (("FORWARD_PROGRAMS", programs), ("BACKWARD_PROGRAMS", programs), ("LEAST", 1)):
        monkeypatch.setattr(conv_triton, name, number)
    given = inputs(batch, length, d, taps)
    compare(results(conv_triton.causal_conv, given, None), results(conv_ref.causal_conv, given, torch.float64), 1e-5)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3)])
def test_several_blocks_of_channels(dtype, tolerance):
    given = inputs(1, 18, 130, 4, dtype)
    fast = results(conv_triton.causal_conv, given, None)
    assert [v.dtype for v in fast] == [dtype, torch.float32, dtype, *[torch.float32] * 3]
    compare(fast, results(conv_ref.causal_conv, given, torch.float64), tolerance)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("length", [2, 9])
def test_what_goes_nowhere(length):
    """No gradient to the end state, none wanted for the start state, no bias, channels apart in memory."""
    x, weight, _, start = inputs(2, length, 6, 4)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)
    given = [x, weight, None, start]
    slow = results(conv_ref.causal_conv, given, torch.float64, end=False)
    compare(results(conv_triton.causal_conv, given, None, end=False), slow, 1e-5)
    y, _ = conv_triton.causal_conv(x, weight, None, start.detach())
    torch.manual_seed(1)
    compare(list(torch.autograd.grad(y, [x, weight], torch.randn(y.shape).to(DEVICE))), slow[2:4], 1e-5)
    _, end = conv_triton.causal_conv(x, weight, None, start)
    dx, dstart = torch.autograd.grad(end.sum(), [x, start])
    assert (dx.sum().item(), dstart.sum().item()) == (36 - max(0, 3 - length) * 12, max(0, 3 - length) * 12)


def test_end_state_is_exact() -> None:
    """Of two tokens after a start state of three inputs: the last of these, and both tokens."""
    x, weight, bias, start = inputs(1, 2, 5, 4)
    _, end = conv_triton.causal_conv(x, weight, bias, start)
    assert torch.equal(end, torch.cat([start[..., 2:], x.transpose(1, 2)], dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_can_be_traced(dtype: torch.dtype) -> None:
    x, weight, bias, start = inputs(1, 2, 3, 3, dtype)
    x = x.detach().requires_grad_()
    torch.library.opcheck(conv_triton._causal_conv, (x, weight, bias, start))
    saved = [v.detach() for v in (x, weight, bias, start)]
    for dend, start_too in ((torch.ones_like(saved[3]), True), (None, False)):
        inputs_ = (*saved, torch.ones(1, 2, 3, dtype=dtype, device=DEVICE), dend, start_too)
        torch.library.opcheck(conv_triton._causal_conv_backward, inputs_)


def test_what_is_refused() -> None:
    x, weight, bias, start = inputs(1, 2, 4, 4)
    with pytest.raises(ValueError, match="at least one token"):
        conv_triton.causal_conv(x[:, :0], weight, bias, start)
    with pytest.raises(ValueError, match="2 to 4 taps"):
        conv_triton.causal_conv(x, torch.zeros(4, 5), bias, start)
    with pytest.raises(TypeError, match="float64"):
        conv_triton.causal_conv(x.double(), weight, bias, start)


@pytest.mark.parametrize("taps", [1, 5])
def test_other_taps_are_the_reference_s(taps: int) -> None:
    given = inputs(1, 3, 4, taps)
    for a, b in zip(conv.causal_conv(*given, backend="triton"), conv_ref.causal_conv(*given), strict=True):
        assert torch.equal(a, b)


def test_no_window() -> None:
    x, weight, bias, start = inputs(1, 3, 4, 4)
    y, end = conv_triton.causal_conv(x[:0], weight, bias, start[:0])
    assert (y.shape, end.shape) == ((0, 3, 4), (0, 4, 3))
    assert not torch.autograd.grad(y.sum(), [weight])[0].any()
