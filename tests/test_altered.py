"""What the conditions make of a memory, in numbers worked by hand; and of toys, whose loss is known."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from scipy import stats
from torch import Tensor
from toy_memory import EPSILON, InTwo, Perfect

from mnemoscope import plugins
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native
from mnemoscope.codec.generate import Writer
from mnemoscope.controls import random_encoder
from mnemoscope.controls.noise import mix, normal, of_windows
from mnemoscope.errors import ModelError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory

#: of the toys: letters 1 to 8, which they keep as the numbers 2 to 9
V, BOS, BLANK = 10, 0, 9
KEPT, UNKNOWN, MISTAKEN = -math.log(1 - EPSILON), math.log(V), -math.log(EPSILON / (V - 1))
ANY = torch.zeros(1, 3, dtype=torch.int64)


def handed(condition: str, memory: Memory, ids: Tensor = ANY, seed: int = 0) -> Memory:
    found: Memory = plugins.load("condition", condition).hand_over(memory, ids, seed)
    return found


def kept(condition: str) -> set[str]:
    """The parts of a tiny Mamba of three layers that are as they were; the others are zero."""
    memory = encode(tiny.adapter("mamba"), tiny.ids(2, 5))
    given = handed(condition, memory, tiny.ids(2, 5))
    same = {name for name in memory if torch.equal(given[name], memory[name])}
    assert all(memory[name].any() for name in memory)
    assert all(not given[name].any() for name in memory if name not in same)
    return same


def both(*layers: int) -> set[str]:
    return {f"layers.{i}.{kind}" for i in layers for kind in ("ssm", "conv")}


def test_which_parts_are_kept() -> None:
    assert kept("ssm_only") == {"layers.0.ssm", "layers.1.ssm", "layers.2.ssm"}
    assert kept("conv_only") == {"layers.0.conv", "layers.1.conv", "layers.2.conv"}
    assert kept("layers:0-1") == both(0, 1)
    assert kept("layers:2-2") == both(2)
    assert kept("layer_out:1") == both(0, 2)
    assert kept("layer_out:1@memory") == both(0, 2)


@pytest.mark.parametrize("condition", ["layers:1-3", "layer_out:3"])
def test_a_layer_too_many_is_refused(condition: str) -> None:
    with pytest.raises(ModelError, match=r"names a layer that the memory does not have\. Its layers are 0 to 2"):
        handed(condition, tiny.adapter("mamba").empty(1))


def test_a_memory_without_such_parts_is_refused() -> None:
    with pytest.raises(ModelError, match="'ssm_only' keeps nothing of a memory whose parts are place, tokens"):
        handed("ssm_only", Perfect(V, BOS, BLANK).empty(1))


# ---- bits


def test_quantised_by_hand() -> None:
    """bits:3 has 2^2 - 1 = 3 levels on either side.

    Row 0: max 6, 6 / 3 = 2, a power of two: 0.9 -> 0.45 -> 0; 1.5 -> 0.75 -> 1 -> 2; 3 -> 1.5 -> 2 (to even) -> 4;
    -5 -> -2.5 -> -2 -> -4.  Row 1: max 0.3, 0.1, step 1/8: 0.3 -> 2.4 -> 2 -> 0.25; 0.06 and -0.04 -> 0; 0.14 -> 1.12
    -> 0.125; -0.26 -> -2.08 -> -0.25.  Row 2 is zero and stays.  Beside it every channel has a step of its own: of max
    300 it is 128 and of 1 it is 1/2, of -3 it is 1 and of 0.25 it is 1/8.
    """
    part = torch.tensor([[6, 0.9, 1.5, 3, -5], [0.3, 0.06, -0.04, 0.14, -0.26], [0.0] * 5], dtype=torch.float64)
    beside = torch.tensor([[[300, -149], [1, 0.7]], [[-3, 1.4], [0.25, 0.2]], [[0, 0], [0, 8]]], dtype=torch.float64)
    found = handed("bits:3", Memory({"layers.0.ssm": part, "layers.0.conv": beside}))
    assert found["layers.0.ssm"].tolist() == [[6, 0, 2, 4, -4], [0.25, 0, 0, 0.125, -0.25], [0.0] * 5]
    expected = [[[256, -128], [1, 0.5]], [[-3, 1], [0.25, 0.25]], [[0, 0], [0, 8]]]
    assert found["layers.0.conv"].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [2, 5, 8, 16])
def test_levels_and_error(bits: int, dtype: torch.dtype) -> None:
    """2^b - 1 levels at most, none further from its number than half a step, which is a power of two and no more than
    twice what the largest number needs; what was rounded stays."""
    x = torch.randn(40, 300, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = handed(f"bits:{bits}", Memory({"layers.0.ssm": x}))["layers.0.ssm"]
    levels = 2 ** (bits - 1) - 1
    step = torch.exp2((x.abs().amax(1, keepdim=True).double() / levels).log2().ceil())
    level = found.double() / step
    assert torch.equal(level, level.round())
    assert level.abs().max() <= levels
    assert ((found - x).abs() <= step / 2).all()
    # it needs every bit: with one fewer, less is told apart
    assert level.abs().max() > levels // 2
    assert torch.equal(handed(f"bits:{bits}", Memory({"layers.0.ssm": found}))["layers.0.ssm"], found)


def test_a_toy_confuses_what_its_bits_confuse() -> None:
    """The numbers 2 to 9 in 4 bits: 7 levels, 9 / 7 = 1.3, step 2, so

    number            2    3    4    5    6    7    8    9
    / step            1    1.5  2    2.5  3    3.5  4    4.5
    is taken for      2    4    4    4    6    8    8    8          letters are one less: 1 for 2, and 7 for 8
    """
    toy = Native(Perfect(V, BOS, BLANK), BOS, BOS)
    ids = torch.arange(1, 9).unsqueeze(0)
    memory = handed("bits:4", encode(toy.adapter, ids), ids)
    confused = torch.tensor([1, 3, 3, 3, 5, 7, 7, 7])
    nats, predicted = toy(memory, ids)
    assert predicted[0].tolist() == [*confused.tolist(), BOS]
    expected = torch.where(confused == ids[0], KEPT, MISTAKEN)
    torch.testing.assert_close(nats[0, :-1], expected, atol=1e-3, rtol=0)
    assert Writer(toy).write(memory, 8)[0].ids == confused.tolist()


def test_many_bits_of_a_toy_are_all() -> None:
    toy = Native(Perfect(V, BOS, BLANK), BOS, BOS)
    ids = torch.tensor([[1, 8, 3, 3, 2, 7], [5, 5, 5, 5, 5, 5]])
    nats, predicted = toy(handed("bits:16", encode(toy.adapter, ids), ids), ids)
    assert torch.equal(predicted[:, :-1], ids)
    torch.testing.assert_close(nats[:, :-1], torch.full((2, 6), KEPT), atol=1e-5, rtol=0)


# ---- noise


def test_the_stream_is_splitmix64() -> None:
    """The numbers that java.util.SplittableRandom, Vigna's splitmix64.c and others give from the seed 1234567."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    step = 0x9E3779B97F4A7C15 - (1 << 64)
    found = mix(torch.tensor([1234567]) + step * torch.arange(1, 6))
    assert [n % (1 << 64) for n in found.tolist()] == known


