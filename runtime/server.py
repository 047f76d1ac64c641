"""The native front end: robots reach a desk over ZeroMQ.

    network thread    every message is checked (`wire`, `sessions`) and answered at once, or put to the desk;
                      it also answers while the policy thinks
    desk's worker     runs the policy and leaves its answers here, which wakes the network thread

What a peer sends that is wrong is answered in one line, counted, and logged once a second at most.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections import Counter, deque
from dataclasses import dataclass, replace
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from runtime import wire
from runtime.bind import LISTENING, check_bind, readable, refuse_live
from runtime.desk import Desk, Late
from runtime.gate import Gate
from runtime.sessions import Refused, Session, Sessions
from vla.contract import ActionChunk, Policy, Request, TaktError

_DRAIN = 64  # messages taken before answers are sent, so that a flood cannot stop them
_TURN = 1000  # ms between looks at whether it is over
_GRACE = 2.0  # s that closing waits for the network thread
OPTIONS = {
    **LISTENING, zmq.LINGER: 0, zmq.MAXMSGSIZE: wire.MAX_BYTES, zmq.RCVHWM: 4, zmq.SNDHWM: 32, zmq.IPV6: 1,
    zmq.ROUTER_MANDATORY: 1,
}  # fmt: skip
_HANDSHAKES = zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL


@dataclass(frozen=True)
class _Answer:
    """What the desk gave for request `seq` of a session."""

    session: int
    seq: int
    content: ActionChunk | TaktError


class Server:
    """A bound socket in front of a desk; a context manager that serves from a thread of its own.

    Attributes:
        address: where it listens.
        refused: what was refused, by code of `wire`; "key" counts connections without a key that is known.
    """

    def __init__(
        self, desk: Desk | Policy, bind: str, keys: Path | None = None, trust_network: bool = False
    ) -> None:
        """
        Args:
            desk: what answers; for a policy a desk is opened, and closed at the end.
            keys: folder of `takt keys`; only clients whose keys are in it are let in.
            trust_network: whoever reaches an address that is open to other machines may speak.

        Raises:
            TaktError: the address is malformed, taken, or open to others; keys are missing or damaged.
        """
        check_bind(bind, trusted=trust_network or keys is not None)
        self.refused: Counter[str] = Counter()
        self._context = zmq.Context()
        try:
            self._gate = None if keys is None else Gate(self._context, keys)
            self._socket = self._bound(bind)
            self._own, self._desk = _desk(desk)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        # With IPv6 allowed, ZeroMQ names the IPv4 loopback in its long form.
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.address = endpoint.replace("[::ffff:127.0.0.1]", "127.0.0.1")
        self._sessions = Sessions(closed=self._closed)
        self._answers: deque[_Answer] = deque()
        self._said: dict[str, float] = {}  # code -> when it was logged last, s
        self._over = False
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="takt-server", daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._over = True
        self._rouse()
        if self._thread.ident is not None:
            self._thread.join(_GRACE)
        if self._own is not None:
            self._own.close()
        self._context.destroy(linger=0)
        self._wake.close()
        self._woken.close()

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    # ---- the network thread ----

    def _serve(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._monitor, self._woken):
            poller.register(source, zmq.POLLIN)
        if self._gate is not None:
            poller.register(self._gate.socket, zmq.POLLIN)
        while not self._over:
            poller.poll(_TURN)
            self._forget_calls()
            self._admit()
            self._answer()
            self._take()

    def _rouse(self) -> None:
        """Wake the network thread, from any other."""
        try:
            self._wake.send(b".")
        except OSError:  # it is full of calls already, or closed
            return

    def _forget_calls(self) -> None:
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return

    def _admit(self) -> None:
        """Decide who may connect, and note who failed to."""
        for line in [] if self._gate is None else self._gate.turn():
            self._note("key", line)
        while readable(self._monitor):
            recv_monitor_message(self._monitor)
            self._note("key", "a client does not speak as this server does: with its keys, or without any")

    def _answer(self) -> None:
        """Send what the desk left."""
        while self._answers:
            answer = self._answers.popleft()
            session = self._sessions.get(answer.session)
            if session is None:  # it ended meanwhile
                continue
            if isinstance(answer.content, TaktError):
                code = "late" if isinstance(answer.content, Late) else "failed"
                self._send(session.peer, wire.Error(code, str(answer.content), answer.session, answer.seq))
            else:
                self._give(session, answer.seq, answer.content)

    def _give(self, session: Session, seq: int, chunk: ActionChunk) -> None:
        left = self._desk.clock()
        plain = replace(chunk, done=None)  # an older peer would refuse a field that it does not know
        self._send(session.peer, wire.Chunk(session.id, seq, chunk if session.done else plain, left))
        for observer in self._sessions.observers(session.robot):
            self._send(observer.peer, wire.Chunk(observer.id, observer.copies, plain, left))
            observer.copies += 1

    def _take(self) -> None:
        for _ in range(_DRAIN):
            if not readable(self._socket):
                return
            sender, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)  # views, not copies
            peer = sender.bytes
            try:
                if len(frames) != 1:
                    raise wire.WireError(f"a message of {len(frames)} frames; this protocol sends one")
                self._receive(peer, wire.decode(frames[0].buffer))
            except TaktError as error:
                self._refuse(peer, "refused", error)
            except Exception as error:  # whatever a peer sent, the others are served
                self._refuse(peer, "refused", TaktError(f"{type(error).__name__} in the server"))

    def _receive(self, peer: bytes, message: wire.Message) -> None:
        now = self._desk.clock()
        session, seq = getattr(message, "session", 0), getattr(message, "seq", 0)
        try:
            if isinstance(message, wire.Hello):
                self._send(peer, self._welcome(peer, message, now))
            elif isinstance(message, wire.Infer):
                self._infer(self._sessions.of(peer, session, now), message)
            elif isinstance(message, wire.Ping):
                self._sessions.of(peer, session, now)
                self._send(peer, wire.Pong(session, message.sent, now))
            elif isinstance(message, wire.Bye):
                self._sessions.close(self._sessions.of(peer, session, now))
            else:
                raise Refused("refused", "servers take hello, infer, ping and bye only")
        except Refused as error:
            self._refuse(peer, error.code, error, session, seq)

    def _welcome(self, peer: bytes, hello: wire.Hello, now: float) -> wire.Welcome:
        if hello.spec not in (None, self._desk.digest):
            raise Refused("spec", f"the policy served is {self._desk.spec.name!r}, and not the one expected")
        session = self._sessions.open(peer, hello, now, self._gone)
        return wire.Welcome(self._desk.spec, session.id, self._sessions.commands(session), done=True)

    def _infer(self, session: Session, ask: wire.Infer) -> None:
        self._sessions.check_infer(session, ask.seq)
        session.done = ask.done
        if ask.spec != self._desk.digest:
            raise Refused("spec", "the server has another policy than at the start: connect anew")
        request = Request(ask.observation, ask.prefix, ask.deadline, ask.seed, ask.call)

        def done(content: ActionChunk | TaktError) -> None:
            self._answers.append(_Answer(session.id, ask.seq, content))
            self._rouse()

        if not self._desk.submit((self, session.id), request, done):
            raise Refused("busy", "as many requests wait as there is room for: ask again later")

    def _closed(self, session: Session) -> None:
        self._desk.withdraw((self, session.id))

    # ---- the socket ----

    def _refuse(self, peer: bytes, code: str, error: TaktError, session: int = 0, seq: int = 0) -> None:
        self._note(code, str(error))
        self._send(peer, wire.Error(code, str(error), session, seq))

    def _note(self, code: str, line: str) -> None:
        """Count a refusal, and say so once a second at most."""
        self.refused[code] += 1
        now = self._desk.clock()
        if now - self._said.get(code, -float("inf")) >= 1.0:
            self._said[code] = now
            print(f"takt: refused ({code}, {self.refused[code]} so far): {line}", file=sys.stderr, flush=True)

    def _send(self, peer: bytes, message: wire.Message) -> bool:
        """Hand a message over, unless the peer does not read what it is sent. False when it has gone."""
        try:
            self._socket.send_multipart([peer, wire.encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def _gone(self, peer: bytes) -> bool:
        """Whether a connection has ended; the pong that finds out answers nothing, and is left out there."""
        return not self._send(peer, wire.Pong(0, 0.0, self._desk.clock()))

    def _bound(self, bind: str) -> zmq.Socket[bytes]:
        sock = self._context.socket(zmq.ROUTER)
        for option, value in OPTIONS.items():
            sock.setsockopt(option, value)
        if self._gate is not None:
            self._gate.guard(sock)
        self._monitor = sock.get_monitor_socket(int(_HANDSHAKES))
        refuse_live(bind)
        try:
            sock.bind(bind)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise TaktError(f"{bind} is in use: stop the other server or choose another --bind") from None
            raise TaktError(f"cannot bind {bind}: {error.strerror}") from None
        return sock


def _desk(desk: Desk | Policy) -> tuple[Desk | None, Desk]:
    """The desk that is ours to close, if any, and the one that answers."""
    if isinstance(desk, Desk):
        return None, desk
    own = Desk(desk)
    return own, own
