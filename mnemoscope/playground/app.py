"""The playground's server: one page, its script and style, and one question that it asks, answered line by line.

Bound to the loopback unless told otherwise.  Nothing is stored; a text is held while it is read.  The page may load
what this server gives and nothing else (its Content-Security-Policy says so), and texts reach it as JSON only.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnemoscope.errors import MnemoscopeError, RunError
from mnemoscope.playground.play import Asked, Piece, about, play
from mnemoscope.playground.session import CHARACTERS, Session

#: largest question in bytes: two texts, each character spelt as two escapes of six
BYTES = 2 * CHARACTERS * 12 + 1000
#: questions that wait for their turn, at most; the model answers one at a time
WAITING = 8
STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Question(BaseModel):
    """The JSON that the page sends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    changed: str | None = None
    decoder: str = Field(max_length=100)
    condition: str = Field(max_length=100)
    length: int
    position: int | None = None


class _Headers:
    """Adds ``HEADERS`` to every response."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)


def create(session: Session, names: list[str]) -> Starlette:
    """The application.

    Args:
        names: hosts that a request may name, so that no other site's name leads here; ``*`` for any.
    """
    choices = about(session)
    turn = anyio.Semaphore(1)
    waiting = 0

    async def page(_: Request) -> Response:
        return Response((STATIC / "page.html").read_bytes(), media_type="text/html")

    async def choose(_: Request) -> Response:
        return JSONResponse(choices)

    async def read(request: Request) -> Response:
        nonlocal waiting
        # a form of another site cannot send this type without asking first
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused(415, "the question is not JSON", "Send application/json")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BYTES:
                return _refused(413, "the text is too long", f"Take at most {CHARACTERS:,} characters")
        try:
            asked = Asked(**_Question.model_validate_json(body).model_dump())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return _refused(422, f"the question is not understood: {where} {first['msg']}".strip(), "Reload the page")
        if waiting >= WAITING:
            return _refused(503, "too many are asking at once", "Wait a moment, and move the slider again")
        waiting += 1
        try:
            await turn.acquire()
        finally:
            waiting -= 1
        answer = play(session, asked)
        try:
            if await request.is_disconnected():  # the slider has moved on
                turn.release()
                return Response(status_code=204)
            # what is wrong with a question is found before its first piece
            first_piece: Piece = await run_in_threadpool(next, answer)
        except MnemoscopeError as error:
            turn.release()
            return _refused(400, error.problem, error.remedy)
        except BaseException:
            turn.release()
            raise
        return _Lines(_lines(first_piece, answer), turn.release)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/about", choose),
            Route("/read", read, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)],
    )
    return app


class _Lines(StreamingResponse):
    """A response that gives up its turn when it ends, and when its reader leaves."""

    def __init__(self, lines: AsyncIterator[bytes], end: Callable[[], Any]):
        super().__init__(lines, media_type="application/x-ndjson")
        self.end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.end()


async def _lines(first: Piece, rest: Any) -> AsyncIterator[bytes]:
    yield _line(first)
    try:
        async for piece in iterate_in_threadpool(rest):
            yield _line(piece)
    except MnemoscopeError as error:
        yield _line({"kind": "refused", "problem": error.problem, "remedy": error.remedy})


def _line(piece: Piece) -> bytes:
    return json.dumps(piece, allow_nan=False).encode() + b"\n"


def _refused(status: int, problem: str, remedy: str) -> JSONResponse:
    return JSONResponse({"problem": problem, "remedy": remedy}, status_code=status)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; ``port``: 0 for any that is free.

    Raises:
        RunError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise RunError(
            f"{host}, port {port} cannot be had ({error})", remedy="Give another --port; 0 takes one that is free"
        ) from None


def serve(session: Session, host: str, listening: socket.socket, ready: Callable[[str], None]) -> None:
    """Serves until it is interrupted.

    Args:
        host: as it was asked for.
        ready: called with the page's address once it can be opened.
    """
    # the first reading compiles kernels, which the first visitor need not wait for
    text = next(iter(session.examples.values())).text
    name = next(iter(session.decoders))
    for _ in play(session, Asked(text, None, name, session.conditions(name)[0], session.lengths(name)[0], None)):
        pass
    shown = f"[{host}]" if ":" in host else host
    names = ["127.0.0.1", "localhost", "[::1]", shown] if is_loopback(host) else ["*"]
    settings = uvicorn.Config(
        create(session, names),
        log_config=None,
        log_level="warning",
        access_log=False,
        limit_concurrency=64,
        server_header=False,
    )
    ready(f"http://{shown}:{listening.getsockname()[1]}/")
    with suppress(KeyboardInterrupt):  # the way to end it
        uvicorn.Server(settings).run(sockets=[listening])
