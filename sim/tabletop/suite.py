"""The tabletop as an evaluation suite: which episodes a seed means, and what counts as success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime.clock import Clock
from sim.robot import TabletopRobot, spec
from sim.tabletop import expert, instructions, rules, tasks
from sim.tabletop.meaning import Task
from sim.tabletop.tasks import Layout
from sim.tabletop.world import World
from vla.contract import RobotSpec, TaktError

SPLITS = ("seen", "phrasings", "combinations")


@dataclass(frozen=True)
class Scenario:
    """One episode.

    Attributes:
        task: its name in the report's table. instruction: what the policy is told.
        group: "" counts for `success` in the report, others are keys of their own.
        asked: what the instruction means. strict: nothing that is not named may move.
        seconds: simulated, the longest it lasts. settle: so long success must last, simulated s.
    """

    seed: int
    task: str
    instruction: str
    layout: Layout
    asked: Task
    group: str = ""
    strict: bool = False
    seconds: float = 10.0
    settle: float = 0.5

    def lay(self, robot: TabletopRobot) -> None:
        """Lay the table before the robot."""
        robot.reset(self.layout, self.asked)

    def successful(self, world: World) -> bool:
        """The task is done; when strict, nothing else has moved. When it cannot be done, nothing has."""
        if not world.possible():
            return not world.moved(rules.STILL)
        return world.success() and not (self.strict and world.moved(rules.MOVED, others=True))


class Tabletop:
    """Entry point `tabletop` of `takt.suites`."""

    name = "tabletop"
    splits = SPLITS
    seconds = 10.0  # simulated, the longest an episode lasts
    rate = 30.0  # commands a simulated second

    def scenarios(self, seed: int, split: str, swap: bool) -> list[Scenario]:
        """What one seed stands for: one episode, or with `swap` five in which language alone decides.

        These are two tasks on one table; two whose words are the same in swapped roles ("roles"); and
        one that names something that is not there ("absent").
        """
        rng = np.random.default_rng(seed)

        def scenario(layout: Layout, task: Task, group: str = "", **how: float) -> Scenario:
            text = instructions.phrase(task, rng, words_of(split))
            title = "nothing to do" if group == "absent" else name(task)
            return Scenario(seed, title, text, layout, task, group, strict=swap, **how)

        layout, task = tasks.draw(rng, split)
        if not swap:
            return [scenario(layout, task)]
        while (other := tasks.another(rng, layout, task, split)) is None:
            layout, task = tasks.draw(rng, split)
        pair = [scenario(layout, task), scenario(layout, other)]
        table, one, two = tasks.roles(rng)
        pair += [scenario(table, one, "roles"), scenario(table, two, "roles")]
        while (missing := tasks.absent(rng, layout, task)) is None:
            layout, task = tasks.draw(rng, split)
        # Nothing may move from the beginning to the end.
        return [*pair, scenario(layout, missing, "absent", seconds=6.5, settle=6.0)]

    def scenario(self, instruction: str, seed: int) -> Scenario:
        """A table on which `instruction` makes sense: what it names is there.

        Raises:
            TaktError: it has no meaning here, or no table was found for it.
        """
        task = instructions.parse(instruction)
        if task is None:
            known = "', '".join(instructions.examples())
            raise TaktError(f"cannot tell what {instruction!r} means here; try '{known}'")
        rng = np.random.default_rng(seed)
        for _ in range(2000):
            layout = tasks.lay(rng, task)
            if layout is not None:
                return Scenario(seed, name(task), instruction, layout, task)
        raise TaktError(f"no table was found on which {instruction!r} could be done")

    def robot(self, clock: Clock) -> TabletopRobot:
        return TabletopRobot(World(), clock)

    def spec(self) -> RobotSpec:
        """Of its robot, without making one."""
        return spec()

    def expert(self, robot: TabletopRobot) -> Callable[[], np.ndarray]:
        """What the scripted expert would do now, shape (6,) [rad]."""
        return lambda: expert.act(robot.world)


def words_of(split: str) -> str:
    """Which of the grammar's wordings a split has; combinations are new in what is said, not in how."""
    return split if split in instructions.SPLITS_OF_WORDS else "seen"


def name(task: Task) -> str:
    """The kind of task, as it stands in the report's table."""
    plain = {
        "put": "put X in Y",
        "stack": "stack X on Y",
        "push": "push X to a side" if task.side else "push X to a zone",
        "touch": "touch X",
        "lift": "lift X",
    }[task.verb]
    return f"{plain}, spatial words" if task.relation else plain


SUITE = Tabletop()
