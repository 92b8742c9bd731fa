"""The residual norm and the cross-entropy: slow twins by hand and in float64, fast ones against them, and as operators
that PyTorch can trace."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope import plugins
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native
from mnemoscope.kernels import cross_entropy_ref, norm_ref

HAVE_GPU = torch.cuda.is_available()
# before 3.9 the interpreter does not run with NumPy 2.4
pytest.importorskip(
    "triton", minversion=None if HAVE_GPU else "3.9", reason="triton is an optional dependency; see tests/SKIPS.md"
)
from mnemoscope.kernels import cross_entropy_triton, norm_triton  # noqa: E402

DEVICE = "cuda" if HAVE_GPU else "cpu"


def drawn(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> Tensor:
    return torch.randn(*shape).to(DEVICE, dtype).requires_grad_(grad)


def error(fast: Tensor, slow: Tensor) -> float:
    assert torch.isfinite(fast).all()
    return ((fast.double() - slow.double()).norm() / slow.double().norm().clamp_min(1e-12)).item()


def test_norm_by_hand() -> None:
    """h = (1, 1), y = (2, 3): h' = (3, 4), mean square 12.5; with eps = 12.5 the root is 5, and w = (5, 10)."""
    h, y, weight = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 1.0], [2.0, 3.0], [5.0, 10.0]))
    total, x = norm_ref.add_norm(h, y, weight, 12.5, torch.float64)
    assert total.tolist() == [3, 4]
    torch.testing.assert_close(x, torch.tensor([3.0, 8.0], dtype=torch.float64))


def test_cross_entropy_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits (0, ln 3) and (0, 0): p = (1/4, 3/4) and (1/2, 1/2), of which the first is predicted."""
    monkeypatch.setattr(cross_entropy_ref, "LOGITS", 2)  # a token at a time
    hidden = torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)
    weight = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64)
    nats, predicted = cross_entropy_ref.linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 1]))
    torch.testing.assert_close(nats, torch.tensor([4.0, 2.0, 4 / 3]).log())
    assert predicted.tolist() == [1, 0, 1]


@pytest.mark.parametrize(("tokens", "at_once", "size"), [(10, 4, 4), (9, 8, 5), (8, 8, 8), (3, 0, 1), (0, 5, 0)])
def test_chunks_are_alike(tokens: int, at_once: int, size: int) -> None:
    assert cross_entropy_ref.balanced(tokens, at_once) == size


# stream, added, weight, result; rounding of the coarsest of them (the interpreter cuts instead of rounding)
DTYPES = [
    (torch.float32, torch.float32, torch.float32, torch.float32, 1e-5),
    (torch.float32, torch.bfloat16, torch.float32, torch.bfloat16, 8e-3),
    (torch.float32, torch.bfloat16, torch.bfloat16, torch.bfloat16, 8e-3),
    (torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.bfloat16, 8e-3),
]


# more than one block of rows, and more blocks than programs
@pytest.mark.parametrize(("shape", "programs"), [((1, 96), 512), ((2, 17, 96), 512), ((70, 130), 2)])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(("stream", "mixed", "weights", "result", "rounding"), DTYPES)
def test_norm_matches_float64(shape, programs, added, stream, mixed, weights, result, rounding, monkeypatch):
    monkeypatch.setattr(norm_triton, "PROGRAMS", programs)
    torch.manual_seed(0)
    h, weight = drawn(*shape, dtype=stream), drawn(shape[-1], dtype=weights)
    y = drawn(*shape, dtype=mixed) if added else None
    upstream = [drawn(*shape, dtype=stream, grad=False), drawn(*shape, dtype=result, grad=False)]
    leaves = [v for v in (h, y, weight) if v is not None]

    def run(function, exact):
        exactly = [None if v is None else v.to(exact or v.dtype) for v in (h, y, weight)]
        outputs = function(*exactly, 1e-3, exact or result)
        given = [g.to(o.dtype) for g, o in zip(upstream, outputs, strict=True)]
        return outputs, torch.autograd.grad(outputs, leaves, given)

    outputs, gradients = run(norm_triton.add_norm, None)
    assert [o.dtype for o in outputs] == [stream, result]
    exact_outputs, exact_gradients = run(norm_ref.add_norm, torch.float64)
    for fast, slow in zip([*outputs, *gradients], [*exact_outputs, *exact_gradients], strict=True):
        assert error(fast, slow) < rounding


def test_norm_with_one_gradient_alone() -> None:
    """The last norm's stream goes nowhere."""
    torch.manual_seed(0)
    h, y, weight = drawn(5, 24), drawn(5, 24), drawn(24)
    for number, wanted in ((0, [h, y]), (1, [h, y, weight])):
        fast = norm_triton.add_norm(h, y, weight, 1e-5, torch.float32)[number].square().sum()
        slow = norm_ref.add_norm(h, y, weight, 1e-5, torch.float32)[number].square().sum()
        for a, b in zip(torch.autograd.grad(fast, wanted), torch.autograd.grad(slow, wanted), strict=True):
            assert error(a, b) < 1e-5


