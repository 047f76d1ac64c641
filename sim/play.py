"""Episodes of an evaluation: one world and one policy a process, kept between them.

Each is a function of its seed: the policy's noise starts from it, inference runs on one thread and never
batched, and the clock is simulated. So any process, alone or beside others, plays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from runtime import engines, loop
from runtime.budget import Budget
from runtime.child import follow
from runtime.clock import SimulatedClock, Ticker
from runtime.engine import GraphPolicy
from runtime.guard import Guard
from runtime.latency import Draws, Latency
from runtime.planner import InlineLink, Planner
from runtime.policies import open_policy
from runtime.think import WORLDLY, parse
from runtime.watchdogs import Watch
from sim import expert, foresight
from sim.disturbed import Disturbed
from sim.statistics import jerk
from vla.contract import Observation, Policy, Prefix, TaktError, check_match

STAGES = ("words", "preprocess", "prefix", "steps", "judge")
COUNTS = ("steps", "held", "dry", "skipped", "asked", "late")


def make_suite(place: str) -> Any:
    """The suite an installed package offers under a name (entry points `takt.suites`).

    Args:
        place: NAME or NAME:ARGUMENT, where the entry point leads to a suite, or to a function that makes one
            of the argument ("" where there is none).

    Raises:
        TaktError: no such name; the line lists the valid ones. Or what the function refuses.
    """
    name, colon, argument = place.partition(":")
    found = {entry.name: entry for entry in entry_points(group="takt.suites")}
    if name not in found:
        raise TaktError(f"no suite {name!r}; valid: {', '.join(sorted(found)) or 'none is installed'}")
    suite = found[name].load()
    if callable(suite):
        return suite(argument)
    if colon:
        raise TaktError(f"suite {name!r} takes no argument, got {argument!r}")
    return suite


@dataclass(frozen=True)
class Options:
    """What every episode of a run has in common."""

    suite: str
    policy: str
    split: str
    swap: bool
    latency: Latency
    join: str | None
    rate: float
    engine: str = engines.DEFAULT
    think: str | None = None
    noise: float = 0.0

    @property
    def period(self) -> float:
        return 1.0 / self.rate


class Worker:
    def __init__(self, options: Options) -> None:
        self.options, self.suite = options, make_suite(options.suite)
        self.robot = self.suite.robot(SimulatedClock())
        try:
            self.policy = self._policy()
            check_match(self.policy.spec, self.robot.spec)
        except BaseException:
            self.close()
            raise
        if hasattr(self.robot, "fit"):  # a simulator that renders at the sizes it is asked for
            self.robot.fit(self.policy.spec.cameras)

    def _policy(self) -> Policy:
        if self.options.policy == expert.NAME:
            return expert.of(self.suite, self.robot)
        think = parse(self.options.think)
        policy = open_policy(self.options.policy, threads=1, engine=self.options.engine, think=think)
        if think is not None and think.judge in WORLDLY:
            assert isinstance(policy, GraphPolicy)
            policy.judge = foresight.of(self.suite, self.robot, think.judge, policy.spec)
        return policy

    def close(self) -> None:
        """Give back what the simulator holds; it may be in any state."""
        with suppress(Exception):
            self.robot.__exit__(None, None, None)


_options: Options | None = None
_worker: Worker | None = None
_built = False  # whether this process has had a worker for these options


def start(options: Options, parent: int | None = None) -> None:
    """A worker process begins, to end with `parent`. It is built at its first seed, where an error
    reaches the user.
    """
    global _options, _built
    if parent is not None:
        follow(parent)
    finish()
    _options, _built = options, False


def finish() -> None:
    """The run's world is needed no more."""
    global _worker
    if _worker is not None:
        _worker.close()
    _worker = None


def play(seed: int) -> dict[str, Any]:
    """All episodes of one seed: their outcomes, the stages' seconds, the latencies drawn and the jerk."""
    global _worker
    assert _options is not None
    suite = make_suite(_options.suite) if _worker is None else _worker.suite
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    episodes, jerks, latencies = [], [], []
    versions: dict[str, str] = {}
    for i, scenario in enumerate(suite.scenarios(seed, _options.split, _options.swap)):
        late = Draws(_options.latency, seed, i)
        try:
            _worker = _worker or _build(_options)
            episode, _ = obey(_worker, scenario, stages, late)
        except TaktError:
            raise  # something was asked wrongly, which every episode would meet
        except Exception as error:
            episodes.append(failed(scenario, f"{type(error).__name__}: {error}"))
            finish()  # its world may be in any state
            continue
        episodes.append(episode)
        jerks.append(episode["jerk"])
        latencies += late.seconds
        versions = getattr(_worker.robot, "versions", {})
    played = {"episodes": episodes, "jerk": jerks, "stages": stages, "latencies": latencies}
    return played | ({"versions": versions} if versions else {})


