"""The continuity check must refuse an adapter that drops its state, and say where."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from transformers import DynamicCache

from mnemoscope import plugins
from mnemoscope.errors import ContinuityError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.continuity import check, require
from mnemoscope.memory.describe import Row, describe
from mnemoscope.memory.memory import Memory, MemorySpec, Part

MambaAdapter = plugins.load("memory", "mamba")


class Ignores(MambaAdapter):  # type: ignore[misc,valid-type]
    """Starts some of its parts from zero, whatever it is given."""

    ignored = ""

    def hidden(self, ids: torch.Tensor, start: Memory | None) -> tuple[torch.Tensor, Memory]:
        if start is not None:
            start = Memory({n: torch.zeros_like(p) if self.ignored in n else p for n, p in start.items()})
        return super().hidden(ids, start)


class MixesRows(MambaAdapter):  # type: ignore[misc,valid-type]
    """Adds what the rest of the batch holds to every row."""

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = super().head(hidden)
        return logits + 0.1 * logits.mean(0, keepdim=True)


class GivesNan(MambaAdapter):  # type: ignore[misc,valid-type]
    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().head(hidden) * float("nan")


def broken(kind: type[Adapter], ignored: str = "") -> Adapter:
    made = kind(tiny.model("mamba"), "reference")
    made.ignored = ignored  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("ignored", "named"),
    [
        ("layers.1.ssm", "layers.1.ssm"),
        (".ssm", "layers.0.ssm"),
        # what the last layer's convolution drops shows first in the state that it feeds
        ("layers.2.conv", "layers.2.ssm"),
        ("layers", "layers.0.ssm"),
    ],
)
def test_a_dropped_part_is_refused_by_name(ignored: str, named: str) -> None:
    with pytest.raises(ContinuityError, match=rf"'some/model': reading in two pieces differs .* in {named} by \d") as e:
        require(broken(Ignores, ignored), "some/model")
    assert e.value.exit_code == 3


def test_a_dropped_part_is_refused_in_bfloat16_too() -> None:
    adapter = broken(Ignores, ".ssm").bfloat16()
    before = [p.clone() for p in adapter.parameters()]
    with pytest.raises(ContinuityError, match=r"layers.0.ssm by"):
        require(adapter, "some/model")
    after = list(adapter.parameters())
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(before, after, strict=True))


def test_a_deep_model_that_amplifies_rounding_is_not_refused() -> None:
    """24 layers of large random weights: rounding grows past 1e-4, and a dropped state still shows.

    Each product is rounded anew, as by another shape's order of summing; some processors sum all shapes alike.
    """
    model = tiny.model("mamba", num_hidden_layers=24)
    generator = torch.Generator().manual_seed(0)

    def rounded(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        half_a_bit = torch.finfo(output.dtype).eps / 2
        return output * (1 + half_a_bit * torch.randn(output.shape, generator=generator).sign())

    with torch.no_grad():
        for layer in model.backbone.layers:
            layer.mixer.in_proj.weight.mul_(5)
            layer.mixer.out_proj.weight.mul_(5)
            layer.mixer.in_proj.register_forward_hook(rounded)
    found = require(MambaAdapter(model, "reference"), "some/model")
    assert max(found.split.values()) > found.tolerance
    adapter = Ignores(model, "reference")
    adapter.ignored = "layers.3.ssm"
    with pytest.raises(ContinuityError, match=r"in layers\.3\.ssm by"):
        require(adapter, "some/model")


def test_a_whole_adapter_passes() -> None:
    assert require(broken(Ignores, "no such part"), "some/model").failure is None


def test_a_row_that_sees_its_neighbours_is_refused() -> None:
    with pytest.raises(ContinuityError, match="row of a batch differs from that row alone in logits"):
        require(broken(MixesRows), "some/model")


def test_nan_is_refused() -> None:
    with pytest.raises(ContinuityError, match="in logits by inf"):
        require(broken(GivesNan), "some/model")


def test_a_memory_that_does_nothing_is_refused() -> None:
    """Reads every token for itself: continuous, and blind."""
    model = tiny.model("mamba", conv_kernel=1)
    with torch.no_grad():
        for layer in model.backbone.layers:
            # exp(-exp(20) dt) is 0: every step forgets all
            layer.mixer.A_log.fill_(20.0)
    with pytest.raises(ContinuityError, match="it is ignored"):
        require(MambaAdapter(model, "reference"), "some/model")


def test_given_ids_must_have_the_lengths() -> None:
    adapter = tiny.adapter("mamba")
    assert check(adapter, ids=tiny.ids(2, 9), lengths=(4, 5)).failure is None
    with pytest.raises(ValueError, match="9 tokens"):
        check(adapter, ids=tiny.ids(2, 9), lengths=(4, 6))


class LibraryCache(Adapter):
    """Reads through the library's own forward and its cache, as one would who trusts it."""

    def spec(self) -> MemorySpec:
        memory = self.hidden(torch.zeros(1, 1, dtype=torch.int64), None)[1]
        return MemorySpec(tuple(Part(n, tuple(p.shape[1:]), p.dtype) for n, p in memory.items()))

    def hidden(self, ids: torch.Tensor, start: Memory | None) -> tuple[torch.Tensor, Memory]:
        cache = DynamicCache(config=self.model.config)
        layers = range(self.model.config.num_hidden_layers)
        for i in layers if start is not None else ():
            cache.update_conv_state(start[f"layers.{i}.conv"].clone(), i)
            cache.update_recurrent_state(start[f"layers.{i}.ssm"].clone(), i)
        hidden = self.model.backbone(ids, cache_params=cache, use_cache=True).last_hidden_state
        parts = {}
        for i in layers:
            parts[f"layers.{i}.ssm"] = only(cache.layers[i].recurrent_states)
            parts[f"layers.{i}.conv"] = only(cache.layers[i].conv_states)
        return hidden, Memory(parts)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits


def only(states: Any) -> torch.Tensor:
    """The state of a layer that has one; newer versions keep them in a dictionary."""
    state: torch.Tensor = states[0] if isinstance(states, dict) else states
    return state


@pytest.mark.parametrize("name", ["mamba", "falcon_mamba", "mamba2"])
def test_the_check_says_of_the_library_what_a_direct_comparison_says(name: str) -> None:
    """transformers 5.23 drops the SSM state of Mamba and FalconMamba when several tokens follow a cache, and keeps
    that of Mamba-2.  A later version may keep all; the check must say so then."""
    model, ids = tiny.model(name), tiny.ids(2, 16)
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        cache = model(ids[:, :5], use_cache=True).cache_params
        second = model(ids[:, 5:], cache_params=cache, use_cache=True).logits
    trapped = ((whole[:, 5:] - second).abs().max() / whole.abs().max()).item() > 1e-3
    failure = check(LibraryCache(model)).failure
    assert ("layers.0.ssm" in failure) if trapped else (failure is None), failure
    if name == "mamba2":
        assert not trapped  # so that the wrapper above is known to be right


def test_describe_groups_parts_and_adds_them_up() -> None:
    # mamba of 3 layers, 2 x 24 channels: state 48 x 5, convolution 48 x 3; float32 is 4 bytes
    assert describe(tiny.adapter("mamba")) == [
        Row("ssm", 3, (48, 5), "float32", 720, 2880),
        Row("conv", 3, (48, 3), "float32", 432, 1728),
        Row("total", 6, (), "", 1152, 4608),
    ]
