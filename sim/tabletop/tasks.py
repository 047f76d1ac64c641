"""What may be asked on the tabletop: layouts drawn from a seed, and the rule of success."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.tabletop.kinematics import PAN_X
from sim.tabletop.scene import BOWL_INNER, BOWL_RIM, BOWLS, COLOURS, CUBE_HALF, CUBES

RHO = (0.150, 0.265)  # things stand this far from the pan axis [m]
SWEEP = 0.85  # and within +- this angle of straight ahead [rad]
MOVED = 0.025  # a thing counts as moved past this distance [m]


@dataclass(frozen=True)
class Layout:
    """One scene: what stands where, in which light, and what is asked.

    Attributes:
        cubes, bowls: colour names, one a thing.
        cube_xy, cube_yaw, bowl_xy: shapes (n, 2) [m], (n,) [rad], (m, 2) [m].
        cube, bowl: indices of the named ones.
        arm: shape (6,), the pose to start from [rad].
        table, light, light_at: table colour (3,), brightness (3,), key light position (3,) [m].
        tint: shape (CUBES + BOWLS,), brightness of each thing's paint.
    """

    cubes: tuple[str, ...]
    bowls: tuple[str, ...]
    cube_xy: np.ndarray
    cube_yaw: np.ndarray
    bowl_xy: np.ndarray
    cube: int
    bowl: int
    arm: np.ndarray
    table: np.ndarray
    light: np.ndarray
    light_at: np.ndarray
    tint: np.ndarray

    @property
    def names(self) -> tuple[str, str]:
        """Colours of the named cube and the named bowl."""
        return self.cubes[self.cube], self.bowls[self.bowl]

    def swapped(self) -> Layout:
        """The same scene with another cube named, and another bowl where there is one."""
        return replace(self, cube=(self.cube + 1) % len(self.cubes), bowl=(self.bowl + 1) % len(self.bowls))


HOME = np.array([0.0, -0.55, 0.75, 0.95, 0.0, 0.9])  # [rad]


def sample(rng: np.random.Generator, swap: bool = False, things: tuple[int, int] | None = None) -> Layout:
    """A random layout of 2 to 5 things with at least one cube and one bowl.

    Args:
        swap: ask for at least two cubes and two bowls, so that another instruction fits too.
        things: numbers of cubes and bowls, instead of random ones.
    """
    least = 2 if swap else 1
    cubes = int(rng.integers(least, CUBES + 1))
    bowls = int(rng.integers(least, BOWLS + 1))
    if things is not None:
        cubes, bowls = things
    xy = _places(rng, cubes, bowls)
    names = list(COLOURS)
    return Layout(
        cubes=tuple(names[i] for i in rng.permutation(len(names))[:cubes]),
        bowls=tuple(names[i] for i in rng.permutation(len(names))[:bowls]),
        cube_xy=xy[bowls:],
        cube_yaw=rng.uniform(-np.pi / 4, np.pi / 4, cubes),
        bowl_xy=xy[:bowls],
        cube=int(rng.integers(cubes)),
        bowl=int(rng.integers(bowls)),
        arm=HOME + rng.uniform(-1, 1, 6) * np.array([0.25, 0.10, 0.10, 0.10, 0.0, 0.1]),
        table=np.array([0.76, 0.70, 0.62]) * rng.uniform(0.75, 1.1) + rng.uniform(-0.05, 0.05, 3),
        light=np.full(3, rng.uniform(0.45, 0.75)) + rng.uniform(-0.05, 0.05, 3),
        light_at=np.array([0.5, 0.4, 1.0]) + rng.uniform(-0.3, 0.3, 3),
        tint=rng.uniform(0.85, 1.1, CUBES + BOWLS),
    )


def _places(rng: np.random.Generator, cubes: int, bowls: int) -> np.ndarray:
    """Positions on the table, bowls first, shape (bowls + cubes, 2) [m], by rejection."""
    gaps = {(1, 1): 2 * BOWL_INNER + 0.035, (0, 1): BOWL_INNER + 0.048, (0, 0): 0.062}
    while True:
        placed: list[tuple[np.ndarray, int]] = []
        for kind in [1] * bowls + [0] * cubes:
            for _ in range(30):
                rho, a = rng.uniform(*RHO), rng.uniform(-SWEEP, SWEEP)
                xy = np.array([PAN_X + rho * np.cos(a), rho * np.sin(a)])
                if all(np.hypot(*(xy - other)) > gaps[(min(kind, k), max(kind, k))] for other, k in placed):
                    placed.append((xy, kind))
                    break
            else:
                break
        if len(placed) == cubes + bowls:
            return np.array([xy for xy, _ in placed])


def in_bowl(cube: np.ndarray, bowl: np.ndarray) -> bool:
    """Whether a cube's centre lies inside a bowl; both shape (3,) [m], the bowl's origin at its foot."""
    inside = np.hypot(*(cube[:2] - bowl[:2])) < BOWL_INNER - 0.004
    return bool(inside and cube[2] - bowl[2] < BOWL_RIM + CUBE_HALF * 0.6)
