"""A scripted expert that is a function of the state, not a script: it has no memory.

So it can be asked anywhere: after a slip, a push, or from where a half-trained policy has driven
the arm (DAgger, Ross et al. 2011, arXiv 1011.0686). It looks at joint angles and at the true
positions of what the task names, decides where the tool should go next, and moves there at a
bounded speed (motion.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.tabletop import kinematics, rules
from sim.tabletop.motion import OPEN, SHUT, Step, move
from sim.tabletop.scene import BOWL_INNER, SLOTS
from sim.tabletop.world import World

GRASP_Z, HOVER_Z, CARRY_Z, DROP_Z = 0.013, 0.060, 0.085, 0.066  # tool heights [m]
LIFT_Z = 0.095  # where a lifted thing is shown [m]
SIDE = 0.004  # a thing is taken this far outwards of the tool point, towards the moving jaw [m]
LOW = {"cube": 0.0, "cylinder": 0.0, "ball": 0.003}  # taken this far below its middle [m]
WIDTH = {"cube": 0.46, "cylinder": 0.48, "ball": 0.54}  # jaws that hold one are shut further than this [rad]
PUSH_SPEED = 0.16  # [m/s]


@dataclass(frozen=True)
class View:
    """What the expert sees; positions of shape (3,) [m].

    Attributes:
        q: joint angles, shape (6,) [rad]. at: the tool point. tip: the finger tip of the shut gripper.
        thing, place: of what is named. slot: the thing's, of scene.SLOTS.
        held: the slot between the jaws. done: whether the rule of success holds.
    """

    q: np.ndarray
    at: np.ndarray
    tip: np.ndarray
    thing: np.ndarray
    place: np.ndarray | None
    slot: int
    held: int | None
    done: bool

    @property
    def kind(self) -> str:
        return SLOTS[self.slot][:-1]

    @property
    def top(self) -> float:
        """Height of the thing's top [m]."""
        return float(self.thing[2]) + rules.height(self.slot)


def act(world: World) -> np.ndarray:
    """The next joint targets, shape (6,) [rad]."""
    return move(world.joints().astype(float), decide(world))


def decide(world: World) -> Step:
    """What to do next; to go home and touch nothing where the task cannot be done."""
    assert world.task is not None
    held = world.held()
    if not world.possible():
        return _wait(world, held)
    slot, thing = world.slot("thing"), world.named("thing")
    assert slot is not None and thing is not None
    q = world.joints().astype(float)
    view = View(q, world.tool(), world.tip(), thing, world.named("place"), slot, held, world.success())
    if held is not None and held != slot:
        return put_down(view.at)
    return _VERBS[world.task.verb](view, world)


def _wait(world: World, held: int | None) -> Step:
    return put_down(world.tool()) if held is not None else Step(None, OPEN)


def put_down(at: np.ndarray) -> Step:
    """Let go of what is held, low over where it is."""
    return Step(np.array([at[0], at[1], 0.016]), OPEN if at[2] < 0.030 else SHUT)


# -- put, stack, push, lift: with the thing between the jaws


def _put(v: View, world: World) -> Step:
    assert v.place is not None
    holding = _holding(v)
    if not holding and rules.in_bowl(v.thing, v.place):
        return _leave(v, v.place, BOWL_INNER + 0.02)
    if not holding:
        return _reach(v)
    over = np.hypot(*(v.at[:2] - v.place[:2])) < 0.014
    if over:
        return Step(np.array([*v.place[:2], DROP_Z]), OPEN if v.at[2] < DROP_Z + 0.008 else SHUT)
    return _carry(v, v.place[:2], DROP_Z)


def _stack(v: View, world: World) -> Step:
    base = world.slot("place")
    assert v.place is not None and base is not None
    rise = rules.height(v.slot) + rules.height(base)
    resting = rules.on_top(v.thing, v.place, rise)
    holding = _holding(v)
    if resting and not holding:
        return _leave(v, v.thing, 0.04)
    if not holding:
        return _reach(v)
    # It is the thing that must come over the middle, wherever between the jaws it is.
    goal = v.at + (v.place + [0, 0, rise + 0.001] - v.thing)
    off = float(np.hypot(*(goal[:2] - v.at[:2])))
    # Let go as soon as it will stand: a policy that learns from this cannot align forever either.
    if resting or (off < 0.010 and v.at[2] < goal[2] + 0.004):
        return Step(goal, OPEN)
    if off < 0.011:
        return Step(goal, SHUT, 0.12)
    return _carry(v, goal[:2], max(goal[2] + 0.016, DROP_Z))


