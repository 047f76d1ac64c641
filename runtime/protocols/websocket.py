"""What the front ends over WebSocket share: one thread with an event loop, who is let in, how errors go out.

One thread runs the event loop; the desk's worker runs the policy. A connection is a session. A message has
at most 64 MiB, and a browser's request is refused (any page could otherwise reach a server on the loopback
address).
"""

from __future__ import annotations

import asyncio
import errno
import http
import itertools
import logging
import socket
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from runtime.desk import Desk
from runtime.protocols import codec, front
from runtime.protocols.keymap import KeyMap
from vla.contract import ActionChunk, Request, TaktError

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.datastructures import Headers
    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response

CONNECTIONS = 32  # robots at once
_FAILED = 1011  # WebSocket's code for a server's error
_FULL = 1013  # and for one that is to be tried later
_OPENING = 5.0  # s a connection may take to open
_CLOSING = 1.0  # s it may take to close


class Front:
    """A bound WebSocket over a desk; a context manager. A protocol is a subclass with `_talk` and `_given`.

    Attributes:
        address: where it listens, ws://HOST:PORT.
        answered, refused: requests by how they ended.
    """

    name: ClassVar[str]
    health: ClassVar[tuple[str, str]]  # the path at which a plain GET is answered, and with what
    connections: ClassVar[int] = CONNECTIONS
    needs: ClassVar[tuple[str, ...]] = ("websockets",)
    pings: ClassVar[float | None] = 20.0  # s between pings; None for clients that cannot answer

    def __init__(
        self,
        desk: Desk,
        bind: str,
        mapping: KeyMap,
        token: str | None = None,
        trust_network: bool = False,
        connections: int | None = None,
    ) -> None:
        """
        Args:
            bind: ws://HOST:PORT; `*` for the port takes a free one.
            token: asked of every client; None to ask nobody.
            trust_network: listen to other machines without a token.
            connections: at once, at most.

        Raises:
            TaktError: websockets is not installed, or the address is malformed, taken or open to others.
        """
        for package in self.needs:
            if find_spec(package) is None:
                raise TaktError(f"{package} is not installed: pip install 'takt-vla[protocols]'")
        from websockets.asyncio.server import serve

        host, port = front.endpoint(bind, "ws", guarded=trust_network or token is not None)
        self._serve = serve
        self._desk, self._mapping, self._token = desk, mapping, token
        self._most = self.connections if connections is None else connections
        self._sessions = itertools.count()
        self._open = 0
        self._waiting: set[asyncio.Future[ActionChunk]] = set()
        self.answered = self.refused = 0
        self._socket = _bound(bind, host, port)
        where = self._socket.getsockname()
        self.address = front.written(where[0], where[1], "ws")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    # ---- the event loop ----

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()
            self._socket.close()

    async def _main(self) -> None:
        # The library writes a traceback for every client that fails to open; a stranger could fill the log.
        quiet = logging.getLogger(f"takt.{self.name}")
        quiet.disabled = True
        server: Server
        async with self._serve(
            self._session,
            sock=self._socket,
            process_request=self._admit,
            compression=None,
            max_size=codec.MAX_BYTES,
            max_queue=1,
            origins=[None],
            open_timeout=_OPENING,
            ping_interval=self.pings,
            close_timeout=_CLOSING,
            server_header=None,
            logger=quiet,
        ) as server:
            await self._stop.wait()
            for future in self._waiting:
                _settle(future, TaktError("the server stops"))
            server.close()

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """None lets a request open a session."""
        path, alive = self.health
        if request.path == path:
            return connection.respond(http.HTTPStatus.OK, alive)
        if not front.allowed(self._token, self._given(request.headers)):
            self.refused += 1
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "wrong or no API key\n")
        if self._open >= self._most:
            self.refused += 1
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many robots at once\n")
        return None

    async def _session(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        self._open += 1
        try:
            if self._open > self._most:  # several opened at once
                await connection.close(_FULL, "too many robots at once")
                return
            await self._talk(connection)
        except ConnectionClosed:
            pass
        except Exception as error:
            self.refused += 1
            with suppress(ConnectionClosed):
                await connection.send(front.said(error))
            await connection.close(_FAILED, "the error is in the frame before")
        finally:
            self._open -= 1

    # ---- a protocol's own ----

    def _given(self, headers: Headers) -> str | None:
        """The token that a request to open a session shows."""
        raise NotImplementedError

    async def _talk(self, connection: ServerConnection) -> None:
        """Answer until the client goes or does what it may not."""
        raise NotImplementedError

    async def _ask(self, peer: object, request: Request) -> ActionChunk:
        future: asyncio.Future[ActionChunk] = self._loop.create_future()

        def done(result: ActionChunk | TaktError) -> None:
            with suppress(RuntimeError):  # the loop is closed, nobody waits
                self._loop.call_soon_threadsafe(_settle, future, result)

        if self._stop.is_set():
            raise TaktError("the server stops")
        if not self._desk.submit(peer, request, done):
            raise TaktError("too many robots wait for this policy: ask again later")
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def _peer(self) -> object:
        """Whoever has just connected, to the desk."""
        return (self.name, id(self), next(self._sessions))


def _settle(future: asyncio.Future[ActionChunk], result: ActionChunk | TaktError) -> None:
    if future.done():
        return
    if isinstance(result, TaktError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _bound(bind: str, host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(found[4][:2], family=found[0])
    except socket.gaierror as error:
        raise TaktError(f"cannot bind {bind}: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise TaktError(f"{bind} is in use: stop the other server or choose another address") from None
        raise TaktError(f"cannot bind {bind}: {error.strerror}") from None
