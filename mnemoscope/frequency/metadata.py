"""What a file of counts says of itself: totals, what was counted, the tokenizer's digest, every file's hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mnemoscope.errors import CountError

#: of the JSON in the Parquet file's metadata
KEY = "mnemoscope.counts"


def read(file: Path) -> dict[str, Any]:
    """The metadata of a file of counts.

    Raises:
        CountError: it is not one.
    """
    try:
        found: dict[str, Any] = json.loads((pq.read_metadata(file).metadata or {})[KEY.encode()])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise CountError(f"not a file of counts ({problem})", remedy="Make one: mnemoscope count", file=file) from None
    return found
