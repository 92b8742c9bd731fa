"""A hub on this machine: what huggingface_hub's client asks for to fetch single files, served from a folder.

``root/<owner>/<name>/<file>`` is the file of the repository ``owner/name`` on its only branch, ``main``.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def commit(repository: str) -> str:
    """The one commit of ``repository``: 40 hexadecimal digits."""
    return hashlib.sha1(repository.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        asked = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/([\w.-]+)", self.path)
        if asked is None or not (self.root / asked[1]).is_dir():
            return self._refuse("RepoNotFound")
        repository, revision, name = asked.groups()
        if revision not in ("main", commit(repository)):
            return self._refuse("RevisionNotFound")
        file = self.root / repository / name
        if not file.is_file():
            return self._refuse("EntryNotFound", repository)
        size = file.stat().st_size
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit(repository))
        self.send_header("ETag", f'"{hashlib.sha256(f"{file}:{size}".encode()).hexdigest()}"')
        self.send_header("X-Linked-Size", str(size))
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if body:
            with file.open("rb") as stream:
                shutil.copyfileobj(stream, self.wfile, 1 << 20)

    def _refuse(self, code: str, repository: str | None = None) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        if repository is not None:
            # without the commit the client cannot remember that there is no such file
            self.send_header("X-Repo-Commit", commit(repository))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent: the client's errors tell what went wrong."""


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serves ``root`` on a free port of 127.0.0.1; gives the address for ``HF_ENDPOINT``."""
    handler = type("HandlerOfRoot", (Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
