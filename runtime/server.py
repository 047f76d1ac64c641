"""`takt serve`: a policy answers robots over ZeroMQ.

One thread: take every message that waits, answer the newest request of each peer in turn. What a peer
sends is checked by `wire`; what is wrong with it is answered in one line, and serving goes on.
"""

from __future__ import annotations

import ipaddress
import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

import tyro
import zmq

from runtime import bundle, wire
from runtime.engine import OnnxPolicy
from runtime.spawn import follow
from vla.contract import ActionChunk, Policy, TaktError

_DRAIN = 64  # messages taken before a request is answered, so that a flood cannot stop the answers
_PEERS = 64  # peers that may wait at once


class Resumable(Policy, Protocol):
    """A policy whose noise is fixed by (seed, call), so that several sessions can take turns."""

    def reset(self, seed: int, calls: int = 0) -> None: ...


@dataclass(frozen=True)
class Waiting:
    """A request and its arrival, monotonic s."""

    request: wire.Infer
    arrival: float


class Server:
    """A bound socket and the requests that wait, the newest of each peer.

    Attributes:
        answered, refused: requests answered, messages refused.
    """

    def __init__(self, policy: Resumable, bind: str) -> None:
        check_bind(bind)
        self._policy = policy
        self._digest = wire.digest(policy.spec)
        self._waiting: dict[bytes, Waiting] = {}
        self.answered = self.refused = 0
        self._context = zmq.Context()
        self._socket = _bound(self._context, bind)
        # With IPv6 allowed, ZeroMQ names the IPv4 loopback in its long form.
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.address = endpoint.replace("[::ffff:127.0.0.1]", "127.0.0.1")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.destroy(linger=0)

    def turn(self, timeout: float) -> None:
        """Wait up to `timeout` s for messages, take them, answer one request."""
        if self._socket.poll(0 if self._waiting else int(timeout * 1000)):
            self._take()
        if self._waiting:
            # The peer that has waited longest; a newer request of a peer keeps its place in the queue.
            peer = next(iter(self._waiting))
            self._send(peer, self._answer(self._waiting.pop(peer)))

    def _take(self) -> None:
        for _ in range(_DRAIN):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._receive(peer, frames)
            except TaktError as error:
                self.refused += 1
                self._send(peer, wire.Error(str(error)))

    def _receive(self, peer: bytes, frames: list[bytes]) -> None:
        if len(frames) != 1:
            raise wire.WireError(f"a message of {len(frames)} frames; this protocol sends one")
        message = wire.decode(frames[0])
        if isinstance(message, wire.Hello):
            self._send(peer, self._welcome(message))
        elif not isinstance(message, wire.Infer):
            raise wire.WireError("servers take hello and infer only")
        elif peer in self._waiting or len(self._waiting) < _PEERS:
            # A full house gives no answer: the planner of a peer left out asks again by itself.
            self._waiting[peer] = Waiting(message, time.monotonic())

    def _welcome(self, hello: wire.Hello) -> wire.Message:
        if hello.version != wire.VERSION:
            raise wire.WireError(
                f"client speaks version {hello.version}, server {wire.VERSION}: upgrade the older"
            )
        return wire.Welcome(self._policy.spec)

    def _answer(self, waiting: Waiting) -> wire.Message:
        ask = waiting.request
        try:
            chunk = self._infer(waiting)
        except TaktError as error:
            return wire.Error(str(error), ask.session, ask.seq)
        except Exception as error:
            # An engine may raise anything; the peer learns that it failed, the operator why.
            print(f"takt: inference failed: {type(error).__name__}: {error}", file=sys.stderr)
            return wire.Error("inference failed, see the server's log", ask.session, ask.seq)
        self.answered += 1
        return wire.Chunk(ask.session, ask.seq, chunk)

    def _infer(self, waiting: Waiting) -> ActionChunk:
        ask = waiting.request
        if ask.spec != self._digest:
            raise TaktError("the server has another policy than at the start: connect anew")
        queue = time.monotonic() - waiting.arrival
        self._policy.reset(ask.seed, ask.seq)
        chunk = self._policy.infer(ask.observation, ask.prefix, ask.deadline)
        return replace(chunk, stages={"queue": queue, **chunk.stages})

    def _send(self, peer: bytes, message: wire.Message) -> None:
        # A ROUTER drops what a gone or slow peer cannot take, so this never waits and never fails.
        self._socket.send_multipart([peer, wire.encode(message)], zmq.NOBLOCK)


