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
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import zmq

from robot_io.dryrun import DryRun
from runtime import bundle, loop, wire
from runtime.bind import check_bind
from runtime.budget import Budget
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.desk import Desk
from runtime.engine import OnnxPolicy
from runtime.guard import Guard
from runtime.planner import Planner
from runtime.server import Server
from runtime.spawn import spawn
from runtime.watchdogs import Watch
from tests import fakes
from tests.runtime.peers import PATIENCE, greet, raw, reply, request, until
from vla.contract import ActionChunk, CameraSpec, Observation, Policy, TaktError

SPEC = fakes.arm_spec()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_bundle(tmp_path_factory.mktemp("server") / "bundle", SPEC, noise=0.01)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/policy"


@contextmanager
def serving(policy: Policy, address: str) -> Iterator[Server]:
    """A server in threads of this process."""
    with Desk(policy) as desk, Server(desk, address) as server:
        yield server


def zeros(_: Observation) -> np.ndarray:
    return np.zeros((SPEC.chunk_length, SPEC.actions.size))


class Held(fakes.ScriptedPolicy):
    """Thinks until it is let go; `entered` is set when it has begun."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()

        def script(seen: Observation) -> np.ndarray:
            self.entered.set()
            assert self.gate.wait(PATIENCE)
            return zeros(seen)

        super().__init__(SPEC, script)


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
        remote.reset(4, 2)
        local.reset(4, 2)
        np.testing.assert_array_equal(remote.infer(seen).actions, local.infer(seen).actions)


class Finished(fakes.ScriptedPolicy):
    """Says of every chunk how likely the task is done."""

    def infer(self, *args: Any, **options: Any) -> ActionChunk:
        return replace(super().infer(*args, **options), done=0.75)


def test_done_is_told_to_those_who_ask(address: str) -> None:
    with serving(Finished(SPEC), address), RemotePolicy(address) as remote, raw(address) as older:
        assert remote.infer(fakes.observation(SPEC)).done == 0.75
        welcome = greet(older, robot="another")
        assert welcome.done
        older.send(request(welcome, 0))  # as a client from before the field does
        assert reply(older).chunk.done is None


def test_done_is_not_asked_of_an_older_server(address: str) -> None:
    with hand_made(address) as server, RemotePolicy(address) as remote:
        remote.submit(fakes.observation(SPEC))
        assert server.take(wire.Infer)[1].done is False


def test_frames_as_jpeg_give_nearly_the_same_answer(folder: Path, address: str) -> None:
    pytest.importorskip("simplejpeg")
    with serving(OnnxPolicy(bundle.load(folder)), address):
        answers = []
        for frames in ("raw", "jpeg"):
            with RemotePolicy(address, frames=frames) as remote:
                answers.append(remote.infer(fakes.observation(SPEC, shade=100)).actions)
    assert np.abs(answers[0] - answers[1]).max() < 0.02
    with pytest.raises(TaktError, match="quality"):
        RemotePolicy(address, frames="jpeg", quality=101)


def test_garbage_is_answered_and_serving_goes_on(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    with serving(fakes.ScriptedPolicy(SPEC), address) as server, raw(address) as peer:
        for _ in range(50):
            peer.send(rng.bytes(int(rng.integers(0, 300))))
            assert isinstance(reply(peer), wire.Error)
        peer.send_multipart([b"", wire.encode(wire.Hello("arm"))])
        assert isinstance(reply(peer), wire.Error)
        peer.send(wire.encode(wire.Error("failed", "servers do not take this")))
        assert isinstance(reply(peer), wire.Error)
        peer.send(wire.encode(wire.Hello("arm", version=99)))
        assert "version 99" in reply(peer).text
        assert greet(peer).spec == SPEC
        assert server.refused == {"refused": 53}
    lines = [line for line in capfd.readouterr().err.splitlines() if "refused" in line]
    assert 1 <= len(lines) < 53


def test_a_message_over_the_limit_is_dropped_with_its_sender(address: str) -> None:
    with serving(fakes.ScriptedPolicy(SPEC), address), raw(address) as peer:
        peer.send(bytes(wire.MAX_BYTES + 1))
        with RemotePolicy(address) as remote:
            remote.infer(fakes.observation(SPEC))


def test_of_a_peers_requests_the_newest_wins(address: str) -> None:
    policy = Held()
    with serving(policy, address), raw(address) as peer, raw(address) as first:
        first.send(request(greet(first, "first"), 0))
        assert policy.entered.wait(PATIENCE)
        welcome = greet(peer)
        for seq in range(3):
            peer.send(request(welcome, seq, float(seq)))
        peer.send(wire.encode(wire.Ping(welcome.session, 1.0)))
        assert isinstance(reply(peer), wire.Pong)  # answered while the policy thinks, after the requests
        policy.gate.set()
        answer = reply(peer)
        assert isinstance(answer, wire.Chunk)
        assert answer.seq == 2
        assert [o.time for o in policy.seen] == [0.0, 2.0]
        assert policy.resets == [(5, 0), (5, 2)]


def test_what_the_policy_raises_becomes_one_line(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    errors = iter([TaktError("camera is missing"), ZeroDivisionError("a secret"), TaktError("once more")])

    def fail(_: Observation) -> np.ndarray:
        raise next(errors)

    with serving(fakes.ScriptedPolicy(SPEC, fail), address), RemotePolicy(address) as remote:
        with pytest.raises(TaktError, match="camera is missing"):
            remote.infer(fakes.observation(SPEC))
        with pytest.raises(TaktError, match="inference failed") as caught:
            remote.infer(fakes.observation(SPEC))
        assert "secret" not in str(caught.value)
        # In the loop it is counted and not raised.
        assert remote.submit(fakes.observation(SPEC))
        until(lambda: remote.poll() or remote.errors["failed"] == 3, "no error came")
        assert remote.last_error == "once more"
    assert "a secret" in capfd.readouterr().err


def test_answers_of_an_earlier_episode_are_refused(address: str) -> None:
    policy = Held()
    with serving(policy, address), RemotePolicy(address) as remote:
        assert remote.submit(fakes.observation(SPEC, 1.0))
        assert policy.entered.wait(PATIENCE)
        remote.reset(0)
        policy.gate.set()
        until(lambda: remote.poll() or remote.refused, "no answer came")
        assert remote.refused == 1
        assert remote.infer(fakes.observation(SPEC, 2.0)).time == 2.0


def test_who_waits_is_given_the_answer_to_what_was_asked_last(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the one to an earlier request, although both are read in one go."""
    with hand_made(address) as server, RemotePolicy(address) as remote:

        def answer_both() -> None:
            asked = [server.take(wire.Infer) for _ in range(2)]
            for peer, ask in asked:
                chunk = ActionChunk(ask.observation.time, 0.05, zeros(ask.observation))
                server.say(peer, wire.Chunk(ask.session, ask.seq, chunk))

        assert remote.submit(fakes.observation(SPEC, 1.0))
        answering = threading.Thread(target=answer_both)
        answering.start()
        rest = remote._rest

        def rest_until_both_are_there(end: float) -> None:
            answering.join()
            time.sleep(0.1)
            rest(end)

        monkeypatch.setattr(remote, "_rest", rest_until_both_are_there)
        assert remote.infer(fakes.observation(SPEC, 2.0)).time == 2.0


