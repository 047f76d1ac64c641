"""Both front ends over one desk, in a process of its own: equal answers, no peer disturbs another."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import bundle
from runtime.desk import Desk
from runtime.engine import OnnxPolicy
from runtime.protocols import gr00t, mapping, openpi
from tests import fakes
from tests.runtime.protocols import peers
from tests.runtime.protocols.peers import ROOT, Gr00tClient, to_bytes
from tests.runtime.protocols.test_codec import HOSTILE
from vla.contract import Observation

pytest.importorskip("onnxruntime")
pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SPEC = fakes.arm_spec()
WORDS = "annotation.human.task_description"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    with peers.served(folder) as made:
        yield made


def scene(number: int) -> Observation:
    """Frames of the size that the policy wants, so that nothing is resized."""
    rng = np.random.default_rng(number)
    made = fakes.observation(SPEC)
    frames = {name: rng.integers(0, 255, frame.shape, np.uint8) for name, frame in made.frames.items()}
    return replace(made, state=rng.uniform(-1, 1, 6).astype(np.float32), frames=frames)


def for_gr00t(*seen: Observation) -> dict[str, Any]:
    return {
        "video": {name: np.stack([o.frames[name] for o in seen])[:, None] for name in seen[0].frames},
        "state": {"state": np.stack([o.state for o in seen])[:, None]},
        "language": {WORDS: [[o.instruction] for o in seen]},
    }


def for_openpi(seen: Observation) -> dict[str, Any]:
    values = {f"observation/{name}": frame for name, frame in seen.frames.items()}
    return values | {"observation/state": seen.state, "prompt": seen.instruction}


def chunks(folder: Path, count: int) -> list[np.ndarray]:
    """What the bundle itself answers to `scene`s, asked one after the other from seed 0."""
    policy = OnnxPolicy(bundle.load(folder))
    policy.reset(0)
    return [policy.infer(scene(number)).actions for number in range(count)]


def test_all_clients_get_what_the_policy_gives(folder: Path, server: tuple[str, str, Any]) -> None:
    theirs = pytest.importorskip("openpi_client.websocket_client_policy")
    wanted = chunks(folder, 4)
    with Gr00tClient(server[0]) as alone, Gr00tClient(server[0]) as batched:
        robot = theirs.WebsocketClientPolicy(server[1])
        for number, chunk in enumerate(wanted):
            np.testing.assert_array_equal(robot.infer(for_openpi(scene(number)))["actions"], chunk)
            action, _ = alone.get_action(for_gr00t(scene(number)))
            np.testing.assert_array_equal(action["action"], chunk[None])
        action, _ = batched.get_action(for_gr00t(*map(scene, range(4))))
        np.testing.assert_array_equal(action["action"], wanted)


def test_frames_of_another_size_are_resized(folder: Path, server: tuple[str, str, Any]) -> None:
    seen = scene(0)
    large = replace(
        seen, frames={name: frame.repeat(2, 0).repeat(2, 1) for name, frame in seen.frames.items()}
    )
    with Gr00tClient(server[0]) as client:
        action, _ = client.get_action(for_gr00t(large))
    np.testing.assert_array_equal(action["action"][0], chunks(folder, 1)[0])


# Asks without end until it is killed; the first answer is told.
ASKS = {
    "gr00t": """
import sys
from tests.runtime.protocols.test_together import Gr00tClient, for_gr00t, scene, to_bytes
client = Gr00tClient(sys.argv[1])
while True:
    client.get_action(for_gr00t(scene(1)))
    print("answered", flush=True)
""",
    "openpi": """
import sys
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from tests.runtime.protocols.test_together import for_openpi, scene
client = WebsocketClientPolicy(sys.argv[1])
while True:
    client.infer(for_openpi(scene(1)))
    print("answered", flush=True)
