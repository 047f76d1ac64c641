"""Who may ask: sessions, and the one command lease of each robot. Pure of injected time; no sockets.

hello (command)   -> a session; with it the lease, if nobody has it, or its holder is silent or gone
hello (observe)   -> a session that is sent copies of the holder's chunks
infer             -> the session is of that connection, holds the lease, and its seq rises
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from runtime import wire
from vla.contract import TaktError

_MOST = 256  # sessions at once


class Refused(TaktError):
    """Something a peer may not do; `code` is one of `wire.CODES`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Session:
    """One connection's right to speak.

    Attributes:
        id: the nonce that names it.
        peer: the connection it belongs to.
        heard: when it last sent anything that was understood, s.
        seq: the newest request; -1 before the first.
        copies: chunks that were sent to it as an observer.
        done: whether it asked to be told of the task being done.
    """

    id: int
    peer: bytes
    role: str
    robot: str
    heard: float
    seq: int = -1
    copies: int = 0
    done: bool = False


class Sessions:
    """The sessions of a server, and which of them holds the lease of which robot."""

    def __init__(
        self,
        lease: float = wire.LEASE,
        most: int = _MOST,
        closed: Callable[[Session], None] = lambda session: None,
    ) -> None:
        """
        Args:
            lease: s of silence after which a session may lose its lease and its place.
            most: sessions at once.
            closed: called with each session that ends.
        """
        self._lease = lease
        self._most = most
        self._closed = closed
        self._by_id: dict[int, Session] = {}
        self._by_peer: dict[bytes, Session] = {}
        self._holders: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, peer: bytes, hello: wire.Hello, now: float, gone: Callable[[bytes], bool]) -> Session:
        """A new session of a connection, instead of the one it may have had.

        Args:
            gone: whether a peer's connection has ended.

        Raises:
            Refused: another session commands that robot, or there is no room.
        """
        holder = self._holders.get(hello.robot) if hello.role == "command" else None
        if holder is not None and holder.peer != peer:
            if now - holder.heard <= self._lease and not gone(holder.peer):
                raise Refused("lease", f"another client commands {hello.robot!r}; observe it, or wait")
            self.close(holder)
        if peer in self._by_peer:
            self.close(self._by_peer[peer])
        if len(self._by_id) >= self._most:
            self._make_room(now)
        session = Session(1 + secrets.randbits(62), peer, hello.role, hello.robot, now)
        self._by_id[session.id] = self._by_peer[peer] = session
        if hello.role == "command":
            self._holders[hello.robot] = session
        return session

    def of(self, peer: bytes, number: int, now: float) -> Session:
        """The session of that number, if it belongs to that connection.

        Raises:
            Refused: it does not; whether another has it is not told.
        """
        session = self._by_id.get(number)
        if session is None or session.peer != peer:
            raise Refused("session", "no such session: say hello again")
        session.heard = now
        return session

    def get(self, number: int) -> Session | None:
        """The session of that number, whoever asks."""
        return self._by_id.get(number)

    def commands(self, session: Session) -> bool:
        """Whether it holds its robot's lease."""
        return self._holders.get(session.robot) is session

    def check_infer(self, session: Session, seq: int) -> None:
        """Count a request.

        Raises:
            Refused: the session holds no lease, or had a request of that number or a later one before.
        """
        if not self.commands(session):
            raise Refused("lease", f"this session does not command {session.robot!r}")
        if seq <= session.seq:
            raise Refused("refused", f"request {seq} came after {session.seq}: numbers have to rise")
        session.seq = seq

    def observers(self, robot: str) -> list[Session]:
        """Those who are sent copies of what the holder is sent."""
        return [s for s in self._by_id.values() if s.role == "observe" and s.robot == robot]

    def close(self, session: Session) -> None:
        """Forget a session; its lease is free."""
        self._by_id.pop(session.id, None)
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer]
        if self.commands(session):
            del self._holders[session.robot]
        self._closed(session)

    def _make_room(self, now: float) -> None:
        """Drop the session that was silent the longest; one that speaks is never dropped."""
        oldest = min(self._by_id.values(), key=lambda s: s.heard)
        if now - oldest.heard <= self._lease:
            raise Refused("busy", f"{self._most} clients are connected: try again later")
        self.close(oldest)
