"""The control process's end of a console: bounded, never waiting, and a stop that passes everything."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from runtime import console
from runtime.console import A_TICK, COMMANDS, FRAMES, LARGEST, STATE, STOP, Feed, address, check_place
from tests.runtime.peers import until
from vla.contract import TaktError


class Peer:
    """The console's end, saying whatever a test likes."""

    def __init__(self, folder: Path) -> None:
        self.context = zmq.Context()
        self.commands, self.stop = self._made(zmq.PUSH, folder, COMMANDS), self._made(zmq.PUSH, folder, STOP)
        self.state = self._made(zmq.SUB, folder, STATE)
        self.frames = self._made(zmq.SUB, folder, FRAMES)

    def _made(self, kind: int, folder: Path, what: str) -> Any:
        socket = self.context.socket(kind)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.setsockopt(zmq.SNDHWM, 100_000)
        socket.connect(address(folder, what))
        return socket


@pytest.fixture
def ends() -> Iterator[tuple[Feed, Peer]]:
    with tempfile.TemporaryDirectory() as folder:
        feed, peer = Feed(Path(folder)), Peer(Path(folder))
        yield feed, peer
        feed.close()
        peer.context.destroy(linger=0)


def collected(feed: Feed, count: int) -> list[dict[str, Any]]:
    got: list[dict[str, Any]] = []

    def enough() -> bool:
        got.extend(feed.poll()[1])
        return len(got) >= count

    until(enough, f"{count} commands did not come")
    return got


def test_commands_come_in_order_and_a_tick_reads_so_many_at_the_most(ends: tuple[Feed, Peer]) -> None:
    feed, peer = ends
    for n in range(1, 41):
        peer.commands.send(msgpack.packb({"n": n, "do": "say", "text": "x"}))
    until(lambda: feed._in[COMMANDS].poll(0) != 0, "nothing came")
    time.sleep(0.2)
    most = len(feed.poll()[1])
    assert 0 < most <= A_TICK
    assert [c["n"] for c in collected(feed, 40 - most)] == list(range(most + 1, 41))


def test_a_stop_passes_a_flood_and_voids_what_was_said_before_it(ends: tuple[Feed, Peer]) -> None:
    feed, peer = ends
    for n in range(1, 2001):
        peer.commands.send(msgpack.packb({"n": n, "do": "say", "text": "go"}))
    until(lambda: feed._in[COMMANDS].poll(0) != 0, "nothing came")
    feed.poll()
    peer.stop.send(msgpack.packb({"n": 2001}))
    peer.commands.send(msgpack.packb({"n": 2002, "do": "say", "text": "after"}))
    until(lambda: feed._in[STOP].poll(0) != 0, "no stop came")
    stopped, commands = feed.poll()
    assert stopped and commands == []  # in the first tick that could know, and nothing beside it
    assert [c["text"] for c in collected(feed, 1)] == ["after"]
    assert feed.void == 2000 - A_TICK


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\xff" * 100, msgpack.packb([1, 2]), msgpack.packb({"do": "say"}),
        msgpack.packb({"n": True, "do": "say"}), msgpack.packb({"n": "1"}), b"\x91" * 4000,
    ],
)  # fmt: skip
def test_what_is_no_command_is_counted_and_the_next_one_is_read(ends: tuple[Feed, Peer], data: bytes) -> None:
    feed, peer = ends
    peer.commands.send(data)
    peer.commands.send(msgpack.packb({"n": 5, "do": "say", "text": "x"}))
    assert [c["n"] for c in collected(feed, 1)] == [5]
    assert feed.refused == 1


def test_what_is_too_large_never_arrives(ends: tuple[Feed, Peer]) -> None:
    feed, peer = ends
    peer.commands.send(b"x" * (LARGEST + 1))
    time.sleep(0.2)
    assert feed.poll() == (False, []) and feed.refused == 0


def test_whoever_reads_slowly_gets_the_newest_and_nobody_waits(ends: tuple[Feed, Peer]) -> None:
    feed, peer = ends
    peer.state.setsockopt(zmq.RCVHWM, 1)
    until(lambda: (feed.send({"i": -1}), peer.state.poll(20))[1] != 0, "nobody heard")
    frame = np.arange(480 * 640 * 3, dtype=np.uint8).reshape(480, 640, 3)
    for i in range(2000):  # nobody reads
        feed.send({"i": i, "text": "x" * 2000})
        feed.show(float(i), {"front": frame})
    newest = -1
    while peer.state.poll(300):
        newest = msgpack.unpackb(peer.state.recv())["i"]
    assert newest == 1999
    while peer.frames.poll(300):
        last = msgpack.unpackb(peer.frames.recv())
    height, width, data = last["frames"]["front"]
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8).reshape(height, width, 3), frame)


def test_a_console_that_falls_silent_is_gone_and_that_is_said_once() -> None:
    now = [0.0]
    with tempfile.TemporaryDirectory() as folder:
        feed, peer = Feed(Path(folder), lambda: now[0]), Peer(Path(folder))
        assert not feed.gone()  # it has not begun
        peer.commands.send(msgpack.packb({"n": 1, "do": "alive", "viewers": 2}))
        until(lambda: feed.poll() is not None and feed.viewers == 2, "no sign of life")
        now[0] = console.GONE - 0.1
        assert not feed.gone()
        now[0] = console.GONE
        assert feed.gone() and not feed.gone()
        assert feed.viewers == 0
        feed.close()
        peer.context.destroy(linger=0)


@pytest.mark.parametrize(
    ("bind", "token"),
    [("127.0.0.1:8060", False), ("localhost", False), ("[::1]:1", False), ("0.0.0.0", True)],
)
def test_places_that_are_safe(bind: str, token: bool) -> None:
    check_place(bind, token)


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("0.0.0.0:80", "--token"), ("0.0.0.0", "--token"), ("robot.local:80", "--token"),
        ("192.168.1.4", "--token"), ("", "HOST"), ("127.0.0.1:x", "HOST"), ("127.0.0.1:70000", "HOST"),
        (":80", "HOST"),
    ],
)  # fmt: skip
def test_places_that_are_not(bind: str, said: str) -> None:
    with pytest.raises(TaktError, match=said) as caught:
        check_place(bind, False)
    assert "\n" not in str(caught.value)


def test_no_console_of_that_name_is_one_line() -> None:
    with pytest.raises(TaktError, match=r"no console 'mirror'; valid: .*page"), console.opened(name="mirror"):
        pass


def test_a_port_that_is_taken_is_one_line_and_a_killed_console_is_noticed() -> None:
    pytest.importorskip("websockets")
    with console.opened("127.0.0.1:0") as (feed, url, _):
        place = url.removeprefix("http://").rstrip("/")
        with (
            pytest.raises(TaktError, match=f"cannot serve a page at {place}: .*in use"),
            console.opened(place),
        ):
            pass
        until(lambda: feed.poll() is not None and feed._heard is not None, "no sign of life")
        (child,) = [c for c in _children() if b"runtime.console" in Path(f"/proc/{c}/cmdline").read_bytes()]
        os.kill(child, signal.SIGKILL)
        until(lambda: feed.poll() is not None and feed.gone(), "its death went unnoticed")
        for i in range(100):
            feed.send({"i": i})


def _children() -> list[int]:
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in found]
