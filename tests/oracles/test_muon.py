"""Muon against PyTorch's own, against the singular value decomposition, and as a training meets it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from mnemoscope import config
from mnemoscope.memory.adapter import Adapter
from mnemoscope.train import checkpoint
from mnemoscope.train.muon import Muon, orthogonal
from mnemoscope.train.plan import Plan, fixed
from mnemoscope.train.step import optimiser_for


def _plan(method: str, decay: float = 0.0) -> Plan:
    optimiser = config.Optimiser.model_validate({"method": method, "learning_rate": 0.01, "weight_decay": decay})
    return Plan(fixed(8, 4), 64, optimiser, 99)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16), (1, 8)])
def test_orthogonal_is_near_the_singular_vectors(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = (
        torch.randn(3, *shape, generator=generator, dtype=torch.float64) * torch.tensor([1e-6, 1.0, 1e6])[:, None, None]
    )
    moved = orthogonal(matrices).double()
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ moved @ v.mT  # diagonal, if the singular vectors are these
    values = inner.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.6
    assert values.max() < 1.25
    assert (inner - torch.diag_embed(values)).abs().max() < 1e-4


def test_of_zeros_is_zero() -> None:
    assert orthogonal(torch.zeros(2, 4, 6)).eq(0).all()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_moves_as_pytorchs_does(decay: float) -> None:
    """Theirs rounds to bfloat16 on the way."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("PyTorch has Muon from 2.9 on")
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(12, 20)), nn.Parameter(torch.randn(12, 20)), nn.Parameter(torch.randn(20, 12))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    first = Muon([{"params": ours, "muon": True}], lr=0.05, weight_decay=decay)
    second = torch.optim.Muon(theirs, lr=0.05, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        before = [p.detach().clone() for p in ours]
        first.step()
        second.step()
        for was, mine, other in zip(before, ours, theirs, strict=True):
            assert (mine - other).norm() < 0.03 * (mine - was).norm()
            with torch.no_grad():
                other.copy_(mine)


def test_of_a_stack_moves_each_as_if_alone() -> None:
    torch.manual_seed(0)
    stack = nn.Parameter(torch.randn(3, 12, 20))
    alone = [nn.Parameter(part.detach().clone()) for part in stack]
    stack.grad = torch.randn_like(stack)
    for one, gradient in zip(alone, stack.grad.clone(), strict=True):
        one.grad = gradient
    Muon([{"params": [stack], "muon": True}], lr=0.05).step()
    Muon([{"params": alone, "muon": True}], lr=0.05).step()
    assert stack.allclose(torch.stack(list(alone)), atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_all_else_moves_as_with_adamw(decay: float) -> None:
    """And all that is trained moves, in one of the two ways."""
    model = tiny.adapter("mamba").requires_grad_(True)
    twin = copy.deepcopy(model)
    for module, method in ((model, "muon"), (twin, "adamw")):
        torch.manual_seed(1)
        for p in module.parameters():
            p.grad = torch.randn_like(p)
        optimiser_for(module, _plan(method, decay)).step()
    own = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.endswith("lm_head")}
    assert own
    for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert mine.equal(other) != (name.removesuffix(".weight") in own), name


def test_takes_the_bridges_maps_too() -> None:
    from mnemoscope.codec.families.bridged import Bridged, BridgedOptions

    adapter = tiny.adapter("mamba")
    decoder = Bridged(adapter, tiny.adapter("mamba"), 0, 0, BridgedOptions(rank=3), 0)
    groups = optimiser_for(decoder, _plan("muon")).param_groups
    moved = {id(p) for group in groups if group.get("muon") for p in group["params"]}
    names = {name for name, p in decoder.named_parameters() if id(p) in moved}
    assert {n for n in names if n.startswith("bridge.")} == {
        f"bridge.{way}.{kind}" for way in ("down", "up") for kind in range(len(decoder.bridge.read.kinds))
    }


def test_resumes_with_its_momentum(tmp_path: Path) -> None:
    def start() -> tuple[Adapter, torch.optim.AdamW]:
        model = tiny.adapter("mamba").requires_grad_(True)
        return model, optimiser_for(model, _plan("muon"))

    def some(model: Adapter, optimiser: torch.optim.AdamW, seed: int) -> None:
        torch.manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimiser.step()

    model, optimiser = start()
    some(model, optimiser, 0)
    checkpoint.save(tmp_path, model, optimiser, {"plan": "x"}, [])
    some(model, optimiser, 1)
    resumed, anew = start()
    assert checkpoint.load(tmp_path, resumed, anew, "x") is not None
    # Accelerate hands an optimiser its own state again
    anew.load_state_dict(anew.state_dict())
    some(resumed, anew, 1)
    for (name, mine), other in zip(model.named_parameters(), resumed.named_parameters(), strict=True):
        assert mine.equal(other[1]), name
