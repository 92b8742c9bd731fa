"""Where a model's files are: embedded in this package, in a folder, or on a hub.

The hub is Hugging Face's, or the one that ``HF_ENDPOINT`` names; ``HF_HOME`` and ``HF_HUB_OFFLINE`` are honoured.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import time
from abc import ABC, abstractmethod
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mnemoscope.errors import ModelError
from mnemoscope.zoo import folder as _zoo


class Source(ABC):
    """The files of one model."""

    name: str

    @abstractmethod
    def get(self, file: str) -> Path | None:
        """A local path of ``file``, or None if the source has no such file."""

    @abstractmethod
    def missing(self, what: str, remedy: str) -> ModelError:
        """The error for a file that must be there and is not."""


class Folder(Source):
    def __init__(self, name: str, root: Path):
        self.name, self.root = name, root

    def get(self, file: str) -> Path | None:
        path = self.root / file
        return path if path.is_file() else None

    def missing(self, what: str, remedy: str) -> ModelError:
        return ModelError(f"has no {what}", remedy=remedy, file=self.root)


class Hub(Source):
    """A repository on a hub.  The first file fixes the commit that all others are taken from."""

    def __init__(self, name: str, revision: str | None):
        self.name, self.revision = name, revision
        self._unreached = False
        self._why: str | None = None
        self._asked = False

    def get(self, file: str) -> Path | None:
        try:
            # for what is cached, the client itself gives up a hub that is out of reach after one attempt
            if not (self._asked or constants.HF_HUB_OFFLINE or self._cached(file)):
                self._asked, self._why = True, _unreachable(self.name, file)
                self._unreached = self._why is not None
            # once the hub was out of reach, only the cache is asked: every new attempt takes the client 20 seconds
            path = Path(
                huggingface_hub.hf_hub_download(
                    self.name, file, revision=self.revision, local_files_only=self._unreached
                )
            )
        except LocalEntryNotFoundError:
            # a cache may be whole without this file, so whether that is a failure is for the caller to say
            self._unreached = True
            return None
        except EntryNotFoundError:
            return None
        except GatedRepoError:
            raise ModelError(
                f"{self.name!r} is gated", remedy=f"Accept its terms at {constants.ENDPOINT}/{self.name}, then log in"
            ) from None
        except RevisionNotFoundError:
            raise ModelError(
                f"{self.name!r} has no revision {self.revision!r}", remedy="Name a branch, a tag or a commit"
            ) from None
        except (RepositoryNotFoundError, HFValidationError):
            raise ModelError(
                f"no model {self.name!r}: not embedded, not a folder, and not (or not for you) on {constants.ENDPOINT}",
                remedy=f"Embedded are: {', '.join(embedded()) or 'none'}. Else give a folder or owner/name",
            ) from None
        except OSError as error:
            raise ModelError(
                f"{self.name!r}: {file} cannot be fetched ({error})", remedy=f"Connect, {_REACH}"
            ) from error
        self.revision = path.parent.name
        return path

    def _cached(self, file: str) -> bool:
        return isinstance(huggingface_hub.try_to_load_from_cache(self.name, file, revision=self.revision), str)

    def missing(self, what: str, remedy: str) -> ModelError:
        if self._unreached:
            if constants.HF_HUB_OFFLINE:
                why, first = "is not asked (HF_HUB_OFFLINE)", "Unset HF_HUB_OFFLINE"
            else:
                why, first = f"cannot be reached{f' ({self._why})' if self._why else ''}", "Connect"
            return ModelError(
                f"{self.name!r} is no folder here, has no {what} in the cache {constants.HF_HUB_CACHE}, and "
                f"{constants.ENDPOINT} {why}",
                remedy=f"{first}, {_REACH}",
            )
        return ModelError(f"{self.name!r} on {constants.ENDPOINT} has no {what}", remedy=remedy)


AGAIN = "Fetch the file again (a git-lfs pointer or half a download is not the file)"
_REACH = (
    "or set HF_ENDPOINT to a mirror; offline, set HF_HOME to a cache that has it, or give the path of a folder with "
    "its files (where there is a connection: hf download OWNER/NAME --local-dir FOLDER)"
)
#: what says at once that nobody will answer; all else may be a slow or busy hub, which the client has patience with
_NOBODY = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH}


def _unreachable(name: str, file: str) -> str | None:
    """Why nobody answers at the hub's address; None if somebody does, or may: the client then finds out.

    The client tries again for 23 seconds, as if the hub were busy. Here a name that does not resolve, or a connection
    that is refused, is believed when it is seen twice, a second apart.
    """
    if (why := _attempt(name, file)) is not None:
        time.sleep(1)
        why = _attempt(name, file)
    return why


def _attempt(name: str, file: str) -> str | None:
    outer = sys.exception()
    try:
        # the client's own way, so by its proxy and certificates, and without its repetitions
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(name, file))
    except Exception as error:
        cause: BaseException | None = error
        # not on into what a caller is just handling, which may be of another hub
        while cause is not None and cause is not outer:
            if isinstance(cause, socket.gaierror) or (isinstance(cause, OSError) and cause.errno in _NOBODY):
                return str(cause.strerror)
            cause = cause.__cause__ or cause.__context__
    return None


def embedded() -> list[str]:
    """Names of the models that come with this package."""
    zoo = _zoo()
    return sorted(p.parent.name for p in zoo.glob("*/config.json")) if zoo.is_dir() else []


def find(name: str, revision: str | None = None) -> Source:
    """The source that ``name`` stands for: embedded model, folder, or hub repository, in that order.

    Raises:
        ModelError: a path to nothing, nearly the name of an embedded model, or a revision for what has none.
    """
    folder = Path(name).expanduser()
    if name in embedded():
        source: Source = Folder(name, _zoo() / name)
    elif folder.is_dir():
        source = Folder(name, folder)
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError("no such folder", remedy="Give a folder that holds config.json", file=folder)
    elif "/" not in name and (near := get_close_matches(name, embedded(), n=1, cutoff=0.8)):
        # before a hub is asked, whose names have an owner
        raise ModelError(f"no embedded model is called {name!r}", remedy=f"Did you mean {near[0]!r}?")
    else:
        return Hub(name, revision)
    if revision is not None:
        raise ModelError(f"{name!r} is not on a hub and has no revision {revision!r}", remedy="Leave the revision out")
    return source


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``.

    Raises:
        ModelError: it holds none, with its line.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise ModelError(f"not JSON: {error}", remedy=AGAIN, file=file, line=line) from None
    if not isinstance(values, dict):
        raise ModelError("not a JSON object", remedy=AGAIN, file=file)
    return values
