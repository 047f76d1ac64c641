"""What variants are asked: recorded, drawn from the tabletop, or, where nothing fits the policy, made up.

How long an answer takes hardly depends on what is seen; how far two answers are apart does, so pictures
like those that the policy was trained on come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.contract import CameraSpec, Observation, PolicySpec, SpecMismatch, TaktError, check_match

STATE, IMAGES = "observation.state", "observation.images."
INSTRUCTION = "put the red cube in the blue bowl"
_EPISODES = 4  # of a data set at most: pictures of an episode are decoded together
_TICKS = 90  # that the expert has driven at most, 3 s


@dataclass(frozen=True)
class Asked:
    """Observations, and where they are from, for the report."""

    observations: list[Observation]
    source: dict[str, Any]


def gather(spec: PolicySpec, count: int, seed: int, folder: Path | None = None) -> Asked:
    """`count` observations for a policy: from a data set's folder, the tabletop where it fits, or made up.

    Raises:
        TaktError: the data set cannot be read, or does not hold what the policy looks at.
    """
    if folder is not None:
        return recorded(spec, count, seed, folder)
    why = _misfit(spec)
    if why is None:
        try:
            return tabletop(spec, count, seed)
        except (TaktError, ImportError) as error:  # no GL, no MuJoCo
            why = str(error)
    return made_up(spec, count, seed, why)


def recorded(spec: PolicySpec, count: int, seed: int, folder: Path) -> Asked:
    """Frames of a LeRobotDataset v3, drawn from at most four of its episodes."""
    from vla.dataset import Dataset

    data = Dataset(folder)
    lacks = [name for name in (STATE, *(IMAGES + c.name for c in spec.cameras)) if name not in data.features]
    if (spec.state and STATE in lacks) or (lacks and lacks != [STATE]):
        raise TaktError(
            f"{folder} lacks {lacks}, which policy {spec.name!r} looks at; it has {sorted(data.features)}"
        )
    rng = np.random.default_rng(seed)
    episodes = sorted(rng.permutation(len(data.episodes))[:_EPISODES].tolist())
    frames = sum(data.episodes[i]["length"] for i in episodes)
    if not frames:
        raise TaktError(f"{folder} has no frames")
    rows = np.sort(rng.choice(frames, count, replace=frames < count))
    states = np.zeros((frames, 0), np.float32)
    if spec.state:
        states = data.columns([STATE], episodes)[STATE].astype(np.float32)
    if states.shape[1:] != (len(spec.state),):
        raise TaktError(
            f"{folder} has states of {states.shape[1]} numbers, policy {spec.name!r} takes {list(spec.state)}"
        )
    pictures = {c.name: data.images(IMAGES + c.name, episodes)[rows] for c in spec.cameras}
    words = data.task_of(episodes)
    seen = [
        Observation(float(i), states[row], {c: p[i] for c, p in pictures.items()}, words[row])
        for i, row in enumerate(rows)
    ]
    return Asked(seen, {"kind": "data set", "folder": str(folder), "episodes": episodes, "n": count})


def _misfit(spec: PolicySpec) -> str | None:
    """Why the tabletop does not fit a policy; None where it does."""
    try:
        from sim import robot
    except (TaktError, ImportError) as error:
        return str(error)
    try:
        check_match(spec, robot.spec())
    except SpecMismatch as error:
        return str(error)
    return None


def tabletop(spec: PolicySpec, count: int, seed: int) -> Asked:
    """Tables of seeds from `seed` on, each after the expert has worked on it for a while."""
    from sim.rollouts import Arm, observe
    from sim.tabletop import expert
    from sim.tabletop.suite import SUITE
    from sim.tabletop.world import World

    world, seen = World(), []
    try:
        for i in range(count):
            (scenario,) = SUITE.scenarios(seed + i, "seen", False)
            world.reset(scenario.layout, scenario.asked)
            arm = Arm(world)
            for _ in range(int(np.random.default_rng([seed + i, 1]).integers(_TICKS))):
                arm.tick(expert.act(world))
            one = observe(world, float(i), scenario.instruction)
            frames = {c.name: one.frames[c.name] for c in spec.cameras}
            seen.append(Observation(one.time, one.state, frames, one.instruction))
    finally:
        world.close()
    return Asked(seen, {"kind": "tabletop", "seeds": [seed, seed + count - 1], "n": count})


def made_up(spec: PolicySpec, count: int, seed: int, why: str) -> Asked:
    """Patches of colour, and states within the actions' limits where those have the same names."""
    rng = np.random.default_rng(seed)
    names, middle, half = spec.actions.names, np.zeros(len(spec.state)), np.ones(len(spec.state))
    if spec.state == names:
        middle = (spec.actions.upper + spec.actions.lower) / 2
        half = (spec.actions.upper - spec.actions.lower) / 4
    seen = [
        Observation(
            time=float(i),
            state=(middle + half * rng.uniform(-1, 1, len(spec.state))).astype(np.float32),
            frames={c.name: _patches(rng, c) for c in spec.cameras},
            instruction=INSTRUCTION,
        )
        for i in range(count)
    ]
    return Asked(seen, {"kind": "made up", "seed": seed, "n": count, "why": why})


def _patches(rng: np.random.Generator, camera: CameraSpec) -> np.ndarray:
    """A picture of eight patches a side, with a little noise, shape (h, w, 3), uint8."""
    rows, columns = (np.arange(n) * 8 // n for n in (camera.height, camera.width))
    patches = rng.integers(0, 256, (8, 8, 3))[rows][:, columns]
    noise = rng.integers(-8, 9, patches.shape)
    return np.clip(patches + noise, 0, 255).astype(np.uint8)


def check_same(specs: Sequence[PolicySpec], names: Sequence[str]) -> None:
    """Variants can be compared: they look at the same and their chunks have the same rows.

    Raises:
        TaktError: two do not, with what differs.
    """
    for spec, name in zip(specs[1:], names[1:], strict=True):
        for what, of in (
            ("state", lambda s: list(s.state)),
            ("actions", lambda s: [(d.name, d.unit) for d in s.actions.dimensions]),
            ("cameras", lambda s: sorted(c.name for c in s.cameras)),
            ("rows", lambda s: (s.chunk_length, round(s.dt, 6))),
        ):
            if of(spec) != of(specs[0]):
                raise TaktError(
                    f"{names[0]} and {name} differ in {what} and cannot be compared: "
                    f"{of(specs[0])} against {of(spec)}"
                )