""",
}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("protocol", ASKS)
def test_a_client_killed_or_stopped_disturbs_nobody(
    server: tuple[str, str, Any], protocol: str, number: int
) -> None:
    pytest.importorskip("openpi_client")
    address = server[list(ASKS).index(protocol)]
    command = [sys.executable, "-c", ASKS[protocol], address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "answered\n"
            os.kill(child.pid, number)
            ask_all(server)
        finally:
            child.kill()
    ask_all(server)


def ask_all(server: tuple[str, str, Any]) -> None:
    """One new client of each protocol gets an answer."""
    with Gr00tClient(server[0]) as client:
        assert client.get_action(for_gr00t(scene(2)))[0]["action"].shape == (1, 16, 6)
    with connect(server[1], compression=None) as socket_:
        socket_.recv(timeout=20)
        socket_.send(openpi_bytes(for_openpi(scene(2))))
        assert isinstance(socket_.recv(timeout=20), bytes)


def openpi_bytes(value: Any) -> bytes:
    from tests.runtime.protocols.test_openpi import pack

    return pack(value)


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_flood_of_nonsense_leaves_the_memory_flat(server: tuple[str, str, Any]) -> None:
    first, second, child = server
    rng = np.random.default_rng(0)
    nonsense = [*HOSTILE.values(), to_bytes({"data": {"observation": {"video": 5}}})]
    nonsense = [message for message in nonsense if len(message) < 200_000]

    def flood(rounds: int) -> None:
        with Gr00tClient(first) as client:
            for number in range(rounds):
                message = nonsense[number % len(nonsense)] if number % 2 else rng.bytes(300)
                with pytest.raises(RuntimeError):
                    client.raw(message)
        for number in range(rounds // 4):
            with connect(second, compression=None) as socket_:
                socket_.recv(timeout=20)
                socket_.send(nonsense[number % len(nonsense)])
                assert isinstance(socket_.recv(timeout=20), str)
        # Nor does what is no WebSocket at all.
        host, _, port = second.removeprefix("ws://").partition(":")
        for _ in range(rounds // 8):
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(rng.bytes(64))

    flood(400)
    before = resident(child.pid)
    flood(3000)
    assert resident(child.pid) - before < 16 << 20
    ask_all(server)


def test_a_client_that_sends_slowly_keeps_nobody_waiting(server: tuple[str, str, Any]) -> None:
    """Half a handshake, half a frame, and a GR00T client that never reads."""
    host, _, port = server[1].removeprefix("ws://").partition(":")
    with (
        socket.create_connection((host, int(port))) as raw,
        connect(server[1], compression=None) as half,
        Gr00tClient(server[0]) as mute,
    ):
        raw.sendall(b"GET / HTTP/1.1\r\nHost: ")
        half.socket.sendall(b"\x82\xff" + (60 << 20).to_bytes(8, "big") + b"mask" + bytes(1000))
        mute.socket.send(to_bytes({"data": {"observation": for_gr00t(scene(1)), "options": None}}))
        ask_all(server)
        half.socket.shutdown(socket.SHUT_WR)  # what it has of a frame is lost with the connection
        assert isinstance(half.recv(timeout=20), bytes)  # the metadata
        with pytest.raises(ConnectionClosed):
            half.recv(timeout=20)


def test_nothing_is_left_behind(folder: Path) -> None:
    """Threads and sockets of both fronts go when they close, with clients and requests under way."""
    policy = OnnxPolicy(bundle.load(folder))
    keys = [mapping.load(None, protocol, SPEC) for protocol in ("gr00t", "openpi")]

    def once() -> None:
        with Desk(policy) as desk:
            with (
                gr00t.Front(desk, "tcp://127.0.0.1:*", keys[0]) as first,
                openpi.Front(desk, "ws://127.0.0.1:*", keys[1]) as second,
            ):
                client = Gr00tClient(first.address)
                robot = connect(second.address, compression=None)
                client.get_action(for_gr00t(scene(1)))
                client.socket.send(to_bytes({"data": {"observation": for_gr00t(scene(1))}}))
                robot.recv(timeout=20)
                robot.send(openpi_bytes(for_openpi(scene(1))))
            client.__exit__()
            robot.close()

    once()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        once()
    end = time.monotonic() + 20.0
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files
