"""Episodes with words: a plan carried out, or the whole sentence given to the policy; corrections in motion.

Simulated time; each is a function of its seed, as in play.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from runtime import loop, skills
from runtime.budget import Budget
from runtime.child import follow
from runtime.clock import SimulatedClock, Ticker
from runtime.guard import Guard
from runtime.instruct import Fixed, Instructions, Words
from runtime.latency import Draws
from runtime.planner import InlineLink, Planner
from runtime.watchdogs import Watch
from sim.disturbed import Disturbed
from sim.play import Options, Worker
from sim.tabletop import goals as long
from sim.tabletop import instructions, rules, tasks
from sim.tabletop.goals import Judge
from sim.tabletop.meaning import Task
from vla.contract import Observation, TaktError

EACH = 15.0  # simulated s that a goal may take, on the average
AFTER = 12.0  # simulated s after a correction
# What is corrected: tasks that leave a thing somewhere else, so that it shows which one was meant.
CORRECTED = ("put", "push", "lift", "stack")


@dataclass(frozen=True)
class Talk:
    """What every episode of a run has in common.

    Attributes:
        kind: "plan", "at once" or "corrections".
    """

    options: Options
    kind: str


_talk: Talk | None = None
_worker: Worker | None = None


def start(talk: Talk, parent: int | None = None) -> None:
    """A worker process begins, to end with `parent`."""
    global _talk, _worker
    if parent is not None:
        follow(parent)
    finish()
    _talk = talk


def finish() -> None:
    """The run's world is needed no more."""
    global _worker
    if _worker is not None:
        _worker.close()
    _worker = None


def play(seed: int) -> dict[str, Any]:
    """The row of one seed."""
    global _worker
    assert _talk is not None
    _worker = _worker or Worker(_talk.options)
    if _talk.kind == "corrections":
        return corrected(_worker, seed)
    return sequel(_worker, seed, at_once=_talk.kind == "at once")


