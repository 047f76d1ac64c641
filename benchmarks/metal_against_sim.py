"""The same tables through a servo arm's whole path and in direct simulation, in pairs.

    the path       policy server | this process: camera readers, loop, guard, driver | pseudo-terminal | six
                   emulated servos | MuJoCo, which follows the machine's clock | a process for each camera
    direct         what `takt eval` does: one process, simulated time, frames drawn when they are asked for

The path runs in real time, under metal's limits and under those of the simulation. Direct simulation runs
under both as well: as it is, with plans that are late and frames that are old, and with the gripper's torque
as an SO-101's is set. Success is the suite's, judged by the process of the world.

The path needs most of a core, and what it measures is worth nothing where others take that: `--load` waits
before an episode until the machine is quieter. Load, skipped ticks and physics left out are in the result.

    python benchmarks/metal_against_sim.py --episodes 50
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq
from _command import main

from robot_io import calibration, plants
from robot_io.arm import PROFILES, Arm
from robot_io.calibration import Joint
from robot_io.camera_options import Asked
from robot_io.emulator import Emulator
from robot_io.packets import BYTE_SECONDS
from runtime import loop, so101
from runtime.budget import Budget
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.latency import Draws, parse
from runtime.machine import machine
from runtime.planner import Planner
from runtime.realtime import without_collections
from runtime.run import policy_at
from runtime.so101 import Profile
from sim import play
from sim.evaluate import SHIPPED
from sim.robot import TabletopRobot
from sim.score import score
from sim.statistics import mcnemar, paired
from sim.tabletop.arm import FORCE, JOINTS
from vla.contract import RobotSpec, TaktError

RESULTS = Path(__file__).resolve().parent / "results"
RATE = 30.0  # ticks a second
WAIT = 20.0  # s for an answer of the world
SIDE = 96  # pixels
GRIPPER = JOINTS.index("gripper")
# Of direct simulation: ticks until a plan is there, ticks since the frames were taken, and the part of its
# torque that the gripper has; an SO-101's is set to half of it.
DIRECT = ((0, 0, 1.0), (1, 1, 1.0), (2, 1, 1.0), (1, 1, 0.5), (2, 1, 0.5))


class World:
    """The world behind the servos, asked from outside."""

    def __init__(self, folder: Path) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(plants.address(folder, plants.WORLD))
        self._waiting = False

    def ask(self, **order: Any) -> dict[str, Any]:
        """Wait for an answer."""
        if self._waiting:
            self._answer(WAIT)
        self._socket.send(msgpack.packb(order))
        self._waiting = True
        answer = self._answer(WAIT)
        if answer is None or "error" in answer:
            raise TaktError(f"the world: {answer['error'] if answer else 'no answer'}")
        return answer

    def done(self, _: float = 0.0) -> bool:
        """Whether it said that the task is done; it is asked again without waiting."""
        answer = self._answer(0.0) if self._waiting else {}
        if answer is not None:
            self._socket.send(msgpack.packb({}))
            self._waiting = True
        return bool(answer and answer.get("reached"))

    def _answer(self, wait: float) -> dict[str, Any] | None:
        if not self._socket.poll(round(wait * 1e3)):
            return None
        self._waiting = False
        return msgpack.unpackb(self._socket.recv())

    def close(self) -> None:
        self._socket.close()


class Timed(Arm):
    """An arm that notes how long each turn on the bus took, s, and its bytes."""

    def begin(self) -> None:
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def _on_the_line(self, what: Callable[[], None]) -> None:
        begun = time.perf_counter()
        super()._on_the_line(what)
        if hasattr(self, "seconds"):
            self.seconds.append(time.perf_counter() - begun)

    def read(self) -> Any:
        seen = super().read()
        if hasattr(self, "bytes"):
            self.bytes.append(self.traffic.sent + self.traffic.received)
        return seen

    def cycles(self) -> tuple[np.ndarray, np.ndarray]:
        """ms on the bus for each tick, reading and telling; ms that its bytes take on a real line."""
        pairs = np.array(self.seconds[: len(self.seconds) // 2 * 2]).reshape(-1, 2).sum(1)
        return pairs * 1e3, np.array(self.bytes[1:]) * BYTE_SECONDS * 1e3


@dataclass
class Notes:
    """What was measured over all episodes, ms."""

    bus: list[np.ndarray] = field(default_factory=list)
    line: list[np.ndarray] = field(default_factory=list)
    age: list[float] = field(default_factory=list)  # of the older of both frames, in every tick
    answer: list[float] = field(
        default_factory=list
    )  # from an observation to the end of the tick with its plan
    ticks: list[int] = field(default_factory=list)  # from the tick that asked to the one that had the plan

    def to_json(self) -> dict[str, Any]:
        rows = {
            "bus_ms": np.concatenate(self.bus),
            "line_ms": np.concatenate(self.line),
            "frame_age_ms": np.array(self.age) * 1e3,
            "answer_ms": np.array(self.answer) * 1e3,
        }
        levels = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
        return {
            name: {level: round(float(np.quantile(row, q)), 3) for level, q in levels.items()}
            for name, row in rows.items()
        } | {"answer_ticks": dict(sorted(Counter(self.ticks).items()))}


class Whole:
    """The whole path, kept between episodes; the arm is met, switched on and left in each."""

    def __init__(self, emulator: Emulator, policy: RemotePolicy, limits: str, patience: float) -> None:
        self.emulator, self.policy, self.limits, self.patience = emulator, policy, limits, patience
        self.calibration = calibration.read(emulator.calibration)
        self.world = World(emulator.folder)
        self.notes = Notes()

    def _lay(self, seed: int, split: str) -> dict[str, Any]:
        """The table, and servos that find themselves where its arm stands."""
        joints = [Joint.of(joint, motor) for joint, motor in self.calibration.items()]
        laid = self.world.ask(lay=seed, split=split)
        steps = [joint.steps(angle) for joint, angle in zip(joints, laid["joints"], strict=True)]
        self._stand(steps)
        self.emulator.order(renew=True)
        self._stand(steps)
        return laid

    def _stand(self, steps: list[int]) -> None:
        """Wait until they say that they stand there; an arm sinks a little under its weight."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            seen = self.emulator.look()
            if all(abs(seen[i]["position"] - at) <= 6 for i, at in enumerate(steps, 1)):
                return
            time.sleep(0.01)
        raise TaktError("the servos do not find themselves where the arm was laid")

    def play(self, seed: int, split: str, seconds: float) -> dict[str, Any]:
        """One episode, and what it came to."""
        laid = self._lay(seed, split)
        feed = plants.address(self.emulator.folder, plants.FRAMES)
        eyes = tuple(Asked(name, "feed", feed, (SIDE, SIDE)) for name in ("front", "wrist"))
        arm = Timed(
            self.emulator.port, self.calibration, "off", patience=self.patience, watched=eyes,
            profile=PROFILES[self.limits],
        )  # fmt: skip
        policy, load = self.policy, os.getloadavg()[0]
        arm.fit(policy.spec.cameras)
        with arm:
            # The first words of a policy cost time that is no beat's, as in takt run.
            policy.infer(replace(arm.read(), instruction=laid["instruction"]))
            policy.reset(seed)
            arm.begin()
            result, begun = self._obey(arm, laid["instruction"], seconds)
        told = self.world.ask()
        took = told["since"] - begun if told["reached"] else None
        bus, line = arm.cycles()
        self.notes.bus.append(bus)
        self.notes.line.append(line)
        holds = [
            reason for _, _, after, reasons in result.states[3:] if after == "HOLD" for reason in reasons
        ]
        return {
            "seed": seed, "task": laid["task"], "instruction": laid["instruction"],
            "success": took is not None and took <= seconds, "took": took, "reason": result.reason,
            "ticks": result.ticks, "held": result.held, "skipped": result.skipped, "asked": result.asked,
            "faults": [w for _, _, after, words in result.states if after == "FAULT" for w in words[1:]],
            "late": result.late, "exceeded": result.exceeded, "holds": holds, "verdicts": result.verdicts,
            "physics_lost": told["lost"], "load": load,
        }  # fmt: skip

    def _obey(self, arm: Timed, instruction: str, seconds: float) -> tuple[loop.LoopResult, float]:
        clock, period = MonotonicClock(), 1.0 / RATE
        planner = Planner(self.policy.spec, self.policy, period=period)
        times: list[float] = []  # of the observations of all ticks
        chunk = planner.chunk

        def watch(seen: Any, target: Any, command: Any) -> None:
            nonlocal chunk
            now = time.monotonic()
            times.append(seen.time)
            self.notes.age.append(now - min(seen.captured.values()))
            if planner.chunk is not None and planner.chunk is not chunk:
                chunk = planner.chunk
                self.notes.answer.append(now - chunk.time)
                self.notes.ticks.append(len(times) - 1 - bisect_left(times, chunk.time - 1e-6))

        with without_collections():
            begun = clock.now()
            late = loop.lasting(clock, seconds)
            result = loop.run(
                arm, planner, Ticker(clock, period), Budget(64), instruction, Guard(arm.spec),
                lambda now: self.world.done() or late(now), on_tick=watch, settle=True,
            )  # fmt: skip
        return result, begun


