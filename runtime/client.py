"""The client is a policy: `RemotePolicy` looks like any other, and never blocks when it is not asked to.

The network is done by ZeroMQ's own thread; there is no Python thread here.
"""

from __future__ import annotations

import secrets
import time

import numpy as np
import zmq

from runtime import wire
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix, TaktError


class RemotePolicy:
    """A policy behind an address.

    `infer` asks and waits. `submit` and `poll` are for the control loop and return at once.

    Attributes:
        refused: answers left out because they were late, of another episode, or not finite.
    """

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        """Connect and learn the spec, within `timeout` s; the same bound holds for every answer.

        Raises:
            TaktError: nothing answers at `address`, or it speaks another protocol.
        """
        self._address = address
        self._timeout = timeout
        self.refused = 0
        self._context = zmq.Context()
        try:
            self._socket = self._connect()
            self._spec = self._hello()
        except BaseException:
            self.close()
            raise
        self._digest = wire.digest(self._spec)
        self.reset(0)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def reset(self, seed: int, calls: int = 0) -> None:
        """A new session: answers to earlier requests are refused, sampling starts anew from `seed`."""
        self._session = secrets.randbits(63)
        self._seed = seed
        self._next = calls  # the seq of the next request
        self._seen = calls - 1  # the seq of the newest answer

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """Ask and wait.

        Raises:
            TaktError: the server's one line, or that it did not answer in time.
        """
        end = time.monotonic() + self._timeout
        self._wait(zmq.POLLOUT, end)
        asked = self._next
        if not self.submit(observation, prefix, deadline):
            raise self._silent()
        while True:
            self._wait(zmq.POLLIN, end)
            for chunk in self.poll():
                if self._seen == asked:
                    return chunk

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        """Send a request without waiting; False when there is no server to send it to."""
        message = wire.Infer(
            self._digest, self._session, self._next, self._seed, observation, prefix, deadline
        )
        try:
            self._socket.send(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._next += 1
        return True

    def poll(self) -> list[ActionChunk]:
        """The chunks that arrived, oldest first, without waiting.

        Raises:
            TaktError: the server's one line about a request of the running session.
        """
        chunks = []
        while self._socket.poll(0):
            try:
                chunk = self._accept(self._receive())
            except wire.WireError:
                chunk = None
            if chunk is None:
                self.refused += 1
            else:
                chunks.append(chunk)
        return chunks

    def _accept(self, message: wire.Message) -> ActionChunk | None:
        """The chunk of an answer to the running session, newer than the last; None for anything else."""
        if isinstance(message, wire.Error) and message.session in (0, self._session):
            raise TaktError(f"policy server at {self._address}: {message.text}")
        if not isinstance(message, wire.Chunk) or message.session != self._session:
            return None
        if not self._seen < message.seq < self._next:
            return None
        actions = message.chunk.actions
        if actions.shape[1] != self._spec.actions.size or not np.isfinite(actions).all():
            return None
        self._seen = message.seq
        return message.chunk

    def _receive(self) -> wire.Message:
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        if len(frames) != 1:
            raise wire.WireError(f"a message of {len(frames)} frames; this protocol sends one")
        return wire.decode(frames[0])

    def _connect(self) -> zmq.Socket[bytes]:
        sock = self._context.socket(zmq.DEALER)
        # IMMEDIATE: a request to a dead server fails now and is not delivered, stale, to the next one.
        options = {zmq.LINGER: 0, zmq.IMMEDIATE: 1, zmq.SNDHWM: 2, zmq.RCVHWM: 8, zmq.IPV6: 1}
        options |= {zmq.MAXMSGSIZE: wire.MAX_BYTES, zmq.RECONNECT_IVL: 20, zmq.RECONNECT_IVL_MAX: 500}
        options |= {zmq.HEARTBEAT_IVL: wire.HEARTBEAT, zmq.HEARTBEAT_TIMEOUT: wire.HEARTBEAT_TIMEOUT}
        for option, value in options.items():
            sock.setsockopt(option, value)
        try:
            sock.connect(self._address)
        except zmq.ZMQError:
            raise TaktError(f"{self._address!r} is no address: give tcp://HOST:PORT or ipc://PATH") from None
        return sock

    def _hello(self) -> PolicySpec:
        end = time.monotonic() + self._timeout
        self._wait(zmq.POLLOUT, end)
        self._socket.send(wire.encode(wire.Hello()), zmq.NOBLOCK)
        self._wait(zmq.POLLIN, end)
        answer = self._receive()
        if not isinstance(answer, wire.Welcome) or answer.version != wire.VERSION:
            reason = answer.text if isinstance(answer, wire.Error) else "it speaks another protocol"
            raise TaktError(f"policy server at {self._address}: {reason}")
        return answer.spec

    def _wait(self, event: int, end: float) -> None:
        """Until the socket is ready or monotonic time `end` is reached."""
        while not self._socket.poll(max(0, round((end - time.monotonic()) * 1000)), event) & event:
            if time.monotonic() >= end:
                raise self._silent()

    def _silent(self) -> TaktError:
        return TaktError(
            f"no policy server answers at {self._address} within {self._timeout:g} s; "
            "start one with takt serve BUNDLE"
        )
