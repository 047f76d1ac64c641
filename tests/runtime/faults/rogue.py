"""A policy server that answers whatever a test chooses, as one that was taken over would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import zmq

from runtime import wire
from tests.runtime.faults import hours
from vla.contract import PolicySpec

SESSION = 77
Answer = Callable[[wire.Infer], Iterable[bytes]]


class Rogue:
    """It keeps the protocol where hello and ping are concerned; the rest is up to the test.

    Attributes:
        answer: an infer -> the frames that it gets, in order; may be changed at any time.
        flood: the infer that came last -> frames that nobody asked for, sent again and again.
        pace: s between two times; 0 for as fast as they are taken.
        sent, asked: frames sent, infers heard.
    """

    def __init__(self, address: str, spec: PolicySpec) -> None:
        self.answer: Answer = lambda asked: [good(asked)]
        self.flood: Answer | None = None
        self.sent = self.asked = 0
        self.pace = 0.0
        self.over = False
        self._spec = spec
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        # Without it, what a peer has no room for would be dropped here and not be a flood there.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.bind(address)
        self._last: tuple[bytes, wire.Infer] | None = None

    def serve(self) -> None:
        while not self.over:
            if self.flood is not None and self._last is not None:
                peer, asked = self._last
                for frame in self.flood(asked):
                    self._send(peer, frame)
                time.sleep(self.pace)
            if self._socket.poll(0 if self.flood else 2):
                self._hear(*self._socket.recv_multipart())
        self._context.destroy(linger=0)

    def _hear(self, peer: bytes, data: bytes) -> None:
        message = wire.decode(data)
        if isinstance(message, wire.Hello):
            self._send(peer, wire.encode(wire.Welcome(self._spec, SESSION, True)))
        elif isinstance(message, wire.Ping):
            self._send(peer, wire.encode(wire.Pong(SESSION, message.sent, message.sent)))
        elif isinstance(message, wire.Infer):
            self._last, self.asked = (peer, message), self.asked + 1
            for frame in self.answer(message):
                self._send(peer, frame)

    def _send(self, peer: bytes, frame: bytes) -> None:
        try:
            self._socket.send_multipart([peer, frame], zmq.NOBLOCK)
            self.sent += 1
        except zmq.ZMQError:  # it has no room, or is gone
            return


@contextmanager
def rogue(address: str) -> Iterator[Rogue]:
    """A rogue with the spec of the policy `hours`, in a thread."""
    made = Rogue(address, hours.spec())
    thread = threading.Thread(target=made.serve, name="rogue")
    thread.start()
    try:
        yield made
    finally:
        made.over = True
        thread.join()


def good(asked: wire.Infer) -> bytes:
    """The answer of the policy `hours`."""
    return wire.encode(wire.Chunk(asked.session, asked.seq, hours.chunk(asked.observation.time)))


def altered(asked: wire.Infer, **changes: Any) -> bytes:
    """That answer with other fields, and the arm in a place where it never is."""
    message = msgpack.unpackb(good(asked))
    actions = hours.chunk(asked.observation.time).actions.astype("<f4")
    actions[:] = 1.2
    message["actions"] = {"dtype": "<f4", "shape": list(actions.shape), "data": actions.tobytes()}
    return bytes(msgpack.packb(message | changes))
