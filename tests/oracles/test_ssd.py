"""The scan of heads against the recurrence written out, and so public chunked kernels where they are installed."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from mnemoscope.kernels import ssd

Inputs = dict[str, Tensor]


def inputs(windows: int, length: int, heads: int, p: int, groups: int, n: int) -> Inputs:
    new = torch.Generator().manual_seed(length)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=new, dtype=torch.float64)

    return {
        "u": randn(windows, length, heads, p),
        "dt": torch.rand(windows, length, heads, generator=new, dtype=torch.float64),
        "A": -torch.rand(heads, generator=new, dtype=torch.float64) * 3,
        "B": randn(windows, length, groups, n),
        "C": randn(windows, length, groups, n),
        "D": randn(heads),
        "start": randn(windows, heads * p, n),
    }


def written_out(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, start: Tensor) -> list[Tensor]:
    """h = exp(dt A) h + dt u B and y = h C + D u, a head at a time."""
    heads, p = u.shape[2:]
    repeats = heads // B.shape[2]
    h, ys = start.unflatten(1, (heads, p)), []
    for t in range(u.shape[1]):
        decay = (dt[:, t] * A).exp()[..., None, None]
        of_head = [x[:, t].repeat_interleave(repeats, 1)[:, :, None] for x in (B, C)]
        h = decay * h + (dt[:, t, :, None] * u[:, t])[..., None] * of_head[0]
        ys.append((h * of_head[1]).sum(-1) + D[:, None] * u[:, t])
    return [torch.stack(ys, 1), h.flatten(1, 2)]


def with_gradients(scan, values: Inputs) -> list[Tensor]:
    """Both outputs, and all gradients of them times random numbers."""
    leaves = {k: v.detach().requires_grad_() for k, v in values.items()}
    found = scan(**leaves)
    new = torch.Generator().manual_seed(0)
    upstream = [torch.randn(x.shape, generator=new, dtype=torch.float64).to(x) for x in found]
    return [*found, *torch.autograd.grad(found, list(leaves.values()), upstream)]


@pytest.mark.parametrize("shape", [(2, 7, 4, 3, 2, 5), (1, 1, 1, 1, 1, 1), (3, 5, 6, 2, 1, 4)])
def test_our_path_is_the_recurrence(shape):
    values = inputs(*shape)
    ours = with_gradients(lambda **v: ssd.ssd(**v, chunk=4), values)
    for a, b in zip(ours, with_gradients(written_out, values), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("package", list(ssd.CHUNKED))
@pytest.mark.parametrize("length", [5, 64, 258])
def test_public_kernels_are_the_recurrence_to_half_precision(package, length):
    if not torch.cuda.is_available() or importlib.util.find_spec(package) is None:
        pytest.skip("no GPU, or not these kernels")
    rounded = {"u", "B", "C"}
    values = {k: v.bfloat16().double() if k in rounded else v for k, v in inputs(2, length, 4, 16, 2, 32).items()}

    def public(**v: Tensor) -> tuple[Tensor, Tensor]:
        before = v["start"].unflatten(1, v["u"].shape[2:])
        y, end = ssd.CHUNKED[package](*(v[k] for k in ["u", "dt", "A", "B", "C", "D"]), before, 64)
        return y, end.flatten(1, 2)

    on_gpu = {k: v.to("cuda", torch.bfloat16 if k in rounded else torch.float32) for k, v in values.items()}
    slow = with_gradients(written_out, values)
    for name, a, b in zip(["y", "end", *values], with_gradients(public, on_gpu), slow, strict=True):
        error = ((a.cpu().double() - b).norm() / b.norm()).item()
        # twice the rounding of the inputs; A's gradient, a sum over tokens in which much cancels, keeps less of it
        assert error < (2**-5 if name == "A" else 2**-7), f"{name}: {error:.1e}"  # a NaN fails too


def test_kernels_that_fail_or_err_are_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(ssd.importlib.util, "find_spec", lambda package: package)
    monkeypatch.setattr(ssd, "CHUNKED", {"raises": "a", "errs": "b", "serves": "c"})
    told = {"a": RuntimeError("not on this GPU"), "b": float("nan"), "c": 2**-9}

    def probe(kernels: str) -> float:
        if isinstance(told[kernels], Exception):
            raise told[kernels]
        return told[kernels]

    monkeypatch.setattr(ssd, "_probe", probe)
    with caplog.at_level("WARNING"):
        assert ssd._chunked.__wrapped__() == "c"
    assert "raises's chunked kernels do not run here and are left alone: not on this GPU" in caplog.text
    assert "errs's chunked kernels are off by nan" in caplog.text
