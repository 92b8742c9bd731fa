"""Muon for the matrices of a model's linear maps, AdamW for all else.

A matrix W [m, n] with gradient G moves along its momentum made orthogonal (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon; momentum 0.95, five iterations)::

    M <- 0.95 M + 0.05 G
    W <- W - rate * 0.2 sqrt(max(m, n)) * orthogonal(0.95 M + 0.05 G)

All directions of a matrix then move equally far, also those along which the gradient is small.  With the factor, its
entries change about as much as AdamW lets them, so both take one learning rate (Liu et al. 2025, arXiv 2502.16982,
equation 4).
Matrices of one shape are orthogonalised together, and no number leaves the device, so that a step can be recorded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
#: of the quintic a X + (b X X' + c (X X')^2) X, which takes singular values in (0, 1] near 1
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.AdamW):
    """See the top of the file; groups of parameters with ``muon`` set hold matrices, or stacks of them [..., m, n], the
    others are AdamW's."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            if group.get("muon"):
                self._move([p for p in group["params"] if p.grad is not None], group)
                # so that AdamW passes them over
                for parameter in group["params"]:
                    parameter.grad = None
        super().step()

    def _move(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            alike.setdefault(matrix.shape[-2:], []).append(matrix)
        for shape, same in alike.items():
            whole = [p.view(-1, *shape) for p in same]
            held = [self._momentum(p).view(-1, *shape) for p in same]
            numbers = [len(p) for p in whole]
            gradients = torch.cat([p.grad.reshape(-1, *shape) for p in same if p.grad is not None])
            momentum = torch.cat(held).lerp(gradients, 1 - MOMENTUM)
            torch._foreach_copy_(held, list(momentum.split(numbers)))
            moves = orthogonal(gradients.lerp(momentum, MOMENTUM)).to(gradients.dtype)
            moves = moves * (-0.2 * max(shape) ** 0.5 * group["lr"])
            if group["weight_decay"]:
                torch._foreach_mul_(whole, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(whole, list(moves.split(numbers)))

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if not state:
            # AdamW asks every state that it is given for its step
            state["step"], state["momentum"] = torch.zeros((), device=matrix.device), torch.zeros_like(matrix)
        held: Tensor = state["momentum"]
        return held


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly U V' of matrices U S V' [n, rows, columns]: their singular values become 0.7 to 1.2, but those below about
    a thousandth of the root of the sum of their squares, which stay smaller.  On a GPU in bfloat16, else in float32.

    A matrix of zeros stays one.
    """
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if tall else x
