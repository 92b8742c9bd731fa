"""Which files a corpus names, and their lines: plain, gzip or Zstandard, strictly UTF-8, split on ``\\n`` only."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from glob import glob
from pathlib import Path
from typing import BinaryIO

import zstandard

from mnemoscope.errors import TextError
from mnemoscope.zoo import folder

JSON_LINES = (".jsonl", ".json-lines", ".ndjson")
PLAIN_TEXT = (".txt", ".md")
PARQUET = (".parquet",)
CONLL_U = (".conllu", ".conllup")
COLUMNS = (*CONLL_U, ".conll", ".bio", ".iob", ".iob2", ".bioes")
#: read as plain text where they are named one by one or by a glob; a folder of text may hold some that are not meant
SOURCE = (
    *(".py", ".pyi", ".js", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs"),
    *(".go", ".rs", ".rb", ".php", ".swift", ".r", ".jl", ".lua", ".pl", ".hs", ".ml", ".sh", ".sql", ".html", ".css"),
    *(".xml", ".json", ".yaml", ".yml", ".toml", ".ini", ".tex", ".rst", ".log"),
)
COMPRESSED = (".gz", ".zst")
KNOWN = (*JSON_LINES, *PLAIN_TEXT, *PARQUET, *COLUMNS)
_SUFFIXES = f"{', '.join(KNOWN)}; each but .parquet also with {' or '.join(COMPRESSED)}"

_PIECE = 1 << 20
#: Zstandard's largest window; files made with --long=27 and above need more than the library's default
_MAX_WINDOW = 2**31
EMBEDDED = "embedded:"


def suffix(path: Path) -> str | None:
    """The suffix that decides how a file is read, compression put aside; None if it is not a known one."""
    parts = [s.lower() for s in path.suffixes]
    compressed = bool(parts) and parts[-1] in COMPRESSED
    if compressed:
        parts.pop()
    known = bool(parts) and parts[-1] in KNOWN and not (compressed and parts[-1] in PARQUET)
    return parts[-1] if known else None


def find(path: str) -> list[tuple[Path, str]]:
    """The files that ``path`` names, sorted, each with its name inside the corpus.

    Args:
        path: a file, a folder (every file of a known suffix under it), a glob, or ``embedded:<name>``.

    Returns:
        (file, name): the file's own name, or its path from the folder (from the fixed part of the glob).

    Raises:
        TextError: nothing there, or a file whose suffix is not known.
    """
    if path.startswith(EMBEDDED):
        return [_embedded(path)]
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(f for f in place.rglob("*") if f.is_file() and suffix(f))
        if not files:
            raise TextError("no text in this folder", remedy=f"Known suffixes: {_SUFFIXES}", file=place)
        return [(f, f.relative_to(place).as_posix()) for f in files]
    if place.exists():
        return [(_known(place), place.name)]
    if any(c in path for c in "*?["):
        files = sorted(Path(f) for f in glob(str(place), recursive=True) if Path(f).is_file())
        if not files:
            raise TextError("no file matches this glob", remedy="Check the pattern and the data folder", file=path)
        fixed = next(p for p in place.parents if not any(c in str(p) for c in "*?["))
        return [(_known(f), f.relative_to(fixed).as_posix()) for f in files]
    raise TextError("no such file or folder", remedy=nearest(place), file=place)


def _known(path: Path) -> Path:
    if suffix(path) is None and path.suffix.lower() not in SOURCE:
        raise TextError(
            f"the suffix {''.join(path.suffixes[-2:])!r} says nothing known of its format",
            remedy=f"Known suffixes: {_SUFFIXES}",
            file=path,
        )
    return path


def _embedded(path: str) -> tuple[Path, str]:
    name = path.removeprefix(EMBEDDED)
    zoo = folder()
    file = zoo / name / f"{name}.jsonl"
    if not file.is_file():
        known = sorted(f"{EMBEDDED}{d.name}" for d in zoo.glob("*") if (d / f"{d.name}.jsonl").is_file())
        raise TextError(f"no embedded text {name!r}", remedy=f"There are: {', '.join(known) or 'none'}", file=path)
    return file, file.name


def nearest(place: Path) -> str:
    """What to say of a path that is not there: the part that is missing, and what is nearest to it."""
    while not place.parent.is_dir():
        place = place.parent
    near = get_close_matches(place.name, (f.name for f in place.parent.iterdir()), n=1)
    return f"{place.parent.absolute()} holds no {place.name!r}" + (f". Did you mean {near[0]!r}?" if near else "")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, each with its 1-based number and its ``\\n``.

    Raises:
        TextError: unreadable, truncated or damaged, empty, or not UTF-8; with file and line.
    """
    number = offset = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(_split(_pieces(file, path)), start=1):
                yield number, raw.decode("utf-8")
                offset += len(raw)
    except UnicodeDecodeError as error:
        raise TextError(
            f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte offset {offset + error.start}"
            + (" of the uncompressed text" if path.suffix.lower() in COMPRESSED else ""),
            remedy="Convert the file to UTF-8",
            file=path,
            line=number,
        ) from None
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise TextError(
            f"cannot be read ({error})", remedy="Restore the file and try again", file=path, line=number + 1
        ) from None
    if number == 0:
        raise TextError("the file is empty", remedy="Put text into it or leave it out", file=path)


def _pieces(file: BinaryIO, path: Path) -> Iterator[bytes]:
    match path.suffix.lower():
        case ".gz":
            with gzip.open(file) as stream:
                yield from iter(partial(stream.read, _PIECE), b"")
        case ".zst":
            yield from _zstandard(file)
        case _:
            yield from iter(partial(file.read, _PIECE), b"")


def _zstandard(file: BinaryIO) -> Iterator[bytes]:
    """Every frame of a file.  The library's stream_reader takes a truncated file for a whole one; this does not."""
    context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    frame = context.decompressobj()
    started = False
    for piece in iter(partial(file.read, _PIECE), b""):
        while piece:
            yield frame.decompress(piece)
            started, piece = not frame.eof, frame.unused_data
            if frame.eof:
                frame = context.decompressobj()
    if started:
        raise EOFError("compressed file ended before the end-of-stream marker was reached")


def _split(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their ``\\n``.  Unicode's other line breaks, and a lone ``\\r``, are text like any other."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