@pytest.mark.parametrize("actions", [np.zeros((16, 5)), np.zeros((0, 6)), np.full((16, 6), np.nan)])
def test_a_chunk_that_no_robot_may_be_given_is_refused_by_the_client(
    address: str, actions: np.ndarray
) -> None:
    """Of a server that is not ours; ours would not send it."""
    with hand_made(address) as server, RemotePolicy(address) as remote:
        assert remote.submit(fakes.observation(SPEC))
        peer, ask = server.take(wire.Infer)
        server.say(peer, wire.Chunk(ask.session, ask.seq, ActionChunk(0.0, 0.05, actions)))
        until(lambda: remote.poll() or remote.refused, "no answer came")
        assert remote.refused == 1
        fine = ActionChunk(0.0, 0.05, zeros(ask.observation))
        for session, seq in [(ask.session + 1, ask.seq), (ask.session, 7), (ask.session, ask.seq)]:
            server.say(peer, wire.Chunk(session, seq, fine))
        chunks: list[ActionChunk] = []
        until(lambda: chunks.extend(remote.poll()) or chunks, "no answer came")
        assert len(chunks) == 1
        assert remote.refused == 3


class HandMade:
    """A server whose every answer a test chooses; hello and ping are seen to."""

    def __init__(self, context: zmq.Context, address: str) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.bind(address)
        self.asked: SimpleQueue[tuple[bytes, wire.Message]] = SimpleQueue()
        self.answers: SimpleQueue[tuple[bytes, wire.Message]] = SimpleQueue()
        self.mute = self.over = False

    def serve(self) -> None:
        while not self.over:
            while not self.answers.empty():
                peer, message = self.answers.get()
                self.socket.send_multipart([peer, wire.encode(message)])
            if not self.socket.poll(2):
                continue
            peer, data = self.socket.recv_multipart()
            message = wire.decode(data)
            self.asked.put((peer, message))
            if isinstance(message, wire.Hello) and not self.mute:
                self.socket.send_multipart([peer, wire.encode(wire.Welcome(SPEC, 7, True))])
            elif isinstance(message, wire.Ping) and not self.mute:
                self.socket.send_multipart(
                    [peer, wire.encode(wire.Pong(7, message.sent, message.sent + 50.0))]
                )

    def say(self, peer: bytes, message: wire.Message) -> None:
        self.answers.put((peer, message))

    def take(self, kind: type) -> tuple[bytes, Any]:
        """The next message of a kind."""
        while True:
            peer, message = self.asked.get(timeout=PATIENCE)
            if isinstance(message, kind):
                return peer, message


