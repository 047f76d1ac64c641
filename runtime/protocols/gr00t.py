"""GR00T's protocol: ZeroMQ, so that a robot with its PolicyClient asks a policy of ours, unchanged.

    client -> server   {"endpoint": str, "data"?: map, "api_token"?: str}    one msgpack frame of a REQ socket
    server -> client   what the endpoint answers, or {"error": str}

    ping                 {"status": "ok", "message": ..}
    get_action           see gr00t_format
    reset                {}; the noise starts anew, from options["seed"] where that is an integer
    get_modality_config  what the mapping wants
    kill                 refused

Source: gr00t/policy/server_client.py of Isaac-GR00T. What differs: the loopback address by default, no
`kill`, errors in one line. The socket is a ROUTER, which answers REQ clients in any order, so one that dies
or dawdles keeps nobody waiting.

One thread owns the socket; the desk's worker runs the policy. A connection is a session: its noise is fixed
by its seed and the number of its answers, and B observations of one request are so many calls.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zmq

from runtime.bind import LISTENING
from runtime.desk import Desk
from runtime.fields import WireError
from runtime.protocols import codec, front, gr00t_format
from runtime.protocols.gr00t_format import Asked
from runtime.protocols.keymap import KeyMap
from vla.contract import ActionChunk, Request, TaktError

_SESSIONS = 256  # remembered; the one that asked last longest ago is forgotten
_DRAIN = 16  # messages taken before answers are sent, so that a flood cannot stop them
_LINGER = 200  # ms the last answers have to leave
# A REQ client has one message under way. ZeroMQ learns only now and then, and not while messages are drained,
# that a client took its answers: with room for no more than _DRAIN of them it dropped one in 50 000.
_QUEUE = {zmq.RCVHWM: 2, zmq.SNDHWM: 4 * _DRAIN}
OPTIONS = {**LISTENING, **_QUEUE, zmq.MAXMSGSIZE: codec.MAX_BYTES, zmq.IPV6: 1}


@dataclass
class _Session:
    """Whose noise it is: `reset(seed)` and `call` inferences."""

    seed: int
    call: int = 0


@dataclass
class _Pending:
    """A request whose chunks are being made; envelope leads back to its client."""

    envelope: list[bytes]
    asked: Asked
    chunks: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.chunks = [None] * len(self.asked.observations)


class Front:
    """A bound ROUTER over a desk; a context manager.

    Attributes:
        address: where it listens, tcp://HOST:PORT.
        answered, refused: requests for actions that were answered, and messages that were refused.
    """

    def __init__(
        self, desk: Desk, bind: str, mapping: KeyMap, token: str | None = None, trust_network: bool = False
    ) -> None:
        """
        Args:
            bind: tcp://HOST:PORT; `*` for the port takes a free one.
            token: asked for as "api_token"; None to ask nobody.
            trust_network: listen to other machines without a token.

        Raises:
            TaktError: the address is malformed, taken or open to others.
        """
        host, port = front.endpoint(bind, "tcp", guarded=trust_network or token is not None)
        self._desk, self._mapping, self._token = desk, mapping, token
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._pending: dict[bytes, _Pending] = {}
        self._done: queue.SimpleQueue[tuple[bytes, _Pending, int, ActionChunk | TaktError]]
        self._done = queue.SimpleQueue()
        self._endpoints = {
            "ping": self._ping,
            "get_action": self._get_action,
            "reset": self._reset,
            "get_modality_config": self._get_modality_config,
            "kill": self._kill,
        }
        self.answered = self.refused = 0
        self._context = zmq.Context()
        self._socket = _bound(self._context, bind, front.written(host, port, "tcp").replace(":0", ":*"))
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.address = endpoint.replace("[::ffff:127.0.0.1]", "127.0.0.1")
        self._stopping = False
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="gr00t", daemon=True)
        self._thread.start()

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping = True
        self._rouse()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    # ---- the thread that owns the socket ----

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        try:
            while not self._stopping:
                ready = {thing for thing, _ in poller.poll()}
                if self._woken.fileno() in ready:
                    with suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._deliver()
                if self._socket in ready:
                    self._take()
            for waiting in self._pending.values():
                self._send(waiting.envelope, {"error": "the server stops"})
        finally:
            self._context.destroy(linger=_LINGER)
            self._woken.close()
            self._wake.close()

    def _take(self) -> None:
        for _ in range(_DRAIN):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # A REQ socket puts an empty frame before its message; what precedes it goes back as it came.
            start = frames.index(b"") + 1 if b"" in frames else 0
            envelope = [peer, *frames[:start]]
            try:
                reply = self._receive(peer, envelope, frames[start:])
            except Exception as error:
                self.refused += 1
                reply = {"error": front.said(error)}
            if reply is not None:
                self._send(envelope, reply)

    def _receive(self, peer: bytes, envelope: list[bytes], frames: list[bytes]) -> Any:
        """The answer to a message; None where it comes later."""
        if len(frames) != 1:
            raise WireError(f"a message of {len(frames)} frames; this protocol sends one")
        request = codec.unpack(frames[0], codec.gr00t_array)
        if not isinstance(request, dict):
            raise WireError(f"a {type(request).__name__} instead of a map")
        if not front.allowed(self._token, request.get("api_token")):
            raise TaktError("Unauthorized: Invalid API token")
        name = request.get("endpoint", "get_action")
        if not isinstance(name, str) or name not in self._endpoints:
            raise WireError(f"unknown endpoint; known are {sorted(self._endpoints)}")
        return self._endpoints[name](envelope, request.get("data"))

    def _ping(self, envelope: list[bytes], data: Any) -> Any:
        return {"status": "ok", "message": "Server is running"}

    def _kill(self, envelope: list[bytes], data: Any) -> Any:
        raise TaktError("kill is refused: stop this server where it was started")

    def _get_modality_config(self, envelope: list[bytes], data: Any) -> Any:
        return gr00t_format.modality_config(self._mapping, self._desk.spec)

    def _reset(self, envelope: list[bytes], data: Any) -> Any:
        options = data.get("options") if isinstance(data, dict) else None
        seed = options.get("seed") if isinstance(options, dict) else None
        session = self._session(envelope[0])
        session.seed = seed if type(seed) is int and 0 <= seed < 1 << 63 else self._mapping.seed
        session.call = 0
        return {}

    def _get_action(self, envelope: list[bytes], data: Any) -> Any:
        asked = gr00t_format.read(data, self._mapping, time.monotonic())
        waiting = _Pending(envelope, asked)
        peer, session = envelope[0], self._session(envelope[0])
        for row, seen in enumerate(asked.observations):
            request = Request(seen, None, self._mapping.deadline, session.seed, session.call + row)
            if not self._desk.submit(
                ("gr00t", id(self), peer, row), request, self._later(peer, waiting, row)
            ):
                raise TaktError("too many robots wait for this policy: ask again later")
        session.call += len(asked.observations)
        # Of a client that asked again without waiting, the newest counts, as in the desk.
        self._pending[peer] = waiting

    def _session(self, peer: bytes) -> _Session:
        session = self._sessions.setdefault(peer, _Session(self._mapping.seed))
        self._sessions.move_to_end(peer)
        if len(self._sessions) > _SESSIONS:
            del self._sessions[next(old for old in self._sessions if old not in self._pending)]
        return session

    # ---- answers ----

    def _later(self, peer: bytes, waiting: _Pending, row: int) -> Any:
        """What the desk calls from its own thread."""

        def done(result: ActionChunk | TaktError) -> None:
            self._done.put((peer, waiting, row, result))
            self._rouse()

        return done

    def _rouse(self) -> None:
        with suppress(OSError):  # full: it is awake; closed: nobody waits
            self._wake.send(b"\0")

    def _deliver(self) -> None:
        while True:
            try:
                peer, waiting, row, result = self._done.get_nowait()
            except queue.Empty:
                return
            if self._pending.get(peer) is not waiting:
                continue
            waiting.chunks[row] = result
            if isinstance(result, TaktError):
                reply = {"error": front.said(result)}
                self.refused += 1
            elif all(chunk is not None for chunk in waiting.chunks):
                rows = [chunk.actions for chunk in waiting.chunks]
                reply = gr00t_format.answer(waiting.asked, self._mapping, rows)
                self.answered += 1
            else:
                continue
            del self._pending[peer]
            self._send(waiting.envelope, reply)

    def _send(self, envelope: list[bytes], reply: Any) -> None:
        # A ROUTER drops what a gone or slow peer cannot take, so this never waits.
        with suppress(zmq.ZMQError):
            self._socket.send_multipart([*envelope, codec.gr00t_pack(reply)], zmq.NOBLOCK)


def _bound(context: zmq.Context[zmq.Socket[bytes]], bind: str, where: str) -> zmq.Socket[bytes]:
    sock = context.socket(zmq.ROUTER)
    for option, value in OPTIONS.items():
        sock.setsockopt(option, value)
    try:
        sock.bind(where)
    except zmq.ZMQError as error:
        context.destroy(linger=0)
        if error.errno == zmq.EADDRINUSE:
            raise TaktError(f"{bind} is in use: stop the other server or choose another address") from None
        raise TaktError(f"cannot bind {bind}: {error.strerror}") from None
    return sock
