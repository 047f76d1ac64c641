"""`takt bench`: bundles side by side in one run: latency, memory, joules, action error, success.

Each variant is a process of its own (export/variants.py). They take turns, in another order each round, so
that whatever else the machine does hits all alike; the first round is thrown away. No torch here: a
checkpoint to compare with is opened by its own process.
"""

from __future__ import annotations

import json as jsonlib
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress, TextColumn

from export import compared, measures, observations
from export.variants import Variant, Worker, check_same
from runtime import bundle, energy, engines
from runtime.machine import machine
from vla import atomic
from vla.__main__ import check_writable
from vla.contract import Observation, PolicySpec, TaktError

WARM = 2  # chunks of a turn that do not count: caches are another variant's when it begins
NEW = 2  # instructions a turn that were never read before


@dataclass
class Command:
    """Compare bundles with each other, and with the checkpoint that they were made from."""

    bundles: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of bundles of one policy: in other precisions, with other numbers of steps."""
    against: Path | None = None
    """What is right and to be beaten: a checkpoint, run by torch, or a bundle; else the first bundle."""
    observations: Path | None = None
    """Take frames of this LeRobotDataset; else of the tabletop where the policy fits it, else made up."""
    inputs: int = 16
    """How many observations."""
    rounds: int = 10
    """Turns of each variant."""
    chunks: int = 20
    """Chunks a turn, at most."""
    budget: float = 120.0
    """Seconds that measuring may take: with slow policies turns are shorter and, at the end, fewer."""
    threads: int = 1
    """Threads of each engine."""
    engine: tuple[str, ...] = (engines.DEFAULT,)
    """What runs the bundles, as takt run --engine; with several each bundle is a variant by each."""
    eval: tuple[Path, ...] = ()
    """What takt eval --json wrote of the variants, by the policy's name: adds success and jerk."""
    picture: Path | None = None
    """Draw error, or success, against latency: .png, .svg or .pdf."""
    profile: Path | None = None
    """Write what chunks of the first bundle take here, for takt eval --latency."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        chosen = self._check()
        folders = [Path(v.place).resolve().name for v in chosen]
        outcomes = compared.outcomes(self.eval, folders, first=self._first)
        load = os.getloadavg()[0]
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(v)) for v in chosen]
            meters = stack.enter_context(energy.meters())
            specs = [worker.spec() for worker in workers]
            check_same(specs, [v.name for v in chosen])
            asked, source = self._observations(specs[self._first])
            answers = [worker.answers(asked) for worker in workers]
            taken = self._measure(workers, meters)
            memory = [worker.memory() for worker in workers]
        rows = [
            measures.variant(
                v, turns, memory[i], measures.apart(answers[i], answers[0], specs[0]), outcomes[i]
            )
            for i, (v, turns) in enumerate(zip(chosen, taken, strict=True))
        ]
        report = self._report(specs[0], source, meters, rows, taken) | {"load": load}
        self._write(report, chosen, taken)
        compared.show(report)
        return 0

    @property
    def _first(self) -> int:
        """Which variant is the first bundle."""
        return 0 if self.against is None else 1

    def _check(self) -> list[Variant]:
        """The variants, the one that the others are compared with first."""
        if not self.bundles:
            raise TaktError("nothing to measure: name at least one bundle")
        if min(self.inputs, self.rounds, self.chunks, self.threads) < 1:
            raise TaktError("--inputs, --rounds, --chunks and --threads are at least 1")
        if not 0 < self.budget < float("inf"):
            raise TaktError("--budget is above 0 s and finite")
        if self.picture is not None:
            from export import pareto  # matplotlib, which only a picture needs

            pareto.check(self.picture)
        for flag in ("picture", "profile"):
            check_writable(f"--{flag}", getattr(self, flag))
        for name in self.engine:
            engines.parse(name)
        if len(set(self.engine)) < max(1, len(self.engine)):
            raise TaktError("--engine names one twice")
        for path in self.bundles:
            bundle.load(path)  # what is broken is refused before anything is measured
        first = str(self.bundles[0])
        names = measures.names(self.bundles)
        several = self.engine != (engines.DEFAULT,)
        chosen = [
            Variant(f"{n}, {e}" if several else n, str(p), first, self.threads, e)
            for n, p in zip(names, self.bundles, strict=True)
            for e in self.engine
        ]
        if self.against is not None:
            torch = not (self.against / "policy.json").is_file()
            name = f"{self.against.resolve().name}, {'torch' if torch else 'reference'}"
            chosen.insert(0, Variant(name, str(self.against), first, self.threads))
        return chosen

    def _observations(self, spec: PolicySpec) -> tuple[list[Observation], dict[str, Any]]:
        """What all are asked, and where it is from, for the report."""
        try:
            seen, origin = observations.gather(spec, self.inputs, self.observations)
        except (ImportError, TaktError) as error:
            if self.observations is not None:
                raise
            # The tabletop cannot be drawn here: no MuJoCo, or no GL.
            seen, origin = observations.made_up(spec, self.inputs), f"made up: {error}"
        return seen, {"from": origin, "n": len(seen)}

    def _measure(self, workers: list[Worker], meters: list[energy.Meter]) -> list[list[measures.Turn]]:
        """Every variant's turns."""
        taken: list[list[measures.Turn]] = [[] for _ in workers]
        begun = time.perf_counter()
        # The round that is thrown away: it tells how many chunks the budget allows, as well.
        slow = sum(float(np.median(worker.round(1, 2, 1).total)) for worker in workers)
        chunks = int(np.clip(self.budget / (self.rounds * slow) - WARM - NEW, 2, self.chunks))
        rng = np.random.default_rng(0)
        console = Console(stderr=True)
        with Progress(
            TextColumn("{task.description}"), console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            shown = bar.add_task("measuring")
            for turn in range(self.rounds):
                bar.update(shown, description=f"measuring, round {turn + 1} of {self.rounds}")
                for i in rng.permutation(len(workers)):  # no one always follows another
                    taken[i].append(_turn(workers[i], chunks, meters))
                if turn >= 1 and time.perf_counter() - begun > self.budget:
                    break
        return taken

    def _report(
        self,
        spec: PolicySpec,
        source: dict[str, Any],
        meters: list[energy.Meter],
        rows: list[dict[str, Any]],
        taken: list[list[measures.Turn]],
    ) -> dict[str, Any]:
        report = {
            "machine": self._machine(rows),
            "policy": spec.name,
            "threads": self.threads,
            "observations": source,
            "rounds": len(taken[0]),
            "chunks": len(taken[0][0].round.total),
            "against": rows[0]["name"],
            "variants": rows,
            "ratios": measures.ratios(rows, taken),
        }
        return report | ({"energy": [meter.name for meter in meters]} if meters else {})

    def _machine(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What it was measured on, torch included where that ran."""
        found = machine()
        if any(row["engine"] == "torch" for row in rows):
            found["versions"] = found["versions"] | {"torch": version("torch")}
        return found

    def _write(self, report: dict[str, Any], chosen: list[Variant], taken: list[list[measures.Turn]]) -> None:
        if self.json is not None:
            atomic.write_json(self.json, report)
        if self.profile is not None:
            i = self._first
            about = {key: report["variants"][i][key] for key in ("engine", "precision")}
            about |= {"machine": report["machine"], "policy": chosen[i].name, "threads": self.threads}
            atomic.write(self.profile, jsonlib.dumps(measures.profile(taken[i], about)) + "\n")
        if self.picture is not None:
            from export import pareto

            pareto.save(report, self.picture)
            print(f"picture: {self.picture.resolve()}")


def _turn(worker: Worker, chunks: int, meters: list[energy.Meter]) -> measures.Turn:
    """One variant works, all others sleep."""
    before = [meter.joules() for meter in meters]
    took = worker.round(WARM, chunks, NEW)
    spent = [meter.joules() - was for meter, was in zip(meters, before, strict=True)]
    return measures.Turn(took, sum(spent) / (WARM + chunks + NEW) if meters else None)
