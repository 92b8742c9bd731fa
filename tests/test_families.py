"""What each family of decoders is beside a decoder: how it begins, what it can read, what of it is trained and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from toy_memory import InTwo, LastK, Toy

from mnemoscope import plugins
from mnemoscope.codec.decoder import Decoder, encode
from mnemoscope.codec.families._units import Units, made_up
from mnemoscope.codec.families.bridged import Bridge, Bridged, BridgedOptions
from mnemoscope.codec.families.native import Native
from mnemoscope.codec.families.reader import Reader, ReaderOptions
from mnemoscope.codec.generate import Writer
from mnemoscope.errors import ModelError
from mnemoscope.memory.load import Loaded, load
from mnemoscope.memory.memory import Memory
from mnemoscope.train import checkpoint, decoders
from mnemoscope.train.language_model import LanguageModel

IDS = tiny.ids(3, 6)


def alone(model: Any) -> Loaded:
    return Loaded(model.requires_grad_(False), None, "tiny", "digest")


def bridged(model: Any, **options: Any) -> Bridged:
    return Bridged.make(alone(model), 0, 0, BridgedOptions.model_validate({"rank": 3} | options), 0).eval()


def reader(model: Any, **options: Any) -> Reader:
    return Reader.make(alone(model), 0, 0, ReaderOptions.model_validate({"layers": 2} | options), 0).eval()


# ---- bridged --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", plugins.names("memory"))
def test_a_bridge_begins_as_native_to_the_bit(architecture: str, dtype: torch.dtype, mixed: bool) -> None:
    encoder = tiny.adapter(architecture, dtype)
    native, memory = Native.from_encoder(encoder, 0, 0), encode(encoder, IDS)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), torch.no_grad():
        for one, other in zip(bridged(encoder)(memory, IDS), native(memory, IDS), strict=True):
            assert torch.equal(one, other)
    assert Writer(bridged(encoder)).write(memory, 4) == Writer(native).write(memory, 4)


@pytest.mark.parametrize("toy", [LastK(37, 0, 36, k=3), InTwo(37, 0, 36)], ids=["LastK", "InTwo"])
def test_it_writes_what_a_toy_keeps(toy: Toy) -> None:
    """Whose memory has parts of one number a channel, and one kind or two."""
    memory = encode(toy, IDS)
    written = Writer(bridged(toy)).write(memory, 6)
    assert written == Writer(Native(toy, 0, 0)).write(memory, 6)
    assert [w.ids[-3:] for w in written] == IDS[:, -3:].tolist()


def test_any_layer_may_be_read_by_any_other() -> None:
    """Worked by hand: the first layer's state is to be its own and half the last's, in standard units, of channel 4."""
    decoder, memory = bridged(tiny.adapter("mamba")), encode(tiny.adapter("mamba"), IDS)
    units = decoder.bridge.read
    ssm = next(number for number, kind in enumerate(units.kinds) if kind.name == "ssm")
    with torch.no_grad():
        decoder.bridge.channels[f"{ssm}_{ssm}"][0, 2, 4] = 0.5
        found = decoder.start(memory, 1)
    expected = dict(memory)
    first, last = expected["layers.0.ssm"].clone(), memory["layers.2.ssm"][:, 4]
    mean, deviation = units.get_buffer(f"mean_{ssm}"), units.get_buffer(f"deviation_{ssm}")
    first[:, 4] += 0.5 * deviation[0, 4] * (last - mean[2, 4]) / deviation[2, 4]
    expected["layers.0.ssm"] = first
    assert all(torch.allclose(found[name], part, atol=1e-6) for name, part in expected.items())
    # by the low-rank way, any part: a convolution's too, whose columns are others
    with torch.no_grad():
        decoder.bridge.up[f"{ssm}"][1, 5] = 1.0
    for name in memory:
        other = Memory({n: part + 1 if n == name else part for n, part in memory.items()})
        moved = decoder.start(other, 1)["layers.1.ssm"] - decoder.start(memory, 1)["layers.1.ssm"]
        assert moved[:, 5].abs().min() > 0, name


@pytest.mark.parametrize("own", [True, False])
def test_a_bridge_is_its_formula(own: bool) -> None:
    """As it stands at the top of its file, one part and one sum at a time; a Mamba's memory to a Mamba-2's too."""
    model, made = tiny.adapter("mamba", torch.float64), tiny.adapter("mamba" if own else "mamba2", torch.float64)
    bridge, memory = Bridge(model, made, 3, own, 0).double(), encode(model, IDS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        found = bridge(memory)
    units = bridge.read
    z = {
        name: (i, p, (memory[name].flatten(2) - units.get_buffer(f"mean_{i}")[p]) / units.deviation(i)[p])
        for i, kind in enumerate(units.kinds)
        for p, name in enumerate(kind.parts)
    }
    with torch.no_grad():
        for j, kind in enumerate(bridge.made.kinds):
            for q, name in enumerate(kind.parts):
                low: Tensor | float = 0.0
                added: Tensor | float = 0.0
                for i, p, numbers in z.values():
                    code = bridge.down[f"{i}"][p] @ numbers @ bridge.columns[f"{j}_{i}"]
                    low = low + bridge.mix[f"{j}_{i}"][q, p] * code
                    if f"{j}_{i}" in bridge.channels:
                        added = added + bridge.channels[f"{j}_{i}"][q, p].unsqueeze(1) * numbers
                added = added + bridge.up[f"{j}"][q] @ low + bridge.offset[f"{j}"][q]
                expected = (bridge.made.deviation(j)[q] * added).unflatten(2, kind.shape[1:])
                expected = expected + memory[name] if own else expected
                assert torch.allclose(found[name], expected, rtol=1e-10, atol=1e-12), name


def test_units_are_those_of_what_the_model_writes() -> None:
    """In these its own texts have mean 0 and deviation 1; a number that never changes is only moved."""
    model = tiny.adapter("mamba")
    units = Units(model, 7)
    for numbers in units(made_up(model, torch.Generator().manual_seed(7))):
        assert numbers.mean(2).abs().max() < 1e-3
        assert torch.allclose(numbers.std(2), torch.ones(()), atol=1e-3)
    toy = InTwo(37, 0, 36)
    assert all(numbers.isfinite().all() for numbers in Units(toy, 7)(encode(toy, IDS)))


def folders(tmp_path: Path, **changes: Any) -> tuple[Loaded, str]:
    """A Mamba-2 that is loaded, and the folder of a Mamba of another size with the same tokenizer."""
    small.model(tmp_path / "encoder", "mamba2", hidden_size=12, num_heads=6, head_dim=4, n_groups=3)
    small.model(tmp_path / "decoder", "mamba", seed=1, num_hidden_layers=3, **changes)
    encoder = load(str(tmp_path / "encoder"), scan="reference")
    encoder.adapter.requires_grad_(False)
    return encoder, str(tmp_path / "decoder")


def test_a_memory_is_read_by_a_decoder_of_another_architecture(tmp_path: Path) -> None:
    """It begins as the language model that it is, and learns to read: the loss falls far below what it is without."""
    encoder, name = folders(tmp_path)
    decoder = Bridged.make(encoder, 0, 0, BridgedOptions(rank=8, model=name), 0)
    ids, theirs = IDS, load(name, scan="reference")
    assert decoder.origin == theirs.digest != encoder.digest
    memory = encode(encoder.adapter, ids)
    assert decoder.start(memory, 1).keys() == theirs.adapter.empty(1).keys() != memory.keys()
    expected = LanguageModel(theirs.adapter)(F.pad(F.pad(ids, (1, 0)), (0, 1)))
    assert torch.equal(decoder(memory, ids)[0], expected)

    def trained(memory: Memory) -> float:
        fresh = Bridged.make(encoder, 0, 0, BridgedOptions(rank=8, model=name), 0)
        optimiser = torch.optim.Adam(fresh.parameters(), 1e-2)
        for _ in range(60):
            optimiser.zero_grad()
            loss = fresh(memory, ids)[0].mean()
            loss.backward()
            optimiser.step()
        return float(loss.item())

    # without what was read, which of the three windows it is cannot be told before its first token: ln 3 / 7 a token
    assert trained(memory) < 0.02
    assert trained(memory.zeros_like()) > 0.15


def test_a_decoder_with_other_tokens_is_refused(tmp_path: Path) -> None:
    encoder, name = folders(tmp_path)
    file = Path(name) / "tokenizer.json"
    file.write_text(file.read_text().replace('"a":', '"\\u00ff\\u00ff":'))
    with pytest.raises(ModelError, match="has another vocabulary than the encoder"):
        Bridged.make(encoder, 0, 0, BridgedOptions(model=name), 0)


# ---- reader ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", plugins.names("memory"))
def test_a_reader_begins_as_the_language_model(architecture: str, dtype: torch.dtype) -> None:
    encoder = tiny.adapter(architecture, dtype)
    with torch.no_grad():
        expected = LanguageModel(encoder)(F.pad(F.pad(IDS, (1, 0)), (0, 1)))
        assert torch.equal(reader(encoder)(encode(encoder, IDS), IDS)[0], expected)


def test_every_number_of_a_memory_is_in_a_slot_of_its_own() -> None:
    encoder = tiny.adapter("mamba2")
    slots, memory = reader(encoder).slots, encode(encoder, IDS)
    # three layers, five columns of an SSM state and three of a convolution's
    assert slots(memory).shape == (3, 3 * 5 + 3 * 3, 24)
    order = [(name, column) for kind in slots.units.kinds for name in kind.parts for column in range(kind.columns)]
    for place, (name, column) in enumerate(order):
        part = memory[name].clone()
        part[:, 3, column] += 1
        moved = (slots(Memory({**memory, name: part})) - slots(memory)).abs().amax(2) > 0
        assert moved.nonzero()[:, 1].unique().tolist() == [place], name


def test_its_weights_are_without_the_encoders(tmp_path: Path) -> None:
    encoder = tiny.adapter("mamba")
    checkpoint.save_weights(reader(encoder), tmp_path / "weights.safetensors")
    held = {weight.shape for weight in load_file(tmp_path / "weights.safetensors").values()}
    assert not any(tiny.SIZES["vocab_size"] in shape for shape in held)


def test_its_shape_is_as_asked_for(tmp_path: Path) -> None:
    made = reader(tiny.adapter("mamba"), layers=3, width=30, heads=5)
    assert (len(made.layers), made.outwards.weight.shape, made.layers[0].heads) == (3, (24, 30), 5)
    with pytest.raises(ModelError, match="a reader of width 30 cannot have 4 heads"):
        reader(tiny.adapter("mamba"), width=30, heads=4)


# ---- low rank -------------------------------------------------------------------------------------------------------


def of_rank(kind: str, encoder: Any, rank: int) -> Decoder:
    return Native.from_encoder(encoder, 0, 0, rank) if kind == "native" else bridged(encoder, low_rank=rank)


def weights_of(decoder: Decoder) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in decoder.state_dict().items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["native", "bridged"])
def test_low_rank_moves_linear_maps_alone_and_by_that_rank(kind: str, tied: bool, tmp_path: Path) -> None:
    encoder = tiny.adapter("mamba", tie_word_embeddings=tied)
    decoder, memory = of_rank(kind, encoder, 2), encode(encoder, IDS)
    before, expected = weights_of(decoder), decoder(memory, IDS)[0]
    decoder.begin_training()
    # it begins where the model is, to rounding
    assert torch.allclose(decoder(memory, IDS)[0], expected, atol=1e-5)
    full = sum(p.numel() for p in encoder.parameters())
    factors = [p for n, p in decoder.named_parameters() if p.requires_grad and not n.startswith("bridge.")]
    assert 0 < sum(p.numel() for p in factors) < full
    optimiser = torch.optim.Adam([p for p in decoder.parameters() if p.requires_grad], 1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        decoder(memory, IDS)[0].mean().backward()
        optimiser.step()
    learnt = decoder(memory, IDS)[0].detach()
    assert learnt.mean() < expected.mean() - 0.1
    decoder.end_training()
    # as the decoder without factors, whose weights it has
    plain = of_rank(kind, encoder, 2)
    checkpoint.save_weights(decoder, tmp_path / "weights.safetensors")
    decoders.load_weights(plain, tmp_path / "weights.safetensors")
    assert torch.allclose(plain(memory, IDS)[0], learnt, atol=1e-5)
    for name, weight in weights_of(decoder).items():
        if name.startswith("bridge."):
            continue
        moved = weight - before[name]
        if any(name.endswith(f"{map_}.weight") for map_ in ("in_proj", "x_proj", "dt_proj", "out_proj")):
            assert torch.linalg.matrix_rank(moved, rtol=1e-3) == 2, name
        else:
            assert not moved.any(), name
