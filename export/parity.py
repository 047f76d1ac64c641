"""The gate: what a bundle with fewer bits has lost, measured before anyone trusts it.

- action error: against the fp32 bundle, which equals torch within `graph.TOLERANCE`, on the same observations
  and noise, as a share of the range that the fp32 actions have there
- where a suite fits the policy and episodes are asked for: success on the same seeds, paired, and jerk
- past the tolerance the export is refused, and the part that hurts most is named
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from export import observations, quantise
from runtime.bundle import load, write_manifest
from runtime.engine import GraphPolicy, OnnxPolicy
from runtime.graphs import Arrays, Graph, OnnxGraph
from sim.statistics import mcnemar, paired
from vla.contract import ActionChunk, Observation, TaktError

# Largest accepted mean action error, as a share of each action's range. The shipped policy in int8 has 0.005
# and in w4a16 0.013, and does as well as in fp32; all of it in int8 with one scale a weight has 0.021.
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 1e-2, "int8": 1e-2, "fp8": 2e-2, "w4a16": 3e-2}
LOSS = 0.02  # of success, above which a bundle is refused
ENOUGH = 50  # episodes, from which the difference itself is judged and not its interval
JERK = 0.10  # by which jerk may grow
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
        # One episode of a few is many points: then only a loss that is beyond chance counts.
        gained = loop["difference"] if loop["n"] >= ENOUGH else loop["ci95"][1]
        return gained >= -LOSS and loop["jerk_ratio"] <= 1 + JERK

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
        self._on = ""

    @property
    def seen(self) -> list[Observation]:
        if not self._seen:
            spec = load(self._reference).spec
            self._seen, self._on = observations.gather(spec, self._samples, self._folder)
        return self._seen

    def feeds(self, name: str) -> list[quantise.Feeds]:
        """What the graph of that name is given for the observations."""
        bundle = load(self._reference)
        graphs: dict[str, Graph] = {n: OnnxGraph(file, threads=2) for n, file in bundle.graphs.items()}
        graphs[name] = taken = _Listening(graphs[name])
        policy = GraphPolicy(bundle, graphs)
        for seen in self.seen:
            policy.infer(seen)
        return taken.fed

    def examine(self, folder: Path, precision: str) -> Evidence:
        """The evidence for the bundle at `folder`."""
        error = self._error(folder)
        names = [d.name for d in load(folder).spec.actions.dimensions]
        each = error.reshape(-1, error.shape[-1]).mean(axis=0)
        tolerance = TOLERANCES[precision] if self._tolerance is None else self._tolerance
        return Evidence(
            on=self._on,
            samples=len(self.seen),
            mean=float(error.mean()),
            max=float(error.max()),
            by_action=dict(zip(names, each.tolist(), strict=True)),
            tolerance=tolerance,
            closed_loop=self._closed_loop(folder),
        )

    def worst(self, plain: Path, how: quantise.How, keep: Iterable[str]) -> str:
        """Which group of layers hurts most: each is quantised alone."""
        errors = {}
        for graph in ("prefix", "step"):
            names = quantise.names(plain / f"{graph}.onnx", keep)
            feeds = self.feeds(graph) if how.static else ()
            for group in sorted({quantise.group(name) for name in names}):
                with tempfile.TemporaryDirectory() as folder:
                    staged = Path(folder) / "bundle"
                    shutil.copytree(plain, staged)
                    left = [n for n in names if quantise.group(n) != group]
                    rules = [*keep, *(f"^{quantise.exactly(n)}$" for n in left)]
                    quantise.quantise(staged / f"{graph}.onnx", how, feeds, rules)
                    (staged / "manifest.json").unlink()
                    write_manifest(staged)
                    errors[f"{graph}: {group}"] = float(self._error(staged).mean())
        if not errors:
            return "no group of layers was quantised"
        name = max(errors, key=lambda key: errors[key])
        return f"{name} hurts most (alone {errors[name]:.1e}): keep it with --keep"

    @cached_property
    def _wanted(self) -> np.ndarray:
        return self._actions(self._reference)

    def _error(self, folder: Path) -> np.ndarray:
        """How far the bundle's actions are off, shape (N, H, A), as a share of each one's range."""
        wanted = self._wanted
        spread = np.maximum(np.ptp(wanted.reshape(-1, wanted.shape[-1]), axis=0), 1e-6)
        return np.abs(self._actions(folder) - wanted) / spread

    def _actions(self, folder: Path) -> np.ndarray:
        policy = OnnxPolicy(load(folder), threads=2)
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

        before, after = measured(self._reference), measured(folder)
        one, two = ([e["success"] for e in r["episodes"]] for r in (before, after))
        difference, low, high = paired(one, two)
        return {
            "suite": "tabletop", "seeds": after["seeds"], "n": len(one), "k_fp32": sum(one), "k": sum(two),
            "difference": difference, "ci95": [low, high], "mcnemar_p": mcnemar(one, two),
            "jerk_fp32": before["jerk"], "jerk": after["jerk"], "jerk_ratio": after["jerk"] / before["jerk"],
        }  # fmt: skip


class _Listening:
    """A graph that notes what it is given."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self.inputs, self.outputs = graph, graph.inputs, graph.outputs
        self.fed: list[quantise.Feeds] = []

    def __call__(self, feeds: quantise.Feeds) -> Arrays:
        self.fed.append({port: feeds[port] for port in self.inputs})
        return self._graph(feeds)
