"""A server as a process of its own under fire: malformed messages, floods, peers that do not read.

It has to be alive afterwards, to answer a good client all the while, and to take no more memory. A million
messages instead of a hundred thousand: TAKT_FUZZ=1.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from runtime import wire
from runtime.client import RemotePolicy
from runtime.spawn import spawn
from tests import fakes
from tests.runtime.peers import PATIENCE, greet, raw, request, until
from vla.contract import ActionChunk, Observation, Prefix

SPEC = fakes.arm_spec()
ROUND = 500  # malformed messages between two sessions
GROWTH = 30.0  # MB that the server may grow by after the first tenth


class Served:
    """A server's process."""

    def __init__(self, address: str, child: subprocess.Popen[bytes]) -> None:
        self.address, self.child = address, child

    def megabytes(self) -> float:
        """What it holds in memory, MB."""
        pages = int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with spawn(fakes.write_bundle(tmp_path / "bundle", SPEC, noise=0.01)) as (address, child):
        yield Served(address, child)
        assert child.poll() is None, "the server has died"


# ---- what is sent ----

EMPTY = {"shape": [], "data": b""}
ODD: list[Any] = [None, True, -1, 0, 2**63, 2**64 - 1, 1.5, float("nan"), float("inf"), "", "x" * 300, b""]
ODD += [b"\xff" * 40, [], [[]], {}, {"a": {}}, [1, 2, 3], "takt", "jpeg", "\ud7ff\x00"]
ODD += [{"dtype": "<f4", "shape": [2**40, 2**40], "data": b""}, {"dtype": "|O", **EMPTY}]
ODD += [{"dtype": "jpeg", "shape": [60000, 60000, 3], "data": b"\xff\xd8\xff"}]
ODD += [{"dtype": "|u1", "shape": [1, 1, 3], "data": b"abc"}, {"dtype": "<f4", **EMPTY}]


def valid(session: int) -> list[dict[str, Any]]:
    """A message of each kind, as a map; small, so that many can be sent."""
    frames = {"front": np.zeros((4, 4, 3), np.uint8), "wrist": np.zeros((4, 4, 3), np.uint8)}
    seen = Observation(1.0, np.zeros(6, np.float32), frames, "put the red cube")
    prefix = Prefix(np.ones((16, 6), np.float32), np.zeros(16, np.float32))
    chunk = ActionChunk(0.1, 0.05, np.ones((16, 6), np.float32), {"prefix": 0.01}, (0.1,), 1.0)
    messages = [
        wire.Hello("fuzz"),
        wire.Infer(wire.digest(SPEC), session, 0, 1, 2, seen, prefix, 0.5),
        wire.Infer(wire.digest(SPEC), session, 0, 1, 2, seen),
        wire.Ping(session, 1.0),
        wire.Bye(session),
        wire.Welcome(SPEC, session, True),
        wire.Chunk(session, 1, chunk),
        wire.Error("late", "text", session, 1),
    ]
    return [msgpack.unpackb(wire.encode(message)) for message in messages]