def sequel(w: Worker, seed: int, at_once: bool) -> dict[str, Any]:
    """One sentence of several goals.

    Args:
        at_once: give the policy the sentence as it is; its done head ends nothing.
    """
    asked = long.draw(seed)
    run = Run(w, seed, asked.layout, asked.goals)
    words = None if at_once else Words(skills.find(w.policy.spec.name), asked.text, w.robot.spec)
    claims: list[tuple[str, bool]] = []

    def until(now: float) -> bool:
        run.judge.look(now)
        over = words.over if words is not None else run.judge.whole()
        return over or now - run.begun >= EACH * len(asked.goals) - 1e-9

    def watch(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
        if words is not None and words.plan is not run.plan:
            claims.extend(_claims(run, words))
            run.plan = words.plan

    refused = ""
    try:
        ticks = run.go(Fixed(asked.text) if words is None else words, until, watch).ticks
    except TaktError as error:  # a sentence that is too long for the policy to read
        if not at_once:
            raise
        ticks, refused = 0, str(error)
    reached = [at is not None for at in run.judge.reached]
    row = {
        "seed": seed,
        "instruction": asked.text,
        "goals": [
            {
                "goal": instructions.canonical(goal),
                "reached": bool(done),
                "at": at and round(at - run.begun, 2),
            }
            for goal, done, at in zip(asked.goals, reached, run.judge.reached, strict=True)
        ],
        "success": run.judge.whole(),
        "sim_seconds": round(ticks * w.options.period, 3),
    } | ({"refused": refused} if refused else {})
    if words is not None:
        row |= {"plan": [[step.text, step.state] for step in words.plan], "claims": claims}
        row |= {"said": [line for _, line in words.log]}
    return row


def _claims(run: Run, words: Words) -> list[tuple[str, bool]]:
    """For each step that has just been said to be done or failed: which, and whether the world agrees."""
    before = {id(step) for step in run.plan}
    named = {instructions.canonical(goal): i for i, goal in enumerate(run.judge.goals)}
    holding = run.judge.holding()
    out = []
    for step in words.plan:
        if id(step) not in before and step.state in ("done", "failed") and step.text in named:
            i = named[step.text]
            out.append((step.state, bool(holding[i] or run.judge.reached[i] is not None)))
    return out


def corrected(w: Worker, seed: int) -> dict[str, Any]:
    """ "No, the blue one", said at a random moment before the hand is at the thing that was named first."""
    layout, first, second, share = _pair(seed)
    text = f"no, the {second.thing.colour} one"
    plain, _, _ = _spoken(w, seed, layout, first, second, share, None)
    commands, run, said = _spoken(w, seed, layout, first, second, share, text)
    row = {"seed": seed, "instruction": instructions.canonical(first), "correction": text}
    if said is None:  # it never came near what it was told to take
        never = {"said_at": None, "success": False, "named_moved": False, "first_moved": False}
        return row | never | {"reaction_s": None}
    tick = round((said - run.begun) / w.options.period)
    both = min(len(plain), len(commands))
    changed = [i for i in range(tick, both) if not np.array_equal(plain[i], commands[i])]
    one, two = (_moved(run, goal) for goal in (0, 1))
    return row | {
        "said_at": round(said - run.begun, 3),
        "success": run.judge.reached[1] is not None and not one,
        "named_moved": two and not one,
        "first_moved": one,
        "reaction_s": round((changed[0] - tick) * w.options.period, 4) if changed else None,
    }


def _pair(seed: int) -> tuple[tasks.Layout, Task, Task, float]:
    """A table, a task on it, the same task with another thing of the kind, and how far the hand gets."""
    rng = np.random.default_rng(seed)
    while True:
        layout, _ = tasks.draw(rng, spatial=0.0)
        options = [t for t in tasks.feasible(layout) if t.verb in CORRECTED and not t.relation]
        pairs = [
            (a, b)
            for a in options
            for b in options
            if a.thing != b.thing
            and (a.verb, a.thing.kind, a.place, a.side) == (b.verb, b.thing.kind, b.place, b.side)
        ]
        if pairs:
            first, second = tasks.pick(rng, pairs)
            return layout, first, second, float(rng.uniform(0.05, 0.9))


def _spoken(
    w: Worker, seed: int, layout: tasks.Layout, first: Task, second: Task, share: float, text: str | None
) -> tuple[list[np.ndarray], Run, float | None]:
    """The commands of a run, in which `text` is said when the hand has come so far; or nothing is."""
    run = Run(w, seed, layout, (first, second))
    words = Words(skills.find(w.policy.spec.name), instructions.canonical(first), w.robot.spec)
    world, commands = w.robot.world, []
    slot = run.judge.slot(0)
    begun = float(np.linalg.norm(world.tool() - world.things()[slot]))
    said: float | None = None

    def until(now: float) -> bool:
        nonlocal said
        run.judge.look(now)
        if said is None:
            near = float(np.linalg.norm(world.tool() - world.things()[slot]))
            # Before the grasp: the jaws do not touch it yet, and it has not moved.
            if near <= 0.035 + (1.0 - share) * (begun - 0.035) or any(world.touching(slot)):
                said = now
                if text is not None:
                    words.hear(text, now)
        limit = AFTER if text is not None else 1.5
        over = said is not None and (words.over or now - said >= limit)
        return over or now - run.begun > AFTER + 10.0

    def watch(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
        commands.append(command.copy())

    run.go(words, until, watch)
    return commands, run, said


def _moved(run: Run, goal: int) -> bool:
    slot = run.judge.slot(goal)
    shift = run.worker.robot.world.things()[slot] - run.start[slot]
    return bool(np.linalg.norm(shift) > rules.MOVED)


class Run:
    """A table laid before the arm, and the loop that obeys words before it."""

    def __init__(self, w: Worker, seed: int, layout: tasks.Layout, goals: tuple[Task, ...]) -> None:
        self.worker, self.seed = w, seed
        w.robot.clock = self.clock = SimulatedClock()
        w.robot.reset(layout, goals[0])
        w.policy.reset(seed)
        self.begun = self.clock.now()
        self.judge = Judge(w.robot.world, goals)
        self.start = w.robot.world.things()
        self.plan: tuple[Any, ...] = ()

    def go(
        self, words: Instructions, until: Callable[[float], bool], watch: Callable[..., None]
    ) -> loop.LoopResult:
        o = self.worker.options
        link = InlineLink(self.worker.policy, Draws(o.latency, self.seed, 0), self.clock)
        planner = Planner(self.worker.policy.spec, link, join=o.join, period=o.period)
        guard = Guard(self.worker.robot.spec, Watch(patience=1e9))
        ticker = Ticker(self.clock, o.period)
        body = self.worker.robot
        robot = Disturbed(body, self.seed, o.noise) if o.noise else body
        run = partial(loop.run, robot, planner, ticker, Budget(64), words, guard, until)
        return run(on_tick=watch)