@contextmanager
def path(policy: RemotePolicy, limits: str, patience: float) -> Iterator[Whole]:
    with Emulator(plant="tabletop") as emulator:
        made = Whole(emulator, policy, limits, patience)
        try:
            yield made
        finally:
            made.world.close()


def direct(
    c: Command, limits: str, late: int, old: int, torque: float, seeds: list[int]
) -> list[dict[str, Any]]:
    """The same episodes in simulated time: rows with `success` and `took`.

    Args:
        late, old: ticks until a plan is there, and ticks since the frames were taken.
        torque: the part of its torque that the gripper has.
    """
    # A tick is only so exact: an answer that is due with it has to be there.
    latency = parse(f"{max(0.0, late / RATE - 1e-3)}s")
    options = play.Options("tabletop", c.policy, c.split, False, latency, None, RATE)
    worker = play.Worker(options)
    worker.robot = Limited(worker.robot, PROFILES[limits], old, torque)
    rows = []
    try:
        for seed in seeds:
            scenario = replace(worker.suite.scenarios(seed, c.split, False)[0], seconds=c.seconds)
            stages: dict[str, list[float]] = {name: [] for name in play.STAGES}
            row, _ = play.obey(worker, scenario, stages, Draws(options.latency, seed, 0))
            took = row["sim_seconds"] - scenario.settle if row["success"] else None
            rows.append({"seed": seed, "success": row["success"], "took": took, "held": row["held"]})
    finally:
        worker.close()
    return rows


