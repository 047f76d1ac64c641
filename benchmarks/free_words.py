"""Sentences as people type them, said to the shipped policy; which object moved is the judge.

    python benchmarks/free_words.py --json benchmarks/results/free_words.json

Each sentence of free_words.json is said once, on a table on which what it means stands among other things.
It counts when all that it means was done and nothing else was moved; where it means nothing that can be done,
when nothing moved and the answer was in words.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from runtime import skills
from runtime.instruct import Words
from runtime.latency import parse
from runtime.machine import machine
from sim import talk
from sim.evaluate import SHIPPED
from sim.play import Options, Worker
from sim.score import score
from sim.tabletop import rules, tasks
from sim.tabletop.instructions import parse as meaning
from sim.tabletop.meaning import Task

SEED = 90_000
HERE = Path(__file__).parent


def table(seed: int, goals: list[Task]) -> tasks.Layout:
    """One on which all goals can be reached, with room for them."""
    rng = np.random.default_rng(seed)
    while True:
        layout = tasks.lay(rng, goals[0])
        if layout is not None and all(tasks.possible(layout, goal) for goal in goals):
            return layout


def said(w: Worker, seed: int, text: str, wanted: list[str]) -> dict[str, Any]:
    goals = [meaning(each) for each in wanted]
    assert all(goal is not None for goal in goals), wanted
    there = [goal for goal in goals if goal is not None]
    layout, first = (table(seed, there), there[0]) if there else tasks.draw(np.random.default_rng(seed))
    run = talk.Run(w, seed, layout, tuple(there) or (first,))
    words = Words(skills.find(w.policy.spec.name), text, w.robot.spec)

    def until(now: float) -> bool:
        run.judge.look(now)
        over = words.over and now - run.begun > (0.0 if words.plan else 2.0)
        return over or now - run.begun > 30.0 * max(1, len(there))

    run.go(words, until, lambda *_: None)
    shift = np.linalg.norm(w.robot.world.things() - run.start, axis=1)
    moved = {slot for slot in layout.slots if shift[slot] > rules.MOVED}
    named = {run.judge.slot(i) for i in range(len(there))}
    right = run.judge.whole() and moved <= named if there else not moved
    return {
        "text": text, "means": wanted, "success": bool(right), "moved_other": bool(moved - named),
        "plan": [[step.text, step.state] for step in words.plan], "said": [line for _, line in words.log],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sentences", type=Path, default=HERE / "free_words.json")
    args = parser.parse_args()
    w = Worker(Options("tabletop", str(SHIPPED), "seen", False, parse("0ms"), None, 30.0))
    sentences = json.loads(args.sentences.read_text())
    rows = [said(w, SEED + i, text, wanted) for i, (text, wanted) in enumerate(sentences)]
    for row in rows:
        if not row["success"]:
            print(f"{row['text']!r}: {row['plan'] or row['said'][0]}")
    can = [row for row in rows if row["means"]]
    report: dict[str, Any] = {
        "machine": machine(), "policy": str(SHIPPED.name), "success": score([r["success"] for r in rows]),
        "can": score([r["success"] for r in can]),
        "cannot": score([r["success"] for r in rows if not r["means"]]),
        "understood": score([understood(r) for r in can]), "sentences": rows,
    }  # fmt: skip
    for key in ("success", "can", "cannot", "understood"):
        print(key, f"{report[key]['k']}/{report[key]['n']}", report[key]["ci95"])
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def understood(row: dict[str, Any]) -> bool:
    """Whether the plan was what the sentence means, whatever became of it."""
    return [text for text, _ in row["plan"]] == row["means"]


if __name__ == "__main__":
    main()
