"""`takt record`: episodes of a robot that a policy or a leader arm moves, and nothing of them is lost.

Each episode is a journal (runtime/journal.py). The robot is made safe first; then the operator says whether
it succeeded, and the episode is completed. `takt dataset` makes a LeRobotDataset of them.
"""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from runtime import engines, joining, loop
from runtime.budget import Budget
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.guides import Leader, Led, make_leader
from runtime.machine import machine
from runtime.planner import InlineLink, Link, Planner
from runtime.realtime import without_collections
from runtime.recorder import Recorder
from runtime.run import Presses, interruptible, make_robot, policy_at, robot_options, told
from vla import atomic
from vla.contract import Observation, PolicySpec, Robot, TaktError, check_match

LEAD_IN = 60.0  # s within which a robot has to come to where its leader is
ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": None}


@dataclass
class Source:
    """What moves the robot in one episode."""

    spec: PolicySpec
    link: Link
    ready: Callable[[], bool] = field(default=lambda: True)


@dataclass
class Command:
    """Record episodes of a robot that a policy or a leader arm moves."""

    out: tyro.conf.Positional[Path]
    """Folder for the journals; episodes are added to what it holds."""
    robot: str
    """The robot's name."""
    task: str
    """What it is to do, in words."""
    policy: str | None = None
    """What moves it: a bundle's or checkpoint's folder, a policy's name, or a server's address."""
    leader: str | None = None
    """What moves it instead: the line of a second arm, which is led by hand."""
    leader_calibration: Path | None = None
    """The leader's calibration."""
    leader_options: tuple[str, ...] = ()
    """More for the leader, each NAME=VALUE."""
    leader_type: str = "so101"
    """The leader's kind."""
    episodes: int = 1
    """How many."""
    seconds: float = 20.0
    """How long each lasts at most; Enter ends it before."""
    rate: float = 30.0
    """Ticks a second."""
    success: Literal["ask", "yes", "no", "none"] = "ask"
    """Whether episodes succeeded: asked after each in a terminal, or the same for all."""
    port: str | None = None
    """The line of the robot's servos: /dev/ttyACM0, or emulated."""
    calibration: Path | None = None
    """The arm's calibration, a file of LeRobot's."""
    options: tuple[str, ...] = ()
    """More for the robot, each NAME=VALUE (docs/robots.md)."""
    join: str | None = None
    """How chunks are joined: naive, hold, ensemble, rtc."""
    threads: int = 1
    """Threads of the engine, when the policy is a folder."""
    engine: str = engines.DEFAULT
    """What runs a bundle."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        self._check()
        given = robot_options(self.port, self.calibration, self.options)
        rows: list[dict[str, Any]] = []
        with interruptible() as pressed, ExitStack() as stack:
            server, leader = self._movers(stack)
            recorder = stack.enter_context(Recorder(self.out, self.rate, complain))
            for name, commit in recorder.recovered.items():
                print(f"episode {int(name)}: left behind, {commit.rows} rows were whole", flush=True)
            while len(rows) < self.episodes and not pressed():
                if rows and not self._reset(len(rows), pressed):
                    break
                robot = make_robot(self.robot, **given)
                rows.append(self._episode(robot, server, leader, recorder, pressed, len(rows)))
                if rows[-1]["ended"] not in ("done", "interrupted"):
                    break
        if self.json is not None:
            about = {"robot": self.robot, "task": self.task, "rate": self.rate, "machine": machine()}
            atomic.write_json(self.json, about | {"episodes": rows}, indent=2)
        if pressed():
            return 130
        return 0 if rows and all(row["ended"] == "done" and not row["problem"] for row in rows) else 1

    def _check(self) -> None:
        if not self.task.strip():
            raise TaktError('the task is empty; try --task "put the red cube in the blue bowl"')
        if (self.policy is None) == (self.leader is None):
            raise TaktError("what moves the robot? --policy BUNDLE or --leader PORT, one of them")
        if not (1 <= self.rate <= 1000 and 0 < self.seconds < float("inf") and self.episodes >= 1):
            raise TaktError("--rate is from 1 to 1000, --seconds above 0 and finite, --episodes at least 1")
        if self.out.exists() and not self.out.is_dir():
            raise TaktError(f"{self.out} is a file; choose a folder")
        if self.leader is not None and self.leader == self.port and self.leader != "emulated":
            raise TaktError(f"{self.port} is the line of both arms; they have one each")

    def _movers(self, stack: ExitStack) -> tuple[RemotePolicy | None, Leader | None]:
        if self.leader is not None:
            options = robot_options(self.leader, self.leader_calibration, self.leader_options)
            return None, stack.enter_context(make_leader(self.leader_type, **options))
        assert self.policy is not None
        link = policy_at(self.policy, self.threads, self.engine, robot=self.robot)
        return stack.enter_context(link), None

    def _source(
        self, robot: Robot, server: RemotePolicy | None, leader: Leader | None, number: int
    ) -> Source:
        if server is not None:
            joining.make(self.join, server.spec)
            # The first inference allocates and reads the words: before the loop it costs no beat.
            server.infer(replace(robot.read(), instruction=self.task))
            server.reset(number)
            return Source(server.spec, server)
        assert leader is not None
        led = Led(leader, robot.spec)
        return Source(led.spec, InlineLink(led, 0.0, MonotonicClock()), lambda: led.caught)

    def _episode(
        self,
        robot: Robot,
        server: RemotePolicy | None,
        leader: Leader | None,
        recorder: Recorder,
        pressed: Presses,
        number: int,
    ) -> dict[str, Any]:
        if server is not None:
            check_match(server.spec, robot.spec)
        try:
            with pressed.through(robot):
                result = self._drive(robot, self._source(robot, server, leader, number), recorder, pressed)
        except BaseException as error:
            if recorder.recording:  # the robot is safe now; the episode keeps what it has
                with contextlib.suppress(TaktError):
                    recorder.end(f"failed: {str(error) or type(error).__name__}")
            raise
        print(f"{result.reason}: {told(result)}", flush=True)
        commit = recorder.end(result.reason, self._label(pressed))
        label = {True: "a success", False: "no success", None: "no label"}[commit.success]
        lost = f", {commit.dropped} ticks not recorded" if commit.dropped else ""
        print(f"episode {recorder.number}: {commit.rows} rows, {label}{lost}", flush=True)
        problem = recorder.problem
        if result.reason == "done" and not commit.rows and not problem:
            problem = "the robot did not come to where its leader is: hold the leader still at the beginning"
            complain(f"takt: {problem}")
        return {
            "episode": recorder.number,
            "problem": problem,
            **asdict(commit),
            "ended": result.reason,
            "loop": result.to_json(),
        }

    def _drive(
        self, robot: Robot, source: Source, recorder: Recorder, pressed: Callable[[], bool]
    ) -> loop.LoopResult:
        clock, guard, period = MonotonicClock(), Guard(robot.spec), 1.0 / self.rate
        planner = Planner(source.spec, source.link, join=self.join, period=period)
        begun: list[float] = []
        ticked: list[float] = []
        first: list[float] = []

        def over(now: float) -> bool:
            ticked[:] = [now]
            first[:] = first or [now]
            if not begun and now - first[0] > LEAD_IN:
                return True
            return bool(begun) and (now - begun[0] >= self.seconds or enter())

        def on_tick(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
            if not (begun or source.ready()):
                return  # on its way to where the leader is: no part of the episode
            # While it brakes to its end nobody asks whether it is over, and the tick's own time is not told.
            now = ticked.pop() if ticked else clock.now()
            begun[:] = begun or [now]
            recorder.put(now, seen, target, command, guard.status.state.name, guard.verdicts)

        about = {"policy": self.policy or f"leader {self.leader_type}", "machine": machine()}
        recorder.begin(robot.spec, self.task, about)
        with without_collections(), quiet_keys():
            ticker = Ticker(clock, period)
            return loop.run(
                robot,
                planner,
                ticker,
                Budget(),
                self.task,
                guard,
                over,
                on_tick,
                interrupted=pressed,
                settle=True,
            )

    def _label(self, pressed: Callable[[], bool]) -> bool | None:
        if self.success != "ask":
            return ANSWERS.get(self.success)
        if pressed() or not sys.stdin.isatty():
            return None
        while True:
            answer = ask("did it succeed? y, n, or Enter for no label: ")
            if answer is None or answer.strip().lower() in ANSWERS:
                return ANSWERS[(answer or "").strip().lower()]

    def _reset(self, done: int, pressed: Callable[[], bool]) -> bool:
        """Let the operator lay the table anew; whether to go on."""
        if not sys.stdin.isatty():
            return True
        return ask(f"episode {done + 1} of {self.episodes}: Enter begins it, Ctrl-C ends here: ") is not None


def ask(question: str) -> str | None:
    """The operator's answer; None for Ctrl-C, or an end of input."""
    print(question, end="", flush=True)
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        print()
        return None
    return line.rstrip("\n") if line else None


def enter() -> bool:
    """Whether somebody has pressed Enter in the terminal; asking waits for nobody."""
    if not sys.stdin.isatty() or not select.select([sys.stdin], [], [], 0.0)[0]:
        return False
    sys.stdin.readline()
    return True


@contextmanager
def quiet_keys() -> Iterator[None]:
    """What was typed before does not end an episode that has just begun."""
    while enter():
        pass
    yield


def complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
