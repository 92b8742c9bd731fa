"""The Triton scan's own risks: blocks not filled, slices of the state, inputs read in place, memory never written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mnemoscope.kernels import scan_ref

HAVE_GPU = torch.cuda.is_available()
pytest.importorskip(
    "triton", minversion=None if HAVE_GPU else "3.9", reason="triton is an optional dependency; see tests/SKIPS.md"
)
DEVICE = "cuda" if HAVE_GPU else "cpu"

Inputs = dict[str, Tensor]


def inputs(batch: int, length: int, channels: int, groups: int, n: int) -> Inputs:
    torch.manual_seed(length)
    return {
        "u": torch.randn(batch, length, channels),
        "dt": torch.randn(batch, length, channels),
        "A": -torch.rand(channels, n) * 3,
        "B": torch.randn(batch, length, groups, n),
        "C": torch.randn(batch, length, groups, n),
        "D": torch.randn(channels),
        "z": torch.randn(batch, length, channels),
        "dt_bias": torch.randn(channels),
        "start": torch.randn(batch, channels, n),
    }


def run(scan, values: Inputs, dtype: torch.dtype, device: str) -> list[Tensor]:
    """y, the last state and all gradients, under an upstream gradient of ones for y and twos for the state."""
    leaves = {k: v.detach().to(device, dtype).requires_grad_() for k, v in values.items()}
    y, end = scan(**leaves)
    return [y, end, *torch.autograd.grad(y.sum() + 2 * end.sum(), list(leaves.values()))]


def triton_scan(**values: Tensor | None) -> tuple[Tensor, Tensor]:
    from mnemoscope.kernels import scan_triton

    return scan_triton.selective_scan(**values)


def compare(values: Inputs, fast: list[Tensor] | None = None) -> None:
    fast = run(triton_scan, values, torch.float32, DEVICE) if fast is None else fast
    slow = run(scan_ref.selective_scan, values, torch.float64, "cpu")
    for name, a, b in zip(["y", "end", *values], fast, slow, strict=True):
        error = ((a.cpu().double() - b).norm() / b.norm().clamp_min(1e-12)).item()
        assert error < 1e-5, f"{name}: {error:.1e}"  # a NaN fails too


@pytest.mark.parametrize(
    ("batch", "length", "channels", "groups", "n"),
    [
        (1, 9, 33, 1, 16),  # one channel in the second block; one token beyond two chunks
        (2, 3, 5, 1, 1),  # fewer tokens than a chunk
        (1, 14, 110, 2, 12),  # the last lane of a group has no neighbour; states kept
        (1, 2, 6, 2, 8),  # two groups
        (1, 2, 3, 3, 20),  # a slice of 16 numbers and one of 4
        (1, 7, 33, 1, 20),  # slices of two blocks, their states kept
        (1, 2, 2, 1, 128),  # eight slices
        (1, 3, 2, 1, 7),  # numbers that fill no block of 4
    ],
)
def test_any_shape(batch, length, channels, groups, n):
    compare(inputs(batch, length, channels, groups, n))


@pytest.mark.parametrize("length", [1, *range(4, 14)])
def test_any_remainder(length):
    """Tokens beyond the last whole chunk, of either pass; a state kept just before them."""
    compare(inputs(2, length, 3, 1, 4))


@pytest.mark.parametrize("shift", [-30.0, -8.0, 30.0])
def test_extreme_steps(shift):
    """softplus(dt + bias) of e^-30 (float32's 1 + x is 1), of e^-8 and of 30; relative precision is kept in each."""
    values = inputs(1, 6, 4, 1, 4)
    values["dt_bias"] += shift
    values["start"] *= 0  # otherwise what the small steps add is lost in it, in every precision
    compare(values)


def test_inputs_are_read_in_place():
    """u and z as halves of one tensor, dt, B and C as slices of another; and none of them is copied first, except that
    B and C of several tokens are put side by side."""
    values = inputs(2, 5, 8, 1, 4)
    wide = torch.cat([values["u"], values["z"]], 2).to(DEVICE).requires_grad_()
    narrow = torch.cat([values["dt"], values["B"].squeeze(2), values["C"].squeeze(2)], 2).to(DEVICE).requires_grad_()
    rest = {k: values[k].to(DEVICE).requires_grad_() for k in ("A", "D", "dt_bias", "start")}
    u, z = wide.chunk(2, dim=-1)
    dt, B, C = narrow.split([8, 4, 4], dim=-1)
    from mnemoscope.kernels import scan_triton

    for view in (u, dt, B.unsqueeze(2), C.unsqueeze(2), z):
        assert scan_triton._rows(view)[0] is view
    assert scan_triton._rows(u.transpose(1, 2))[0] is not None  # copied: its last dimension is not contiguous
    y, end = triton_scan(u=u, dt=dt, B=B.unsqueeze(2), C=C.unsqueeze(2), z=z, **rest)
    dwide, dnarrow, *drest = torch.autograd.grad(y.sum() + 2 * end.sum(), [wide, narrow, *rest.values()])
    du, dz = dwide.chunk(2, dim=-1)
    ddt, dB, dC = dnarrow.split([8, 4, 4], dim=-1)
    grads = {"u": du, "dt": ddt, "B": dB.unsqueeze(2), "C": dC.unsqueeze(2), "z": dz} | dict(
        zip(rest, drest, strict=True)
    )
    compare(values, [y, end, *(grads[k] for k in values)])


def test_nothing_unwritten_is_read(monkeypatch):
    """Memory that was never written holds NaN, and what lies beside the inputs too; the results are the same."""
    ordinary = Tensor.new_empty

    def poisoned(self, *args, **kwargs):
        return ordinary(self, *args, **kwargs).fill_(float("nan"))

    values = inputs(2, 6, 5, 1, 18)
    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    among = {
        k: torch.nn.functional.pad(v, (0, 3), value=float("nan"))[..., : v.shape[-1]] if k in ("u", "dt", "z") else v
        for k, v in values.items()
    }
    fast = run(triton_scan, among, torch.float32, DEVICE)
    monkeypatch.undo()
    compare(values, fast)


def test_windows_that_share_a_program(monkeypatch):
    from mnemoscope.kernels import scan_triton

    monkeypatch.setattr(scan_triton, "PROGRAMS", 1)
    monkeypatch.setattr(scan_triton, "TOGETHER", 24)
    values = inputs(5, 8, 2, 1, 4)  # three windows to a program: of three and of two
    assert scan_triton._shape(values["u"], 1, 4)[0] == (1, 2)
    compare(values)


@pytest.mark.parametrize(("tokens", "merge"), [(1, 1), (3, 1), (4, 2)])
def test_chunks_of_any_size(monkeypatch, tokens, merge):
    from mnemoscope.kernels import scan_triton

    monkeypatch.setattr(scan_triton, "TOKENS", tokens)
    monkeypatch.setattr(scan_triton, "MERGE", merge)
    compare(inputs(2, 8, 3, 1, 4))
    compare(inputs(1, 13, 2, 1, 4))


def test_operators():
    """What torch.compile relies on: schema, shapes without data, autograd, none and some of the optional inputs."""
    values = {k: v.to(DEVICE).requires_grad_() for k, v in inputs(1, 2, 3, 1, 1).items()}
    scan = torch.ops.mnemoscope
    triton_scan(**values)  # registers them
    torch.library.opcheck(scan.scan.default, (*values.values(), True))
    without = [None if k in ("z", "dt_bias") else v for k, v in values.items()]
    torch.library.opcheck(scan.scan.default, (*without, False))
    plain = [v.detach() for v in values.values()]
    y, end, both, saved = scan.scan.default(*plain, True)
    u, dt, A, _, _, D, *optional = plain
    torch.library.opcheck(
        scan.scan_backward.default, (y, end, u, dt, A, D, *optional, both, saved, torch.float32, True)
    )
    torch.library.opcheck(scan.scan.default, (*plain[:-1], None, True))
    torch.library.opcheck(
        scan.scan_backward.default, (y, None, u, dt, A, D, None, None, None, both, saved, torch.bfloat16, False)
    )
    torch.library.opcheck(
        scan.scan.default, (*(v[:, :1] if v.ndim > 2 and v.shape[1] == 2 else v for v in plain), False)
    )


def test_no_start_is_a_start_of_zeros():
    values = inputs(2, 9, 3, 1, 4)
    values["start"] *= 0
    compare(values, [*run_without_start(values), *run(triton_scan, values, torch.float32, DEVICE)[-1:]])


def run_without_start(values: Inputs) -> list[Tensor]:
    leaves = {k: v.to(DEVICE).requires_grad_() for k, v in values.items() if k != "start"}
    y, end = triton_scan(**leaves, start=None)
    return [y, end, *torch.autograd.grad(y.sum() + 2 * end.sum(), list(leaves.values()))]


@pytest.mark.parametrize(("channels", "groups", "n"), [(70, 1, 16), (6, 3, 5), (5, 1, 128)])
@pytest.mark.parametrize("optional", [True, False])
def test_one_token(channels, groups, n, optional):
    """Without gradients: a kernel of its own, more than one program of it, all or none of the optional inputs."""
    values = inputs(3, 1, channels, groups, n)
    slow = {k: v.double() for k, v in values.items()}
    fast = {k: v.to(DEVICE) for k, v in values.items()}
    if not optional:
        slow |= {"z": None, "dt_bias": None, "start": torch.zeros_like(slow["start"])}
        fast |= {"z": None, "dt_bias": None, "start": None}
    with torch.no_grad():
        for a, b in zip(triton_scan(**fast), scan_ref.selective_scan(**slow), strict=True):
            torch.testing.assert_close(a.cpu().double(), b, rtol=1e-5, atol=1e-5)


def test_only_the_end_is_used():
    values = inputs(1, 3, 4, 1, 4)
    leaves = {k: v.to(DEVICE).requires_grad_() for k, v in values.items()}
    exact = {k: v.double().requires_grad_() for k, v in values.items()}
    fast = torch.autograd.grad(triton_scan(**leaves)[1].sum(), leaves["u"])[0]
    slow = torch.autograd.grad(scan_ref.selective_scan(**exact)[1].sum(), exact["u"])[0]
    torch.testing.assert_close(fast.cpu().double(), slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("batch", "length"), [(0, 3), (2, 0)])
def test_nothing_to_scan_is_refused(batch, length):
    values = {k: v.to(DEVICE) for k, v in inputs(batch, length, 4, 1, 4).items()}
    with pytest.raises(ValueError, match="nothing to scan"):
        triton_scan(**values)