def test_the_noise_is_normal_and_of_every_window_its_own() -> None:
    keys = of_windows(torch.tensor([[1, 2, 3], [1, 3, 2], [1, 2, 4], [1, 2, 3]]), seed=0)
    z = normal(keys, 0, 100_000).double()
    assert z.abs().max() < 5.4
    for row in z[:3].numpy():
        assert stats.kstest(row, "norm").pvalue > 1e-3
        assert abs(stats.pearsonr(row[1:], row[:-1])[0]) < 0.015
    # 1 / sqrt(100,000) is 0.003; the order of tokens tells, and nothing but tokens does
    assert (torch.corrcoef(z[:3]) - torch.eye(3)).abs().max() < 0.015
    assert torch.equal(z[0], z[3])
    # of a stream, from any place on
    assert torch.equal(normal(keys, 70, 30), normal(keys, 0, 100)[:, 70:])
    assert not (of_windows(torch.tensor([[1, 2, 3]]), seed=1) == keys).any()


def test_its_strength_is_a_share_of_the_parts_deviation() -> None:
    """Row 0: deviation 2 about its mean 5, row 1: 0.  The noise of the second part goes on where the first's ended."""
    ids = torch.tensor([[4, 5], [6, 7]])
    one = torch.tensor([[3.0, 7.0] * 2000, [8.0] * 4000])
    two = torch.tensor([[0.0, 20.0] * 2000, [1.0, -1.0] * 2000])
    memory = Memory({"layers.0.ssm": one.view(2, 400, 10), "layers.0.conv": two.view(2, 800, 5)})
    z = normal(of_windows(ids, 9), 0, 8000)
    for strength in ("0.1", "3"):
        found = handed(f"noise:{strength}", memory, ids, seed=9)
        first, second = (found[name].flatten(1) for name in memory)
        torch.testing.assert_close(first[0], one[0] + float(strength) * 2 * z[0, :4000])
        assert torch.equal(first[1], one[1])
        torch.testing.assert_close(second[0], two[0] + float(strength) * 10 * z[0, 4000:])
        torch.testing.assert_close(second[1], two[1] + float(strength) * z[1, 4000:])
    again = handed("noise:3", memory, ids, seed=8)["layers.0.ssm"].flatten(1)
    assert not torch.equal(again[0], first[0])


