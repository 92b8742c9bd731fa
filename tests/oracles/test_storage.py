"""Stored numbers and their distance in units of the last place, against torch's and NumPy's casts and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mnemoscope.certificate.storage import PRECISIONS, Stored, apart, places, restore, same, store

ALL_CODES = {
    torch.float8_e4m3fn: torch.arange(-(2**7), 2**7).to(torch.int8),
    torch.float16: torch.arange(-(2**15), 2**15).to(torch.int16),
    torch.bfloat16: torch.arange(-(2**15), 2**15).to(torch.int16),
}


@pytest.mark.parametrize("dtype", ALL_CODES, ids=str)
def test_places_are_consecutive_over_all_numbers_of_a_format(dtype: torch.dtype) -> None:
    numbers = ALL_CODES[dtype].view(dtype)
    numbers = numbers[~numbers.isnan()]
    place = places(numbers)
    order = place.argsort()
    assert (place[order].diff() == 1).all()
    values = numbers[order].double()
    # in the order of their values; -0 right before +0
    assert (values.diff() >= 0).all()
    assert (values.diff() == 0).sum() == 1
    signs = torch.signbit(values[values == 0])
    assert signs.tolist() == [True, False]
    assert place[order][values == 0].tolist() == [-1, 0]


def test_places_of_fp32_are_numpy_steps() -> None:
    starts = np.array([1.0, -1.0, 1e-45, -3e-39, 0.0, 65504.0], dtype=np.float32)
    for toward in (np.float32(np.inf), np.float32(-np.inf)):
        x, steps = starts, np.sign(toward).astype(int)
        for n in range(1, 4):
            x = np.nextafter(x, toward)
            moved = places(torch.from_numpy(x)) - places(torch.from_numpy(starts))
            expected = np.full(len(starts), n * steps)
            # NumPy steps from +0 over -0 to the smallest below: one number that is skipped
            expected[4] -= steps < 0
            # 1.4e-45 is the smallest above 0, so a step down is 0, the next one beyond -0
            expected[2] -= steps < 0 and n > 1
            assert moved.tolist() == expected.tolist()


def test_places_by_hand() -> None:
    assert places(torch.tensor([-0.0, 0.0, 1e-45, -1e-45])).tolist() == [-1, 0, 1, -2]
    # the largest of fp16 is 65504, code 0x7bff; infinity is 0x7c00
    assert places(torch.tensor([65504.0, torch.inf, -torch.inf]).half()).tolist() == [0x7BFF, 0x7C00, -1 - 0x7C00]
    # bf16: 8 bits of significand, so 2^7 numbers from 1 to 2
    one, two = places(torch.tensor([1.0, 2.0]).bfloat16()).tolist()
    assert two - one == 128
    # e4m3: 4 bits of significand; 448 is code 0x7e
    assert places(torch.tensor([1.0, 2.0, 448.0, 2.0**-9]).to(torch.float8_e4m3fn)).tolist() == [56, 64, 0x7E, 1]
    assert places(torch.tensor([-128, 0, 127], dtype=torch.int8)).tolist() == [-128, 0, 127]


def test_unscaled_formats_are_the_libraries_casts() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(4000) * 10.0 ** rng.integers(-45, 38, 4000)).astype(np.float32)
    x[:4] = 0.0, -0.0, 70000.0, 6e-8  # beyond fp16's largest, and its smallest denormal
    with np.errstate(over="ignore"):
        half = x.astype(np.float16)
    got = store(torch.from_numpy(x)[None], "fp16").numbers[0]
    assert np.array_equal(got.numpy().view(np.int16), half.view(np.int16))
    assert got[2].isinf()
    # bf16: the upper 16 bits, ties to even
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    got = store(torch.from_numpy(x)[None], "bf16").numbers[0]
    assert np.array_equal(got.view(torch.int16).numpy().view(np.uint16), rounded)
    assert torch.equal(store(torch.from_numpy(x)[None], "fp32").numbers[0], torch.from_numpy(x))


def e4m3() -> list[float]:
    """Its numbers from 0 up, by their definition: 4 bits of exponent with bias 7, 3 of significand; 0x7f is NaN."""
    small = [m * 2.0**-9 for m in range(8)]
    return small + [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]


def test_fp8_takes_the_nearest_number_and_the_even_one_of_two() -> None:
    numbers = np.array(e4m3())
    middles = (numbers[1:] + numbers[:-1]) / 2
    x = np.concatenate([numbers, middles, np.random.default_rng(1).uniform(0, 448, 500), [448.0]])
    distance = np.abs(x[:, None] - numbers)
    tied = distance == distance.min(1, keepdims=True)
    code = np.arange(len(numbers))
    best = np.array([min(code[row], key=lambda c: c % 2) for row in tied])
    for sign in (1, -1):
        got = store(torch.from_numpy(sign * x)[None].float(), "fp8")
        assert got.exponent.tolist() == [0]
        assert np.array_equal(np.abs(got.numbers[0].double().numpy()), numbers[best])


def test_scale_by_hand() -> None:
    # int8 of [1, -0.5, 0.004]: 127 * 2^-6 = 1.98 holds 1, 127 * 2^-7 = 0.99 does not; so times 64: 64, -32, 0.256 -> 0
    got = store(torch.tensor([[1.0, -0.5, 0.004]]), "int8")
    assert got.exponent.tolist() == [-6]
    assert got.numbers.tolist() == [[64, -32, 0]]
    assert restore(got).tolist() == [[1.0, -0.5, 0.0]]
    # halves to even: 0.5 -> 0, 1.5 -> 2 at scale 1
    assert store(torch.tensor([[127.0, 0.5, 1.5, -2.5]]), "int8").numbers.tolist() == [[127, 0, 2, -2]]


@pytest.mark.parametrize(("precision", "largest"), [("fp8", 448.0), ("int8", 127.0)])
def test_scale_is_the_least_that_holds_the_largest(precision: str, largest: float) -> None:
    edge = torch.tensor([largest * 2.0**j for j in (-120, -3, 0, 5, 110)])
    above = torch.nextafter(edge, torch.tensor(torch.inf))
    assert store(edge[:, None], precision).exponent.tolist() == [-120, -3, 0, 5, 110]
    assert store(above[:, None], precision).exponent.tolist() == [-119, -2, 1, 6, 111]
    assert restore(store(edge[:, None], precision))[:, 0].tolist() == edge.tolist()
    # nothing but zeros, and what is too small for the scale's byte
    tiny = store(torch.tensor([[0.0, 0.0], [1e-45, 0.0]]), precision)
    assert (tiny.exponent >= -126).all()
    assert restore(tiny).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_distance_by_hand() -> None:
    one = torch.tensor([[1.0, 2.0, 0.0]])
    rest = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, -0.0], [1.0 + 2**-7, 2.0 - 2**-6, 0.0], [-1.0, 2.0, 0.0]])
    ulps, differing = apart(store(one, "bf16"), store(rest, "bf16"), "bf16")
    # 1 is the place 127 * 128 = 16256, -1 is the place -1 - 16256
    # below 2 the numbers lie 2^-7 apart
    assert ulps.tolist() == [0, 1, 2, 2 * 16256 + 1]
    assert differing.tolist() == [0, 1, 2, 1]


def test_another_scale_is_a_difference() -> None:
    # 127 and 127.4 are both 127 at scale 1; 127.4 needs scale 2, where it is 64, as is 127; 10 is 10 or 5
    one, rest = store(torch.tensor([[127.0, 10.0]]), "int8"), store(torch.tensor([[127.4, 10.0]]), "int8")
    assert rest.exponent.tolist() == [1]
    ulps, differing = apart(one, rest, "int8")
    assert (ulps.tolist(), differing.tolist()) == ([1], [1])
    # 127.4 is 63.7 and so 64, and 4 steps of 2 less is 56
    ulps, differing = apart(store(torch.tensor([[112.0, 12.0]]), "int8"), rest, "int8")
    assert (ulps.tolist(), differing.tolist()) == ([8], [2])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equal_is_no_step_and_the_same_restored(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 3, 5, generator=generator)
    rest = one + torch.randn(400, 3, 5, generator=generator) * 10 ** torch.empty(400, 1, 1).uniform_(
        -9, 0, generator=generator
    )
    rest[0] = one
    a, b = store(one, precision), store(rest, precision)
    ulps, differing = apart(a, b, precision)
    equal = (restore(a) == restore(b)).all(1) & (a.exponent == b.exponent)
    assert torch.equal(ulps == 0, equal)
    assert torch.equal(differing == 0, equal)
    assert 1 < equal.sum() < 400
    # finer ones tell apart whatever coarser ones do
    finest = apart(store(one, "fp32"), store(rest, "fp32"), "fp32")[0]
    assert not (equal & (finest != 0)).all()
    assert (equal | (finest != 0)).all()


def test_same_looks_at_bits() -> None:
    zero = torch.tensor([[0.0, torch.nan]])
    assert same(zero, torch.tensor([[0.0, torch.nan], [-0.0, torch.nan]])).tolist() == [True, False]
    assert isinstance(store(torch.zeros(2, 1), "fp8"), Stored)
