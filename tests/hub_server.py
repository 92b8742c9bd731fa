"""A hub on this machine: what the clients huggingface_hub and datasets ask for, served from a folder.

``root/<owner>/<name>/<file>`` is the file of the model ``owner/name`` on its only branch, ``main``, and
``root/datasets/<owner>/<name>/<file>`` that of a data set.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


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

    def do_POST(self) -> None:
        """Only of the paths that a data set's reader wants to know about."""
        asked = re.fullmatch(r"/api/(datasets/[\w.-]+/[\w.-]+)/paths-info/([\w.-]+)", self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        wanted = json.loads(content) if content.startswith("{") else parse_qs(content)
        if asked is None or not (self.root / asked[1]).is_dir():
            return self._refuse("RepoNotFound")
        folder = self.root / asked[1]
        self._tell([_entry(folder, folder / p) for p in wanted["paths"] if (folder / p).exists()])

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/"):
            return self._about(path)
        asked = re.fullmatch(r"/((?:datasets/)?[\w.-]+/[\w.-]+)/resolve/([\w.-]+)/([\w./-]+)", path)
        if asked is None or not (self.root / asked[1]).is_dir():
            return self._refuse("RepoNotFound")
        repository, revision, name = asked.groups()
        if revision not in ("main", commit(repository)):
            return self._refuse("RevisionNotFound")
        file = self.root / repository / name
        if not file.is_file():
            return self._refuse("EntryNotFound", repository)
        size = file.stat().st_size
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(part[1]), int(part[2] or size - 1)) if part else (0, size - 1)
        last = min(last, size - 1)
        self.send_response(206 if part else 200)
        self.send_header("X-Repo-Commit", commit(repository))
        self.send_header("ETag", f'"{hashlib.sha256(f"{file}:{size}".encode()).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_header("X-Linked-Size", str(size))
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if body:
            with file.open("rb") as stream:
                if part:
                    stream.seek(first)
                    self.wfile.write(stream.read(last - first + 1))
                else:
                    shutil.copyfileobj(stream, self.wfile, 1 << 20)

    def _about(self, path: str) -> None:
        """What a data set is, and what lies in it."""
        asked = re.fullmatch(r"/api/(datasets/[\w.-]+/[\w.-]+)(?:/revision/([\w.-]+))?", path)
        listed = re.fullmatch(r"/api/(datasets/[\w.-]+/[\w.-]+)/tree/([\w.-]+)/?([\w./-]*)", path)
        found = asked or listed
        if found is None or not (self.root / found[1]).is_dir():
            return self._refuse("RepoNotFound")
        folder = self.root / found[1]
        if listed is not None:
            inner = folder / listed[3]
            if not inner.is_dir():
                return self._refuse("EntryNotFound", found[1])
            recursive = "recursive" in self.path and "recursive=false" not in self.path.lower()
            paths = sorted(inner.rglob("*") if recursive else inner.iterdir())
            return self._tell([_entry(folder, p) for p in paths])
        files = [{"rfilename": str(p.relative_to(folder))} for p in sorted(folder.rglob("*")) if p.is_file()]
        name = found[1].removeprefix("datasets/")
        self._tell({"id": name, "sha": commit(found[1]), "private": False, "siblings": files, "tags": []})

    def _tell(self, content: Any) -> None:
        told = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

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


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    """A file or folder of a repository, as the hub lists it."""
    name = str(path.relative_to(folder))
    oid = hashlib.sha1(name.encode()).hexdigest()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": oid}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": oid}


@contextmanager
def serve(root: Path, kind: type[Handler] = Handler, port: int = 0) -> Iterator[str]:
    """Serves ``root`` on a port of 127.0.0.1, a free one if 0; gives the address for ``HF_ENDPOINT``."""
    handler = type("HandlerOfRoot", (kind,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
