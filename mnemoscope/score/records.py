"""decoded.parquet -> reconstructions.parquet (a row per window x condition) and tokens.parquet (a row per token).

Read and written in parts of whole windows, so that memory does not grow with the run.  The schemas are
``schema.DECODED``, ``schema.RECONSTRUCTIONS`` and ``schema.TOKENS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mnemoscope import rundir, schema
from mnemoscope.errors import RunError
from mnemoscope.score.align import MATCH, OMIT, OPERATIONS, SUBSTITUTE, align, recovered_anywhere
from mnemoscope.score.rouge import rouge

#: tokens of a part, and so of a row group of tokens.parquet; a part is about 100 MB in memory
TOKENS_PER_PART = 1 << 18
_ROWS_READ = 256
_KEY = [c.name for c in schema.DECODED[: [c.name for c in schema.DECODED].index("reference_ids")]]
_PER_TOKEN = ("reference_ids", "char_start", "char_end", "predicted_ids", "token_nats")
_REMEDY = "Run the stage reconstruct again"

Spell = Callable[[int], str]


def write(decoded: Path, folder: Path, spell: Spell) -> tuple[int, int]:
    """Scores a run's windows: writes ``reconstructions.parquet`` and ``tokens.parquet`` into ``folder``, both or none.

    Args:
        decoded: a Parquet file by ``schema.DECODED``, or a folder of such files, read in the order of their names.
        folder: an existing folder.
        spell: token id -> the token as the tokenizer spells it.

    Returns:
        rows written: windows, tokens.

    Raises:
        RunError: a file cannot be read, holds no window or a bad one, or the same window twice; nothing is written.
    """
    files = sorted(decoded.glob("*.parquet")) if decoded.is_dir() else [decoded]
    seen: set[int] = set()
    windows = tokens = 0
    outputs = [folder / "reconstructions.parquet", folder / "tokens.parquet"]
    with replacing(outputs[0]) as windows_part, replacing(outputs[1]) as tokens_part:
        with _writer("reconstructions", windows_part) as windows_out, _writer("tokens", tokens_part) as tokens_out:
            for file in files:
                for part in _parts(file):
                    _refuse_repeats(part, seen, file)
                    window_rows, token_rows = records(part, spell, file)
                    windows_out.write_table(window_rows)
                    tokens_out.write_table(token_rows)
                    windows, tokens = windows + window_rows.num_rows, tokens + token_rows.num_rows
        if windows == 0:
            raise RunError("no decoded window", remedy=_REMEDY, file=decoded)
    return windows, tokens


def records(decoded: pa.Table, spell: Spell, file: Path | None = None) -> tuple[pa.Table, pa.Table]:
    """Scores a few windows.

    Args:
        decoded: [windows] by ``schema.DECODED``.
        spell: token id -> the token as the tokenizer spells it.
        file: where ``decoded`` came from, for messages.

    Returns:
        ``reconstructions`` [windows] and ``tokens`` [sum of lengths], windows in the order given.

    Raises:
        RunError: a column is missing or of another type; a window whose lists are not of its length, or whose nats
            are not finite, naming the window.
    """
    decoded = _checked(decoded, file)
    lengths = decoded["length"].to_numpy().astype(np.int64)
    flat = {name: decoded[name].combine_chunks().flatten() for name in _PER_TOKEN}
    ids, nats = flat["reference_ids"].to_numpy(), flat["token_nats"].to_numpy()
    starts = np.cumsum(lengths) - lengths
    right = flat["predicted_ids"].to_numpy() == ids
    operations, anywhere, written, scores = _compare(decoded, ids, starts, lengths, spell)

    def per_window(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        return np.add.reduceat(values, starts, dtype=np.float64) if len(starts) else np.zeros(0)

    reconstructions = {
        **{name: decoded[name] for name in [*_KEY, "reference", "reconstruction", "stopped"]},
        **scores,
        "token_accuracy": per_window(right) / lengths,
        "matched": per_window(operations == MATCH),
        "substituted": per_window(operations == SUBSTITUTE),
        "omitted": per_window(operations == OMIT),
        "nats": per_window(nats),
    }
    unique, place = np.unique(ids, return_inverse=True)
    spelled = pa.array([spell(int(i)) for i in unique], pa.string())
    keys = decoded.select(_KEY).take(np.repeat(np.arange(len(lengths)), lengths))
    tokens = {
        **{name: keys[name] for name in _KEY},
        "position": np.arange(len(ids)) - np.repeat(starts, lengths),
        "char_start": flat["char_start"],
        "char_end": flat["char_end"],
        "token_id": ids,
        "token": spelled.take(pa.array(place)),
        "predicted_id": flat["predicted_ids"],
        "operation": pa.array(OPERATIONS).take(pa.array(operations)),
        "written": written,
        "recovered_in_place": operations == MATCH,
        "recovered_anywhere": anywhere,
        "nats": nats,
    }
    return _table("reconstructions", reconstructions), _table("tokens", tokens)


def _compare(
    decoded: pa.Table,
    ids: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    spell: Spell,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_], pa.Array, dict[str, list[Any]]]:
    """Per token, the operation, whether it was recovered anywhere, and what was written for it; per window, the columns
    that compare ids or texts as wholes."""
    operations = np.full(len(ids), MATCH, np.int8)
    anywhere = np.ones(len(ids), np.bool_)
    names = ("exact", "inserted", "words", "words_recovered_anywhere", "rouge1", "rouge2", "rougeL")
    scores: dict[str, list[Any]] = {name: [] for name in names}
    written_ids = decoded["reconstruction_ids"].combine_chunks()
    bounds = written_ids.offsets.to_numpy()
    written_values = written_ids.values.to_numpy()
    # an id beyond the tokenizer's vocabulary spells nothing
    spelled = {int(i): spell(int(i)) or "" for i in np.unique(written_values)}
    stands: list[str] = []
    texts = zip(decoded["reference"].to_pylist(), decoded["reconstruction"].to_pylist(), strict=True)
    for row, (reference, text) in enumerate(texts):
        window = slice(starts[row], starts[row] + lengths[row])
        source, written = ids[window].tolist(), written_values[bounds[row] : bounds[row + 1]].tolist()
        exact, inserted = source == written, 0
        if exact:
            # decoded ids need not be the document's slice (half a character at an end, a dropped first space), and a
            # perfect reconstruction loses no word
            text = reference
        else:
            operations[window], inserted, ends = align(source, written)
            anywhere[window] = recovered_anywhere(source, written)
        out = [spelled[i] for i in written]
        stands += out if exact else ["".join(out[a:b]) for a, b in pairwise(ends.tolist())]
        words = reference.split()
        recovered = int(recovered_anywhere(words, text.split()).sum())
        for name, value in zip(names, (exact, inserted, len(words), recovered, *rouge(reference, text)), strict=True):
            scores[name].append(value)
    return operations, anywhere, pa.array(stands, pa.string()), scores


def _checked(decoded: pa.Table, file: Path | None) -> pa.Table:
    """``decoded`` with exactly the columns and types of the schema, every row sound."""
    wanted = schema.arrow("decoded")
    missing = [name for name in wanted.names if name not in decoded.column_names]
    if missing:
        raise RunError(f"columns missing from the decoded windows: {', '.join(missing)}", remedy=_REMEDY, file=file)
    try:
        decoded = decoded.select(wanted.names).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RunError(f"decoded windows of another type ({error})", remedy=_REMEDY, file=file) from None

    def refuse(bad: pa.ChunkedArray, what: str) -> None:
        row = pc.index(bad, True).as_py()
        if row >= 0:
            raise RunError(
                f"window {decoded['window_id'][row].as_py()!r} (decoder {decoded['decoder'][row].as_py()!r}, "
                f"condition {decoded['condition'][row].as_py()!r}) {what}",
                remedy=_REMEDY,
                file=file,
            )

    for name in ("window_id", "doc_id", "condition", "length", "reference", "reconstruction", "reconstruction_ids"):
        refuse(decoded[name].is_null(), f"has no {name}")
    refuse(pc.less(decoded["length"], 1), "has no token")
    for name in _PER_TOKEN:
        same = pc.equal(pc.list_value_length(decoded[name]), decoded["length"])
        refuse(pc.invert(pc.fill_null(same, False)), f"has not one value of {name} for each of its tokens")
    for name in (*_PER_TOKEN, "reconstruction_ids"):
        values = decoded[name].combine_chunks()
        # a null float is as bad as a NaN
        sound = pc.fill_null(pc.is_finite(values.flatten()), False)
        if not pc.all(sound, min_count=0).as_py():
            rows = pc.list_parent_indices(values).filter(pc.invert(sound))
            bad = np.isin(np.arange(len(values)), rows.to_numpy())
            refuse(pa.chunked_array([pa.array(bad)]), f"has a value of {name} that is not a finite number")
    return decoded


def _refuse_repeats(part: pa.Table, seen: set[int], file: Path) -> None:
    """``seen`` holds the hashes of the windows so far: a tenth of the memory that their names would take."""
    keys = ("run", "model", "decoder", "condition", "seed", "window_id")
    for key in zip(*(part[k].to_pylist() for k in keys), strict=True):
        if hash(key) in seen:
            named = ", ".join(f"{k} {v!r}" for k, v in zip(keys, key, strict=True))
            raise RunError(f"the same window twice: {named}", remedy=_REMEDY, file=file)
        seen.add(hash(key))


def _parts(file: Path) -> Iterator[pa.Table]:
    """The rows of a file, in order, in tables of about ``TOKENS_PER_PART`` tokens."""
    try:
        with pq.ParquetFile(file) as source:
            held: list[pa.RecordBatch] = []
            tokens = 0
            for batch in source.iter_batches(batch_size=_ROWS_READ):
                held.append(batch)
                # a file without the column is refused, with its name, by _checked
                tokens += pc.sum(batch["length"]).as_py() or 0 if "length" in batch.schema.names else 0
                if tokens >= TOKENS_PER_PART:
                    yield pa.Table.from_batches(held)
                    held, tokens = [], 0
            if held:
                yield pa.Table.from_batches(held)
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"unreadable as Parquet ({str(error).splitlines()[0]})", remedy=_REMEDY, file=file) from None


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    wanted = schema.arrow(name)
    return pa.table({c: columns[c] for c in wanted.names}).cast(wanted)


def _writer(table: str, path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema.arrow(table), compression="zstd", use_dictionary=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As :func:`mnemoscope.rundir.replacing`, for tables.

    Raises:
        RunError: the block raised an OSError, such as a full disk's.
    """
    try:
        with rundir.replacing(path) as part:
            yield part
    except OSError as error:
        raise RunError(
            f"cannot be written ({error})", remedy="Make room, or choose a folder to write to", file=path
        ) from None
