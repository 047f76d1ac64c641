"""A control cycle on a bus of six servos: all that they say, and a goal for each; beside LeRobot's bus.

Of an SO-101 (Feetech's STS servos) and of a Koch (Dynamixel's X series). The servos are emulated, in a
process of their own on a pseudo-terminal, and answer at a line's 10 us a byte; adapters and USB add to that
on metal. LeRobot's bus is measured where it is installed (`make parity`, or lerobot, feetech-servo-sdk and
dynamixel-sdk), in the same run, against the same servos: as it drives an arm, positions alone, and with the
same telemetry as ours.

    python benchmarks/bus.py
"""

from __future__ import annotations

import importlib.util
import json as jsonlib
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _command import main

from robot_io import calibration
from robot_io.arm import Arm
from robot_io.bodies import BODIES, SO101, Body
from robot_io.emulator import Emulator
from runtime.machine import machine
from runtime.realtime import without_collections
from vla.contract import TaktError

RESULTS = Path(__file__).resolve().parent / "results"
# Where `make parity` puts LeRobot; last on the path, so that everything else is this environment's.
PARITY = RESULTS.parent.parent / ".venv-parity/lib"
sys.path += map(str, PARITY.glob(f"python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"))
PERIOD = 0.02  # s between cycles: a bus that is not idle in between is no control loop's
# Robot -> what LeRobot is asked for to know as much as we do, the SDK that it wants, and bytes of our cycle:
# all telemetry of all servos, one servo's audit, the goals.
TELEMETRY = {
    "so101": (
        "Present_Position", "Present_Velocity", "Present_Load", "Present_Voltage", "Present_Temperature",
        "Status", "Present_Current",
    ),
    "koch": (
        "Present_Position", "Present_Velocity", "Present_Current", "Present_Input_Voltage",
        "Present_Temperature", "Hardware_Error_Status",
    ),
}  # fmt: skip
SDKS = {"so101": "scservo_sdk", "koch": "dynamixel_sdk"}
BYTES = {"so101": 14 + 6 * 21 + 9 + 6 + 9 + 26, "koch": 178 + 15 + 46 + 44}
DEAD = [3]


def measure(cycle: Callable[[], bool], count: int) -> dict[str, float]:
    """ms a cycle took, and of a processor; the part of the cycles in which not everything was answered."""
    wall, cpu, missed = np.zeros(count), np.zeros(count), 0
    for i in range(count):
        begun, busy = time.perf_counter(), time.process_time()
        missed += not cycle()
        wall[i], cpu[i] = time.perf_counter() - begun, time.process_time() - busy
        time.sleep(max(0.0, PERIOD - wall[i]))
    p50, p99 = np.quantile(wall * 1e3, [0.5, 0.99])
    return {
        "p50": float(p50),
        "p99": float(p99),
        "max": float(wall.max() * 1e3),
        "cpu": float(cpu.mean() * 1e3),
        "missed": missed / count,
    }


def ours(emulator: Emulator, count: int) -> dict[str, dict[str, float]]:
    """Our driver: everything, every cycle; then with a dead servo."""
    out = {}
    with Arm(emulator.port, calibration.read(emulator.calibration, emulator.body), body=emulator.body) as arm:
        here = arm.read().state.astype(float)

        def cycle() -> bool:
            arm.read()
            arm.write(here)
            return not arm.traffic.missing

        out["takt, all telemetry"] = measure(cycle, count)
        emulator.fail(dead=DEAD)
        out["takt, all telemetry, one servo dead"] = measure(cycle, max(count // 20, 10))
        emulator.fail()
        cycle()
    return out


def lerobots(emulator: Emulator, count: int) -> dict[str, dict[str, float]]:
    """LeRobot's bus in its own words."""
    from lerobot.motors.dynamixel import DynamixelMotorsBus
    from lerobot.motors.feetech import FeetechMotorsBus
    from lerobot.motors.motors_bus import Motor, MotorCalibration, MotorNormMode

    body = emulator.body
    arm = calibration.read(emulator.calibration, body)
    bus = (FeetechMotorsBus if body is SO101 else DynamixelMotorsBus)(
        emulator.port,
        {j: Motor(m.id, body.model(j).name.lower(), MotorNormMode.DEGREES) for j, m in arm.items()},
        {joint: MotorCalibration(**vars(m)) for joint, m in arm.items()},
    )
    bus.connect()
    bus.enable_torque()
    here = bus.sync_read("Present_Position")

    def read(*names: str) -> bool:
        told = False
        # An answer that is late for one register is taken for the next one's, and may be too short for that.
        with suppress(ConnectionError, IndexError):
            for name in names:
                bus.sync_read(name)
            told = True
        bus.sync_write("Goal_Position", here)
        return told

    def positions() -> bool:
        return read("Present_Position")

    def everything() -> bool:
        return read(*TELEMETRY[body.name])

    out = {
        "lerobot, positions": measure(positions, count),
        "lerobot, all telemetry": measure(everything, count),
    }
    emulator.fail(dead=DEAD)
    out["lerobot, positions, one servo dead"] = measure(positions, max(count // 20, 10))
    emulator.fail()
    bus.disconnect()
    return out


@dataclass
class Command:
    """Measure a control cycle on the bus."""

    cycles: int = 1000
    """Cycles of each kind."""
    json: Path = RESULTS / "bus.json"
    """Where to write the result."""

    def run(self) -> int:
        if self.cycles < 20:
            raise TaktError("--cycles is at least 20")
        rows = {body.name: self.measured(body) for body in BODIES.values() if body.name in TELEMETRY}
        report: dict[str, Any] = {"machine": machine(), "cycles": self.cycles, **rows.pop(SO101.name), **rows}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        return 0

    def measured(self, body: Body) -> dict[str, Any]:
        """One arm's rows, printed as well."""
        peers = all(importlib.util.find_spec(name) for name in ("lerobot", SDKS[body.name]))
        with ExitStack() as stack:
            emulator = stack.enter_context(Emulator(robot=body.name))
            stack.enter_context(without_collections())
            rows = ours(emulator, self.cycles)
            if peers:
                rows |= lerobots(emulator, self.cycles)
        line = BYTES[body.name] * 0.01
        print(f"{body.name}: ms a cycle; the bytes of ours take {line:.2f} ms at 1 Mbit/s")
        for name, row in rows.items():
            print(f"  {name:38} " + "  ".join(f"{key} {value:6.2f}" for key, value in row.items()))
        if not peers:
            print(f"  lerobot and {SDKS[body.name]} are not installed: no comparison")
        return {"line_ms": line, "ms": rows, "lerobot": "measured" if peers else "not installed"}


if __name__ == "__main__":
    sys.exit(main(Command))
