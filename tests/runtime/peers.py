"""Peers of a server in a test: a bare socket that may say anything, and waits that end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from runtime import wire
from tests import fakes
from vla.contract import PolicySpec

PATIENCE = 20.0  # s after which a test fails instead of waiting on


@contextmanager
def raw(address: str) -> Iterator[zmq.Socket[bytes]]:
    """A socket that speaks only when told."""
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(address)
    try:
        yield peer
    finally:
        context.destroy(linger=0)


def reply(peer: zmq.Socket[bytes]) -> wire.Message:
    """The next message."""
    assert peer.poll(PATIENCE * 1000), "no answer"
    return wire.decode(peer.recv())


def greet(peer: zmq.Socket[bytes], robot: str = "arm", role: str = "command") -> wire.Welcome:
    """Say hello and be welcome."""
    peer.send(wire.encode(wire.Hello(robot, role)))
    answer = reply(peer)
    assert isinstance(answer, wire.Welcome), answer
    return answer


def request(welcome: wire.Welcome, seq: int, time: float = 0.0) -> bytes:
    """An infer that fits."""
    spec: PolicySpec = welcome.spec
    seen = fakes.observation(spec, time)
    return wire.encode(wire.Infer(wire.digest(spec), welcome.session, seq, 5, seq, seen))


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; a test fails with `what` when it does not come."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.002)


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