@contextmanager
def hand_made(address: str) -> Iterator[HandMade]:
    context = zmq.Context()
    server = HandMade(context, address)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.over = True
        thread.join()
        context.destroy(linger=0)


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_pings_go_out_when_it_was_quiet_and_show_the_other_clock(address: str) -> None:
    clock = Hand()
    with hand_made(address) as server, RemotePolicy(address, clock=clock) as remote:
        clock.now += 0.05
        assert remote.poll() == []
        clock.now += 0.06
        assert remote.poll() == []
        _, ping = server.take(wire.Ping)
        assert ping.sent == clock.now
        until(lambda: remote.poll() or remote.heard == clock.now, "no pong came")
        assert remote.link_up
        # The pong tells that theirs is 50 s ahead; an origin is given on ours.
        assert remote.submit(fakes.observation(SPEC))
        peer, ask = server.take(wire.Infer)
        chunk = ActionChunk(0.0, 0.05, zeros(ask.observation), origin=clock.now + 50.0)
        server.say(peer, wire.Chunk(ask.session, ask.seq, chunk))
        chunks: list[ActionChunk] = []
        until(lambda: chunks.extend(remote.poll()) or chunks, "no answer came")
        assert chunks[0].origin == pytest.approx(clock.now)


def test_a_server_that_stays_silent_counts_as_down_although_it_is_connected(address: str) -> None:
    clock = Hand()
    with hand_made(address) as server, RemotePolicy(address, clock=clock) as remote:
        clock.now += 60.0  # nothing was asked meanwhile
        assert remote.link_up
        server.mute = True
        remote.poll()
        server.take(wire.Ping)
        assert remote.link_up
        clock.now += 1.01
        assert not remote.link_up
        server.mute = False
        remote.poll()
        until(lambda: remote.poll() or remote.link_up, "the link stayed down")


def test_a_session_that_was_lost_is_asked_for_again_without_waiting(address: str) -> None:
    with hand_made(address) as server, RemotePolicy(address) as remote:
        peer, _ = server.take(wire.Hello)
        server.say(peer, wire.Error("session", "no such session", 7))
        until(lambda: remote.poll() or remote.errors["session"], "no error came")
        until(lambda: remote.poll() or remote.submit(fakes.observation(SPEC)), "no session came")
        server.take(wire.Hello)
        server.take(wire.Infer)


