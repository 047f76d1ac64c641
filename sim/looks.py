"""Looks at a table under many instructions, of which some name what is not there: `takt demos --looks`.

What tells whether something can be done (nano's `possible`) needs tables and sentences in number, and no
motion: one picture serves several sentences, and no expert has to label it. So a look is an episode of one
frame without a chunk, which is right for `takt train --only possible` and for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.rollouts import Arm, Noise, privileged
from sim.tabletop import expert, tasks
from sim.tabletop.world import CAMERAS, World

Columns = dict[str, np.ndarray]
AT_ONCE = 0.9  # share of tables that are looked at before the arm has moved, where nano may hold still
DRIVEN = (1, 220)  # ticks of something else that the others have seen
# Share of instructions that name what is not there. An arm at work was mostly sent by one who can see.
ABSENT_AT_ONCE, ABSENT_LATER = 0.5, 0.25
COLUMNS = (
    "observation.state",
    *(f"observation.images.{camera}" for camera in CAMERAS),
    "privileged.present",
    "privileged.positions",
    "privileged.pixels",
    "privileged.meaning",
)


def looks(world: World, rng: np.random.Generator, count: int, noise: float) -> Iterator[Columns]:
    """Columns of `count` looks, leading length 1, each after the world was asked something else.

    The first is at what was asked when the table was laid; the arm may be anywhere on its way then.

    Args:
        noise: strength of what disturbs the arm on its way (`rollouts.Noise`).
    """
    assert world.task is not None
    task = world.task
    at_once = rng.random() < AT_ONCE
    arm, pushed = Arm(world), Noise(rng, noise)
    for _ in range(0 if at_once else int(rng.integers(*DRIVEN))):
        arm.tick(pushed(expert.act(world)))
    absent = ABSENT_AT_ONCE if at_once else ABSENT_LATER
    frames = {f"observation.images.{camera}": world.frame(camera)[None] for camera in CAMERAS}
    yield _look(world) | frames
    for _ in range(count - 1):
        asked = tasks.another(rng, world.now(), task)
        if asked is None:
            return
        if rng.random() < absent:
            asked = tasks.absent(rng, world.now(), asked) or asked
        world.ask(asked)
        yield _look(world) | frames


def _look(world: World) -> dict[str, np.ndarray]:
    """The joints, and what the simulator knows of the table under the present task; leading length 1."""
    return {n: v[None] for n, v in ({"observation.state": world.joints()} | privileged(world)).items()}
