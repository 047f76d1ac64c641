"""What `takt eval --json` wrote, read back, with what the page says of it: names, commands, reasons."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime import engines
from vla.contract import TaktError

QUANTILES = ("p50", "p95", "p99", "max")
TITLES = {
    "pairs": "both of a pair",
    "roles": "roles swapped",
    "roles_pairs": "both of a pair of swapped roles",
    "absent": "nothing moved where nothing is to be done",
}


@dataclass(frozen=True)
class Result:
    """An evaluation.

    Attributes:
        data: the JSON as it is.
        policy: how the policy is given on a command line; None where that is the default.
        where: its file, for messages.
    """

    data: dict[str, Any] = field(repr=False)
    policy: str | None = None
    where: str = "this evaluation"

    @property
    def episodes(self) -> list[dict[str, Any]]:
        return self.data["episodes"]

    @property
    def latency(self) -> str:
        """As it was given to `--latency`."""
        found = self.data.get("latency", "0ms")
        return str(found.get("given", "0ms")) if isinstance(found, dict) else str(found)

    @property
    def engine(self) -> str:
        return str(self.data.get("engine", engines.DEFAULT))

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        """Scores beside `success`, by what they are called: groups of a suite, pairs, buckets of tasks."""
        out = {}
        for key, value in self.data.items():
            if key == "success" or not isinstance(value, dict):
                continue
            if is_score(value):
                out[TITLES.get(key, key)] = value
            elif key != "tasks" and value and all(is_score(v) for v in value.values()):
                out |= {name: v for name, v in value.items()}
        return out

    def options(self, seed: int | None = None) -> list[str]:
        """The words after `takt eval` that play this again, or one seed of it."""
        data, out = self.data, ["--suite", str(self.data["suite"])]
        if self.policy is not None:
            out += ["--policy", self.policy]
        for flag, value, default in (
            ("--split", data["split"], "seen"), ("--latency", self.latency, "0ms"),
            ("--join", data.get("join"), None),
            ("--rate", f"{data.get('rate', 30.0):g}", "30" if data["suite"] == "tabletop" else None),
            ("--engine", self.engine, engines.DEFAULT), ("--think", data.get("think"), None),
            ("--noise", data.get("noise"), None),
        ):  # fmt: skip
            if value is not None and value != default:
                out += [flag, str(value)]
        first, last = data["seeds"]
        out += ["--swap"] if data.get("swap") else []
        asked = data.get("asked") or {"episodes": last - first + 1, "tasks": None}
        tasks = asked["tasks"]
        if "asked" in data and seed is not None:  # one episode of each task would be many
            tasks = next(e["task"] for e in self.episodes if e["seed"] == seed)
        out += ["--tasks", tasks] if tasks else []
        if seed is not None:
            return [*out, "--episodes", "1", "--seed", str(seed)]
        out += ["--episodes", str(asked["episodes"]), "--seed", str(first)]
        return out + (["--shard", data["shard"]] if "shard" in data else [])

    def command(self, seed: int | None = None) -> str:
        """What to type to play this again and see it."""
        where = "report" if seed is None else f"seed-{seed}"
        return shlex.join(["takt", "eval", *self.options(seed), "--report", where])

    def name(self) -> str:
        """What tells this from others: policy, way of joining, latency, candidates, noise, engine."""
        parts = [self.data["policy"], self.data.get("join"), self.latency]
        parts += [f"{name} {self.data[name]}" for name in ("think", "noise") if self.data.get(name)]
        return ", ".join(
            str(p) for p in (*parts, *([self.engine] if self.engine != engines.DEFAULT else [])) if p
        )


def load(path: Path) -> Result:
    """An evaluation from its file.

    Raises:
        TaktError: there is no such file, or it is something else.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise TaktError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        data = None
    if not is_eval(data):
        raise TaktError(f"{path} is no report of takt eval --json")
    return Result(data, where=str(path))


def is_eval(data: Any) -> bool:
    """Whether this is what `takt eval --json` writes, of this version or an earlier one."""
    try:
        first, last = data["seeds"]
        scores = [data["success"], *data["tasks"].values()]
        named = all(isinstance(data[key], str) for key in ("suite", "policy", "split"))
        return (
            named
            and len(data["episodes"]) > 0
            and 0 <= first <= last
            and all(is_score(s) for s in scores)
            and all(is_episode(e) for e in data["episodes"])
            and is_measured(data)
            and ("asked" not in data or isinstance(data["asked"]["episodes"] + 0, int))
            and isinstance(data.get("asked", {}).get("tasks", ""), str | None)
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def is_episode(e: Any) -> bool:
    """Whether this is a row of `episodes`; KeyError or TypeError where it is far from one."""
    texts, numbers = ("task", "group", "instruction"), ("seed", "steps", "sim_seconds")
    return (
        isinstance(e["success"], bool)
        and all(isinstance(e[key], str) for key in texts)
        and all(isinstance(e[key], int | float) for key in numbers)
    )


def is_measured(data: dict[str, Any]) -> bool:
    """Whether machine, stages, latency and jerk, where there are any, are what they should be."""
    late, machine = data.get("latency", "0ms"), data.get("machine", {})
    late = late if isinstance(late, dict) else {"given": late}
    stages = [*data.get("latency_ms", {}).values(), *filter(None, [late.get("drawn_ms")])]
    counts = [*late.get("ticks", {}).values(), *late.get("answers", {}).values()]
    return (
        isinstance(late.get("given", "0ms"), str)
        and isinstance(machine, dict)
        and isinstance(machine.get("versions", {}), dict)
        and all(isinstance(row[q], int | float) for row in stages for q in QUANTILES)
        and all(isinstance(count, int) for count in counts)
        and isinstance(data.get("jerk", 0.0), int | float)
        and isinstance(data.get("rate", 30.0), int | float)
        and data.get("rate", 30.0) > 0
    )


def is_score(value: Any) -> bool:
    """Whether this is n/N with its interval, in itself consistent."""
    try:
        low, high = value["ci95"]
        inside = -1e-9 <= low <= value["rate"] + 1e-9 <= high + 2e-9 <= 1 + 1e-8
        return 0 <= value["k"] <= value["n"] and inside and value["n"] > 0
    except (KeyError, TypeError, ValueError):
        return False


def reason(e: dict[str, Any]) -> str:
    """Why an episode of the JSON failed, as far as it tells; "" for one that did not."""
    if e["success"]:
        return ""
    if "error" in e:
        return str(e["error"])
    if e["group"] == "absent":
        return "something moved, though nothing was to be done"
    return f"no success within {e['sim_seconds']:g} s"