def test_a_toy_in_noise() -> None:
    """Its numbers, 0 to 9, deviate by less than 5: a thousandth of that, times 5.3 at most, moves none by a half.
    Noise as strong as they deviate, by 2 and more, leaves one within a half of where it was with a chance below 0.2."""
    toy = Native(Perfect(V, BOS, BLANK), BOS, BOS)
    ids = torch.randint(1, 9, (50, 60), generator=torch.Generator().manual_seed(0))
    memory = encode(toy.adapter, ids)
    assert torch.equal(toy(handed("noise:0.001", memory, ids), ids)[1][:, :-1], ids)
    right = toy(handed("noise:1", memory, ids), ids)[1][:, :-1] == ids
    assert right.float().mean() < 0.25


# ---- who reads


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_mamba"])
def test_an_untrained_reader(name: str) -> None:
    """Other weights of the same shapes; the same again for the same seed, others for another; the encoder is as it
    was, and so is everyone else's chance."""
    condition = plugins.load("condition", "random_encoder")
    encoder: Adapter = tiny.adapter(name, torch.float64)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    chance = torch.random.get_rng_state()
    one, other = condition.reader(encoder, 1), condition.reader(encoder, 2)
    assert torch.equal(chance, torch.random.get_rng_state())
    assert one.scan == encoder.scan
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    shapes = {key: (value.shape, value.dtype) for key, value in before.items()}
    assert {key: (value.shape, value.dtype) for key, value in one.state_dict().items()} == shapes
    assert not any(parameter.requires_grad for parameter in one.parameters())
    again = condition.reader(tiny.adapter(name, torch.float64), 1)
    assert again is not one
    ids = tiny.ids(2, 5)
    read = [encode(model, ids) for model in (encoder, one, other, again)]
    for part in read[0]:
        own, first, second, repeated = (memory[part] for memory in read)
        assert torch.equal(first, repeated)
        assert not torch.equal(first, second)
        assert not torch.equal(first, own)


def test_an_untrained_reader_is_made_once_however_many_threads_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's chance is one for all threads: two that drew weights at once would draw each other's."""
    made: list[int] = []

    def untrained(encoder: Adapter, seed: int) -> Adapter:
        made.append(seed)
        time.sleep(0.1)
        return tiny.adapter("mamba")

    condition = random_encoder.RandomEncoder()
    monkeypatch.setattr(random_encoder, "untrained", untrained)
    encoder = tiny.adapter("mamba")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: condition.reader(encoder, 1), range(4)))
    assert made == [1]
    assert all(reader is found[0] for reader in found)


# ---- where a toy keeps what


@pytest.mark.parametrize(
    ("conditions", "lost"),
    [
        (["memory", "layers:0-1", "bits:16", "noise:0.001"], []),
        (["ssm_only", "layers:0-0", "layer_out:1", "ssm_only@memory"], [5, 6, 7]),
        (["conv_only", "layers:1-1", "layer_out:0"], [0, 1, 2, 3, 4]),
        (["none"], list(range(8))),
    ],
)
def test_where_a_toy_keeps_what(conditions: list[str], lost: list[int]) -> None:
    """The last three of eight tokens lie in the convolution state, which is layer 1's, the others in layer 0."""
    toy = Native(InTwo(V, BOS, BLANK), BOS, BOS)
    ids = torch.tensor([[3, 1, 4, 1, 5, 8, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
    expected = torch.full((2, 8), KEPT)
    expected[:, lost] = UNKNOWN
    for condition in conditions:
        nats, predicted = toy(handed(condition, encode(toy.adapter, ids), ids), ids)
        torch.testing.assert_close(nats[:, :-1], expected, atol=1e-3, rtol=0, msg=condition)
        written = torch.where(expected == UNKNOWN, BLANK, ids)
        assert torch.equal(predicted[:, :-1], written), condition
