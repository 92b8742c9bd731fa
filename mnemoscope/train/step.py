"""One optimiser step: forward, backward, clip, update; and its replay as a CUDA graph.

A small model's kernels take less time than Python takes to launch them, so on one GPU the step is recorded once for
every shape of its input and replayed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mnemoscope.codec.decoder import Decoder
from mnemoscope.errors import RunError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.train.muon import Muon
from mnemoscope.train.plan import FLOOR, Plan

log = logging.getLogger(__name__)

#: (module, ids [B, T] int64) -> nats of every target, any shape
Loss = Callable[[nn.Module, Tensor], Tensor]


def optimiser_for(module: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW; or Muon, which moves the matrices of linear maps its own way, the head's and embeddings left out.

    Matrices of linear maps and embeddings decay, all else (norms, A, D, biases, convolutions) does not.
    """
    o = plan.optimiser
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    maps = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
    maps |= {id(p) for m in module.modules() if isinstance(m, Decoder) for p in m.matrices()}
    heads = {
        id(m.weight)
        for a in module.modules()
        if isinstance(a, Adapter)
        for m in a.modules()
        if isinstance(m, nn.Linear) and m.out_features == a.vocabulary
    }
    muon = maps - tables - heads if o.method == "muon" else set()
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": o.weight_decay, "muon": True},
        {"params": [], "weight_decay": o.weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for p in module.parameters():
        if p.requires_grad:
            groups[0 if id(p) in muon else 1 if id(p) in maps | tables else 2]["params"].append(p)
    kind = Muon if o.method == "muon" else torch.optim.AdamW
    capturable = next(module.parameters()).is_cuda
    used = [group for group in groups if group["params"]]
    return kind(used, lr=o.learning_rate, betas=o.betas, fused=True, capturable=capturable)


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
        self.parts = 1

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
        mean = self._gradients(ids, windows)
        if self.plan.balance:
            # dividing the gradient afterwards is dividing the loss, whose mean is not known before all parts of it are
            weight = (self.accelerator.reduce(mean, "sum") + FLOOR) ** -self.plan.balance
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, weight)
        self.accelerator.clip_grad_norm_(self.module.parameters(), self.plan.optimiser.clip)
        self.optimiser.step()
        return mean

    def _gradients(self, ids: Tensor, windows: int) -> Tensor:
        """Leaves the gradient of the mean loss in the parameters, and gives this process's share of that mean.

        Where the windows do not fit into memory together they are taken in parts, whose gradients add up to the same.
        """
        while True:
            try:
                self.optimiser.zero_grad(set_to_none=True)
                means = []
                for part in ids.chunk(self.parts):
                    with self.accelerator.autocast():
                        nats = self.loss(self.module, part)
                    mean = nats.sum() / (nats.numel() // len(part) * windows)
                    # data-parallel gradients are averaged over processes; the loss is a sum over them
                    self.accelerator.backward(mean * self.accelerator.num_processes)
                    means.append(mean.detach())
                return torch.stack(means).sum()
            except torch.OutOfMemoryError as error:
                rows = -(-len(ids) // self.parts)
                # processes that take unlike numbers of parts would wait for each other for ever
                if rows == 1 or self.accelerator.num_processes > 1:
                    raise RunError(
                        f"the device's memory does not hold {rows} windows of {ids.shape[1]} tokens",
                        remedy="Lower batch_tokens, leave out the longest windows, or use a larger device",
                    ) from error
                self.parts *= 2
                log.warning("out of memory: a step's windows are now taken in %d parts", self.parts)
            # after the handler, whose traceback holds on to the tensors
            self.optimiser.zero_grad(set_to_none=True)
            if ids.is_cuda:
                torch.cuda.empty_cache()


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
