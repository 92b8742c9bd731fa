"""A run folder: which study it belongs to, which stages are done, and where each file lies (design, section 4)."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mnemoscope import config
from mnemoscope.errors import MnemoscopeError, RunError

_REPORTED = (
    "mnemoscope",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "polars",
    "scipy",
    "rapidfuzz",
    "rouge-score",
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place when the block ends well and is removed if not.

    So a file is whole or not there; several processes may write the same one.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file or none, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def file_name(spelt: str) -> str:
    """A condition's name, or one made with it, as part of a file's: not every system has files with colons."""
    return spelt.replace(":", "-")


class RunDir:
    """A folder that holds one study and what was made of it.

    A study that differs from the folder's in its annotations, estimates and effects alone takes the folder over: what
    was measured stays, and estimates and page are made anew.

    Args:
        path: the folder; made if it is not there.
        study: the study that it is for.
        writes: False for the processes of a training beside the main one, which leave the manifest alone.

    Raises:
        RunError: the folder holds another study, or something that is no run at all.
    """

    def __init__(self, path: str | Path, study: config.Study, *, writes: bool = True):
        self.path = Path(path)
        self.study, self.writes = study, writes
        if self.path.exists() and not self.path.is_dir():
            raise RunError("this is a file", remedy="Give a folder for the run", file=self.path)
        manifest = self.path / "manifest.json"
        begun = self._made()
        if begun and not manifest.exists():
            raise RunError(
                "this folder is not empty and holds no run",
                remedy="Give a new folder, or an earlier run of this study",
                file=self.path,
            )
        # a study that was refused before anything was made of it may be mended
        if begun - {"study.toml", "annotations"}:
            self._refuse_another(manifest)
        if writes:
            with disk_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                measured = study.digest(analysis=False)
                if not manifest.exists() or not self._measures_alike(self.manifest):
                    digests = {"study": study.digest(), "measured": measured}
                    self._write({**digests, "name": study.name, "seed": study.seed, "stages": {}})
                elif (held := self.manifest["study"]) != study.digest():
                    if held not in study.former_digests():
                        self.undo("estimate", "bracket", "report")
                    self.note(study=study.digest(), measured=measured)
                # the same study may come with its texts elsewhere, or for another device
                if "study.toml" not in begun or self.study_file.read_text(encoding="utf-8") != config.dump(study):
                    write_atomically(self.study_file, config.dump(study))

    def _made(self) -> set[str]:
        """What lies in the folder beside the manifest; halves of files that a kill left are nothing."""
        names = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
        return {name for name in names - {"manifest.json"} if not name.endswith(".new")}

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """An existing run, with the study that it was made from.

        Raises:
            RunError: there is no run.
        """
        path = Path(path)
        if not (path / "manifest.json").exists():
            raise RunError(
                "this is no run folder: it has no manifest.json",
                remedy="Make one with: mnemoscope run STUDY.toml --out DIR",
                file=path,
            )
        return cls(path, config.load(path / "study.toml"))

    def _measures_alike(self, held: dict[str, Any]) -> bool:
        """Whether the study of a manifest has this one's measurements; a manifest of old knows whole studies only."""
        if "measured" not in held:
            return held["study"] in {self.study.digest(), *self.study.former_digests()}
        of_measurements = {self.study.digest(analysis=False), *self.study.former_digests(analysis=False)}
        return held["measured"] in of_measurements

    def _as_in_folder(self) -> bool:
        try:
            there = config.load(self.study_file)
        except MnemoscopeError:
            return False
        return there.digest(analysis=False) == self.study.digest(analysis=False)

    @property
    def study_file(self) -> Path:
        return self.path / "study.toml"

    def _refuse_another(self, manifest: Path) -> None:
        held = self.manifest
        # digests leave out defaults, which a later version may have changed; the folder's own study says them all
        same = not self.study_file.exists() or self._as_in_folder()
        if not (same and self._measures_alike(held)):
            raise RunError(
                f"this folder holds another study ({held['name']!r}, or an older version of this one)",
                remedy="Give another --out, or remove the folder to start anew",
                file=manifest,
            )

    # ---- the manifest -------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> dict[str, Any]:
        """What is known about the run so far.

        Raises:
            RunError: the file is damaged.
        """
        file = self.path / "manifest.json"
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            lost = {"study", "name", "stages"} - set(content)
            if lost or not isinstance(content["stages"], dict):
                raise ValueError(f"no {', '.join(sorted(lost or ['stages']))}")
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"damaged manifest ({error})", remedy="Remove the folder and run anew", file=file) from None
        return content

    def _write(self, manifest: dict[str, Any]) -> None:
        if self.writes:
            write_atomically(self.path / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))

    def note(self, **facts: Any) -> None:
        """Adds facts to the manifest."""
        self._write({**self.manifest, **facts})

    def require_same(self, what: str, now: Any) -> None:
        """Raises RunError if the manifest says otherwise.  Where files lie, their ``name``, does not matter."""

        def content(value: Any) -> Any:
            is_list = isinstance(value, list)
            return [{k: v for k, v in item.items() if k != "name"} for item in value] if is_list else value

        before = self.manifest.get(what)
        if before is not None and content(before) != content(now):
            raise RunError(
                f"the {what} of this run changed since it was begun",
                remedy="Restore them, or give another --out: a run's numbers come from one set of files",
                file=self.path / "manifest.json",
            )

    def is_done(self, stage: str) -> bool:
        return "finished" in self.manifest["stages"].get(stage, {})

    def undo(self, *stages: str) -> None:
        """Stages that are to be done again."""
        held = self.manifest["stages"]
        self.note(
            stages={
                k: {f: v for f, v in s.items() if k not in stages or f not in ("finished", "seconds")}
                for k, s in held.items()
            }
        )

    @contextmanager
    def stage(self, name: str, unfinished: Callable[[], bool] = lambda: False, **facts: Any) -> Iterator[None]:
        """Runs a stage: full disks become a clear error; success is written down with its wall time and versions.

        Wall time adds up over interruptions that ended in an exception or Ctrl-C; a killed attempt's is lost.

        Args:
            unfinished: asked at the end; the stage is not marked done where other processes still work on it.
            facts: what else to write down, such as the device.
        """
        started, code = time.monotonic(), revision()
        before = self.manifest["stages"].get(name, {}).get("seconds", 0.0)

        def record(**more: Any) -> None:
            stages = self.manifest["stages"]
            seconds = round(before + time.monotonic() - started, 3)
            stages[name] = {"seconds": seconds, "versions": versions(), "revision": code, **facts, **more}
            self.note(stages=stages)

        try:
            with disk_errors(self.path):
                yield
        except BaseException:
            # on a full disk the manifest cannot be written either; what happened is to be told all the same
            with suppress(OSError):
                if (self.path / "manifest.json").exists():
                    record()
            raise
        if unfinished():
            record()
        else:
            record(finished=datetime.now(UTC).isoformat(timespec="seconds"))

    # ---- places -------------------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def table(self, name: str) -> Any:
        """A table of the run as a polars data frame: tokens, reconstructions, estimates, curves, decoded.

        Raises:
            RunError: the stage that makes it has not run.
        """
        import polars as pl

        file = self.path / f"{name}.parquet"
        if not file.exists():
            raise RunError(
                f"no table {name!r} yet", remedy="Run the stage that makes it (mnemoscope --help)", file=file
            )
        return pl.read_parquet(file)

    def require_room(self, needed: int) -> None:
        """Refuses to start what will not fit on the disk.

        Args:
            needed: bytes, an upper estimate.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise RunError(
                f"about {needed / 1e9:.1f} GB are needed here and {free / 1e9:.1f} GB are free",
                remedy="Free some disk, or give --out on another one; nothing has been computed yet",
                file=self.path,
            )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into an error that says so; what is already written stays."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        # libraries in Rust and C++ report a full disk in words only, and not as an OSError
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise RunError(
                "no space left on the disk", remedy="Free some and give the same command again", file=path
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise RunError(f"cannot be written ({error})", remedy="Give another folder", file=path) from error
        raise


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _REPORTED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """Git revision of the code, with ``+changes`` if the package differs from it.

    Outside a checkout, what ``$MNEMOSCOPE_REVISION`` says, for code that was copied to where it runs; else empty.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return os.environ.get("MNEMOSCOPE_REVISION", "")
    try:
        head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        diff = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--untracked-files=no", "--", Path(__file__).resolve().parent],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+changes" if diff.stdout.strip() else "")


def command() -> str:
    """The command line of this process, as it can be given again."""
    return " ".join(["mnemoscope", *sys.argv[1:]])
