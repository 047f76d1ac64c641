"""The gate: what a bundle with fewer bits has lost, measured before anyone trusts it.

- action error: against the fp32 bundle, which equals torch within `graph.TOLERANCE`, on the same observations
  and noise, as a share of the range that the fp32 actions have there
- where a suite fits the policy and episodes are asked for: success on the same seeds, paired, and jerk
- past the tolerance the export is refused, and the part that hurts most is named
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from export import lower, observations, quantise
from runtime.bundle import load
from runtime.engine import GraphPolicy, OnnxPolicy
from runtime.graphs import Arrays, Graph, OnnxGraph
from sim.statistics import mcnemar, paired
from vla.contract import ActionChunk, Observation, TaktError

# Largest accepted mean action error, as a share of each action's range. The shipped policy in int8 has 0.006,
# and does as well as in fp32; all of it in int8 with one scale a weight has 0.014, most of it by its outlet.
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 1e-2, "int8": 1e-2, "fp8": 2e-2, "w4a16": 3e-2}
LOSS = 0.02  # of success, above which a bundle is refused
ENOUGH = 50  # episodes, from which a difference itself is judged; of fewer, whether it is beyond chance
JERK = 0.10  # by which jerk may grow
CHANCE = 0.05  # the least p that is still taken for chance
EPISODE_SEED = 30_000
NO_EVIDENCE = "no closed-loop evidence"


class Refused(TaktError):
    """A bundle that the gate did not let through."""


@dataclass(frozen=True)
class Evidence:
    """What the gate found.

    Attributes:
        on: where the observations are from. samples: how many.
        mean, max: action error over all actions, as a share of their range; by_action: mean of each.
        tolerance: of the mean.
        closed_loop: success and jerk of both bundles, paired; or a sentence that there is none.
    """

    on: str
    samples: int
    mean: float
    max: float
    by_action: dict[str, float]
    tolerance: float
    closed_loop: dict[str, Any] | str

    @property
    def passed(self) -> bool:
        return self.mean <= self.tolerance and self._moves_as_well()

    def _moves_as_well(self) -> bool:
        loop = self.closed_loop
        if isinstance(loop, str):
            return True
        # One episode of a few is many points: then only a loss that is beyond chance counts, and any that is.
        well = loop["difference"] >= -LOSS if loop["n"] >= ENOUGH else loop["ci95"][1] >= 0
        smooth = loop["n"] < ENOUGH and loop["jerk_p"] >= CHANCE
        return well and (smooth or loop["jerk_ratio"] <= 1 + JERK)

    def line(self) -> str:
        said = (
            f"action error {self.mean:.1e} (mean), {self.max:.1e} (max) of the range, "
            f"tolerance {self.tolerance:g}"
        )
        loop = self.closed_loop
        if isinstance(loop, str):
            return f"{said}; {loop}"
        low, high = loop["ci95"]
        return (
            f"{said}; success {loop['k']}/{loop['n']} against {loop['k_fp32']}/{loop['n']} in fp32 "
            f"({100 * loop['difference']:+.1f} points, 95 % {100 * low:+.1f} .. {100 * high:+.1f}, "
            f"p {loop['mcnemar_p']:.2f}), jerk x{loop['jerk_ratio']:.2f}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


class Gate:
    """Compares bundles with the one in fp32."""

    def __init__(
        self, reference: Path, folder: Path | None, samples: int, episodes: int, tolerance: float | None
    ) -> None:
        self._reference, self._folder, self._samples = reference, folder, samples
        self._episodes, self._tolerance = episodes, tolerance
        self._seen: list[Observation] = []
        self._fed: dict[str, list[quantise.Feeds]] = {}
        self._on = ""
        self._played: dict[str, Any] = {}  # what episodes with the reference came to

    @property
    def seen(self) -> list[Observation]:
        if not self._seen:
            spec = load(self._reference).spec
            self._seen, self._on = observations.gather(spec, self._samples, self._folder)
        return self._seen

    def feeds(self, name: str) -> list[quantise.Feeds]:
        """What the graph of that name is given for the observations."""
        if name not in self._fed:
            bundle = load(self._reference)
            graphs: dict[str, Graph] = {n: OnnxGraph(file, threads=2) for n, file in bundle.graphs.items()}
            if name == "step":  # which is not asked where there is a graph of all steps
                graphs.pop("denoise", None)
            graphs[name] = taken = _Listening(graphs[name])
            policy = GraphPolicy(bundle, graphs)
            for seen in self.seen:
                policy.infer(seen)
            self._fed[name] = taken.fed
        return self._fed[name]

    def examine(self, folder: Path, precision: str) -> Evidence:
        """The evidence for the bundle at `folder`."""
        error = self.error(folder)
        names = [d.name for d in load(folder).spec.actions.dimensions]
        each = error.reshape(-1, error.shape[-1]).mean(axis=0)
        return Evidence(
            on=self._on,
            samples=len(self.seen),
            mean=float(error.mean()),
            max=float(error.max()),
            by_action=dict(zip(names, each.tolist(), strict=True)),
            tolerance=self.tolerance(precision),
            closed_loop=self._closed_loop(folder),
        )

    def tolerance(self, precision: str) -> float:
        """Largest accepted mean action error, as a share of each action's range."""
        return TOLERANCES[precision] if self._tolerance is None else self._tolerance

    def seconds(self, folder: Path) -> float:
        """What prefix and steps of the bundle take here, s, at the median of the observations."""
        policy = OnnxPolicy(load(folder))
        policy.infer(self.seen[0])  # which warms it
        stages = [policy.infer(seen).stages for seen in self.seen]
        return float(np.median([took["prefix"] + took["steps"] for took in stages]))

    def worst(self, plain: Path, how: quantise.How, keep: Iterable[str]) -> str:
        """Which group of layers hurts most: each is quantised alone."""
        errors = self.alone(plain, how, keep)
        if not errors:
            return "no group of layers was quantised"
        name = max(errors, key=lambda key: errors[key])
        said = f"{name} hurts most (alone {errors[name]:.1e})"
        return said if how.precision == "fp16" else f"{said}: keep it with --keep"

    def alone(self, plain: Path, how: quantise.How, keep: Iterable[str]) -> dict[str, float]:
        """The mean action error with each group of layers quantised alone, by its graph and name."""
        errors = {}
        for name in lower.groups(plain, keep, how):
            with tempfile.TemporaryDirectory() as folder:
                staged = Path(folder) / "bundle"
                rules = lower.only(plain, keep, [name], how)
                lower.lower(plain, staged, how, self.feeds, rules, smaller=False)  # a group may be tiny
                errors[name] = float(self.error(staged).mean())
        return errors

    @cached_property
    def _wanted(self) -> np.ndarray:
        return self._actions(self._reference)

    def error(self, folder: Path) -> np.ndarray:
        """How far the bundle's actions are off, shape (N, H, A), as a share of each one's range.

        Of a bundle with a graph of all steps the way that errs more: short of time it goes step by step.
        """
        wanted = self._wanted
        spread = np.maximum(np.ptp(wanted.reshape(-1, wanted.shape[-1]), axis=0), 1e-6)
        ways = [False, True] if "denoise" in load(folder).graphs else [False]
        errors = [np.abs(self._actions(folder, stepwise) - wanted) / spread for stepwise in ways]
        return max(errors, key=lambda error: float(error.mean()))

    def _actions(self, folder: Path, stepwise: bool = False) -> np.ndarray:
        bundle = load(folder)
        files = {n: file for n, file in bundle.graphs.items() if not (stepwise and n == "denoise")}
        policy = GraphPolicy(bundle, {n: OnnxGraph(file, threads=2) for n, file in files.items()})
        chunks: list[ActionChunk] = []
        for i, seen in enumerate(self.seen):
            policy.reset(i)
            chunks.append(policy.infer(seen))
        return np.stack([chunk.actions for chunk in chunks])

    def _closed_loop(self, folder: Path) -> dict[str, Any] | str:
        if not self._episodes:
            return f"{NO_EVIDENCE} (--episodes 0)"
        if not observations.fits_tabletop(load(folder).spec):
            return f"{NO_EVIDENCE}: no suite fits the policy"
        from sim.evaluate import Command

        def measured(place: Path) -> dict[str, Any]:
            return Command(policy=str(place), episodes=self._episodes, seed=EPISODE_SEED, workers=2).measure()

        self._played = self._played or measured(self._reference)
        before, after = self._played, measured(folder)
        one, two = ([e["success"] for e in r["episodes"]] for r in (before, after))
        difference, low, high = paired(one, two)
        jerks = [[e.get("jerk", 0.0) for e in r["episodes"]] for r in (before, after)]
        more, less = ([b > a for a, b in zip(*each, strict=True)] for each in (jerks, jerks[::-1]))
        return {
            "suite": "tabletop", "seeds": after["seeds"], "n": len(one), "k_fp32": sum(one), "k": sum(two),
            "difference": difference, "ci95": [low, high], "mcnemar_p": mcnemar(one, two),
            "jerk_fp32": before["jerk"], "jerk": after["jerk"],
            "jerk_ratio": _ratio(after["jerk"], before["jerk"]),
            "jerk_p": mcnemar(more, less),  # the sign test: in how many episodes it is more, in how many less
        }  # fmt: skip


def _ratio(after: float, before: float) -> float:
    """Of jerks. Where the reference never moves, any at all is too much."""
    return 1.0 if after == before else after / max(before, 1e-9)


class _Listening:
    """A graph that notes what it is given."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self.inputs, self.outputs = graph, graph.inputs, graph.outputs
        self.fed: list[quantise.Feeds] = []

    def __call__(self, feeds: quantise.Feeds) -> Arrays:
        self.fed.append({port: feeds[port] for port in self.inputs})
        return self._graph(feeds)
