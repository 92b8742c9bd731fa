"""Decoded windows for tests of what follows the decoder, from little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mnemoscope import schema


def window(
    source: Sequence[int],
    written: Sequence[int],
    *,
    reference: str | None = None,
    reconstruction: str | None = None,
    **columns: Any,
) -> dict[str, Any]:
    """A row of ``schema.DECODED``: everything is guessed right, at a cost of 1 nat, unless ``columns`` says otherwise.
    The texts are the ids, one word each, unless given."""
    spans = [3 * i for i in range(len(source))]
    return {
        "run": "r",
        "model": "m",
        "decoder": "growing",
        "condition": "memory",
        "length": len(source),
        "seed": 0,
        "doc_id": "d",
        "window_id": f"d:{len(source)}:0",
        "domain": "news",
        "source": "s",
        "dialect": "",
        "prefix": "none",
        "reference_ids": list(source),
        "char_start": spans,
        "char_end": [s + 3 for s in spans],
        "predicted_ids": list(source),
        "token_nats": [1.0] * len(source),
        "reconstruction_ids": list(written),
        "stopped": True,
        "reference": " ".join(map(str, source)) if reference is None else reference,
        "reconstruction": " ".join(map(str, written)) if reconstruction is None else reconstruction,
    } | columns


def decoded(*rows: dict[str, Any]) -> pa.Table:
    """[rows] by ``schema.DECODED``."""
    return pa.Table.from_pylist(list(rows), schema=schema.arrow("decoded"))