class Limited(TabletopRobot):
    """The simulated arm under other limits, its frames some ticks old, its gripper not so strong."""

    def __init__(self, robot: TabletopRobot, profile: Profile, old: int, torque: float) -> None:
        super().__init__(robot.world, robot.clock)
        self._profile, self._torque = profile, torque
        self._kept: deque[dict[str, np.ndarray]] = deque(maxlen=old + 1)

    def reset(self, layout: Any, task: Any) -> None:
        super().reset(layout, task)
        self.world.model.actuator_forcerange[GRIPPER] = self._torque * FORCE * np.array([-1.0, 1.0])
        self._kept.clear()

    def read(self) -> Any:
        seen = super().read()
        if self._kept.maxlen == 1:
            return seen
        self._kept.append(dict(seen.frames))
        return replace(seen, frames=self._kept[0])

    @property
    def spec(self) -> RobotSpec:
        return so101.spec(super().spec.cameras, name="tabletop", profile=self._profile)


def against(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> dict[str, Any]:
    """Paired: by how much `two` succeeds more often than `one`."""
    a, b = [e["success"] for e in one], [e["success"] for e in two]
    difference, low, high = paired(a, b)
    only = {"only_one": sum(x and not y for x, y in zip(a, b, strict=True))}
    only["only_two"] = sum(y and not x for x, y in zip(a, b, strict=True))
    return {"difference": difference, "ci95": [low, high], **only, "mcnemar_p": mcnemar(a, b)}


@dataclass
class Command:
    """Play tables through the servo path and in direct simulation."""

    episodes: int = 50
    """How many seeds."""
    seed: int = 10_000
    """The first."""
    split: str = "seen"
    """Of the suite's sentences and combinations."""
    policy: str = str(SHIPPED)
    """A bundle's folder."""
    seconds: float = 15.0
    """The longest an episode lasts; `within` counts those that were done in 10 s, as takt eval has it."""
    limits: tuple[str, ...] = ("metal", "simulation")
    """Of the path: metal, simulation; those of --again where that is given."""
    again: Path | None = None
    """A result of before: its episodes of the path count, and direct simulation is played to them."""
    load: float = 100.0
    """An episode of the path begins when the machine's load (of one minute) is no more than this."""
    wait: float = 900.0
    """s to wait for that in all; then it begins whatever the load."""
    patience: float = 0.02
    """s that a servo's answer may take beyond its bytes' time; a busy machine wants more than metal."""
    json: Path = RESULTS / "metal_against_sim.json"
    """Where to write the result."""

    def run(self) -> int:
        seeds = list(range(self.seed, self.seed + self.episodes))
        report: dict[str, Any] = {
            "machine": machine(), "policy": Path(self.policy).name, "rate": RATE, "split": self.split,
            "seeds": [seeds[0], seeds[-1]], "seconds": self.seconds,
            "path": {}, "direct": {}, "paired": {},
        }  # fmt: skip
        for limits in self.limits:
            if self.again is None:
                report["path"][limits] = self._path(limits, seeds, report)
        if self.again is not None:
            report["path"] = jsonlib.loads(self.again.read_text())["path"]
        for limits, found in report["path"].items():
            played = [e["seed"] for e in found["episodes"]]
            for late, old, torque in DIRECT:
                name = f"{limits}, plans {late} ticks late, frames {old} old, gripper {torque:.0%}"
                rows = direct(self, limits, late, old, torque, played)
                report["direct"][name] = self._scored(rows)
                report["paired"][f"direct ({name}) to path"] = against(rows, found["episodes"])
                self._write(report)
        self._tell(report)
        return 0

    def _path(self, limits: str, seeds: list[int], report: dict[str, Any]) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        found: dict[str, Any] = {}
        begun = time.monotonic()
        with ExitStack() as stack:
            policy = stack.enter_context(policy_at(self.policy, 1, robot="so101"))
            played = stack.enter_context(path(policy, limits, self.patience))
            for seed in seeds:
                self._quiet()
                rows.append(played.play(seed, self.split, self.seconds))
                done = sum(e["success"] for e in rows)
                print(f"{limits} limits, seed {seed}: {done}/{len(rows)}; {rows[-1]['task']}", flush=True)
                counts = {n: sum(e[n] for e in rows) for n in ("ticks", "held", "skipped", "late")}
                found = self._scored(rows) | played.notes.to_json() | {"counts": counts}
                found["load"] = {"mean": float(np.mean([e["load"] for e in rows]))}
                found["load"]["max"] = max(e["load"] for e in rows)
                found["physics_lost"] = sum(e["physics_lost"] for e in rows)
                found["wall_seconds"] = time.monotonic() - begun
                report["path"][limits] = found
                self._write(report)
        return found

    def _quiet(self) -> None:
        """Wait for a quieter machine."""
        while self.wait > 0.0 and os.getloadavg()[0] > self.load:
            time.sleep(1.0)
            self.wait -= 1.0

    def _scored(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        within = [e["took"] is not None and e["took"] <= 10.0 for e in rows]
        took = [e["took"] for e in rows if e["success"]]
        return {
            "success": score([e["success"] for e in rows]),
            "within_10s": score(within),
            "took_s": float(np.median(took)) if took else None,
            "episodes": rows,
        }

    def _write(self, report: dict[str, Any]) -> None:
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")

    def _tell(self, report: dict[str, Any]) -> None:
        for kind in ("path", "direct"):
            for name, found in report[kind].items():
                s, (low, high) = found["success"], found["success"]["ci95"]
                print(
                    f"{kind:6} {name:22} {s['k']}/{s['n']} "
                    f"(95 % Wilson {100 * low:.0f} .. {100 * high:.0f} %), "
                    f"{found['within_10s']['k']} within 10 s"
                )
        for name, found in report["path"].items():
            bus, line, counts = found["bus_ms"], found["line_ms"]["p50"], found["counts"]
            age, answer = found["frame_age_ms"]["p50"], found["answer_ms"]["p50"]
            print(
                f"{name}: bus {bus['p50']:.2f} ms a cycle, p99 {bus['p99']:.2f} ({line:.2f} by its bytes); "
                f"frames {age:.0f} ms old; plans {answer:.0f} ms; "
                f"{counts['skipped']} of {counts['ticks'] + counts['skipped']} ticks skipped; "
                f"load {found['load']['mean']:.1f}"
            )
        for name, found in report["paired"].items():
            low, high = (100 * v for v in found["ci95"])
            print(
                f"{name}: {100 * found['difference']:+.0f} points ({low:+.0f} .. {high:+.0f}), "
                f"{found['only_one']} only the first, {found['only_two']} only the second"
            )


if __name__ == "__main__":
    sys.exit(main(Command))
