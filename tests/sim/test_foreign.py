"""Simulators in processes of their own: the messages, the process, the body over it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import messages
from runtime.clock import SimulatedClock
from sim.foreign import demos
from sim.foreign.process import Host, HostError
from sim.foreign.robot import ForeignRobot, spec
from sim.gym.suite import Mapped
from tests.sim import mappings
from vla.contract import CameraSpec, Dimension, TaktError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's Python finds the tests' environment."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def suite(tmp_path: Path) -> Mapped:
    return Mapped(str(mappings.write(tmp_path, mappings.COUNTING)))


@pytest.fixture
def robot(suite: Mapped) -> Iterator[ForeignRobot]:
    with suite.robot(SimulatedClock()) as body:
        yield body


# -- the messages


def pair() -> tuple[socket.socket, socket.socket]:
    one, two = socket.socketpair()
    two.settimeout(5.0)
    return one, two


def test_arrays_of_every_kind_arrive_as_they_were_sent() -> None:
    one, two = pair()
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        "b": np.full((5, 4, 3), 7, np.uint8),
        "c": np.zeros((0, 2), np.int64),
        "d": np.array(1.5),
        "e": np.array([True, False]),
    }
    messages.send(one, {"do": "x", "n": [1, 2.5, None]}, arrays)
    fields, found = messages.receive(two)
    assert fields == {"do": "x", "n": [1, 2.5, None]}
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    found["a"][0, 0] = 1.0  # and they can be written


def test_what_could_carry_code_is_not_sent() -> None:
    with pytest.raises(TypeError, match="kind object"):
        messages.send(pair()[0], {}, {"a": np.array([{}], object)})


@pytest.mark.parametrize(
    ("header", "body", "word"),
    [
        (b"no json", b"", "no JSON"),
        (b'{"fields": {}}', b"", "no JSON"),
        (b'{"fields": {}, "arrays": [["a", "object", [1]]]}', b"12345678", "kind object"),
        (b'{"fields": {}, "arrays": [["a", "uint8", [-1]]]}', b"", "shape"),
        (b'{"fields": {}, "arrays": [["a", "float64", [2]]]}', b"12345678", "longer"),
        (b'{"fields": {}, "arrays": []}', b"12345678", "no array"),
    ],
)
def test_what_is_no_message_is_refused(header: bytes, body: bytes, word: str) -> None:
    one, two = pair()
    one.sendall(len(header).to_bytes(4, "big") + len(body).to_bytes(4, "big") + header + body)
    with pytest.raises(messages.Broken, match=word):
        messages.receive(two)


def test_a_message_beyond_all_measure_and_one_that_is_cut_off() -> None:
    one, two = pair()
    one.sendall(b"\xff" * 8)
    with pytest.raises(messages.Broken, match="bytes"):
        messages.receive(two)
    one, two = pair()
    one.sendall(b"\x00\x00\x00\x09\x00\x00\x00\x00half")
    one.close()
    with pytest.raises(messages.Closed):
        messages.receive(two)


# -- the process


def host(**changed: Any) -> Host:
    """Of the environment that counts."""
    world = {
        "name": mappings.COUNTING["id"], "kwargs": {}, "frames": {}, "instruction": {"text": "count"},
        "state": [{"observation": "", "slice": [0, 5], "names": []}], "success": {"info": "done"},
        "packages": [], "size": 2,
    }  # fmt: skip
    return Host(sys.executable, "gym_world", {**world, **changed})


def step(of: Host, n: int = 1) -> np.ndarray:
    return of.ask("step", {"actions": np.full((n, 2), 0.1)}, ends=True)[1]["state"]


def gone(pid: int) -> bool:
    """Whether the process ends within a while; one that nobody has reaped yet has ended."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_it_says_what_it_is_and_goes_on_after_an_error() -> None:
    it = host(kwargs={"raises": 7})
    try:
        assert {"python", "gymnasium", "numpy"} <= set(it.versions)
        it.ask("reset", **{"with": {"seed": 7}})
        with pytest.raises(HostError, match=r"^RuntimeError: the table fell over$"):
            step(it, 3)
        it.ask("reset", **{"with": {"seed": 8}})
        assert step(it, 4)[0] == 4.0
        with pytest.raises(HostError, match="no request 'dance'"):
            it.ask("dance")
    finally:
        it.close()
    assert gone(it.pid)


def test_what_the_simulator_prints_is_no_message() -> None:
    it = host(kwargs={"noise": True})
    try:
        it.ask("reset", **{"with": {"seed": 0}})
        assert [step(it)[0] for _ in range(5)] == [1, 2, 3, 4, 5]
    finally:
        it.close()


