"""Observations to compare policies on: of a data set, of the tabletop, or made up where neither fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime import so101
from vla.contract import Observation, PolicySpec, TaktError

SEED = 9_000_000  # of tables that neither demonstrations nor evaluations have
TEXT = "take it"  # what a policy is told where nobody says better
IMAGES = "observation.images."


def gather(spec: PolicySpec, count: int, folder: Path | None = None) -> tuple[list[Observation], str]:
    """As many observations as asked for, and where they are from.

    Args:
        folder: of a LeRobotDataset v3; None draws them from the tabletop where the policy fits it.

    Raises:
        TaktError: the data set has not what the policy looks at.
    """
    if folder is not None:
        return recorded(spec, count, folder), f"data set {folder.name}"
    if fits_tabletop(spec):
        return tabletop(count), f"tabletop, seeds {SEED} ..."
    return made_up(spec, count), "made up: smooth pictures, states within the actions' limits"


def fits_tabletop(spec: PolicySpec) -> bool:
    """Whether the tabletop's arm and cameras are what the policy wants."""
    arm = so101.spec(())
    units = [d.unit for d in spec.actions.dimensions]
    return (
        spec.state == arm.state
        and units == [d.unit for d in arm.actions.dimensions]
        and {camera.name for camera in spec.cameras} <= {"front", "wrist"}
    )


def tabletop(count: int) -> list[Observation]:
    """From episodes that the expert drives, each from another moment."""
    from sim.play import make_suite  # MuJoCo, which an export of others' policies need not have
    from sim.rollouts import ROW_TICKS, Arm, ExpertDriver, observe
    from sim.tabletop.world import World

    suite, world, found = make_suite("tabletop"), World(), []
    rng = np.random.default_rng(SEED)
    try:
        for i in range(count):
            (scenario,) = suite.scenarios(SEED + i, "seen", False)
            world.reset(scenario.layout, scenario.asked)
            arm, driver = Arm(world), ExpertDriver()
            for row in range(int(rng.integers(0, 24))):
                drive = driver(world, observe(world, 0.0, scenario.instruction))
                for tick in range(row * ROW_TICKS, (row + 1) * ROW_TICKS):
                    arm.tick(drive(tick, tick * 0.1 / ROW_TICKS))
            seen = observe(world, float(i), scenario.instruction)
            found.append(Observation(seen.time, seen.state, dict(seen.frames), seen.instruction))
    finally:
        world.close()
    return found


def recorded(spec: PolicySpec, count: int, folder: Path) -> list[Observation]:
    """Spread over the first episodes of a data set."""
    from vla.dataset import Dataset

    data: Any = Dataset(folder)
    episodes = list(range(min(4, len(data.episodes))))
    states = data.columns(["observation.state"], episodes)["observation.state"]
    if states.shape[1] != len(spec.state):
        raise TaktError(
            f"{folder} has states of {states.shape[1]} numbers, the policy wants {len(spec.state)}"
        )
    frames = {camera.name: data.images(IMAGES + camera.name, episodes) for camera in spec.cameras}
    texts = data.task_of(episodes)
    at = np.linspace(0, len(states) - 1, count).round().astype(int)
    return [
        Observation(float(i), states[k].astype(np.float32), {n: f[k] for n, f in frames.items()}, texts[k])
        for i, k in enumerate(at)
    ]


def made_up(spec: PolicySpec, count: int) -> list[Observation]:
    """Smooth pictures, as cameras give them, and states within the limits of the actions where they are
    as many."""
    rng, found = np.random.default_rng(SEED), []
    low, high = (np.array([getattr(d, n) for d in spec.actions.dimensions]) for n in ("lower", "upper"))
    if len(low) != len(spec.state):
        low, high = -np.ones(len(spec.state)), np.ones(len(spec.state))
    for i in range(count):
        frames = {c.name: smooth(rng, c.height, c.width) for c in spec.cameras}
        state = rng.uniform(low, high).astype(np.float32)
        found.append(Observation(float(i), state, frames, TEXT))
    return found


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A picture (height, width, 3), uint8, of a few random colours that run into each other."""
    coarse = rng.uniform(0, 255, (5, 5, 3))
    rows, columns = (np.linspace(0, 3.999, n) for n in (height, width))
    i, j = rows.astype(int), columns.astype(int)
    a, b = (rows - i)[:, None, None], (columns - j)[None, :, None]
    top = coarse[i][:, j] * (1 - b) + coarse[i][:, j + 1] * b
    bottom = coarse[i + 1][:, j] * (1 - b) + coarse[i + 1][:, j + 1] * b
    return (top * (1 - a) + bottom * a).round().astype(np.uint8)
