"""The simulator as the policy's world model: each candidate chunk is played forward before one is taken.

    keep the world -> play a chunk behind the safety filter -> look -> put the world back, bit for bit

It knows the scene as it is, which no camera tells: what it brings is what a perfect model of the scene would.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.safety import Limits, limit
from runtime.safety import Memory as Filtered
from runtime.think import Coherence, Judge, Memory
from sim.robot import TabletopRobot
from sim.tabletop import rules
from sim.tabletop.world import TICK_STEPS, World
from vla.contract import ActionChunk, PolicySpec, Request, TaktError

TICK = TICK_STEPS / 240  # s of physics between commands
KNOCKED = 0.010  # a thing that was not named counts as run into when it moves by more in a chunk [m]
DROPPED = 0.030  # the thing counts as dropped when it leaves the jaws and ends lower by more [m]
REFUSED = 1e3  # what a collision or a drop costs: more than anything else
HELD, DONE = 0.3, 2.0  # what having the thing between the jaws, and having done the task, are worth [m]
TIE = 1e-3  # what the least coherent of the draws costs


def check(suite: Any) -> None:
    """Raises TaktError where the suite's world cannot be played forward."""
    if getattr(suite, "name", "") != "tabletop":
        raise TaktError("judges that play chunks in a simulator know the suite tabletop alone")


def of(suite: Any, robot: TabletopRobot, judge: str, spec: PolicySpec) -> Judge:
    """The judge `refuse` or `world` (runtime/think.py) of a policy that drives this robot."""
    check(suite)
    return Foresight(robot, spec, progress=judge == "world")


class Foresight:
    """Refuses chunks that run into things or drop what they carry; then progress, then coherence."""

    def __init__(self, robot: TabletopRobot, spec: PolicySpec, progress: bool) -> None:
        """`progress`: of the chunks that are not refused, take the one that gets farthest."""
        self._robot, self._spec, self._progress = robot, spec, progress
        self._limits = Limits.of(robot.spec)
        self._coherence = Coherence(spec)

    def __call__(
        self, chunks: np.ndarray, request: Request, repeated: np.ndarray, memory: Memory
    ) -> np.ndarray:
        costs = np.array([self._played(rows, request.observation.time) for rows in chunks])
        apart = self._coherence(chunks, request, repeated, memory)
        return costs + TIE * apart / max(float(apart.max()), 1e-9)

    def _played(self, rows: np.ndarray, begun: float) -> float:
        """What a chunk (H, A) costs that begins at `begun` s."""
        world, chunk = self._robot.world, ActionChunk(begun, self._spec.dt, rows)
        before, held = world.things(), world.held()
        world.keep()
        # What the loop's filter remembers is nearly that: the arm moves as it was commanded to.
        last = world.commanded()
        now, memory = begun, Filtered(last, world.speeds(), last, begun)
        while (row := chunk.at(now, self._spec.actions.absolute)) is not None:
            now += TICK
            command, memory, _ = limit(self._limits, memory, row, world.joints(), now)
            world.command(command)
            world.advance(TICK_STEPS)
        cost = REFUSED * refused(world, before, held) - self._progress * progress(world)
        world.put_back()
        return cost


def refused(world: World, before: np.ndarray, held: int | None) -> bool:
    """Whether something has gone wrong.

    Args:
        before: where the things were, shape (slots, 3) [m]. held: which one was between the jaws.
    """
    assert world.layout is not None
    things, thing = world.things(), world.slot("thing")
    shift = np.linalg.norm(things - before, axis=1)
    if any(shift[slot] > KNOCKED for slot in world.layout.slots if slot not in (thing, held)):
        return True
    fell = held is not None and world.held() != held and before[held, 2] - things[held, 2] > DROPPED
    return fell and not world.success()


def progress(world: World) -> float:
    """How far the task is [m], more is better; 0 where it cannot be done."""
    assert world.task is not None
    slot, thing = world.slot("thing"), world.named("thing")
    if slot is None or thing is None or not world.possible():
        return 0.0
    worth, verb = DONE * world.success(), world.task.verb
    if verb == "touch":
        top = thing + np.array([0.0, 0.0, rules.height(slot)])
        return worth - float(np.linalg.norm(world.tip() - top))
    held = world.held() == slot
    worth += HELD if held else -float(np.linalg.norm(world.tool() - thing))
    if verb == "lift":
        return worth + min(float(thing[2] - world.start[slot][2]), rules.LIFTED)
    goal = world.named("place")
    away = thing[:2] - (world.push_goal if goal is None else goal[:2])
    return worth - float(np.linalg.norm(away))
