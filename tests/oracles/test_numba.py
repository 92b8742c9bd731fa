"""What Numba compiles for the CPU against its slow twins in float64: outputs and every gradient, on poisoned memory."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import get_num_threads, njit, set_num_threads
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
    token_numba,
)
from mnemoscope.kernels.elementary_numba import put

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


def test_conv_and_norm_in_bfloat16() -> None:
    """What is bfloat16 is read, written and differentiated as such; weights, states and the stream stay float32."""
    x, y = torch.randn(2, 9, 48)[..., 24:].bfloat16(), torch.randn(2, 9, 33).bfloat16()
    conv = [x, torch.randn(24, 4), torch.randn(24), torch.randn(2, 24, 3)]
    fast, slow = results(conv_numba.causal_conv, conv), results(conv_ref.causal_conv, conv, torch.float64)
    assert [f.dtype for f in fast] == [torch.bfloat16, torch.float32, *(v.dtype for v in conv)]
    compare(fast, slow, 2**-8)
    norm = [torch.randn(2, 9, 33), y, torch.randn(33)]
    fast = results(lambda h, y, w: norm_numba.add_norm(h, y, w, 1e-5, torch.bfloat16), norm)
    assert [f.dtype for f in fast] == [torch.float32, torch.bfloat16, *(v.dtype for v in norm)]
    compare(fast, results(lambda h, y, w: norm_ref.add_norm(h, y, w, 1e-5, torch.float64), norm, torch.float64), 2**-8)


@pytest.mark.parametrize(
    ("channels", "groups", "n", "gate"),
    [(5, 1, 16, True), (6, 2, 35, False), (3, 3, 7, True), (260, 1, 16, True)],  # 35: two rows of 16 and three
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_token(channels: int, groups: int, n: int, gate: bool, dtype: torch.dtype) -> None:
    """Without gradients a kernel of its own writes one token: the same numbers as the definitions in float64."""
    given = scan_inputs(3, 1, channels, groups, n, gate, not gate)
    rounded = [None if x is None or i in (2, 5, 7, 8) else x.to(dtype) for i, x in enumerate(given)]
    given = [x if r is None else r for x, r in zip(given, rounded, strict=True)]
    exact = [None if x is None else x.double() for x in given]
    with torch.no_grad():
        compare(
            [*token_numba.scan_token(*given)],
            [*scan_ref.selective_scan(*exact)],
            1e-5 if dtype == torch.float32 else 2**-7,
        )
        conv = [
            torch.randn(3, 1, channels).to(dtype),
            torch.randn(channels, 4),
            torch.randn(channels),
            torch.randn(3, channels, 3),
        ]
        for taps, bias in ((4, True), (2, False), (1, True)):
            some = [conv[0], conv[1][:, :taps], conv[2] if bias else None, conv[3][..., : taps - 1]]
            slow = conv_ref.causal_conv(*(None if x is None else x.double() for x in some))
            compare([*conv_numba.causal_conv(*some)], [*slow], 1e-5 if dtype == torch.float32 else 2**-7)


def test_one_token_is_written_by_the_kernel_for_it_unless_gradients_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    whole = token_numba.scan_token
    monkeypatch.setattr(scan_numba, "scan_token", lambda *inputs: asked.append(1) or whole(*inputs))
    given = scan_inputs(2, 1, 4, 1, 16, True, True)
    first = scan_numba.selective_scan(*given)
    assert asked == [1]
    given[0] = given[0].detach().requires_grad_()
    second = scan_numba.selective_scan(*given)
    assert asked == [1]
    compare([x.detach() for x in second], list(first))


def test_cross_entropy_in_bfloat16() -> None:
    """Against the truth on logits rounded as a linear map of bfloat16 rounds them."""
    targets = torch.randint(0, 203, (13,))
    given = [torch.randn(13, 16).bfloat16(), torch.randn(203, 16).bfloat16()]
    fast = results(lambda h, w: cross_entropy_numba.linear_cross_entropy(h, w, targets), given)
    slow = results(lambda h, w: cross_entropy_ref.linear_cross_entropy(h, w, targets), given, torch.float64)
    compare(fast, slow, 2**-7)


@pytest.mark.parametrize("bits", [0x3F808000, 0x3F818000, 0x3F80FFFF, 0x7F7FFFFF, 0x00008001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_rounding_is_torchs(bits: int) -> None:
    """Halfway to even, up to infinity, below the normal numbers; a NaN that a carry would make a number stays one."""
    h = torch.tensor([bits if bits < 2**31 else bits - 2**32], dtype=torch.int32).view(torch.float32)
    made = np.zeros(1, np.uint16)
    _write(made, h.numpy())
    ours = torch.from_numpy(made.view(np.int16)).view(torch.bfloat16)
    assert torch.equal(ours.isnan(), h.isnan())
    assert h.isnan().all() or torch.equal(ours, h.bfloat16())


@njit
def _write(array, x) -> None:
    put(array, 0, x[0])


@pytest.mark.parametrize("number", [0, 1, 3, 6, 8])
def test_nan_stays_nan(number) -> None:
    """A training that diverges must be seen."""
    given = scan_inputs(1, 3, 4, 1, 4, True, True)
    given[number] = given[number].clone()
    given[number].view(-1)[0] = float("nan")
    y, _ = scan_numba.selective_scan(*given)
    assert y.isnan().any()


def test_twice_the_same_on_any_number_of_threads() -> None:
    """Bit for bit: sums over tasks are made in order."""
    targets = torch.randint(0, 50, (50,))
    works = [
        (scan_numba.selective_scan, scan_inputs(3, 20, BLOCK + 66, 1, 16, True, True)),
        (
            conv_numba.causal_conv,
            [torch.randn(3, 9, 130), torch.randn(130, 4), torch.randn(130), torch.randn(3, 130, 3)],
        ),
        (lambda h, y, w: norm_numba.add_norm(h, y, w, 1e-5, torch.float32), [*torch.randn(2, 50, 33), torch.randn(33)]),
        (
            lambda h, w: cross_entropy_numba.linear_cross_entropy(h, w, targets),
            [torch.randn(50, 8), torch.randn(70, 8)],
        ),
    ]
    most = get_num_threads()
    for function, given in works:
        try:
            one = results(function, given)
            set_num_threads(1)
            two = results(function, given)
        finally:
            set_num_threads(most)
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


def test_without_gradients_logits_of_few_tokens_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay in a core's cache; what is learnt from has them all, which the gradient takes."""
    monkeypatch.setattr(cross_entropy_numba, "TOKENS", 4)
    made: list[int] = []
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: made.append(len(a)) or product(a, b))
    hidden, weight, targets = torch.randn(10, 8), torch.randn(21, 8, requires_grad=True), torch.randint(21, (10,))
    nats, predicted = cross_entropy_numba.linear_cross_entropy(hidden, weight, targets)
    assert made == [10]
    with torch.no_grad():
        some = cross_entropy_numba.linear_cross_entropy(hidden, weight, targets)
    assert made[1:] == [4, 4, 2]
    torch.testing.assert_close(some, (nats.detach(), predicted))


@pytest.mark.parametrize("logits", [2**23, 100])
def test_a_second_gradient_of_one_cross_entropy_is_the_first(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the first is written over the logits, where they are kept."""
    monkeypatch.setattr(cross_entropy_numba, "LOGITS", logits)
    hidden, weight = torch.randn(30, 8, requires_grad=True), torch.randn(21, 8, requires_grad=True)
    nats, _ = cross_entropy_numba.linear_cross_entropy(hidden, weight, torch.randint(21, (30,)))
    first = torch.autograd.grad(nats.sum(), [hidden, weight], retain_graph=True)
    second = torch.autograd.grad(nats.sum(), [hidden, weight])
    assert all(torch.equal(a, b) and bool(a.any()) for a, b in zip(first, second, strict=True))


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


def test_kernels_take_the_threads_that_pytorch_was_given() -> None:
    """Numba's OpenMP layer, once started, would give PyTorch all cores again, whatever OMP_NUM_THREADS said."""
    code = """
import numba, torch
from mnemoscope.kernels.elementary_numba import loops_may_meet
loops_may_meet()  # runs a loop
print(torch.get_num_threads(), numba.get_num_threads())
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("NUMBA_NUM_THREADS", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
