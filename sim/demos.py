"""`takt demos`: demonstrations of the expert, or its corrections of a policy, as LeRobotDataset v3."""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from runtime import so101
from runtime.bundle import load
from runtime.child import follow
from runtime.engine import OnnxPolicy
from sim import looks, robot, rollouts
from sim.expert import spec as expert_spec
from sim.foreign import demos as foreign
from sim.outcome import seeds as asked_seeds
from sim.play import make_suite
from sim.tabletop import expert, instructions, rules, tasks
from sim.tabletop.meaning import MEANING, Thing
from sim.tabletop.world import CAMERAS, ROLES, SIZE, World
from vla import atomic
from vla.contract import TaktError, check_match
from vla.dataset import Dataset, Feature, Writer, merge

FPS = round(1 / rollouts.DT / rollouts.EVERY)
# How often each verb is shown, and how often with a spatial word: more of what is harder to learn.
SHARES = {"put": 0.26, "stack": 0.27, "push": 0.22, "touch": 0.10, "lift": 0.15}
SPATIAL = 0.35
ABSENT = 0.18  # share of instructions that name something that is not there
BROKEN_OFF = 0.15  # share of tables at which another task was begun before
ONLY_ONE = 0.5  # share of the other tables at which one thing is asked
BEGUN = (6, 60)  # so many ticks of it
TOLD_EVERY = 200  # tables
WORDINGS = 12  # of each episode, of which one is its task and the rest are for the trainer to draw from


def features() -> dict[str, Feature]:
    """The columns of a demonstration data set."""
    names = list(so101.JOINTS)
    image = Feature("image", (SIZE, SIZE, 3), ["height", "width", "channel"])
    return {
        "observation.state": Feature("float32", (6,), names),
        **{f"observation.images.{camera}": image for camera in CAMERAS},
        "action": Feature("float32", (6,), names),
        "expert.chunk": Feature("float32", (rollouts.ROWS, 6), None),
        # How many rows of the chunk are the running plan's, executed whatever a policy answers.
        "expert.committed": Feature("int64", (1,), None),
        # What was driven from each row on, and how well the episode ended from there.
        "driver.chunk": Feature("float32", (rollouts.ROWS, 6), None),
        "outcome": Feature("float32", (1,), None),
        "task.done": Feature("float32", (1,), None),
        "privileged.present": Feature("float32", (len(ROLES),), None),
        "privileged.positions": Feature("float32", (6,), None),
        "privileged.pixels": Feature("float32", (len(CAMERAS) * len(ROLES) * 3,), None),
        "privileged.meaning": Feature("int64", (len(MEANING),), list(name for name, _ in MEANING)),
    }


