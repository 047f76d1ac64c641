"""How closely a new chunk continues the running one, by the way it is joined.

Episodes on the tabletop give pairs: a running plan, and the observation 0.2 s later. The policy is asked
there with the plan as its prefix, d rows committed and the rest weighted as in arXiv 2506.07339, and the
answer's rows are compared with the plan's. In "same words" the plan obeys the instruction; in "other
words" it was made, from the same observation, for another instruction, so that plan and policy disagree.

    python benchmarks/joining.py --episodes 8
"""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command import main
from rich.console import Console
from rich.progress import track
from rich.table import Table

from runtime import bundle as bundles
from runtime.clock import SimulatedClock, Ticker
from runtime.engine import OnnxPolicy
from runtime.machine import machine
from sim.evaluate import SHIPPED
from sim.tabletop.suite import SUITE
from vla import flow, train
from vla.contract import ActionChunk, Observation, Prefix, TaktError
from vla.policy import TorchPolicy, reader

ROOT = Path(__file__).resolve().parent.parent
TICK = 1 / 30  # s
# joining and beta
WAYS = (
    ("none", 5.0),
    ("prefix", 5.0),
    ("guided", 5.0),
    ("guided", 10.0),
    ("jacobian", 5.0),
    ("jacobian", 10.0),
)
# What was seen, and for the two situations the plan that ran before.
Pair = tuple[Observation, dict[str, ActionChunk]]


@dataclass
class Command:
    """Compare the ways of joining chunks."""

    bundle: Path = SHIPPED
    """Gives the spec and drives the arm."""
    checkpoint: Path = ROOT / "checkpoints/nano"
    """What it was exported from."""
    episodes: int = 8
    """Tables, two instructions each."""
    seed: int = 9000
    """The first table's."""
    seconds: float = 5.0
    """Simulated, an episode."""
    committed: int = 4
    """d, rows that count as committed."""
    steps: tuple[int, ...] = (4, 10)
    """Flow steps."""
    json: Path = ROOT / "benchmarks/results/joining.json"
    """Where to write the result."""

    def run(self) -> int:
        torch.set_num_threads(1)
        loaded = bundles.load(self.bundle)
        replan = round(loaded.spec.replan / loaded.spec.dt)
        if not 1 <= self.committed <= loaded.spec.chunk_length - replan or min(self.steps) < 1:
            raise TaktError(
                "--committed is at least 1 and within what the old plan knows, --steps at least 1"
            )
        pairs = self._pairs(OnnxPolicy(loaded))
        model = train.load(self.checkpoint)
        words = reader(train.encoder_folder(None), loaded.words_length)
        rows = []
        for steps in self.steps:
            for joining, beta in track(WAYS, f"{steps} steps", console=Console(stderr=True), transient=True):
                policy = TorchPolicy(model, loaded.spec, words, steps, loaded.noise, joining, beta)
                for situation in ("same words", "other words"):
                    way = {"situation": situation, "joining": joining, "beta": beta, "steps": steps}
                    rows.append(way | self._apart(policy, pairs, situation, replan))
        report = {"machine": machine(), "torch": torch.__version__, "pairs": len(pairs)}
        report |= {"committed": self.committed, "overlap": loaded.spec.chunk_length - replan}
        report |= {"unit": "mrad, mean over joints", "ways": rows}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        show(report)
        return 0

    def _pairs(self, policy: OnnxPolicy) -> list[Pair]:
        """Drive episodes with the policy; what it saw at each question but the first."""
        pairs: list[Pair] = []
        for seed in range(self.seed, self.seed + self.episodes):
            one, two, *_ = SUITE.scenarios(seed, "seen", swap=True)
            clock = SimulatedClock()
            with SUITE.robot(clock) as robot:
                one.lay(robot)
                plans: dict[str, ActionChunk] = {}
                for _, now in Ticker(clock, TICK):
                    if now > self.seconds:
                        break
                    seen = robot.read()
                    if not plans or now - plans["same words"].time >= policy.spec.replan - 1e-6:
                        seen = replace(seen, frames=dict(seen.frames), instruction=one.instruction)
                        pairs += [(seen, plans)] if plans else []
                        other = replace(seen, instruction=two.instruction)
                        plans = {"same words": policy.infer(seen), "other words": policy.infer(other)}
                    target = plans["same words"].at(seen.time, policy.spec.actions.absolute)
                    assert target is not None
                    robot.write(target)
        return pairs

    def _apart(self, policy: TorchPolicy, pairs: list[Pair], situation: str, replan: int) -> dict[str, Any]:
        length, dt = policy.spec.chunk_length, policy.spec.dt
        weights = flow.weights(length, self.committed, length - replan)
        if policy.joining == "prefix":
            weights = flow.hard(length, self.committed)
        apart = []
        for call, (seen, plans) in enumerate(pairs):
            plan = plans[situation]
            # The plan's rows at the times of the new one's; past its end the last, which has no weight.
            times = [min(seen.time + i * dt, plan.end) for i in range(length)]
            kept = np.stack([plan.at(time, policy.spec.actions.absolute) for time in times])  # type: ignore[misc]
            policy.reset(1, call)
            chunk = policy.infer(seen, Prefix(kept, weights))
            apart.append(np.abs(chunk.actions - kept).mean(1) * 1e3)
        rows = np.array(apart)
        held, after = rows[:, : self.committed], rows[:, self.committed]
        return {
            "committed": {"mean": float(held.mean()), "p95": float(np.quantile(held.mean(1), 0.95))},
            "first_free": {"mean": float(after.mean()), "p95": float(np.quantile(after, 0.95))},
        }


def show(report: dict[str, Any]) -> None:
    out = Table(title=f"distance from the running plan, mrad; {report['pairs']} questions")
    for column in ("situation", "joining", "beta", "steps", "committed", "p95", "first free", "p95"):
        out.add_column(column, justify="left" if column in ("situation", "joining") else "right")
    for w in report["ways"]:
        guided = w["joining"] in ("guided", "jacobian")
        held, free = w["committed"], w["first_free"]
        numbers = [held["mean"], held["p95"], free["mean"], free["p95"]]
        beta = f"{w['beta']:g}" if guided else ""
        out.add_row(w["situation"], w["joining"], beta, str(w["steps"]), *(f"{n:.1f}" for n in numbers))
    Console().print(out)


if __name__ == "__main__":
    sys.exit(main(Command))
