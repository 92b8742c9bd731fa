"""What every file in memory/architectures/ must hold to.  A new one is found here by its name, without a word."""

from __future__ import annotations

import pytest
import tiny
import torch

from mnemoscope import plugins
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.continuity import TOLERANCE, check
from mnemoscope.memory.memory import Memory

ARCHITECTURES = plugins.names("memory")
each = pytest.mark.parametrize("name", ARCHITECTURES)


def random_memory(adapter: Adapter, rows: int, seed: int = 1) -> Memory:
    generator = torch.Generator().manual_seed(seed)
    parts = adapter.spec().parts
    return Memory({p.name: torch.randn(rows, *p.shape, generator=generator).to(p.dtype) for p in parts})


def test_there_is_something_to_test() -> None:
    assert {"mamba", "falcon_mamba", "mamba2"} <= set(ARCHITECTURES)


@each
def test_file_is_named_after_the_model_type(name: str) -> None:
    architecture = plugins.load("memory", name)
    assert issubclass(architecture, Adapter)
    assert architecture.model_type == name == tiny.configuration(name).model_type


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_spec_is_what_comes_out(name: str, dtype: torch.dtype) -> None:
    adapter = tiny.adapter(name, dtype)
    spec = adapter.spec()
    _, end = adapter.hidden(tiny.ids(2, 7), None)
    for memory in (end, adapter.empty(2)):
        assert [p.name for p in spec.parts] == sorted(memory, key=[p.name for p in spec.parts].index)
        for part in spec.parts:
            assert memory[part.name].shape == (2, *part.shape), part.name
            assert memory[part.name].dtype == part.dtype, part.name
    assert spec.numbers == sum(t[0].numel() for t in end.values())
    assert spec.bytes == sum(t[0].nbytes for t in end.values())


@each
def test_parts_are_named_in_layer_order(name: str) -> None:
    names = [p.name.split(".") for p in tiny.adapter(name).spec().parts]
    assert all(len(n) == 3 and n[0] == "layers" for n in names)
    layers = [int(n[1]) for n in names]
    assert layers == sorted(layers)
    assert set(layers) == set(range(tiny.SIZES["num_hidden_layers"]))


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(5, 11), (2, 3)])  # the second is shorter than the convolution reaches
def test_continuity(name: str, dtype: torch.dtype, lengths: tuple[int, int]) -> None:
    found = check(tiny.adapter(name, dtype), lengths=lengths)
    assert found.failure is None
    assert max(found.split.values()) <= TOLERANCE[dtype]
    assert max(found.batch.values()) <= TOLERANCE[dtype]


@each
def test_empty_memory_is_no_memory(name: str) -> None:
    adapter, ids = tiny.adapter(name), tiny.ids(2, 6)
    torch.testing.assert_close(adapter(ids, adapter.empty(2))[0], adapter(ids)[0], rtol=0, atol=0)


@each
def test_start_memory_is_left_as_it_was(name: str) -> None:
    """A cache that is updated in place would change the memory of a window between two conditions."""
    adapter = tiny.adapter(name)
    start = random_memory(adapter, 2)
    before = start.map(torch.clone)
    adapter(tiny.ids(2, 6), start)
    assert all(torch.equal(before[part], start[part]) for part in start)


@each
def test_gradients_reach_every_part_of_the_start(name: str) -> None:
    adapter = tiny.adapter(name, torch.float64)
    start = random_memory(adapter, 2).map(lambda part: part.requires_grad_(True))
    hidden, _ = adapter.hidden(tiny.ids(2, 3), start)
    gradients = torch.autograd.grad(hidden.square().sum(), list(start.values()))
    for part, gradient in zip(start, gradients, strict=True):
        assert (gradient.flatten(1).abs().amax(1) > 0).all(), part
        # every column of the convolution's past, every number of the state
        assert (gradient != 0).double().mean() > 0.99, part


@each
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    adapter = tiny.adapter(name, torch.float64)
    names = [p.name for p in adapter.spec().parts]
    ids = tiny.ids(2, 5)

    def read(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, end = adapter(ids, Memory(dict(zip(names, parts, strict=True))))
        return (logits, *(end[n] for n in names))

    start = random_memory(adapter, 2)
    torch.autograd.gradcheck(read, tuple(start[n].requires_grad_(True) for n in names), fast_mode=True)


@each
def test_gradients_reach_every_parameter(name: str) -> None:
    adapter = tiny.adapter(name)
    adapter(tiny.ids(2, 6), random_memory(adapter, 2))[0].square().sum().backward()
    without = [n for n, p in adapter.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@each
@pytest.mark.parametrize("shape", [(2, 0), (7,)])
def test_nothing_to_read_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B, L\] with L > 0"):
        tiny.adapter(name).hidden(torch.zeros(shape, dtype=torch.int64), None)


@each
@pytest.mark.parametrize("length", [1, 5])
def test_as_many_memories_as_windows(name: str, length: int) -> None:
    adapter = tiny.adapter(name)
    with torch.no_grad(), pytest.raises(ValueError, match="2 windows cannot be read from 3 memories"):
        adapter.hidden(tiny.ids(2, length), adapter.empty(3))
