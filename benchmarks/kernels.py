"""Times the Triton scan and convolution on a GPU: medians in milliseconds, bf16, 16 states, start state in, end out.

python benchmarks/kernels.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton

from mnemoscope.kernels import conv_triton, scan_triton

#: windows, tokens, channels: 16,384 tokens of a 130M model, 65,536 of mamba-nano
SHAPES = [(64, 256, 1536), (256, 64, 1536), (1024, 16, 1536), (256, 256, 256), (1024, 64, 256), (4096, 16, 256)]
STATES = 16


def median(work: Callable[[], object]) -> float:
    value: float = triton.testing.do_bench(work, warmup=50, rep=200, return_mode="median")
    return value


def main() -> None:
    torch.manual_seed(0)

    def half(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).requires_grad_()

    def full(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda").requires_grad_()

    for b, length, d in SHAPES:
        u, dt, z = (half(b, length, d) for _ in range(3))
        B, C = half(b, length, 1, STATES), half(b, length, 1, STATES)
        A = (-torch.rand(d, STATES, device="cuda")).requires_grad_()
        scan = (u, dt, A, B, C, full(d), z, full(d), full(b, d, STATES))
        conv = (u, full(d, 4), full(d), full(b, d, 3))
        times = []
        for function, inputs in ((scan_triton.selective_scan, scan), (conv_triton.causal_conv, conv)):
            with torch.no_grad():
                times.append(median(lambda f=function, i=inputs: f(*i)))
            outputs = function(*inputs)
            upstream = [torch.randn_like(o) for o in outputs]
            times.append(
                median(lambda o=outputs, i=inputs, g=upstream: torch.autograd.grad(o, i, g, retain_graph=True))
            )
        print(
            f"{b} x {length} x {d}: scan {times[0]:.3f} + {times[1]:.3f}, convolution {times[2]:.3f} + {times[3]:.3f}"
        )


if __name__ == "__main__":
    main()
