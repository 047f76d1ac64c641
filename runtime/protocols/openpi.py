"""openpi's protocol: WebSocket, so that a robot with openpi-client asks a policy of ours, unchanged.

    client -> server   GET / with Upgrade           GET /healthz answers "OK\\n"
    server -> client   binary   a map that describes the policy, once
    client -> server   binary   an observation
    server -> client   binary   {"actions": (H, D), "server_timing": {..}, "policy_timing": {..}}
    server -> client   text     what was wrong, in one line; then it closes with 1011

Source: src/openpi/serving/websocket_policy_server.py and packages/openpi-client of openpi. What differs:
errors are no tracebacks, a message has at most 64 MiB, an API key is asked for where one is set, and a
browser's request is refused (any page could otherwise reach a server on the loopback address).

One thread runs the event loop; the desk's worker runs the policy. A connection is a session: its noise is
fixed by the mapping's seed and the number of its answers.
"""

from __future__ import annotations

import asyncio
import errno
import http
import itertools
import logging
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.desk import Desk
from runtime.fields import WireError
from runtime.protocols import codec, front
from runtime.protocols.keymap import KeyMap, Missing
from vla.contract import ActionChunk, Observation, Request, TaktError

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response

CONNECTIONS = 32  # robots at once
_FAILED = 1011  # WebSocket's code for a server's error
_FULL = 1013  # and for one that is to be tried later
_OPENING = 5.0  # s a connection may take to open
_CLOSING = 1.0  # s it may take to close


class Front:
    """A bound WebSocket over a desk; a context manager.

    Attributes:
        address: where it listens, ws://HOST:PORT.
        answered, refused: requests by how they ended.
    """

    def __init__(
        self,
        desk: Desk,
        bind: str,
        mapping: KeyMap,
        token: str | None = None,
        trust_network: bool = False,
        connections: int = CONNECTIONS,
    ) -> None:
        """
        Args:
            bind: ws://HOST:PORT; `*` for the port takes a free one.
            token: asked for as `Authorization: Api-Key TOKEN`; None to ask nobody.
            trust_network: listen to other machines without a token.

        Raises:
            TaktError: websockets is not installed, or the address is malformed, taken or open to others.
        """
        try:
            from websockets.asyncio.server import serve
        except ImportError:
            raise TaktError("websockets is not installed: pip install 'takt-vla[protocols]'") from None
        host, port = front.endpoint(bind, "ws", guarded=trust_network or token is not None)
        self._serve = serve
        self._desk, self._mapping, self._token, self._most = desk, mapping, token, connections
        self._sessions = itertools.count()
        self._open = 0
        self._waiting: set[asyncio.Future[ActionChunk]] = set()
        self.answered = self.refused = 0
        self._socket = _bound(bind, host, port)
        where = self._socket.getsockname()
        self.address = front.written(where[0], where[1], "ws")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="openpi", daemon=True)
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
        quiet = logging.getLogger("takt.openpi")
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
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if not front.allowed(self._token, key if scheme == "Api-Key" else None):
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

    async def _talk(self, connection: ServerConnection) -> None:
        """Answer until the client goes or does what it may not."""
        peer = ("openpi", id(self), next(self._sessions))
        await connection.send(codec.openpi_pack(self._metadata()))
        timing: dict[str, float] = {}
        for call in itertools.count():
            data = await connection.recv()
            start = time.monotonic()
            if isinstance(data, str):
                raise WireError("a text frame; observations are binary")
            seen = observation(codec.unpack(data, codec.openpi_array), self._mapping, start)
            request = Request(seen, deadline=self._mapping.deadline, seed=self._mapping.seed, call=call)
            chunk = await self._ask(peer, request)
            answer: dict[str, Any] = dict(self._mapping.answer(chunk.actions))
            answer["server_timing"] = {"infer_ms": 1e3 * (time.monotonic() - start)} | timing
            answer["policy_timing"] = _policy_timing(chunk)
            self.answered += 1
            await connection.send(codec.openpi_pack(answer))
            timing = {"prev_total_ms": 1e3 * (time.monotonic() - start)}

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

    def _metadata(self) -> dict[str, Any]:
        spec = self._desk.spec
        return {
            "policy": spec.name,
            "action_horizon": spec.chunk_length,
            "action_names": list(spec.actions.names),
            "dt": spec.dt,
        }


def observation(value: Any, mapping: KeyMap, now: float) -> Observation:
    """A request's observation; a key with slashes may lead through maps within maps.

    Raises:
        WireError: it is no map, or does not fit the mapping.
    """
    if not isinstance(value, dict):
        raise WireError(f"a {type(value).__name__} instead of an observation")

    def find(key: str) -> Any:
        found = value
        if key in value:
            return value[key]
        for step in key.split("/"):
            if not isinstance(found, dict) or step not in found:
                raise Missing(f"{key!r} is missing; the request has {front.names(value)}")
            found = found[step]
        return found

    return mapping.observation(now, find, lambda key: _row(find(key)), find)


def _row(value: Any) -> Any:
    """A gripper may come as a number, or an array of one without sides."""
    if type(value) in (int, float):
        return np.array([value], np.float64)
    return value.reshape(1) if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _policy_timing(chunk: ActionChunk) -> dict[str, float]:
    """ms of the stages, and of all but the wait as "infer_ms", which openpi's own policies give."""
    stages = {f"{name}_ms": 1e3 * seconds for name, seconds in chunk.stages.items()}
    return {"infer_ms": sum(ms for name, ms in stages.items() if name != "queue_ms"), **stages}


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
