"""The tabletop as an evaluation suite: which episode a seed means, and what counts as success."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from runtime.clock import Clock
from sim.robot import TabletopRobot
from sim.tabletop import instructions, tasks
from sim.tabletop.world import World


@dataclass(frozen=True)
class Scenario:
    """One episode: the table, the words, and the name of the task for the report."""

    seed: int
    task: str
    instruction: str
    layout: tasks.Layout
    strict: bool

    def successful(self, world: World) -> bool:
        """The named cube lies in the named bowl, let go; when strict, nothing else has moved."""
        return world.success() and not (self.strict and world.others_moved())


class Tabletop:
    """Entry point `tabletop` of `takt.suites`."""

    name = "tabletop"
    splits = instructions.SPLITS
    seconds = 10.0  # simulated, the longest an episode lasts
    settle = 0.5  # success must last this long, simulated s

    def scenarios(self, seed: int, split: str, swap: bool) -> list[Scenario]:
        """What one seed stands for: one episode, or with `swap` two on the same table."""
        rng = np.random.default_rng(seed)
        layout = tasks.sample(rng, swap=swap)
        layouts = [layout, layout.swapped()] if swap else [layout]
        return [
            Scenario(seed, "put X in Y", instructions.phrase(*item.names, rng, split), item, strict=swap)
            for item in layouts
        ]

    def scenario(self, instruction: str, seed: int) -> Scenario:
        """A table on which `instruction` makes sense: the colours it names are there.

        Words that name no known colours leave the table as the seed has it.
        """
        rng = np.random.default_rng(seed)
        layout = tasks.sample(rng, things=(2, 2))
        named = instructions.colours(instruction)
        if len(named) == 2:
            layout = replace(
                layout,
                cubes=_with(layout.cubes, layout.cube, named[0]),
                bowls=_with(layout.bowls, layout.bowl, named[1]),
            )
        return Scenario(seed, "put X in Y", instruction, layout, strict=False)

    def robot(self, clock: Clock) -> TabletopRobot:
        return TabletopRobot(World(), clock)


def _with(colours: tuple[str, ...], index: int, wanted: str) -> tuple[str, ...]:
    """The colours with `wanted` at `index`; whoever had it takes what stood there."""
    row = list(colours)
    if wanted in row:
        row[row.index(wanted)] = row[index]
    row[index] = wanted
    return tuple(row)


SUITE = Tabletop()
