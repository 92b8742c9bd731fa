"""Kernels against their definitions in PyTorch, and against mamba-ssm's scan where that is installed.

On a GPU each is timed as a CUDA graph, as a training step replays it, so that no time of Python is in it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.contest import Contestant, Patience, Row, Work, contest, recorded
from mnemoscope.kernels import conv_ref, norm_ref, scan_ref, ssd
from mnemoscope.kernels.conv import causal_conv
from mnemoscope.kernels.cross_entropy import linear_cross_entropy
from mnemoscope.kernels.norm import add_norm
from mnemoscope.kernels.scan import selective_scan

#: windows, tokens; powers of two first, then with the two tokens more that open and close a window
SHAPES = [(64, 256), (256, 64), (1024, 16), (64, 258), (256, 66), (1024, 18)]
STATES = 16


def _passes(
    part: str,
    work: str,
    tokens: int,
    functions: dict[str, Callable[..., Any]],
    inputs: Sequence[Tensor],
    patience: Patience,
    own: dict[str, Sequence[Tensor]] | None = None,
) -> Iterator[Row]:
    """Forward alone, and forward with backward from random gradients on every output to every input."""

    def tensors(outputs: Any) -> list[Tensor]:
        found = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        return [o for o in found if o.is_floating_point()]

    def forward(name: str) -> Callable[[], tuple[Work, float]]:
        def make() -> tuple[Work, float]:
            arguments = (own or {}).get(name, inputs)

            def run() -> object:
                with torch.no_grad():
                    return functions[name](*arguments)

            return recorded(run), tokens

        return make

    def both(name: str) -> Callable[[], tuple[Work, float]]:
        def make() -> tuple[Work, float]:
            arguments = (own or {}).get(name, inputs)
            upstream = [torch.randn_like(o) for o in tensors(functions[name](*arguments))]
            wanted = [a for a in arguments if a.requires_grad]

            def run() -> object:
                return torch.autograd.grad(tensors(functions[name](*arguments)), wanted, upstream)

            return recorded(run), tokens

        return make

    for passes, make in (("forward", forward), ("forward and backward", both)):
        yield from contest(part, f"{work}, {passes}", [Contestant(name, make(name)) for name in functions], patience)


def run(device: torch.device, quick: bool, patience: Patience) -> Iterator[Row]:
    gpu = device.type == "cuda"
    channels, dtype = (1536, torch.bfloat16) if gpu else (512, torch.float32)
    shapes = (SHAPES[:2] if quick else SHAPES) if gpu else [(8, 64), (2, 256)][: 1 if quick else 2]
    for windows, length in shapes:
        named = f"{windows} x {length} x {channels}"
        yield from _scan(windows, length, channels, dtype, device, named, patience)
        yield from _convolution(windows, length, channels, dtype, device, named, patience)
    yield from _heads(*((64, 256) if gpu else (2, 64)), dtype, device, patience)
    tokens, width, vocabulary = (16384, 768, 50280) if gpu else (512, 256, 4096)
    yield from _norm(tokens, width, dtype, device, patience)
    yield from _cross_entropy(tokens, width, vocabulary, dtype, device, patience)


def _random(device: torch.device) -> Callable[..., Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype, generator=generator).requires_grad_()

    return make


def _scan(
    windows: int,
    length: int,
    channels: int,
    dtype: torch.dtype,
    device: torch.device,
    named: str,
    patience: Patience,
) -> Iterator[Row]:
    new = _random(device)
    u, dt, z = (new(windows, length, channels, dtype=dtype) for _ in range(3))
    B, C = (new(windows, length, 1, STATES, dtype=dtype) for _ in range(2))
    A = (-torch.rand(channels, STATES, device=device)).requires_grad_()
    start = new(windows, channels, STATES)
    inputs = [u, dt, A, B, C, new(channels), z, new(channels), start]
    functions: dict[str, Callable[..., Any]] = {"mnemoscope": selective_scan, "torch eager": scan_ref.selective_scan}

    def official(*arguments: Tensor) -> Any:
        scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
        u, dt, A, B, C, D, z, bias = arguments
        return scan(u, dt, A, B, C, D, z, bias, delta_softplus=True)

    functions["mamba-ssm (no start state)"] = official

    # its layout is channels first: made beforehand, and so not counted
    def turned(x: Tensor) -> Tensor:
        return x.detach().transpose(1, 2).contiguous().requires_grad_()

    B3, C3 = turned(B.detach()[:, :, 0]), turned(C.detach()[:, :, 0])
    theirs = [turned(u), turned(dt), A, B3, C3, inputs[5], turned(z), inputs[7]]
    own: dict[str, Sequence[Tensor]] = {"mamba-ssm (no start state)": theirs}
    yield from _passes("kernels", f"scan {named}", windows * length, functions, inputs, patience, own)


def _heads(windows: int, length: int, dtype: torch.dtype, device: torch.device, patience: Patience) -> Iterator[Row]:
    """The scan of Mamba-2 130M: 24 heads of 64 channels that share B and C, 128 numbers of state a channel."""
    heads, p, n = (24, 64, 128) if device.type == "cuda" else (4, 16, 16)
    new = _random(device)
    dt = torch.rand(windows, length, heads, device=device, requires_grad=True)
    A = (-torch.rand(heads, device=device)).requires_grad_()
    B, C = (new(windows, length, 1, n, dtype=dtype) for _ in range(2))
    inputs = [new(windows, length, heads, p, dtype=dtype), dt, A, B, C, new(heads), new(windows, heads * p, n)]

    def public(package: str) -> Callable[..., Any]:
        def scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, start: Tensor) -> Any:
            return ssd.CHUNKED[package](u, dt, A, B, C, D, start.unflatten(1, (heads, p)), 256)

        return scan

    functions: dict[str, Callable[..., Any]] = {
        "mnemoscope": partial(ssd.ssd, chunk=256),
        "mnemoscope's own scan": partial(ssd.ssd, chunk=256, backend="triton" if device.type == "cuda" else "numba"),
        **{f"{package} alone": public(package) for package in ssd.CHUNKED},
    }
    work = f"scan of heads {windows} x {length} x {heads} x {p}, {n} states"
    yield from _passes("kernels", work, windows * length, functions, inputs, patience)


def _convolution(
    windows: int,
    length: int,
    channels: int,
    dtype: torch.dtype,
    device: torch.device,
    named: str,
    patience: Patience,
) -> Iterator[Row]:
    new = _random(device)
    inputs = [new(windows, length, channels, dtype=dtype), new(channels, 4), new(channels), new(windows, channels, 3)]
    functions = {"mnemoscope": causal_conv, "torch eager": conv_ref.causal_conv}
    yield from _passes("kernels", f"convolution {named}", windows * length, functions, inputs, patience)


def _norm(tokens: int, width: int, dtype: torch.dtype, device: torch.device, patience: Patience) -> Iterator[Row]:
    new = _random(device)
    inputs = [new(tokens, width), new(tokens, width, dtype=dtype), new(width)]
    functions = {
        "mnemoscope": lambda h, y, w: add_norm(h, y, w, 1e-5, dtype),
        "torch eager": lambda h, y, w: norm_ref.add_norm(h, y, w, 1e-5, dtype),
    }
    yield from _passes("kernels", f"residual sum and norm {tokens} x {width}", tokens, functions, inputs, patience)


def _cross_entropy(
    tokens: int, width: int, vocabulary: int, dtype: torch.dtype, device: torch.device, patience: Patience
) -> Iterator[Row]:
    new = _random(device)
    # logits of a model's size: those of 16 times that leave gradients so small that a CPU takes 15 times as long
    weight = (new(vocabulary, width, dtype=dtype) / width**0.5).detach().requires_grad_()
    inputs = [new(tokens, width, dtype=dtype), weight]
    targets = torch.randint(vocabulary, (tokens,), device=device)
    functions = {
        "mnemoscope": lambda h, w: linear_cross_entropy(h, w, targets)[0],
        "torch eager": lambda h, w: F.cross_entropy(F.linear(h, w).float(), targets, reduction="none"),
    }
    work = f"cross-entropy {tokens} x {width} x {vocabulary}"
    yield from _passes("kernels", work, tokens, functions, inputs, patience)