def _build(options: Options) -> Worker:
    """What cannot be built at first was asked wrongly; what cannot be built again is an episode's error."""
    global _built
    try:
        worker = Worker(options)
    except TaktError as error:
        if _built:
            raise RuntimeError(str(error)) from None
        raise
    _built = True
    return worker


def failed(scenario: Any, error: str) -> dict[str, Any]:
    """The row of an episode that broke."""
    row: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    named = {name: getattr(scenario, name) for name in ("task", "group", "instruction", "seed")}
    return {**named, "success": False, **row, "sim_seconds": 0.0, "error": " ".join(error.split())[:300]}


def obey(
    w: Worker,
    scenario: Any,
    stages: dict[str, list[float]],
    late: Draws,
    look: Callable[[], None] | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """One episode; its row of the report and the measured joints at every tick, shape (T, A).

    Args:
        look: called every tick, for those who film; it must leave the world as it is.
    """
    # Time begins anew: how its sums are rounded must not depend on what was played before.
    w.robot.clock = clock = SimulatedClock()
    scenario.lay(w.robot)
    w.policy.reset(scenario.seed)
    begun = clock.now()
    period = w.options.period
    link = _Listening(InlineLink(w.policy, late, clock), stages)
    planner = Planner(w.policy.spec, link, join=w.options.join, period=period)
    goal = Goal(scenario, w.robot.world, scenario.settle, begun, begun + scenario.seconds)
    joints: list[np.ndarray] = []
    dry = 0

    def watch(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
        nonlocal dry
        joints.append(seen.state)
        dry += target is None and planner.chunk is not None
        if look is not None:
            look()

    robot = Disturbed(w.robot, scenario.seed, w.options.noise) if w.options.noise else w.robot
    result = loop.run(
        robot, planner, Ticker(clock, period), Budget(64), scenario.instruction,
        Guard(w.robot.spec, Watch(patience=scenario.seconds)), goal, on_tick=watch,
    )  # fmt: skip
    row = {
        "task": scenario.task,
        "group": scenario.group,
        "instruction": scenario.instruction,
        "seed": scenario.seed,
        "success": goal.reached,
        "steps": result.ticks,
        "sim_seconds": round(result.ticks * period, 4),
        "held": result.held,
        "dry": dry,
        "skipped": result.skipped,
        "asked": result.asked,
        "late": result.late,
        "jerk": jerk(np.array(joints), period),
    }
    return row, np.array(joints)


class Goal:
    """An `until`: success that has lasted, or the time is up.

    Attributes:
        reached: whether success has lasted `settle` s.
        took: from the beginning to that success, s.
    """

    def __init__(self, scenario: Any, world: Any, settle: float, begun: float, end: float) -> None:
        self.scenario, self.world, self.settle, self.begun, self.end = scenario, world, settle, begun, end
        self.took = float("inf")
        self.since: float | None = None
        self.reached = False

    def __call__(self, now: float) -> bool:
        if not self.scenario.successful(self.world):
            self.since = None
        elif self.since is None:
            self.since, self.took = now, now - self.begun
        self.reached = self.since is not None and now - self.since >= self.settle - 1e-9
        return self.reached or now >= self.end - 1e-9 or getattr(self.world, "over", False)


class _Listening:
    """A link that notes how long the stages of each answer took, and hands it on without those times.

    They are this machine's, and time is simulated: a planner that counted them would decide otherwise
    on a busy one.
    """

    def __init__(self, link: InlineLink, stages: dict[str, list[float]]) -> None:
        self._link, self._stages = link, stages

    lost, link_up = 0, True

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        return self._link.submit(observation, prefix, deadline)

    def poll(self) -> list[Any]:
        chunks = self._link.poll()
        for chunk in chunks:
            for name in STAGES:
                if name in chunk.stages:
                    self._stages[name].append(chunk.stages[name])
        return [replace(chunk, stages={}, step_seconds=(), origin=None) for chunk in chunks]