class Fuzz:
    """Messages that are wrong in every way we could think of, from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.renew(0)
        self.ways: list[Callable[[], bytes]] = [self.bytes, self.cut, self.flipped, self.spliced]
        self.ways += [self.changed, self.changed, self.inside, self.less, self.more, self.deep]

    def __call__(self) -> bytes:
        return self.ways[self.below(len(self.ways))]()

    def renew(self, session: int) -> None:
        """What is damaged belongs to `session`, so that it is looked at closely."""
        self.valid = valid(session)
        self.packed = [msgpack.packb(message) for message in self.valid]
        self.seq = 0

    def below(self, most: int) -> int:
        return int(self.rng.integers(0, most))

    def message(self) -> dict[str, Any]:
        message = dict(self.valid[self.below(len(self.valid))])
        if message["kind"] == "infer":
            self.seq += 1
            message["seq"] = self.seq
        return message

    def odd(self) -> Any:
        return ODD[self.below(len(ODD))]

    def good(self) -> bytes:
        return self.packed[self.below(len(self.packed))]

    def bytes(self) -> bytes:
        return self.rng.bytes(self.below(200))

    def cut(self) -> bytes:
        return self.good()[: self.below(400)][:-1]

    def flipped(self) -> bytes:
        data = bytearray(self.good())
        for _ in range(1 + self.below(4)):
            data[self.below(len(data))] = self.below(256)
        return bytes(data)

    def spliced(self) -> bytes:
        one, other = self.good(), self.good()
        return one[: self.below(len(one))] + other[self.below(len(other)) :]

    def changed(self) -> bytes:
        message = self.message()
        message[list(message)[self.below(len(message))]] = self.odd()
        return msgpack.packb(message)

    def inside(self) -> bytes:
        message = self.message()
        nested = [name for name, value in message.items() if isinstance(value, dict) and value]
        if nested:
            name = nested[self.below(len(nested))]
            inner = dict(message[name])
            inner[list(inner)[self.below(len(inner))]] = self.odd()
            message[name] = inner
        return msgpack.packb(message)[:-1] if not nested else msgpack.packb(message)

    def less(self) -> bytes:
        message = self.message()
        del message[list(message)[self.below(len(message))]]
        return msgpack.packb(message)

    def more(self) -> bytes:
        return msgpack.packb({**self.message(), "more": self.odd()})

    def deep(self) -> bytes:
        depth = 1 + self.below(2000)
        return [b"\x91" * depth, b"\x81\xa1a" * depth, b"\xdd\xff\xff\xff\xff" * 3, b"\xc6\xff\xff\xff\xff"][
            self.below(4)
        ]


def bombard(served: Served, count: int) -> None:
    """`count` malformed messages, a good client in between, and memory at a tenth and at the end."""
    first = 0.0
    with raw(served.address) as peer, RemotePolicy(served.address, robot="good") as good:
        fuzz = Fuzz(0)
        for sent in range(0, count, ROUND):
            fuzz.renew(session(peer))
            for _ in range(ROUND):
                peer.send(fuzz())
                drain(peer)
            if sent % (count // 10) == 0:
                good.infer(fakes.observation(SPEC))
            if sent == count // 10:
                first = served.megabytes()
        session(peer)
        assert good.errors == {}
        assert served.megabytes() - first < GROWTH


def drain(peer: zmq.Socket[bytes]) -> None:
    try:
        while True:
            peer.recv(zmq.NOBLOCK)
    except zmq.Again:
        pass


def session(peer: zmq.Socket[bytes]) -> int:
    """A new session, when everything that was sent before has been seen to."""
    mark, hello = time.monotonic(), wire.encode(wire.Hello("fuzz"))
    peer.send(hello)
    while True:
        if not peer.poll(1000):  # a server drops answers to a peer that does not read fast enough
            assert time.monotonic() - mark < 3 * PATIENCE, "the server does not answer"
            peer.send(hello)
            continue
        message = wire.decode(peer.recv())
        if isinstance(message, wire.Welcome):  # to this hello or to one of the fuzz
            peer.send(wire.encode(wire.Ping(message.session, mark)))
        elif isinstance(message, wire.Pong) and message.sent == mark:
            return message.session


@pytest.mark.slow
def test_a_hundred_thousand_malformed_messages(served: Served) -> None:
    bombard(served, 100_000)


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TAKT_FUZZ") != "1", reason="takes minutes: TAKT_FUZZ=1")
def test_a_million_malformed_messages(served: Served) -> None:
    bombard(served, 1_000_000)


def test_messages_of_twice_the_limit_cost_only_their_sender(served: Served) -> None:
    with RemotePolicy(served.address, robot="good") as good:
        good.infer(fakes.observation(SPEC))
        before = served.megabytes()
        for _ in range(3):
            with raw(served.address) as peer:
                greet(peer, "large")
                peer.send(bytes(2 * wire.MAX_BYTES))
                good.infer(fakes.observation(SPEC))
        assert good.errors == {}
        assert served.megabytes() - before < GROWTH


def test_a_flood_from_peers_that_do_not_read_leaves_the_others_their_answers(served: Served) -> None:
    """Three peers send requests as fast as they can and take no answer; a fourth asks at its own pace."""
    over = threading.Event()
    sent = [0, 0, 0]

    def flood(number: int) -> None:
        with raw(served.address) as peer:
            welcome = greet(peer, f"flood {number}")
            peer.setsockopt(zmq.SNDTIMEO, 100)
            while not over.is_set():
                try:
                    peer.send(request(welcome, sent[number]))
                    sent[number] += 1
                except zmq.Again:
                    continue

    threads = [threading.Thread(target=flood, args=(i,)) for i in range(3)]
    with RemotePolicy(served.address, robot="good") as good:
        for thread in threads:
            thread.start()
        try:
            until(lambda: min(sent) > 50, "nothing floods")
            first = served.megabytes()
            for i in range(60):
                assert good.infer(fakes.observation(SPEC, float(i))).time == i
            assert served.megabytes() - first < GROWTH
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert good.errors == {}
        assert sum(sent) > 10 * 60


def test_an_observer_that_does_not_read_costs_nothing(served: Served) -> None:
    with raw(served.address) as peer, RemotePolicy(served.address, robot="arm") as good:
        peer.setsockopt(zmq.RCVHWM, 1)
        greet(peer, "arm", "observe")
        for i in range(50):
            good.infer(fakes.observation(SPEC, float(i)))
        first = served.megabytes()
        for i in range(250):
            good.infer(fakes.observation(SPEC, float(i)))
        assert served.megabytes() - first < GROWTH
        assert good.errors == {}
