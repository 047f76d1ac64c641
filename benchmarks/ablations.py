"""Closed-loop success of one bundle under other samplers, horizons and latencies, and of others beside it.

    python benchmarks/ablations.py [--bundle vla/bundles/nano] [--episodes 100] [--workers 2]
    python benchmarks/ablations.py --only steps --episodes 500 --json benchmarks/results/steps.json
    python benchmarks/ablations.py --only others --beside no-aux=runs/bundle_no_aux stage-1=runs/bundle1

Every variant plays the same tables; success is n/N with its Wilson interval, smoothness the RMS jerk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from runtime.bundle import write_manifest
from runtime.machine import machine
from sim.evaluate import SHIPPED, Command

RESULTS = Path(__file__).parent / "results" / "ablations.json"

# group -> name, what changes in policy.json, simulated latency
VARIANTS: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "steps": [(f"{n} flow steps", {"sampler": {"steps": n}}, "0ms") for n in (1, 2, 4, 10)],
    "noise": [("no noise", {"sampler": {"noise": 0.0}}, "0ms")],
    "horizon": [
        (f"a chunk asked for every {s:g} s", {"spec": {"replan": s}}, "0ms") for s in (0.1, 0.4, 0.8)
    ],
    "latency": [(f"answers {ms} ms late", {}, f"{ms}ms") for ms in (33, 67, 133, 267)],
}


def variant(bundle: Path, changes: dict[str, Any], out: Path) -> Path:
    """A copy of the bundle with some of policy.json replaced."""
    shutil.copytree(bundle, out)
    policy = json.loads((out / "policy.json").read_text())
    for key, values in changes.items():
        policy[key] |= values
    (out / "policy.json").write_text(json.dumps(policy, indent=1))
    write_manifest(out)
    return out


def variants(options: argparse.Namespace) -> list[tuple[str, Path, dict[str, Any], str]]:
    """name, bundle, changes, latency of everything that is asked for."""
    first = "as shipped" if options.bundle == SHIPPED else options.bundle.name
    rows: list[tuple[str, Path, dict[str, Any], str]] = [(first, options.bundle, {}, "0ms")]
    for group, members in VARIANTS.items():
        if options.only in (None, group):
            rows += [(name, options.bundle, changes, latency) for name, changes, latency in members]
    for text in options.beside if options.only in (None, "others") else ():
        name, _, folder = text.partition("=")
        rows.append((name, Path(folder), {}, "0ms"))
    return rows


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for i, (name, source, changes, latency) in enumerate(variants(options)):
        bundle, out = variant(source, changes, folder / f"v{i}"), folder / f"{i}.json"
        Command(
            policy=str(bundle), episodes=options.episodes, seed=options.seed, workers=options.workers,
            split=options.split, latency=latency, json=out,
        ).run()  # fmt: skip
        report = json.loads(out.read_text())
        keys = ("success", "tasks", "jerk", "latency_ms")
        rows.append({"name": name, "changes": changes, "latency": latency} | {k: report[k] for k in keys})
        shutil.rmtree(bundle)
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table("variant", "success", "95 % Wilson", "prefix, steps p50, ms", "jerk, rad/s³")
    for row in rows:
        s = row["success"]
        low, high = (100 * v for v in s["ci95"])
        took = " + ".join(f"{row['latency_ms'][stage]['p50']:.2f}" for stage in ("prefix", "steps"))
        score = f"{s['k']}/{s['n']} = {100 * s['rate']:.1f} %"
        out.add_row(row["name"], score, f"{low:.1f} .. {high:.1f}", took, f"{row['jerk']:.0f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--only", choices=[*VARIANTS, "others"], help="one group of variants (default: all)")
    parser.add_argument("--beside", nargs="*", default=[], metavar="NAME=BUNDLE", help="other bundles")
    parser.add_argument("--split", default="seen")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    Console().print(table(rows))
    seeds = [options.seed, options.seed + options.episodes - 1]
    report = {"machine": machine(), "bundle": options.bundle.name, "split": options.split, "seeds": seeds}
    report |= {"variants": rows}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