# one token, chunks of unequal size, a vocabulary that is no power of two, one of more than a block
@pytest.mark.parametrize(
    ("tokens", "d", "vocabulary", "at_once"), [(1, 96, 5, 100), (35, 24, 5, 13), (17, 130, 37, 100), (3, 8, 4097, 2)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_matches_float64(tokens, d, vocabulary, at_once, dtype, monkeypatch):
    monkeypatch.setattr(cross_entropy_triton, "BYTES", at_once * vocabulary * dtype.itemsize)
    torch.manual_seed(0)
    hidden, weight = drawn(tokens, d, dtype=dtype), drawn(vocabulary, d, dtype=dtype)
    targets, upstream = torch.randint(vocabulary, (tokens,), device=DEVICE), drawn(tokens, grad=False)
    nats, predicted = cross_entropy_triton.linear_cross_entropy(hidden, weight, targets)
    slow, _ = cross_entropy_ref.linear_cross_entropy(hidden.double(), weight.double(), targets)
    assert (nats.dtype, predicted.dtype) == (torch.float32, torch.int64)
    assert torch.equal(predicted, F.linear(hidden, weight).argmax(-1))
    gradients = torch.autograd.grad(nats, [hidden, weight], upstream)
    expected = torch.autograd.grad(slow, [hidden, weight], upstream)
    for a, b in zip([nats, *gradients], [slow, *expected], strict=True):
        assert error(a, b) < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_first_of_equals_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Across blocks too: of 40 logits, 3, 20 and 35 are the greatest.  Where logits are not finite the loss is NaN, and
    the token still one of the vocabulary."""
    monkeypatch.setattr(cross_entropy_triton, "BLOCK", 16)
    weight = torch.zeros(40, 1, device=DEVICE)
    weight[[3, 20, 35]] = 2.0
    hidden = torch.tensor([[1.0], [0.0], [-1.0], [float("inf")]], device=DEVICE)
    targets = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    nats, predicted = cross_entropy_triton.linear_cross_entropy(hidden, weight, targets)
    assert predicted[:3].tolist() == [3, 0, 0]
    assert 0 <= int(predicted[3]) < 40
    assert nats.isnan().tolist() == [False, False, False, True]


def test_a_target_outside_the_vocabulary_is_no_number() -> None:
    nats, _ = cross_entropy_triton.linear_cross_entropy(
        drawn(3, 8, grad=False), drawn(5, 8, grad=False), torch.tensor([4, 5, -1], device=DEVICE)
    )
    assert nats.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_can_be_traced(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    h, y, weight = drawn(3, 24), drawn(3, 24, dtype=dtype), drawn(24)
    rstd = torch.ones(3, device=DEVICE)
    for inputs in ((h, y, weight, 1e-5, dtype), (h, None, weight, 1e-5, dtype)):
        torch.library.opcheck(norm_triton._add_norm, inputs)
    for y_dtype in (dtype, None):
        torch.library.opcheck(
            norm_triton._add_norm_backward, (h.detach(), weight.detach(), rstd, None, y.detach(), y_dtype)
        )
    hidden, matrix, targets = drawn(3, 8, dtype=dtype), drawn(5, 8), torch.tensor([0, 4, 1], device=DEVICE)
    torch.library.opcheck(cross_entropy_triton._linear_cross_entropy, (hidden, matrix, targets, dtype))
    torch.library.opcheck(
        cross_entropy_triton._linear_cross_entropy_backward,
        (hidden.detach(), matrix.detach(), targets, rstd, rstd, dtype),
    )


def test_float64_is_refused() -> None:
    h, weight = torch.ones(2, 4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    with pytest.raises(TypeError, match="reference backend"):
        norm_triton.add_norm(h, None, weight, 1e-5, torch.float64)
    with pytest.raises(TypeError, match="reference backend"):
        cross_entropy_triton.linear_cross_entropy(h, h, torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_decoder_learns_the_same_from_both(name: str, autocast: bool) -> None:
    found = []
    for backend in ("reference", "triton"):
        model = tiny.model(name, num_hidden_layers=1 if autocast else 2)
        adapter = plugins.load("memory", name)(model, backend).to(DEVICE)
        decoder, ids = Native.from_encoder(adapter, 0, 0), tiny.ids(2, 2).to(DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
            nats, predicted = decoder(encode(adapter, ids), ids)
        gradients = torch.autograd.grad(nats.square().mean(), list(decoder.parameters()))
        found.append((nats, torch.cat([g.flatten() for g in gradients])))
        assert predicted.shape == nats.shape == (2, 3)
    for slow, fast in zip(*found, strict=True):
        assert error(fast, slow) < (0.04 if autocast else 1e-4)
