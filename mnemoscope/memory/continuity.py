"""Whether a model's memory carries what it has read: reading a+b must equal reading b from the memory of a.

A model that drops a part of its state still gives plausible logits, and a decoder trained on it learns without that
part and nothing says so.  So no model is measured before it has passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.errors import ContinuityError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory

#: largest relative error, by dtype of the parameters, that is always allowed: the two readings differ in the shapes of
#: their matrix products only, so this is rounding (bfloat16 has 8 bits of mantissa, 4e-3)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2}
#: a deep model may amplify rounding beyond that; what is allowed then is this many times what it makes of one rounding
#: at every embedding and matrix product, which is measured
_HEADROOM = 16.0
_ROWS = 3


@dataclass(frozen=True, slots=True)
class Continuity:
    """What the check found.  An error is max |x - y| / max |x|; the order is that of the layers, then hidden, logits.

    Attributes:
        split: by part, the largest error of reading in two pieces.
        batch: by part, the largest error of a row of a batch against that row alone.
        allowed: by part, the largest error that rounding explains.
        influence: by how much the second piece's hidden states change if it is read from an empty memory.
        tolerance: the least influence without which the errors prove nothing; by dtype.
    """

    split: dict[str, float]
    batch: dict[str, float]
    allowed: dict[str, float]
    influence: float
    tolerance: float

    @property
    def failure(self) -> str | None:
        """The first thing that does not hold, with the part that it does not hold for, or None."""
        for errors, what in (
            (self.split, "reading in two pieces differs from reading at once"),
            (self.batch, "a row of a batch differs from that row alone"),
        ):
            for part, error in errors.items():
                if error > self.allowed[part] or math.isinf(error):
                    return f"{what} in {part} by {error:.1e} of its largest value ({self.allowed[part]:.0e} is allowed)"
        if self.influence <= self.tolerance:
            return f"the memory it starts from changes its hidden states by {self.influence:.1e} only: it is ignored"
        return None


@torch.no_grad()
def check(
    adapter: Adapter, *, ids: Tensor | None = None, lengths: tuple[int, int] = (5, 11), seed: int = 0
) -> Continuity:
    """Reads the same tokens at once and in two pieces, and in a batch and alone.

    Args:
        ids: int64 [B, a + b]; drawn at random from the vocabulary if left out.
        lengths: a and b, in tokens.  Also tried: a first and a last piece of one token, where the convolution's state
            is mostly padding or mostly old.
        seed: of the random ids.
    """
    total = sum(lengths)
    if ids is None:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(adapter.vocabulary, (_ROWS, total), generator=generator)
    elif ids.shape[1] != total:
        raise ValueError(f"ids have {ids.shape[1]} tokens, lengths {lengths} make {total}")
    ids = ids.to(adapter.device)
    whole, whole_end = _read(adapter, ids, None)

    split: dict[str, float] = {}
    for cut in sorted({1, lengths[0], total - 1}):
        first, memory = _read(adapter, ids[:, :cut], None)
        second, end = _read(adapter, ids[:, cut:], memory)
        joined = {name: torch.cat([first[name], second[name]], dim=1) for name in whole}
        _worst(split, {**whole_end, **whole}, {**end, **joined})

    batch: dict[str, float] = {}
    for row in range(len(ids)):
        alone, alone_end = _read(adapter, ids[row : row + 1], None)
        of_batch = {name: value[row : row + 1] for name, value in {**whole_end, **whole}.items()}
        _worst(batch, of_batch, {**alone_end, **alone})

    _, memory = _read(adapter, ids[:, : lengths[0]], None)
    fresh, _ = _read(adapter, ids[:, lengths[0] :], None)
    influence = _error(whole["hidden"][:, lengths[0] :], fresh["hidden"])
    tolerance = TOLERANCE[next(adapter.parameters()).dtype]
    rounding: dict[str, float] = {}
    with _rounded(adapter, torch.Generator().manual_seed(seed)):
        jittered, jittered_end = _read(adapter, ids, None)
    _worst(rounding, {**whole_end, **whole}, {**jittered_end, **jittered})
    allowed = {part: max(tolerance, _HEADROOM * error) for part, error in rounding.items()}
    return Continuity(split, batch, allowed, influence, tolerance)


def require(adapter: Adapter, name: str) -> Continuity:
    """The check of the model ``name``, passed.

    A model in bfloat16 is checked in float32, into which and back its parameters go unchanged: in its own dtype, deep
    layers round away the difference that is looked for.

    Raises:
        ContinuityError: it fails; the message names the model, the part and the error.
    """
    dtype = next(adapter.parameters()).dtype
    try:
        found = check(adapter.float() if dtype == torch.bfloat16 else adapter)
    finally:
        adapter.to(dtype)
    if found.failure is not None:
        raise ContinuityError(
            f"{name!r}: {found.failure}",
            remedy="Its architecture's adapter drops or bends the state it is given: no number from it would mean "
            "anything. Mend the adapter, or take another model",
        )
    return found


@contextmanager
def _rounded(adapter: Adapter, generator: torch.Generator) -> Iterator[None]:
    """Disturbs the output of every embedding and linear layer by one rounding error, normally distributed."""
    half_a_bit = torch.finfo(next(adapter.parameters()).dtype).eps / 2

    def disturb(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=generator, dtype=torch.float64) * half_a_bit
        return (output.cpu().double() * (1 + noise)).to(output)

    layers = [m for m in adapter.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    hooks = [layer.register_forward_hook(disturb) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _read(adapter: Adapter, ids: Tensor, start: Memory | None) -> tuple[dict[str, Tensor], Memory]:
    hidden, end = adapter.hidden(ids, start)
    return {"hidden": hidden, "logits": adapter.head(hidden)}, end


def _worst(errors: dict[str, float], expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raises each entry of ``errors`` to the error found."""
    for name, value in expected.items():
        errors[name] = max(errors.get(name, 0.0), _error(value, found[name]))


def _error(expected: Tensor, found: Tensor) -> float:
    """max |x - y| / max |x|; 0 if x and y are equal, infinite if only x is zero throughout or either has a NaN."""
    if torch.equal(expected, found):
        return 0.0
    x, y = expected.cpu().double(), found.cpu().double()
    difference, size = (x - y).abs().max().item(), x.abs().max().item()
    return difference / size if size > 0 and math.isfinite(difference) else math.inf