def test_a_death_is_an_error_with_the_last_words() -> None:
    it = host(kwargs={"dies": 3})
    it.ask("reset", **{"with": {"seed": 3}})
    with pytest.raises(HostError, match=r"died \(killed by signal 9\): about to die"):
        step(it, 3)
    with pytest.raises(HostError, match="died"):  # and it stays dead
        it.ask("reset", **{"with": {"seed": 3}})
    it.close()


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"name": "NoSuch-v0"}, "NoSuch"),
        ({"name": "no_such_module:X-v0"}, "no_such_module"),
        ({"size": 3}, "3 dimensions"),
        ({"state": [{"observation": "joints", "slice": [0, 5], "names": []}]}, "'joints' is not there"),
        ({"state": [{"observation": "", "slice": [0, 6], "names": []}]}, "5 numbers"),
    ],
)
def test_what_cannot_be_built_is_one_line(changed: dict[str, Any], word: str) -> None:
    with pytest.raises(TaktError, match=word) as told:
        host(**changed)
    assert "\n" not in str(told.value)


def test_no_interpreter_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TaktError, match=r"cannot run .*No such file"):
        Host(tmp_path / "python", "gym_world", {})


def test_it_ends_with_the_process_that_started_it() -> None:
    script = (
        "from tests.sim.test_foreign import host; import time; it = host();"
        "print(it.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert Path(f"/proc/{pid}/stat").is_file()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert gone(pid)


# -- the body


def test_a_step_reaches_the_environment_once_and_then_it_holds(robot: ForeignRobot) -> None:
    clock = robot.clock
    assert isinstance(clock, SimulatedClock)
    robot.reset({"seed": 4}, 60)
    np.testing.assert_array_equal(robot.read().state, [0, 0, 0, 0, 4])
    clock.advance(0.1)  # two control steps without a command: stand, the gripper as it rests
    np.testing.assert_array_equal(robot.read().state, [2, 0, 0, -1, 4])
    robot.write(np.array([0.5, 0.25]))
    np.testing.assert_array_equal(robot.read().state, [2, 0, 0, -1, 4])  # no time has passed
    clock.advance(0.15)
    np.testing.assert_allclose(robot.read().state, [5, 0.5, 0, 0.25, 4])  # once; the gripper is kept
    clock.advance(0.04)  # less than a control step
    assert robot.read().state[0] == 5
    robot.write(np.array([0.125, 0.25]))
    robot.write(np.array([0.25, 0.25]))  # the newest counts
    clock.advance(0.02)
    np.testing.assert_allclose(robot.read().state, [6, 0.75, 0.25, 0.25, 4])
    assert not robot.success
    robot.write(np.array([0.5, -0.5]))
    clock.advance(0.05)
    robot.catch_up()
    assert robot.success
    clock.advance(1.0)  # the first success has ended it
    assert robot.read().state[0] == 7


def test_an_episode_has_no_more_steps_than_it_was_given(robot: ForeignRobot) -> None:
    assert isinstance(robot.clock, SimulatedClock)
    robot.reset({"seed": 0}, 10)
    robot.read()
    robot.clock.advance(60.0)
    assert robot.read().state[0] == 10


def test_frames_are_rendered_when_somebody_looks(robot: ForeignRobot) -> None:
    robot.reset({"seed": 0}, 10)
    seen = [robot.read() for _ in range(5)]
    assert list(seen[0].frames) == ["side"] and len(seen[0].frames) == 1
    assert seen[4].frames["side"].shape == (4, 6, 3)
    assert seen[4].frames["side"][0, 0, 0] == 1  # the first that was rendered, and once
    assert seen[3].frames["side"][0, 0, 0] == 2
    with pytest.raises(KeyError):
        seen[0].frames["top"]
    robot.fit([CameraSpec("side", 2, 3)])
    assert robot.spec.cameras == (CameraSpec("side", 2, 3),)
    robot.fit([])
    assert dict(robot.read().frames) == {}


# -- what pushes an expert about


def test_noise_pushes_steps_alone_in_bursts_that_its_seed_decides() -> None:
    body = spec("hand", ("x",), (Dimension("dx", "1", -1, 1, False), Dimension("grip", "1", -1, 1)))
    action = np.array([0.25, 1.0])

    def done(strength: float, seed: int) -> np.ndarray:
        noise = demos.Noise(body, np.random.default_rng(seed), strength)
        return np.array([noise(action) for _ in range(2000)])

    assert (done(0.0, 0) == action).all()
    pushed = done(1.0, 0)
    assert (pushed == done(1.0, 0)).all() and (pushed != done(1.0, 1)).any()
    assert (pushed[:, 1] == 1.0).all()
    at = pushed[:, 0] != 0.25
    assert 0.05 < at.mean() < 0.35
    assert (np.diff(pushed[at, 0]) == 0).mean() > 0.8  # a burst is one push
    assert done(3.0, 0)[:, 0].std() > pushed[:, 0].std()