def _lift(v: View, world: World) -> Step:
    if not _holding(v):
        return _reach(v)
    if _closing(v):
        return Step(v.at, SHUT)
    return Step(np.array([*v.at[:2], LIFT_Z]), SHUT)


def _push(v: View, world: World) -> Step:
    """Between the jaws, along the table: a single finger pushes a thing past itself or over."""
    goal = v.place[:2] if v.place is not None else world.push_goal
    way = goal - v.thing[:2]
    length = float(np.hypot(*way))
    if _holding(v):
        if _closing(v) and v.held is None:
            return Step(v.at, SHUT)
        height = max(rules.height(v.slot), GRASP_Z)
        if length < 0.012 and v.at[2] < height + 0.008:
            return Step(v.at, OPEN)
        return Step(np.array([*(v.at[:2] + way), height]), SHUT, PUSH_SPEED)
    if v.done or length < 0.012:
        return _leave(v, v.thing, 0.04)
    return _reach(v)


def _holding(v: View) -> bool:
    near = np.linalg.norm(v.at - v.thing) < 0.026
    return bool(v.q[5] < WIDTH[v.kind] and near) or v.held == v.slot


def _closing(v: View) -> bool:
    """Whether the jaws are still on their way to the thing between them."""
    return bool(v.q[5] > WIDTH[v.kind] - 0.12)


def _leave(v: View, where: np.ndarray, reach: float) -> Step:
    """Rise from above `where`, then go home."""
    if v.at[2] < v.thing[2] + 0.045 and np.hypot(*(v.at[:2] - where[:2])) < reach:
        # Straight up from the first: the jaws open around the thing.
        return Step(np.array([*v.at[:2], CARRY_Z + 0.01]) if v.q[5] > 0.6 else v.at, OPEN)
    return Step(None, OPEN)


def _carry(v: View, goal: np.ndarray, low: float) -> Step:
    """Up, across, and down to `low` over the goal, shape (2,) [m]."""
    if _closing(v) and v.held is None:  # lift when the thing is held
        return Step(v.at, SHUT)
    # Sideways only as fast as the height allows, so that the thing clears every rim on its way.
    gate = float(np.clip((v.at[2] - 0.045) / (CARRY_Z - 0.055), 0.0, 1.0))
    height = CARRY_Z
    if np.hypot(*(v.at[:2] - goal)) < 0.04:
        gate = 1.0 if v.at[2] > low - 0.01 else gate
        height = max(low, min(v.at[2], CARRY_Z))
    return Step(np.array([*(v.at[:2] + gate * (goal - v.at[:2])), height]), SHUT)


def _reach(v: View) -> Step:
    """Over the thing, down along a funnel, close."""
    thing = v.thing
    outwards = (thing[:2] - (kinematics.PAN_X, 0.0)) / np.hypot(thing[0] - kinematics.PAN_X, thing[1])
    # Jaws that meet a ball at its middle or above it squeeze it out downwards.
    grip = np.array([*(thing[:2] - SIDE * outwards), max(thing[2] - LOW[v.kind], GRASP_Z)])
    hover = grip[2] + HOVER_Z - GRASP_Z
    off = float(np.hypot(*(v.at[:2] - grip[:2])))
    if off < 0.009 and v.at[2] < grip[2] + 0.006:
        return Step(grip, SHUT)
    if v.q[5] < 0.55:  # open the jaws before coming down, without pushing the thing
        height = max(v.at[2], hover) if off > 0.02 else max(v.at[2], min(hover, grip[2] + 0.02))
        return Step(np.array([*grip[:2], height]), OPEN)
    funnel = float(np.clip((off - 0.006) / 0.03, 0.0, 1.0))
    height = grip[2] + funnel * (hover - grip[2])
    low = v.at[2] < hover - 0.015 and off > 0.035
    xy = v.at[:2] if low else grip[:2]  # when low and far, rise first: nothing is swept aside
    return Step(np.array([*xy, height]), OPEN)


# -- touch: with the tip of the shut gripper


def _touch(v: View, world: World) -> Step:
    if v.held is not None:
        return put_down(v.at)
    off = float(np.hypot(*(v.tip[:2] - v.thing[:2])))
    height = v.top + 0.007 + 0.04 * float(np.clip((off - 0.006) / 0.02, 0.0, 1.0))
    shut = v.q[5] < rules.SHUT_BELOW - 0.05
    if not shut:
        height = max(height, v.top + 0.04)
    low = v.tip[2] < v.top + 0.02 and off > 0.02
    tip = np.array([*(v.tip[:2] if low else v.thing[:2]), height])
    return Step(v.at + tip - v.tip, SHUT)


_VERBS = {"put": _put, "stack": _stack, "push": _push, "touch": _touch, "lift": _lift}