@dataclass
class Command:
    """Write demonstrations of the tabletop's expert, or its corrections of a policy (DAgger)."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the new data set."""
    episodes: int = 200
    """How many tables; at some of them two things are asked, one after the other. With --suite: so many
    episodes of each task, all of them successful."""
    suite: str = "tabletop"
    """Another suite with a scripted expert: metaworld:plain (docs/suites.md)."""
    tasks: str | None = None
    """With --suite: of these tasks alone, NAME,NAME."""
    size: int = 96
    """With --suite: height and width of the frames, pixels."""
    every: int = 1
    """With --suite: control steps from one frame to the next; the rows between repeat it."""
    seed: int = 1_000_000
    """Seed of the first table; table i uses seed + i. Evaluation uses seeds below one million."""
    relabel: Path | None = None
    """A bundle that drives, while the expert labels every frame; with --suite it drives the first of an
    episode, up to 200 control steps, and the expert, recorded, the rest."""
    share: float | None = None
    """With --relabel on the tabletop: the share of stretches that the expert drives (default: 0.15)."""
    noise: float | None = None
    """Strength of what pushes the arm about; 0 for none (default: 1; with --suite 0)."""
    latency: int = 0
    """With --relabel: the policy's answers come up to this many rows late, 0.1 s each; labels commit rows."""
    looks: int = 0
    """Instead of episodes, so many instructions at one picture a table (`takt train --only possible`)."""
    workers: int = 2
    """Processes."""
    json: Path | None = None
    """Write a summary there."""
    shard: int | None = None
    """(Internal: the process that makes every workers-th episode.)"""
    parent: int | None = None
    """(Internal: the process to end with.)"""

    @property
    def strength(self) -> float:
        """Of the noise."""
        return float(self.suite == "tabletop") if self.noise is None else self.noise

    @property
    def expert_share(self) -> float:
        """Of the stretches that a policy might drive."""
        return 0.15 if self.share is None else self.share

    def run(self) -> int:
        if not (self.episodes >= 1 and 1 <= self.workers <= 64 and self.seed >= 0):
            raise TaktError("--episodes is at least 1, --workers from 1 to 64, --seed at least 0")
        if not (0 <= self.strength <= 10 and 0 <= self.expert_share <= 1):
            raise TaktError("--noise is from 0 to 10, --share from 0 to 1")
        if not 0 <= self.latency < rollouts.MOST_COMMITTED:
            raise TaktError(f"--latency is from 0 to {rollouts.MOST_COMMITTED - 1} rows")
        if self.looks < 0 or (self.looks and self.relabel):
            raise TaktError("--looks is at least 1, and nothing drives in them: leave out --relabel")
        if self.suite != "tabletop":
            self._check_suite()
        elif self.every != 1:
            raise TaktError("--every is for --suite: the tabletop records every other row")
        if self.relabel and self.shard is None:
            load(self.relabel)
        if self.parent is not None:
            follow(self.parent)
        if self.out.is_file() or (self.out.is_dir() and any(self.out.iterdir())):
            raise TaktError(f"{self.out} is not empty; choose a new folder")
        if self.shard is not None or self.workers == 1:
            self._write_part()
        else:
            self._spawn()
        rows = Dataset(self.out)
        successes = int(sum(bool(e["success"]) for e in rows.episodes))
        if self.shard is None:
            print(f"{self.out}: {len(rows.episodes)} episodes, {len(rows)} frames, {successes} successes")
        if self.json:
            summary = {"episodes": len(rows.episodes), "frames": len(rows), "successes": successes}
            atomic.write_json(self.json, summary)
        return 0

    def _check_suite(self) -> None:
        suite = make_suite(self.suite)
        expert_spec(suite)
        if not hasattr(suite, "seeds"):
            raise TaktError(f"--suite: {self.suite} is no list of tasks")
        if self.latency or self.looks or self.share is not None or not 16 <= self.size <= 1024:
            raise TaktError("--suite takes no --latency, --looks or --share, and a --size from 16 to 1024")
        if self.relabel:
            policy = load(self.relabel).spec
            if abs(policy.dt * suite.rate - 1) > 1e-6:
                raise TaktError(
                    f"--relabel: its rows are {policy.dt:g} s apart, a control step is {1 / suite.rate:g} s"
                )
            check_match(policy, suite.spec())
            if any((c.height, c.width) != (self.size, self.size) for c in policy.cameras):
                raise TaktError(f"--relabel sees frames of another --size than {self.size}")
        if not 1 <= self.every <= 1000:
            raise TaktError("--every is from 1 to 1000 control steps")
        # One process a task at the most.
        self.workers = min(self.workers, len(asked_seeds(suite, self.seed, 1, self.tasks)))

    def _write_part(self) -> None:
        """This process' share: every workers-th table, or every workers-th task."""
        if self.suite == "tabletop":
            self._write(self.out, range(self.shard or 0, self.episodes, self.workers))
            return
        suite = make_suite(self.suite)
        policy = OnnxPolicy(load(self.relabel)) if self.relabel else None
        seeds = asked_seeds(suite, self.seed, self.episodes * foreign.TRIES, self.tasks)
        of = [suite.scenarios(seed, "seen", False)[0].task for seed in seeds]
        mine = set(sorted(set(of))[self.shard or 0 :: self.workers])
        kept = [seed for seed, task in zip(seeds, of, strict=True) if task in mine]
        foreign.write(suite, self.out, kept, self.episodes, self.size, self.strength, self.every, policy)

    def _spawn(self) -> None:
        """Each worker is a fresh process: GL contexts do not survive a fork."""
        self.out.resolve().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".demos-", dir=self.out.resolve().parent) as folder:
            parts = [Path(folder) / f"part{i}" for i in range(self.workers)]
            same = ("episodes", "seed", "latency", "looks", "workers")
            flags = [*(f"--{name}={getattr(self, name)}" for name in same), f"--parent={os.getpid()}"]
            flags += [f"--relabel={self.relabel}"] if self.relabel else []
            flags += [f"--suite={self.suite}", f"--size={self.size}", f"--noise={self.strength}"]
            flags += [f"--every={self.every}"]
            flags += [] if self.share is None else [f"--share={self.share}"]
            flags += [f"--tasks={self.tasks}"] if self.tasks else []
            started = [
                subprocess.Popen([sys.executable, "-m", "vla", "demos", str(part), *flags, f"--shard={i}"])
                for i, part in enumerate(parts)
            ]
            try:
                codes = [process.wait() for process in started]
            finally:
                for process in started:  # none goes on alone when one failed or this one is interrupted
                    process.terminate()
                    process.wait()
            if any(codes):
                raise TaktError(f"a worker failed (exit codes {codes}); its message stands above")
            merge(parts, self.out)

    def _write(self, out: Path, numbers: range) -> None:
        policy = OnnxPolicy(load(self.relabel)) if self.relabel else None
        if policy is not None:
            check_match(policy.spec, robot.spec())
        world = World()
        columns = {n: f for n, f in features().items() if not self.looks or n in looks.COLUMNS}
        with Writer(out, fps=FPS, features=columns, robot_type="so101") as writer:
            for number in numbers:
                if number >= self.episodes:
                    break
                self._table(world, policy, self.seed + number, writer)
                if not self.shard and number % TOLD_EVERY < self.workers and number >= self.workers:
                    print(f"{number} of {self.episodes} tables", flush=True)
        world.close()

    def _table(self, world: World, policy: OnnxPolicy | None, seed: int, writer: Writer) -> None:
        """What is asked at one table: one thing or two, of which the first may be broken off."""
        rng = np.random.default_rng(seed)
        verb = tasks.pick(rng, list(SHARES), list(SHARES.values()))
        layout, task = tasks.draw(rng, verb=verb, spatial=SPATIAL)
        if rng.random() < ABSENT:
            task = tasks.absent(rng, layout, task) or task
        world.reset(layout, task)
        if self.looks:
            self._look(world, rng, seed, writer)
            return
        if rng.random() < BROKEN_OFF:
            self._begin(world, rng)
        elif not self._ask(world, policy, rng, seed, 1, writer) or rng.random() < ONLY_ONE:
            return
        second = tasks.another(rng, world.now(), task, without=out_of_reach(world))
        if second is not None:
            if rng.random() < ABSENT:
                second = tasks.absent(rng, layout, second) or second
            world.ask(second)
            self._ask(world, policy, rng, seed, 2, writer)

    def _look(self, world: World, rng: np.random.Generator, seed: int, writer: Writer) -> None:
        """Looks at one table, each with one wording; a success is one at what can be done."""
        for asked, columns in enumerate(looks.looks(world, rng, self.looks, self.strength)):
            assert world.task is not None
            (words,) = instructions.phrases(world.task, np.random.default_rng([seed, asked]), 1)
            writer.add_episode(words, columns, {"success": world.possible(), "seed": seed})

    def _begin(self, world: World, rng: np.random.Generator) -> None:
        """The first of two tasks, not recorded, up to any moment: "no, the blue one"."""
        arm, noise = rollouts.Arm(world), rollouts.Noise(rng, self.strength)
        for _ in range(int(rng.integers(*BEGUN))):
            arm.tick(noise(expert.act(world)))

    def _ask(
        self,
        world: World,
        policy: OnnxPolicy | None,
        rng: np.random.Generator,
        seed: int,
        asked: int,
        writer: Writer,
    ) -> bool:
        """One episode for what the world was asked, first or second; whether it succeeded."""
        assert world.task is not None
        # Words have a chance of their own: another grammar leaves the motion as it is.
        words, *others = instructions.phrases(world.task, np.random.default_rng([seed, asked]), WORDINGS)
        driver: rollouts.Driver = rollouts.ExpertDriver()
        if policy is not None:
            policy.reset(seed)
            driver = rollouts.PolicyDriver(policy, rng, self.expert_share, self.latency)
        noise, rows = rollouts.Noise(rng, self.strength), 60 if policy is None else 50
        episode = rollouts.episode(rollouts.Arm(world), words, driver, noise, rows)
        extra: dict[str, bool | int | str] = {
            "success": episode.success,
            "seed": seed,
            "paraphrases": jsonlib.dumps(others),
        }
        writer.add_episode(words, episode.columns, extra)
        return episode.success


def out_of_reach(world: World) -> set[Thing]:
    """What the expert cannot take, or not fill: things that lie in a bowl, or on each other, and bowls
    with something in their middle.
    """
    layout = world.now()
    at = world.things()[list(layout.slots)]
    found: set[Thing] = set()
    for i, j in permutations(range(len(layout.things)), 2):
        thing, base = layout.things[i], layout.things[j]
        if base.kind == "bowl" and rules.in_bowl(at[i], at[j]):
            found.add(thing)
        elif np.hypot(*(at[i] - at[j])[:2]) < 0.02:
            found |= {thing, base}
    return found