def serve(policy: Resumable, bind: str, ready: Callable[[str], None] | None = None) -> NoReturn:
    """Answer until interrupted. `ready` is called once with the address, when the socket is bound.

    Raises:
        TaktError: the address is malformed, taken, or open to other machines.
    """
    with Server(policy, bind) as server:
        if ready is not None:
            ready(server.address)
        while True:
            server.turn(timeout=1.0)


def check_bind(bind: str) -> None:
    """Refuse addresses that other machines could reach: nothing here asks who is speaking."""
    scheme, _, rest = bind.partition("://")
    if scheme == "ipc" and rest:
        return
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not (port == "*" or (port.isdecimal() and int(port) < 65536)):
        raise TaktError(f"cannot bind {bind!r}: give tcp://127.0.0.1:PORT or ipc://PATH")
    if not _loopback(host):
        raise TaktError(
            f"refusing to bind {bind}: other machines could reach it; use tcp://127.0.0.1:PORT and a tunnel"
        )


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, or a network interface's
        return False


def _bound(context: zmq.Context[zmq.Socket[bytes]], bind: str) -> zmq.Socket[bytes]:
    sock = context.socket(zmq.ROUTER)
    options = {zmq.LINGER: 0, zmq.MAXMSGSIZE: wire.MAX_BYTES, zmq.RCVHWM: 8, zmq.SNDHWM: 8, zmq.IPV6: 1}
    options |= {zmq.HEARTBEAT_IVL: wire.HEARTBEAT, zmq.HEARTBEAT_TIMEOUT: wire.HEARTBEAT_TIMEOUT}
    for option, value in options.items():
        sock.setsockopt(option, value)
    try:
        _refuse_live(bind)
        sock.bind(bind)
    except (zmq.ZMQError, TaktError) as error:
        context.destroy(linger=0)
        if isinstance(error, TaktError):
            raise
        if error.errno == zmq.EADDRINUSE:
            raise TaktError(f"{bind} is in use: stop the other server or choose another --bind") from None
        raise TaktError(f"cannot bind {bind}: {error.strerror}") from None
    return sock


def _refuse_live(bind: str) -> None:
    """ZeroMQ takes over an ipc path from a server that still lives; we do not."""
    if not bind.startswith("ipc://") or bind.startswith(("ipc://@", "ipc://*")):
        return
    path = Path(bind.removeprefix("ipc://"))
    if path.exists() and not path.is_socket():
        raise TaktError(f"{path} is there and is no socket: choose another --bind")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise TaktError(f"{bind} is in use: stop the other server or choose another --bind")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@dataclass
class Command:
    """Answer robots over the network with a policy."""

    bundle: tyro.conf.Positional[Path]
    """The bundle, a folder with policy.json."""
    bind: str = "tcp://127.0.0.1:5555"
    """Where to listen: tcp://127.0.0.1:PORT or ipc://PATH."""
    threads: int = 1
    """Threads of the engine."""
    json: Path | None = None
    """Where to write the address and the spec once it listens."""
    parent: int | None = None
    """Number of the process that started this one, to end with it even when it is killed."""

    def run(self) -> int:
        if self.parent is not None:
            follow(self.parent)
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell had it ignored
        try:
            check_bind(self.bind)
            serve(OnnxPolicy(bundle.load(self.bundle), self.threads), self.bind, self._ready)
        except KeyboardInterrupt:
            return 0

    def _ready(self, address: str) -> None:
        print(f"serving {self.bundle} at {address}", flush=True)
        if self.json is not None:
            spec = bundle.load(self.bundle).spec.to_json()
            self.json.write_text(json.dumps({"address": address, "spec": spec}, indent=2) + "\n")
