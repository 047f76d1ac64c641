"""Episodes of an evaluation played once more, to be seen: an episode is a function of its seed.

What it came to this time is compared with what the JSON says; on another machine, or with other versions,
it may be something else, and then the page says so beside the film.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from runtime.latency import Draws, parse
from sim import play
from sim.gl import mujoco
from sim.report.result import Result, reason
from sim.tabletop import rules
from sim.tabletop.suite import Tabletop
from sim.tabletop.world import World
from sim.video import film
from vla.contract import TaktError

FRAMES = 15  # a second, at the most
HEIGHT, CRF = 360, 28  # of a film: two seconds in about 40 kB
COMPARED = ("task", "instruction", "success", "steps")


@dataclass(frozen=True)
class Replay:
    """One episode, played again.

    Attributes:
        index: which of the evaluation's episodes.
        row: what it came to this time.
        why: why it failed, from the world as it was at the end; "" for a success.
        mp4: the film.
        states: what `World.save` returned, one a frame of the film.
        fps: frames a second.
        model: the world as it was laid and painted.
    """

    index: int
    row: dict[str, Any]
    why: str
    mp4: bytes = field(repr=False)
    states: list[np.ndarray] = field(repr=False)
    fps: Fraction
    model: mujoco.MjModel = field(repr=False)

    def differs(self, episode: dict[str, Any]) -> str:
        """What is not as the JSON says; "" where all is."""
        pairs = [(key, episode[key], self.row[key]) for key in COMPARED if episode[key] != self.row[key]]
        return "; ".join(f"{key} {then!r} then, {now!r} now" for key, then, now in pairs)


def choose(episodes: list[dict[str, Any]], failures: int, successes: int) -> list[int]:
    """Which episodes are worth seeing: failures, one of each kind of task by turns, then successes.

    What ended in an error is left out: what took a process with it would take this one as well.
    """
    sound = [i for i, e in enumerate(episodes) if "error" not in e]

    def some(success: bool, n: int) -> list[int]:
        kinds: dict[tuple[str, str], list[int]] = {}
        for i in sound:
            if episodes[i]["success"] == success:
                kinds.setdefault((episodes[i]["group"], episodes[i]["task"]), []).append(i)
        # The kind that fails most comes first, in each turn.
        turns = zip_longest(*sorted(kinds.values(), key=lambda found: (-len(found), found)))
        return [i for turn in turns for i in turn if i is not None][:n]

    return some(False, failures) + some(True, successes)


def watch(result: Result, policy: str, chosen: list[int]) -> Iterator[Replay]:
    """Play the chosen episodes again and film them.

    Raises:
        TaktError: this suite has nothing that can be filmed, or policy or latency cannot be had here.
    """
    data = result.data
    options = play.Options(
        data["suite"], policy, data["split"], bool(data.get("swap")), parse(result.latency),
        data.get("join"), float(data.get("rate", 30.0)), result.engine, data.get("think"),
        float(data.get("noise", 0.0)),
    )  # fmt: skip
    if not isinstance(play.make_suite(data["suite"]), Tabletop):  # before a simulator is built for nothing
        raise TaktError(f"suite {data['suite']!r} has no world that can be filmed")
    worker = play.Worker(options)
    try:
        world = worker.robot.world
        for index in chosen:
            yield _watch(worker, world, result.episodes, index)
    finally:
        worker.close()


def _watch(worker: play.Worker, world: World, episodes: list[dict[str, Any]], index: int) -> Replay:
    options, seed = worker.options, episodes[index]["seed"]
    scenarios = worker.suite.scenarios(seed, options.split, options.swap)
    nth = sum(e["seed"] == seed for e in episodes[:index])
    if nth >= len(scenarios):
        raise TaktError(f"seed {seed} has {len(scenarios)} episodes here and more in the JSON")
    scenario, states = scenarios[nth], []
    row, _ = play.obey(
        worker, scenario, {name: [] for name in play.STAGES}, Draws(options.latency, seed, nth),
        lambda: states.append(world.save()),
    )  # fmt: skip
    why = ended(scenario, world, row)
    every = max(1, round(options.rate / FRAMES))
    # The last instant is what it came to, wherever the frames' beat ends.
    shown = [*states[:-1:every], states[-1]]
    fps = Fraction(options.rate).limit_denominator(1000) / every
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "episode.mp4")
        film(world, shown, path, fps, HEIGHT, CRF)
        return Replay(index, row, why, path.read_bytes(), shown, fps, copy.copy(world.model))


def ended(scenario: Any, world: World, row: dict[str, Any]) -> str:
    """Why an episode failed, seen in the world as it is at its end; "" for a success."""
    if row["success"]:
        return ""
    if not world.possible():
        return "something moved, though nothing was to be done"
    if world.success():
        if scenario.strict and world.moved(rules.MOVED, others=True):
            return "done, but something else was moved as well"
        return "done, too late to last until the time ran out"
    still = "nothing had been moved" if not world.moved(rules.STILL) else ""
    return "; ".join(filter(None, (reason(row), still)))
