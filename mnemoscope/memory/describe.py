"""What a model's memory is made of, in a table that a person can read."""

from __future__ import annotations

from dataclasses import dataclass

from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Part


@dataclass(frozen=True, slots=True)
class Row:
    """Parts of one kind: the same name but for the layer, the same shape, the same dtype.

    Attributes:
        part: ``ssm``, ``conv``, ...; ``total`` in the last row.
        count: how many layers have it; in the last row, how many parts there are.
        shape: of one window's part; empty in the last row.
        dtype: as ``float32``; empty in the last row.
        numbers, bytes: of all of them together, for one window.
    """

    part: str
    count: int
    shape: tuple[int, ...]
    dtype: str
    numbers: int
    bytes: int


def describe(adapter: Adapter) -> list[Row]:
    """A row for each kind of part, in order of first appearance, then the total."""
    spec = adapter.spec()
    kinds: dict[tuple[str, tuple[int, ...], str], list[Part]] = {}
    for part in spec.parts:
        kind = (part.name.rsplit(".", 1)[-1], part.shape, str(part.dtype).removeprefix("torch."))
        kinds.setdefault(kind, []).append(part)
    rows = [
        Row(name, len(parts), shape, dtype, sum(p.numbers for p in parts), sum(p.bytes for p in parts))
        for (name, shape, dtype), parts in kinds.items()
    ]
    return [*rows, Row("total", len(spec.parts), (), "", spec.numbers, spec.bytes)]
