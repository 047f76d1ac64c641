"""Real sockets and real processes: what peers and signals do to a policy server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq

from robot_io.dryrun import DryRun
from runtime import bundle, loop, wire
from runtime.budget import Budget
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.engine import OnnxPolicy
from runtime.planner import Planner
from runtime.safety import Filter, Limits
from runtime.server import Server, check_bind
from runtime.spawn import spawn
from tests import fakes
from vla.contract import Observation, Policy, TaktError

SPEC = fakes.arm_spec()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_bundle(tmp_path_factory.mktemp("server") / "bundle", SPEC, noise=0.01)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/policy"


@contextmanager
def serving(policy: Policy, address: str) -> Iterator[Server]:
    """A server in a thread of this process."""
    over = threading.Event()
    with Server(policy, address) as server:

        def turns() -> None:
            while not over.is_set():
                server.turn(timeout=0.05)

        thread = threading.Thread(target=turns)
        thread.start()
        try:
            yield server
        finally:
            over.set()
            thread.join()


@contextmanager
def raw(address: str) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(address)
    try:
        yield peer
    finally:
        context.destroy(linger=0)


def reply(peer: zmq.Socket[bytes]) -> wire.Message:
    assert peer.poll(10_000), "no answer"
    return wire.decode(peer.recv())


def test_a_remote_policy_answers_as_the_local_one(folder: Path, address: str) -> None:
    local, served = (OnnxPolicy(bundle.load(folder)) for _ in range(2))
    with serving(served, address), RemotePolicy(address) as remote, RemotePolicy(address) as other:
        assert isinstance(remote, Policy)
        assert remote.spec == SPEC
        for policy, seed in ((local, 4), (remote, 4), (other, 9)):
            policy.reset(seed)
        for i in range(4):
            seen = fakes.observation(SPEC, 0.5 * i, 0.1 * i, i)
            other.infer(seen)  # sessions take turns and do not disturb each other's noise
            chunk = remote.infer(seen)
            np.testing.assert_array_equal(chunk.actions, local.infer(seen).actions)
            assert chunk.time == seen.time
            assert {"queue", "words", "prefix", "steps"} <= set(chunk.stages)


def test_garbage_is_answered_and_serving_goes_on(address: str) -> None:
    rng = np.random.default_rng(0)
    with serving(fakes.ScriptedPolicy(SPEC), address) as server, raw(address) as peer:
        for _ in range(50):
            peer.send(rng.bytes(int(rng.integers(0, 300))))
            assert isinstance(reply(peer), wire.Error)
        peer.send_multipart([b"", wire.encode(wire.Hello())])
        assert isinstance(reply(peer), wire.Error)
        peer.send(wire.encode(wire.Error("servers do not take this")))
        assert isinstance(reply(peer), wire.Error)
        peer.send(wire.encode(wire.Hello(version=99)))
        assert isinstance(reply(peer), wire.Error)
        peer.send(wire.encode(wire.Hello()))
        assert reply(peer) == wire.Welcome(SPEC)
        assert server.refused == 53


def test_a_message_over_the_limit_is_dropped_with_its_sender(address: str) -> None:
    with serving(fakes.ScriptedPolicy(SPEC), address), raw(address) as peer:
        peer.send(bytes(wire.MAX_BYTES + 1))
        with RemotePolicy(address) as remote:
            remote.infer(fakes.observation(SPEC))


def test_of_a_peers_requests_the_newest_wins(address: str) -> None:
    policy = fakes.ScriptedPolicy(SPEC)
    with Server(policy, address) as server, raw(address) as peer:
        for seq in range(3):
            seen = fakes.observation(SPEC, float(seq))
            peer.send(wire.encode(wire.Infer(wire.digest(SPEC), 7, seq, 5, seen)))
        end = time.monotonic() + 20.0
        while [w.request.seq for w in server._waiting.values()] != [2] and time.monotonic() < end:
            server._take()
        server.turn(timeout=0.0)
        answer = reply(peer)
        assert isinstance(answer, wire.Chunk)
        assert answer.seq == 2
        assert [o.time for o in policy.seen] == [2.0]
        assert policy.resets == [(5, 2)]


def test_what_the_policy_raises_becomes_one_line(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    errors = iter([TaktError("camera is missing"), ZeroDivisionError("a secret")])

    def fail(_: Observation) -> np.ndarray:
        raise next(errors)

    with serving(fakes.ScriptedPolicy(SPEC, fail), address), RemotePolicy(address) as remote:
        with pytest.raises(TaktError, match="camera is missing"):
            remote.infer(fakes.observation(SPEC))
        with pytest.raises(TaktError, match="inference failed") as caught:
            remote.infer(fakes.observation(SPEC))
        assert "secret" not in str(caught.value)
    assert "a secret" in capfd.readouterr().err


def test_answers_of_an_earlier_session_are_refused(address: str) -> None:
    with Server(fakes.ScriptedPolicy(SPEC), address) as server:
        thread = threading.Thread(target=server.turn, args=(5.0,))
        thread.start()
        with RemotePolicy(address) as remote:
            thread.join()
            assert remote.submit(fakes.observation(SPEC, 1.0))
            remote.reset(0)
            while not server.answered:
                server.turn(5.0)
            end = time.monotonic() + 10.0
            while not remote.refused and time.monotonic() < end:
                assert remote.poll() == []
            assert remote.refused == 1


def test_a_chunk_that_is_not_finite_is_refused(address: str) -> None:
    nan = fakes.ScriptedPolicy(SPEC, lambda o: np.full((SPEC.chunk_length, SPEC.actions.size), np.nan))
    with serving(nan, address), RemotePolicy(address, timeout=0.5) as remote:
        with pytest.raises(TaktError, match="no policy server answers"):
            remote.infer(fakes.observation(SPEC))
        assert remote.refused == 1


def test_a_server_that_changed_its_policy_is_noticed(address: str) -> None:
    with serving(fakes.ScriptedPolicy(SPEC), address):
        remote = RemotePolicy(address)
    other = fakes.ScriptedPolicy(replace(SPEC, name="another"))
    with remote, serving(other, address), pytest.raises(TaktError, match="another policy"):
        remote.infer(fakes.observation(SPEC))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "ipc:///nowhere/at/all"])
def test_no_server_is_one_line_with_the_address(address: str) -> None:
    with pytest.raises(TaktError, match="no policy server answers") as caught:
        RemotePolicy(address, timeout=0.2)
    assert address in str(caught.value)
    with pytest.raises(TaktError, match="is no address"):
        RemotePolicy("nonsense")


@pytest.mark.parametrize(
    "bind", ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://192.168.1.2:5555", "tcp://[::]:1", "tcp://eth0:1"]
)
def test_addresses_open_to_others_are_refused(bind: str) -> None:
    with pytest.raises(TaktError, match="other machines"):
        check_bind(bind)


@pytest.mark.parametrize("bind", ["", "5555", "udp://127.0.0.1:1", "tcp://", "ipc://"])
def test_malformed_addresses_are_refused(bind: str) -> None:
    with pytest.raises(TaktError, match="cannot bind"):
        check_bind(bind)


def test_a_taken_address_is_one_line(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TaktError, match="in use"):
            Server(fakes.ScriptedPolicy(SPEC), f"tcp://127.0.0.1:{port}")
    policy = fakes.ScriptedPolicy(SPEC)
    with serving(policy, address), pytest.raises(TaktError, match="in use"):
        Server(policy, address)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_served_bundle_cleanly(folder: Path, number: int) -> None:
    with spawn(folder) as (address, child):
        with RemotePolicy(address) as remote:
            seen = fakes.observation(SPEC)
            assert remote.infer(seen).actions.mean() == pytest.approx(fakes.goal(seen), abs=0.01)
        child.send_signal(number)
        assert child.wait(20) == 0


def test_a_bundle_that_was_altered_is_not_served(folder: Path, tmp_path: Path) -> None:
    copy = fakes.write_bundle(tmp_path / "copy", SPEC)
    (copy / "step.onnx").write_bytes(b"altered")
    with pytest.raises(TaktError, match=r"step\.onnx was altered"), spawn(copy):
        pass


def test_a_child_ends_with_the_parent_that_is_killed(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from runtime.spawn import spawn\n"
        "with spawn(Path(sys.argv[1])) as (_, child): print(child.pid, flush=True); time.sleep(600)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # what a killed parent leaves behind
    command = [sys.executable, "-c", script, str(folder)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def gone(pid: int) -> bool:
    """Whether a process ends within a while; one that nobody reaps here counts as ended."""
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_the_loop_outlives_a_server_killed_while_it_runs(folder: Path) -> None:
    """Killed at tick 20: the rest of the chunk is played, then the arm holds, then the run stops."""
    clock, robot = MonotonicClock(), DryRun()
    ticks: list[tuple[bool, np.ndarray]] = []
    with spawn(folder) as (address, child), RemotePolicy(address) as remote, robot:

        def on_tick(_: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
            ticks.append((target is None, command))
            if len(ticks) == 20:
                os.kill(child.pid, signal.SIGKILL)

        safety = Filter(Limits.of(robot.spec))
        until = loop.lasting(clock, 60.0)
        result = loop.run(
            robot,
            Planner(SPEC, remote),
            Ticker(clock, 1 / 30),
            Budget(),
            "put the red cube",
            safety,
            until,
            patience=0.8,
            on_tick=on_tick,
        )
    assert result.reason == "stale"
    assert result.answered > 0
    held, commands = zip(*ticks, strict=True)
    assert not held[19]
    assert all(held[-10:])
    np.testing.assert_array_equal(commands[-1], commands[-2])
    assert child.returncode is not None


def test_the_loop_goes_on_with_a_server_that_was_restarted(folder: Path, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/policy"
    with spawn(folder, address) as (_, child):
        remote = RemotePolicy(address)
        child.kill()
        child.wait()
    with remote, spawn(folder, address):
        assert len(remote.infer(fakes.observation(SPEC)).actions) == SPEC.chunk_length
