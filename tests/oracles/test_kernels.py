"""Every kernel against its slow twin in float64, outputs and all gradients, start and end state among them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mnemoscope.kernels import conv_ref, scan_ref

HAVE_GPU = torch.cuda.is_available()
# before 3.9 the interpreter does not run with NumPy 2.4
pytest.importorskip(
    "triton", minversion=None if HAVE_GPU else "3.9", reason="triton is an optional dependency; see tests/SKIPS.md"
)

DEVICE = "cuda" if HAVE_GPU else "cpu"


def gradients(function, inputs: list[Tensor | None], upstream: list[Tensor]) -> list[Tensor]:
    """Outputs and gradients of every input under random upstream gradients for every output."""
    leaves = [None if x is None else x.detach().clone().requires_grad_(True) for x in inputs]
    outputs = function(*leaves)
    total = sum((o * g.to(o.dtype)).sum() for o, g in zip(outputs, upstream, strict=True))
    wanted = [x for x in leaves if x is not None]
    return [*outputs, *torch.autograd.grad(total, wanted)]


def close(fast: list[Tensor], slow: list[Tensor], tolerance: float) -> None:
    for number, (a, b) in enumerate(zip(fast, slow, strict=True)):
        assert torch.isfinite(a).all(), f"output {number} is not finite"
        error = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12)
        assert error < tolerance, f"output {number}: relative error {error:.2e}"


# the optional inputs there and not, under gradients that differ by token and channel; other shapes are in
# test_scan_triton.py, and Numba's kernels in test_numba.py
@pytest.mark.parametrize(
    ("batch", "length", "channels", "groups", "n", "gate", "bias"),
    [
        (2, 5, 24, 1, 16, True, True),
        (2, 9, 8, 1, 4, False, True),
        (2, 7, 24, 2, 8, False, False),
        (1, 3, 12, 3, 6, True, False),
        (3, 1, 16, 1, 16, True, True),
    ],
)
def test_scan_matches_float64(batch, length, channels, groups, n, gate, bias):
    from mnemoscope.kernels import scan_triton

    torch.manual_seed(length)
    u, dt = torch.randn(batch, length, channels), torch.rand(batch, length, channels)
    A = -torch.rand(channels, n) * 3
    B, C = torch.randn(batch, length, groups, n), torch.randn(batch, length, groups, n)
    D, z = torch.randn(channels), torch.randn(batch, length, channels) if gate else None
    dt_bias, start = torch.randn(channels) if bias else None, torch.randn(batch, channels, n)
    upstream = [torch.randn(batch, length, channels), torch.randn(batch, channels, n)]
    inputs = [u, dt, A, B, C, D, z, dt_bias, start]
    on_device = [None if x is None else x.to(DEVICE) for x in inputs]
    slow = gradients(scan_ref.selective_scan, [None if x is None else x.double() for x in inputs], upstream)
    fast = gradients(scan_triton.selective_scan, on_device, [g.to(DEVICE) for g in upstream])
    close([x.cpu() for x in fast], slow, 1e-5)


@pytest.mark.parametrize(("batch", "length", "channels", "groups", "n"), [(2, 21, 70, 1, 16), (3, 9, 36, 2, 18)])
def test_scan_in_bfloat16_is_within_twice_the_rounding_of_its_inputs(batch, length, channels, groups, n):
    """Of each output and gradient: its error beside the twin on the same inputs, by what rounding the inputs did to it.

    Rounded is what is bfloat16 under autocast; rates, skip, bias and states stay float32.
    """
    from mnemoscope.kernels import scan_triton

    torch.manual_seed(length)
    u, dt, z, upstream = (torch.randn(batch, length, channels) for _ in range(4))
    B, C = (torch.randn(batch, length, groups, n) for _ in range(2))
    A, D, bias = -torch.rand(channels, n) * 3, torch.randn(channels), torch.randn(channels)
    start, dend = torch.randn(batch, channels, n), torch.randn(batch, channels, n)

    def inputs(narrow: torch.dtype, wide: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
        some = [x.to(narrow) for x in (u, dt, B, C, z, upstream)]
        rest = [x.to(wide) for x in (A, D, bias, start, dend)]
        return [some[0], some[1], rest[0], some[2], some[3], rest[1], some[4], *rest[2:4]], [some[5], rest[4]]

    fast_inputs, fast_upstream = inputs(torch.bfloat16, torch.float32)
    rounded = [[x.double() for x in some] for some in (fast_inputs, fast_upstream)]
    slow = gradients(scan_ref.selective_scan, *rounded)
    exact = gradients(scan_ref.selective_scan, *inputs(torch.float64, torch.float64))
    fast = gradients(
        scan_triton.selective_scan, *([x.to(DEVICE) for x in some] for some in (fast_inputs, fast_upstream))
    )
    assert [x.dtype for x in fast[2:]] == [x.dtype for x in fast_inputs]
    for a, b, c in zip(fast, slow, exact, strict=True):
        assert (a.cpu().double() - b).norm() <= 2 * (b - c).norm()


def test_reference_scan_is_the_recurrence():
    """Two tokens, one channel, two states, by hand.

    A = (-1, -2), start h = (1, 2), D = 0.5, no gate, dt = (ln 2, ln 2):
    exp(dt A) = (1/2, 1/4).  u = (1, 2), B_1 = (1, 0), B_2 = (0, 1), C_1 = (1, 1), C_2 = (1, -1).
    h_1 = (1/2 + ln 2, 1/2),        y_1 = 1 + ln 2 + 0.5
    h_2 = (1/4 + ln 2 / 2, 1/8 + 2 ln 2),  y_2 = 1/8 - 1.5 ln 2 + 1
    """
    ln2 = torch.log(torch.tensor(2.0, dtype=torch.float64))
    u = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)
    dt = ln2.expand(1, 2, 1)
    A = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    B = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]], dtype=torch.float64)
    C = torch.tensor([[[[1.0, 1.0]], [[1.0, -1.0]]]], dtype=torch.float64)
    D = torch.tensor([0.5], dtype=torch.float64)
    start = torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    y, end = scan_ref.selective_scan(u, dt, A, B, C, D, None, None, start)
    torch.testing.assert_close(y.flatten(), torch.stack([1.5 + ln2, 1.125 - 1.5 * ln2]))
    torch.testing.assert_close(end.flatten(), torch.stack([0.25 + ln2 / 2, 0.125 + 2 * ln2]))


def test_reference_gradients():
    torch.manual_seed(0)
    shapes = [(2, 4, 6), (2, 4, 6), (6, 3), (2, 4, 2, 3), (2, 4, 2, 3), (6,), (2, 4, 6), (6,), (2, 6, 3)]
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(scan_ref.selective_scan, inputs)
    conv = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [(2, 5, 4), (4, 3), (4,), (2, 4, 2)]]
    assert torch.autograd.gradcheck(conv_ref.causal_conv, conv)
