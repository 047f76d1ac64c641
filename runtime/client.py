"""The client is a policy: `RemotePolicy` looks like any other, and never blocks when it is not asked to.

The network is done by ZeroMQ's own thread; there is no Python thread here.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import zmq

from runtime import jpeg, wire
from runtime.channel import Channel
from runtime.offset import Offset
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix, TaktError

_PING = 0.1  # s of our own silence after which a ping goes out
_AGAIN = 0.1  # s until hello is said again when another holds the lease
_PIECE = 0.03  # s of waiting between looks at what else is to be done
_PATIENCE = 2 * wire.LEASE  # s that a lease which another holds is asked for again before it counts as lost
_LINGER = 100  # ms that closing gives to the goodbye
_DRAIN = 32  # messages taken in one poll
_SENT = 16  # requests whose times of sending are remembered
_FRAMES = ("raw", "jpeg")


class RemotePolicy:
    """A policy behind an address.

    `infer` asks and waits. `submit` and `poll` are for the control loop: they return at once, and what may
    pass by itself (a late or failed answer, a lost connection) is counted, not raised.

    Attributes:
        refused: messages left out because they were late, of an earlier episode, or not a sound chunk.
        errors: the server's refusals by code, see `wire.CODES`.
        lost: requests that will get no chunk: the server refused them or their chunk was refused, or their
            session was lost.
        last_error: the text of the newest of them; "" before the first.
        heard: when the last message came, s on `clock`.
    """

    def __init__(
        self,
        address: str,
        timeout: float = 10.0,
        *,
        robot: str = "",
        role: str = "command",
        frames: str = "raw",
        quality: int = 90,
        keys: Path | None = None,
        dead: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect and learn the spec, within `timeout` s; the same bound holds for every answer of `infer`.

        Args:
            robot: what is commanded; one client at a time commands a robot. A name of its own by default.
            role: "command", or "observe" to be sent copies of what the commander of `robot` is sent.
            frames: "raw", or "jpeg" of `quality` 1 to 100 for links that cannot carry raw ones.
            keys: the folder with client.key and server.pub (`takt keys`), for a server that asks for keys.
            dead: s without an answer, although we asked, after which the link counts as down.
            clock: monotonic s.

        Raises:
            TaktError: nothing answers at `address`, it speaks another protocol, or refuses us.
        """
        if role not in wire.ROLES or frames not in _FRAMES or not 1 <= quality <= 100:
            raise TaktError(f"role is one of {wire.ROLES}, frames of {_FRAMES}, quality from 1 to 100")
        if frames == "jpeg":
            jpeg.check_installed()
        self.refused = self.lost = 0
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self._address, self._timeout, self._dead, self._clock = address, timeout, dead, clock
        self._robot, self._role = robot or f"client-{secrets.token_hex(8)}", role
        self._quality = quality if frames == "jpeg" else None
        self._offset = Offset()
        # seq -> when it was sent, and the time of its observation, s
        self._sent: OrderedDict[int, tuple[float, float]] = OrderedDict()
        self._digest: str | None = None
        self._session: int | None = None
        self._next = 0  # the seq of the next request
        self._failed: wire.Error | None = None  # the newest error about a request
        self._barred: float | None = None  # since when another holds our lease, s
        self._hello_due = self.heard = self._spoke = clock()
        self._unanswered: float | None = None  # the first message sent since the last one came, s
        self._losses = 0
        self._channel = Channel(address, keys)
        try:
            self.reset(0)
            self._spec = self._start()
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    @property
    def link_up(self) -> bool:
        """False when the connection is down, or nothing came back for `dead` s although we asked."""
        self._channel.watch()
        return self._channel.up and not self._unheard

    @property
    def _unheard(self) -> bool:
        return self._unanswered is not None and self._clock() - self._unanswered > self._dead

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye, which frees the lease, and close."""
        said = self._session is not None and self._send(wire.Bye(self._session))
        self._session = None
        self._channel.close(_LINGER if said else 0)

    def reset(self, seed: int, calls: int = 0) -> None:
        """A new episode: answers to earlier requests are refused, sampling starts anew from `seed`."""
        self._seed, self._call = seed, calls
        self._seen = self._next - 1  # the seq of the newest answer

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """Ask and wait.

        Raises:
            TaktError: the server's one line, or that it did not answer in time.
        """
        end = self._clock() + self._timeout
        while True:
            self._failed = None
            while not self.submit(observation, prefix, deadline):
                self.poll()  # a welcome, perhaps; what answers earlier questions is not asked for here
                self._rest(end)
            asked, session = self._next - 1, self._session
            while self._session == session:
                chunks = self.poll()  # answers to what was submitted before may be among them
                if chunks and self._seen == asked:
                    return chunks[-1]
                self._check_failed(asked)
                self._rest(end)
            # The session was lost, and the request with it: asked again, it has the same noise.
            self._call -= 1

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        """Send a request without waiting; False when there is no server to send it to, or it is silent.

        Raises:
            TaktError: the observation is too large, or this client only observes.
        """
        if self._role != "command":
            raise TaktError(f"this client observes {self._robot!r} and may not ask")
        self._tend()
        if self._session is None or self._digest is None or self._unheard:
            return False  # what a stopped server would find when it goes on is stale
        ids = (self._digest, self._session, self._next, self._seed, self._call)
        now = self._clock()
        if not self._send(wire.Infer(*ids, observation, prefix, deadline, self._tells)):
            return False
        self._sent[self._next] = now, observation.time
        if len(self._sent) > _SENT:
            self._sent.popitem(last=False)
        self._next += 1
        self._call += 1
        return True

    def poll(self) -> list[ActionChunk]:
        """The chunks that arrived, oldest first, without waiting. Keeps the session alive.

        Raises:
            TaktError: the server has another policy than at the start, or another client took the robot.
        """
        self._tend()
        chunks = []
        for _ in range(_DRAIN):  # a flood must not keep the control loop from its tick
            if (data := self._channel.receive()) is None:
                break
            chunk = self._take(data)
            if chunk is not None:
                chunks.append(chunk)
        return chunks

    # ---- what came ----

    def _take(self, data: bytes) -> ActionChunk | None:
        """The chunk in a frame, if it holds one that is wanted; everything else is seen to."""
        self.heard, self._unanswered = self._clock(), None
        try:
            message = wire.decode(data)
        except wire.WireError:
            self.refused += 1
            return None
        if isinstance(message, wire.Chunk):
            chunk = self._accept(message)
            if chunk is None:
                self.refused += 1
                self.lost += message.session == self._session and self._answered(message.seq)
            return chunk
        if isinstance(message, wire.Error):
            self._count(message)
        elif isinstance(message, wire.Welcome):
            self._welcomed(message)
        elif isinstance(message, wire.Pong) and message.sent == self._pinged:
            self._offset.note(message.sent, message.clock, message.clock, self.heard)
        return None

    def _accept(self, message: wire.Chunk) -> ActionChunk | None:
        """The chunk, if it answers the running episode, is newer than the last, and fits the robot."""
        chunk = message.chunk
        if message.session != self._session or message.seq <= self._seen:
            return None
        if self._role == "command" and message.seq >= self._next:
            return None
        if chunk.actions.shape[1] != self._spec.actions.size or not np.isfinite(chunk.actions).all():
            return None
        sent, asked = self._sent.get(message.seq, (None, chunk.time))
        if chunk.time != asked:
            return None  # rows are looked up by time: this one answers what was not asked
        self._seen = message.seq
        if message.seq == self._next - 1:
            self._channel.settle()
        self._answered(message.seq)
        if sent is not None and chunk.origin is not None and message.left is not None:
            self._offset.note(sent, chunk.origin, message.left, self.heard)
        return replace(chunk, origin=self._offset.ours(chunk.origin))

    def _answered(self, seq: int) -> bool:
        """Whether request `seq` was waited for; those before it are waited for no more."""
        waited = self._sent.pop(seq, None) is not None
        for older in [s for s in self._sent if s < seq]:
            del self._sent[older]
        return waited

    def _count(self, error: wire.Error) -> None:
        if error.session not in (0, self._session or 0):
            self.refused += 1  # of a session that we had
            return
        self.errors[error.code] += 1
        self.lost += self._answered(error.seq)
        self.last_error = error.text
        self._failed = error
        if error.code == "spec" and self._digest is not None:
            raise TaktError("the server has another policy than at the start: connect anew")
        if error.code == "session":
            self._lose()
        elif error.code == "lease":
            self._bar(error)
        if error.code in ("lease", "busy") and self._session is None:
            self._hello_due = self._clock() + _AGAIN

    def _bar(self, error: wire.Error) -> None:
        """Another has the lease; it may be our own connection of before, which will soon be let go."""
        now = self._clock()
        self._barred = now if self._barred is None else self._barred
        if self._session is not None or now - self._barred > _PATIENCE:
            raise TaktError(f"policy server at {self._address}: {error.text}")

    def _welcomed(self, welcome: wire.Welcome) -> None:
        digest = wire.digest(welcome.spec)
        if self._digest not in (None, digest):
            raise TaktError("the server has another policy than at the start: connect anew")
        self._spec, self._digest, self._session = welcome.spec, digest, welcome.session
        self._tells = welcome.done
        self._barred = None
        if self._role == "observe":
            self._seen = -1  # the server counts what it sends to this session

    # ---- what is to be said without being asked ----

    _tells = False  # whether the server can tell that the task is done
    _pinged = float("nan")  # when the last ping was sent, s

    def _tend(self) -> None:
        """Notice a broken connection, ask for a session where there is none, ping where it was quiet."""
        self._channel.watch()
        if self._losses != self._channel.losses:
            self._losses = self._channel.losses
            self._lose()
        now = self._clock()
        if self._session is None:
            if now >= self._hello_due and self._send(wire.Hello(self._robot, self._role, self._digest)):
                self._hello_due = now + self._dead
        elif now - self._spoke >= _PING and self._send(wire.Ping(self._session, now)):
            self._pinged = now

    def _lose(self) -> None:
        """The session is over; another is asked for at once."""
        self._session = None
        self.lost += len(self._sent)
        self._sent.clear()
        self._hello_due = self._clock()

    def _send(self, message: wire.Message) -> bool:
        now = self._clock()
        if not self._channel.send(wire.pieces(message, self._quality)):
            return False
        self._spoke = now
        self._unanswered = now if self._unanswered is None else self._unanswered
        return True

    # ---- what waits ----

    def _start(self) -> PolicySpec:
        """Say hello until there is a session; a lease that another holds is waited for."""
        end = self._clock() + self._timeout
        while True:
            self.poll()
            if self._session is not None:
                return self._spec
            error = self._failed
            if error is not None and error.code not in ("lease", "busy"):
                raise TaktError(f"policy server at {self._address}: {error.text}")
            if self.refused:
                raise TaktError(f"policy server at {self._address}: it speaks another protocol")
            self._rest(end)

    def _check_failed(self, asked: int) -> None:
        """Raises the server's line about request `asked`."""
        error = self._failed
        if error is not None and error.code != "session" and (error.session == 0 or error.seq == asked):
            raise TaktError(f"policy server at {self._address}: {error.text}")

    def _rest(self, end: float) -> None:
        """Until something came, something is to be done, or monotonic time `end` is reached."""
        left = end - self._clock()
        if left <= 0:
            raise self._silent()
        # Without a connection there is nothing to read: what can come is the connection.
        event = zmq.POLLIN if self._session is not None or self._channel.up else zmq.POLLOUT
        self._channel.wait(event, 1 + round(1000 * min(left, _PIECE)))

    def _silent(self) -> TaktError:
        self._channel.watch()
        if self._channel.refused and not self._channel.up:
            return TaktError(
                f"the server at {self._address} refuses this client: both ends need keys of takt keys "
                "(--keys DIR), and the server has to know this one"
            )
        if self._failed is not None and self._session is None:
            return TaktError(f"policy server at {self._address}: {self._failed.text}")
        return TaktError(
            f"no policy server answers at {self._address} within {self._timeout:g} s; "
            "start one with takt serve BUNDLE"
        )
