"""The simulated table behind emulated servos: the real driver moves MuJoCo's arm, and sees it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from robot_io import calibration, plants
from robot_io.arm import PROFILES, Arm, make
from robot_io.calibration import Joint
from robot_io.emulator import Emulator
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from tests.robot_io.driving import RATE
from tests.runtime.peers import PATIENCE, until
from vla.contract import TaktError

pytest.importorskip("mujoco")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point, whatever is installed; processes that are started from here find it."""
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[takt.plants]\ntabletop = sim.plant:serve\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))


def lead(arm: Arm, goal: np.ndarray) -> np.ndarray:
    """Drive the arm to `goal` under the guard; where it then stands, shape (6,), rad."""
    guard, clock = Guard(arm.spec), MonotonicClock()
    begun = clock.now()
    for scheduled, now in Ticker(clock, 1.0 / RATE):
        seen = arm.read()
        arm.write(guard(goal, seen, now, now - scheduled))
        if np.abs(seen.state - goal).max() < 0.05 and guard.still:
            return seen.state
        assert now - begun < PATIENCE, (seen.state, goal, guard.status)
    raise AssertionError


def test_the_driver_moves_the_simulated_arm_and_sees_it_move(capsys: pytest.CaptureFixture[str]) -> None:
    with make(port="emulated", plant="tabletop", patience="0.1") as arm:
        before = arm.read()
        assert {name: frame.shape for name, frame in before.frames.items()} == {
            "front": (96, 96, 3),
            "wrist": (96, 96, 3),
        }
        goal = before.state + np.array([0.5, 0.2, -0.3, 0.2, 0.4, 0.3])
        stands = lead(arm, goal)
        # Gravity loads the lift: the emulated servos' own motion has no such thing.
        assert np.abs(arm.telemetry.load).max() > 0.02
        ticker = iter(Ticker(MonotonicClock(), 1.0 / RATE))
        while all(np.array_equal(arm.read().frames[n], before.frames[n]) for n in before.frames):
            next(ticker)
    assert np.abs(stands - before.state).max() > 0.4
    assert capsys.readouterr().err == "takt: parked, torque off\n"


def test_the_world_is_laid_and_asked(capfd: pytest.CaptureFixture[str]) -> None:
    """Servos that are renewed find themselves where its arm was laid, and hold it there."""
    with Emulator(plant="tabletop") as emulator:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.REQ)
        socket.connect(plants.address(emulator.folder, plants.WORLD))

        def ask(**order: object) -> dict[str, Any]:
            socket.send(msgpack.packb(order))
            assert socket.poll(PATIENCE * 1000)
            return msgpack.unpackb(socket.recv())

        try:
            arm = calibration.read(emulator.calibration)
            until(lambda: ask() and not ask()["reached"], "no answer")
            laid = ask(lay=7, split="seen")
            assert laid["instruction"] and laid["seconds"] > 0 and not laid["reached"] and not laid["since"]
            steps = [Joint.of(j, m).steps(at) for (j, m), at in zip(arm.items(), laid["joints"], strict=True)]

            def stands() -> bool:
                seen = emulator.look()
                return all(abs(seen[i]["position"] - at) <= 8 for i, at in enumerate(steps, 1))

            until(stands, "the arm is not where it was laid")
            emulator.order(renew=True)
            until(stands, "new servos do not find themselves there")
            assert ask(lay=7, split="none")["error"].startswith("no split 'none'; valid: seen")
        finally:
            context.destroy(linger=0)
    assert "Traceback" not in capfd.readouterr().err


def test_limits_of_the_simulation_are_for_emulated_servos() -> None:
    speeds = {name: make(port="emulated", limits=name).spec.max_velocity[0] for name in PROFILES}
    assert speeds["metal"] < speeds["simulation"]
    for wrong in ({"port": "emulated", "limits": "none"}, {"port": "/dev/null", "limits": "simulation"}):
        with pytest.raises(TaktError, match="limits=metal, or simulation"):
            make(**wrong, calibration=Path("x"))


def test_a_plant_without_emulated_servos_or_a_name_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TaktError, match="--port emulated"):
        Arm("/dev/ttyACM0", make(port="emulated")._calibration, plant="tabletop")
    with pytest.raises(TaktError, match="did not start: no plant 'moon'; valid: tabletop"):
        make(port="emulated", plant="moon").__enter__()
    errors = capfd.readouterr().err
    assert "moon" not in errors and "Traceback" not in errors


def test_it_has_an_entry_point() -> None:
    told = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points."takt.plants"]\ntabletop = "sim.plant:serve"\n' in told
    assert 'so101 = "robot_io.arm:make"\n' in told
    assert plants.address(Path("/tmp/x"), plants.STATE) == "ipc:///tmp/x/plant"
