"""One optimiser step: forward, backward, clip, update; and its replay as a CUDA graph.

A small model's kernels take less time than Python takes to launch them, so on one GPU the step is recorded once for
every shape of its input and replayed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mnemoscope.train.plan import FLOOR, Plan

#: (module, ids [B, T] int64) -> nats of every target, any shape
Loss = Callable[[nn.Module, Tensor], Tensor]


def optimiser_for(module: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW; matrices of linear maps and embeddings decay, all else (norms, A, D, biases, convolutions) does not."""
    decaying = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear | nn.Embedding)}
    matrices = [p for p in module.parameters() if p.requires_grad and id(p) in decaying]
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in decaying]
    cuda = next(module.parameters()).is_cuda
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": plan.optimiser.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=plan.optimiser.learning_rate,
        betas=plan.optimiser.betas,
        fused=cuda,
        capturable=cuda,
    )


class Step:
    """One step of a training on this process's windows.

    Args:
        module, optimiser: prepared by ``accelerator``.
    """

    def __init__(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, loss: Loss, plan: Plan, accelerator: Accelerator
    ):
        self.module, self.optimiser, self.loss, self.plan = module, optimiser, loss, plan
        self.accelerator = accelerator

    def __call__(self, ids: Tensor, windows: int, rate: float) -> Tensor:
        """Updates the module.

        Args:
            ids: this process's windows [b, T] int64, on the CPU.
            windows: of all processes together.
            rate: learning rate.

        Returns:
            this process's share of the mean loss, nats a target, a scalar on the device.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return self._update(self._to_device(ids), windows)

    def _to_device(self, ids: Tensor) -> Tensor:
        if self.accelerator.device.type == "cuda":
            ids = ids.pin_memory()
        return ids.to(self.accelerator.device, non_blocking=True)

    def _update(self, ids: Tensor, windows: int) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        with self.accelerator.autocast():
            nats = self.loss(self.module, ids)
        mean = nats.sum() / (nats.numel() // len(ids) * windows)
        # data-parallel gradients are averaged over processes; the loss is a sum over them
        scale: Tensor | int = self.accelerator.num_processes
        if self.plan.balance:
            scale = scale / (self.accelerator.reduce(mean.detach(), "sum") + FLOOR) ** self.plan.balance
        self.accelerator.backward(mean * scale)
        self.accelerator.clip_grad_norm_(self.module.parameters(), self.plan.optimiser.clip)
        self.optimiser.step()
        return mean.detach()


class GraphedStep(Step):
    """The same on one GPU: the first step of a shape runs as it is, which also compiles its kernels; the second is
    recorded, and replayed from then on.  All recordings share one pool of memory."""

    def __init__(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, loss: Loss, plan: Plan, accelerator: Accelerator
    ):
        super().__init__(module, optimiser, loss, plan, accelerator)
        self.seen: set[torch.Size] = set()
        self.recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()
        # a recording reads the rate from where it lies
        self.rate = torch.zeros((), device=accelerator.device)
        for group in optimiser.param_groups:
            group["lr"] = self.rate

    def __call__(self, ids: Tensor, windows: int, rate: float) -> Tensor:
        self.rate.fill_(rate)
        on_device = self._to_device(ids)
        if ids.shape not in self.seen:
            self.seen.add(ids.shape)
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                mean = self._update(on_device, windows)
            torch.cuda.current_stream().wait_stream(self.stream)
            return mean
        if ids.shape not in self.recorded:
            self.optimiser.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            graph, static = torch.cuda.CUDAGraph(), on_device.clone()
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                mean = self._update(static, windows)
            self.recorded[ids.shape] = graph, static, mean
        graph, static, mean = self.recorded[ids.shape]
        static.copy_(on_device)
        graph.replay()
        return mean.clone()


def step_for(
    module: nn.Module, optimiser: torch.optim.Optimizer, loss: Loss, plan: Plan, accelerator: Accelerator
) -> Step:
    """The fastest step that this device allows."""
    alone_on_gpu = accelerator.device.type == "cuda" and accelerator.num_processes == 1
    return (GraphedStep if alone_on_gpu else Step)(module, optimiser, loss, plan, accelerator)
