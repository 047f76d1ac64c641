"""LIBERO as an evaluation suite, by the published protocol, in a Python of its own that has hf-libero.

`libero` is its four suites (spatial, object, goal, 10: 40 tasks), `libero:spatial` one of them, `libero:90`
the 90 short tasks. Seed s is task s mod the number of tasks, from the fixed initial state number s div that;
so `--episodes 10 --seed 0` plays the first ten states of every task. Ten control steps of doing nothing come
first, 20 control steps a second follow, as many as the suite is given; the first success ends an episode.
"""

from __future__ import annotations

from typing import Any

from runtime.clock import Clock
from sim.foreign import suite as foreign
from sim.foreign.process import Host
from sim.foreign.robot import ForeignRobot, spec
from vla.contract import CameraSpec, Dimension, RobotSpec, TaktError

# name -> (tasks, control steps at most): somewhat more than the longest demonstration, as others count
# (openvla, LeRobot).
SUITES = {"spatial": (10, 280), "object": (10, 280), "goal": (10, 300), "10": (10, 520), "90": (90, 400)}
FOUR = ("spatial", "object", "goal", "10")
STATE = ("x", "y", "z", "rx", "ry", "rz", "finger_0", "finger_1")
STEPS = tuple(Dimension(f"d{name}", "1", -1.0, 1.0, absolute=False) for name in STATE[:6])
GRIP = Dimension("grip", "1", -1.0, 1.0)  # -1 opens; what it was last told is held
CAMERAS = tuple(CameraSpec(name, 256, 256) for name in ("agentview", "wrist"))
REMEDY = (
    "make .venv-libero with hf-libero and mujoco==3.3.0 as docs/suites.md says, or let TAKT_LIBERO_PYTHON "
    "name one that has them"
)


class Libero:
    """Entry point `libero` of `takt.suites`."""

    splits = ("seen",)
    rate = 20.0  # control steps a second

    def __init__(self, argument: str = "") -> None:
        """
        Args:
            argument: one of `SUITES`; "" for the four that are published together.

        Raises:
            TaktError: no such suite, or LIBERO is not installed.
        """
        if argument and argument not in SUITES:
            raise TaktError(f"no suite libero:{argument}; valid: {', '.join(f'libero:{s}' for s in SUITES)}")
        self.name = f"libero:{argument}" if argument else "libero"
        self.suites = (argument,) if argument else FOUR
        self.tasks = tuple(f"{suite}-{i}" for suite in self.suites for i in range(SUITES[suite][0]))
        self.seconds = max(SUITES[suite][1] for suite in self.suites) / self.rate
        self.python = foreign.interpreter("libero", "TAKT_LIBERO_PYTHON", ".venv-libero", REMEDY)

    def seeds(self, first: int, episodes: int, only: tuple[str, ...]) -> list[int]:
        """`episodes` of every task, task by task.

        Raises:
            TaktError: there is no such task.
        """
        return foreign.by_task(self.tasks, first, episodes, only)

    def scenarios(self, seed: int, split: str, swap: bool) -> list[foreign.Scenario]:
        """The one episode of a seed.

        Raises:
            TaktError: pairs were asked for.
        """
        foreign.plain(self.name, split, swap)
        state, number = divmod(seed, len(self.tasks))
        task = self.tasks[number]
        suite, _, index = task.rpartition("-")
        steps = SUITES[suite][1]
        request = {"benchmark": f"libero_{suite}", "task": int(index), "state": state}
        return [foreign.Scenario(seed, task, "", request, steps, steps / self.rate)]

    def spec(self) -> RobotSpec:
        """Panda's hand: place [m], rotation as axis times angle [rad], fingers [m]; small steps."""
        return spec("libero", STATE, (*STEPS, GRIP), CAMERAS, rest=(0.0,) * 6 + (-1.0,))

    def robot(self, clock: Clock) -> ForeignRobot:
        return ForeignRobot(Host(self.python, "libero_world", {}), self.spec(), clock, self.rate)

    def summary(self, episodes: list[dict[str, Any]]) -> dict[str, Any]:
        """Success by suite, and the mean of the suites' rates."""
        outcomes = ((e["task"].rpartition("-")[0], e["success"]) for e in episodes)
        return foreign.by_bucket(self.suites, outcomes)