def test_a_lease_that_is_lost_is_raised(address: str) -> None:
    clock = Hand()
    with hand_made(address) as server, RemotePolicy(address, clock=clock) as remote:
        peer, _ = server.take(wire.Hello)
        server.mute = True
        server.say(peer, wire.Error("session", "no such session", 7))
        for wait in (0.0, 1.0):  # it may be our own session of before, which will be let go
            clock.now += wait
            until(lambda: remote.poll() or not server.asked.empty(), "no hello came")
            server.take(wire.Hello)
            before = remote.errors["lease"]
            server.say(peer, wire.Error("lease", "another client commands it"))
            until(lambda before=before: remote.poll() or remote.errors["lease"] > before, "no error")
            assert not remote.submit(fakes.observation(SPEC))
        clock.now += 1.5
        remote.poll()
        server.say(peer, wire.Error("lease", "another client commands it"))
        with pytest.raises(TaktError, match="another client commands it"):
            until(lambda: remote.poll(), "nothing was raised")


def test_a_second_commander_is_refused_and_the_first_goes_on(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(fakes.ScriptedPolicy(SPEC), address) as server:
        with RemotePolicy(address, robot="arm") as first:
            over = threading.Event()
            chunks = []

            def command() -> None:
                while not over.is_set():
                    chunks.append(first.infer(fakes.observation(SPEC, float(len(chunks)))))

            thread = threading.Thread(target=command)
            thread.start()
            with pytest.raises(TaktError, match="another client commands 'arm'"):
                RemotePolicy(address, timeout=0.5, robot="arm")
            before = len(chunks)
            until(lambda: len(chunks) > before + 3, "the first commander was disturbed")
            over.set()
            thread.join()
            assert first.errors == {}
        assert server.refused["lease"] >= 2
        # The first said goodbye: the robot is free at once.
        with RemotePolicy(address, robot="arm") as second:
            second.infer(fakes.observation(SPEC))
    assert "another client commands 'arm'" in capfd.readouterr().err


def test_a_commander_that_vanished_is_waited_for(address: str) -> None:
    with serving(fakes.ScriptedPolicy(SPEC), address), raw(address) as silent:
        greet(silent, "arm")
        with RemotePolicy(address, robot="arm") as remote:  # within its timeout the lease runs out
            remote.infer(fakes.observation(SPEC))
        with raw(address) as gone:
            greet(gone, "arm")
        with RemotePolicy(address, robot="arm") as remote:
            remote.infer(fakes.observation(SPEC))


def test_observers_see_the_commanders_chunks_and_may_not_ask(address: str) -> None:
    with serving(fakes.ScriptedPolicy(SPEC), address):
        with RemotePolicy(address, robot="arm", role="observe") as watcher:
            for _ in range(2):  # another commander's numbers begin anew
                with RemotePolicy(address, robot="arm") as remote, RemotePolicy(address) as stranger:
                    stranger.infer(fakes.observation(SPEC, 99.0))
                    for i in range(3):
                        remote.infer(fakes.observation(SPEC, float(i)))
                seen: list[ActionChunk] = []
                until(lambda seen=seen: seen.extend(watcher.poll()) or len(seen) == 3, "no copies came")
                assert [chunk.time for chunk in seen] == [0.0, 1.0, 2.0]
            with pytest.raises(TaktError, match="may not ask"):
                watcher.submit(fakes.observation(SPEC))
        with raw(address) as peer:
            welcome = greet(peer, "arm", "observe")
            assert not welcome.lease
            peer.send(request(welcome, 0))
            assert reply(peer).code == "lease"


def test_recorded_requests_are_refused_from_others_and_from_their_own_sender(address: str) -> None:
    policy = fakes.ScriptedPolicy(SPEC)
    with serving(policy, address) as server, raw(address) as holder, raw(address) as thief:
        welcome = greet(holder, "arm")
        recorded = [request(welcome, seq) for seq in range(3)]
        for data in recorded:
            holder.send(data)
            assert isinstance(reply(holder), wire.Chunk)
        for data in [*recorded, wire.encode(wire.Ping(welcome.session, 0.0))]:
            thief.send(data)
            assert reply(thief).code == "session"
        thief.send(wire.encode(wire.Bye(welcome.session)))
        assert reply(thief).code == "session"
        for data in recorded:
            holder.send(data)
            assert reply(holder).code == "refused"
        holder.send(request(welcome, 3))
        assert isinstance(reply(holder), wire.Chunk)
        assert len(policy.seen) == 4
        assert server.refused == {"session": 5, "refused": 3}


def test_late_and_busy_are_counted_and_not_raised(address: str) -> None:
    policy = Held()
    with ExitStack() as stack:
        desk = stack.enter_context(Desk(policy, peers=1))
        stack.enter_context(Server(desk, address))
        first, late, busy = (stack.enter_context(RemotePolicy(address)) for _ in range(3))
        assert first.submit(fakes.observation(SPEC))
        assert policy.entered.wait(PATIENCE)
        assert late.submit(fakes.observation(SPEC), deadline=0.001)
        until(lambda: desk._waiting, "it never waited")
        assert busy.submit(fakes.observation(SPEC))
        until(lambda: busy.poll() or busy.errors["busy"], "no error came")
        time.sleep(0.002)
        policy.gate.set()
        until(lambda: late.poll() or late.errors["late"], "no error came")
        assert len(policy.seen) == 1


def test_a_server_that_changed_its_policy_is_noticed(address: str) -> None:
    with serving(fakes.ScriptedPolicy(SPEC), address):
        remote, idle = RemotePolicy(address), RemotePolicy(address)
    other = fakes.ScriptedPolicy(replace(SPEC, name="another"))
    with remote, idle, serving(other, address):
        with pytest.raises(TaktError, match="another policy"):
            remote.infer(fakes.observation(SPEC))
        with pytest.raises(TaktError, match="another policy"):
            until(lambda: idle.poll(), "nothing was raised")


def test_a_server_that_was_restarted_is_gone_on_with(address: str) -> None:
    policies = [fakes.ScriptedPolicy(SPEC) for _ in range(2)]
    with serving(policies[0], address):
        remote = RemotePolicy(address, robot="arm")
        remote.reset(3)
        remote.infer(fakes.observation(SPEC))
    with remote:
        until(lambda: not remote.link_up, "the loss went unnoticed")
        assert not remote.submit(fakes.observation(SPEC))
        with serving(policies[1], address):
            until(lambda: remote.poll() or remote.link_up, "the link stayed down")
            remote.infer(fakes.observation(SPEC))
    # The noise goes on where it was.
    assert policies[0].resets + policies[1].resets == [(3, 0), (3, 1)]


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
    with pytest.raises(TaktError, match=r"other machines.*takt keys.*--keys.*--trust-network"):
        check_bind(bind)
    check_bind(bind, trusted=True)


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

        guard, until = Guard(robot.spec, Watch(patience=0.8)), loop.lasting(clock, 60.0)
        planner, ticker = Planner(SPEC, remote), Ticker(clock, 1 / 30)
        result = loop.run(robot, planner, ticker, Budget(), "put the red cube", guard, until, on_tick)
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


def test_a_server_that_was_stopped_is_noticed_and_gone_on_with(folder: Path) -> None:
    """Its kernel keeps the connection; it answers no pings."""
    with spawn(folder) as (address, child), RemotePolicy(address, robot="arm") as remote:
        remote.infer(fakes.observation(SPEC))
        child.send_signal(signal.SIGSTOP)
        try:
            until(lambda: remote.poll() or not remote.link_up, "the loss went unnoticed")
            assert not remote.submit(fakes.observation(SPEC))
        finally:
            child.send_signal(signal.SIGCONT)
        until(lambda: remote.poll() or remote.link_up, "the link stayed down")
        remote.infer(fakes.observation(SPEC))


@pytest.mark.parametrize("settles", [True, False])
def test_large_frames_arrive_as_they_were_sent(address: str, settles: bool) -> None:
    """Memory is written again for the next request only when the one before has arrived."""
    camera = CameraSpec("front", 480, 640)
    spec = replace(SPEC, cameras=(camera,))
    policy = fakes.ScriptedPolicy(spec)
    with serving(policy, address), RemotePolicy(address) as remote:
        for shade in range(20):
            seen = fakes.observation(spec, float(shade), shade=shade)
            if settles:
                remote.infer(seen)
            else:  # one after the other, without looking at answers
                until(lambda seen=seen: remote.submit(seen), "it could not be sent")
        until(lambda: remote.poll() or policy.seen[-1].time == 19.0, "the last did not arrive")
    for seen in policy.seen:
        np.testing.assert_array_equal(seen.frames["front"], np.full((480, 640, 3), int(seen.time), np.uint8))
