"""Any gymnasium environment as an evaluation suite, by a mapping file; see mapping.py."""

from __future__ import annotations

from pathlib import Path

from runtime.bundle import sha256
from runtime.clock import Clock
from sim.foreign import suite as foreign
from sim.foreign.process import Host
from sim.foreign.robot import ForeignRobot, spec
from sim.gym import mapping
from vla.contract import RobotSpec, TaktError


class Mapped:
    """Entry point `gym` of `takt.suites`: gym:FILE. A seed is the environment's own."""

    splits = ("seen",)

    def __init__(self, argument: str) -> None:
        """
        Args:
            argument: the mapping file.

        Raises:
            TaktError: there is none, or it is not understood.
        """
        if not argument:
            raise TaktError("--suite gym:FILE.json: name the mapping file (docs/suites.md)")
        self.mapping = mapping.read(argument)
        self.name = f"gym:{Path(argument).name}"
        self.identity = sha256(Path(argument))
        self.rate, self.seconds = self.mapping.rate, self.mapping.seconds

    def scenarios(self, seed: int, split: str, swap: bool) -> list[foreign.Scenario]:
        """The one episode of a seed.

        Raises:
            TaktError: pairs were asked for.
        """
        foreign.plain(self.name, split, swap)
        m, steps = self.mapping, max(1, round(self.seconds * self.rate))
        task = m.world["name"].rpartition(":")[2]
        return [foreign.Scenario(seed, task, m.text, {"seed": seed}, steps, self.seconds, m.settle)]

    def spec(self) -> RobotSpec:
        """As the file says it."""
        m = self.mapping
        return spec(self.name, m.state, m.actions, m.cameras, m.rest)

    def robot(self, clock: Clock) -> ForeignRobot:
        host = Host(self.mapping.python, "gym_world", self.mapping.world)
        return ForeignRobot(host, self.spec(), clock, self.rate)
