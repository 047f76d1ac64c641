"""`takt run`: a robot obeys an instruction in real time, with the latency budget in plain sight."""

from __future__ import annotations

import gc
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path

import tyro
from rich.console import Console

from runtime import loop
from runtime.budget import Budget, limits, table
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.planner import Planner
from runtime.safety import Filter, Limits
from runtime.spawn import spawn
from vla.contract import Robot, TaktError, check_match


def make_robot(name: str, **options: object) -> Robot:
    """The robot that an installed package offers under this name (entry points `takt.robots`).

    Raises:
        TaktError: no such name; the line lists the valid ones.
    """
    found = {entry.name: entry for entry in entry_points(group="takt.robots")}
    if name not in found:
        raise TaktError(f"no robot {name!r}; valid: {', '.join(sorted(found)) or 'none is installed'}")
    return found[name].load()(**options)


@contextmanager
def policy_at(place: str, threads: int) -> Iterator[RemotePolicy]:
    """The policy at an address, or one served from a bundle's folder by a child process."""
    with ExitStack() as stack:
        address = place
        if "://" not in place:
            address, _ = stack.enter_context(spawn(Path(place), threads=threads))
        yield stack.enter_context(RemotePolicy(address))


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends the loop after its tick; a second one interrupts whatever runs.

    Yields:
        a function that tells whether it was pressed.
    """
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = {s: signal.signal(s, press) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection: a full one takes longer than a tick."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@dataclass
class Command:
    """Obey an instruction with a policy on a robot."""

    text: tyro.conf.Positional[str]
    """The instruction."""
    robot: str
    """The robot's name."""
    policy: str
    """A bundle's folder, or the address of a server: tcp://HOST:PORT."""
    rate: float = 30.0
    """Ticks a second."""
    seconds: float = 20.0
    """How long to obey."""
    threads: int = 1
    """Threads of the engine, when the policy is a folder."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        if not self.text.strip():
            raise TaktError('the instruction is empty; try "put the red cube in the blue bowl"')
        if not (1 <= self.rate <= 1000 and 0 < self.seconds < float("inf")):
            raise TaktError("--rate is from 1 to 1000, --seconds above 0 and finite")
        robot = make_robot(self.robot)
        # The robot is entered last and so made safe first.
        with policy_at(self.policy, self.threads) as policy, interruptible() as pressed:
            check_match(policy.spec, robot.spec)
            with robot:
                return self._obey(robot, policy, pressed)

    def _obey(self, robot: Robot, policy: RemotePolicy, pressed: Callable[[], bool]) -> int:
        # The first inference allocates and reads the words: before the loop it costs no beat.
        policy.infer(replace(robot.read(), instruction=self.text))
        policy.reset(0)
        clock, budget = MonotonicClock(), Budget()
        planner = Planner(policy.spec, policy)
        safety = Filter(Limits.of(robot.spec))
        over = loop.lasting(clock, self.seconds)
        with without_collections():
            result = loop.run(
                robot,
                planner,
                Ticker(clock, 1.0 / self.rate),
                budget,
                self.text,
                safety,
                until=lambda now: pressed() or over(now),
            )
        if pressed():
            result.reason = "interrupted"
        self._report(result, budget, limits(policy.spec, 1.0 / self.rate, planner.replan))
        return {"done": 0, "interrupted": 130}.get(result.reason, 1)

    def _report(self, result: loop.LoopResult, budget: Budget, limit: dict[str, float]) -> None:
        console = Console()
        console.print(table(budget, limit))
        held = f"held for {result.held} of {result.ticks} ticks, skipped {result.skipped}"
        console.print(f"{result.reason}: {result.answered} of {result.asked} requests answered, {held}")
        if result.verdicts:
            clamps = ", ".join(f"{name} {count}" for name, count in sorted(result.verdicts.items()))
            console.print(f"safety filter: {clamps}")
        if self.json is not None:
            report = {"robot": self.robot, "policy": self.policy, "instruction": self.text}
            data = {**report, "loop": result.to_json(), "latency_ms": budget.to_json()}
            self.json.write_text(json.dumps(data, indent=2) + "\n")
