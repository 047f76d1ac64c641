"""Success of variants from what `takt eval` wrote, and the table of a bench report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sim.compare import SAME
from sim.statistics import mcnemar, paired
from vla.contract import TaktError

BUSY = 0.5  # load, processes that wait or work, before a bench begins; above it its table says so


def outcomes(files: Sequence[Path], names: Sequence[str], first: int = 0) -> list[dict[str, Any] | None]:
    """What to add to each variant's row: "success" and "jerk" of its result; None without one.

    A result belongs to the variant of its policy's name; where several have that name, results are taken in
    the variants' order, from number `first` on and then from the beginning. Success is compared with the
    first variant's that has one, paired, where the episodes are the same.

    Args:
        names: the variants' folders'.

    Raises:
        TaktError: a file is no result, is of none of the variants, or of another suite than the others.
    """
    results: list[dict[str, Any] | None] = [None] * len(names)
    for file in files:
        result = read(file)
        order = [*range(first, len(names)), *range(first)]
        free = [i for i in order if names[i] == result["policy"] and results[i] is None]
        if not free:
            raise TaktError(
                f"--eval {file} is of policy {result['policy']!r}; valid, one file each: {', '.join(names)}"
            )
        results[free[0]] = result
    base = next((r for r in results if r is not None), None)
    return [None if r is None or base is None else _row(r, base) for r in results]


def read(file: Path) -> dict[str, Any]:
    """A result of `takt eval`.

    Raises:
        TaktError: it is none.
    """
    try:
        result = json.loads(file.read_text())
        outcomes_of(result)
        if {*SAME, "policy", "success", "jerk"} <= set(result):
            return result
    except FileNotFoundError:
        raise TaktError(f"--eval {file}: there is no such file; takt eval --json writes one") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise TaktError(f"--eval {file} is no result of takt eval --json")


def outcomes_of(result: dict[str, Any]) -> dict[tuple[Any, ...], bool]:
    """What counts as success, by seed and instruction."""
    return {(e["seed"], e["instruction"]): e["success"] for e in result["episodes"] if not e["group"]}


def _row(result: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    for key in SAME:
        if result[key] != first[key]:
            raise TaktError(
                f"--eval: results with {key} {first[key]!r} and {result[key]!r} cannot be compared"
            )
    success = dict(result["success"]) | {key: result[key] for key in ("suite", "split")}
    mine, others = outcomes_of(result), outcomes_of(first)
    if result is not first and mine.keys() == others.keys():
        pair = list(others.values()), [mine[key] for key in others]
        difference, low, high = paired(*pair)
        success["against"] = {
            "policy": first["policy"], "p": mcnemar(*pair), "difference": difference, "ci95": [low, high],
        }  # fmt: skip
    return {"success": success, "jerk": result["jerk"]}


def show(report: dict[str, Any]) -> None:
    """Print a bench report; its table wants more than the 80 columns that a pipe is given."""
    console = Console()
    console = console if console.is_terminal else Console(width=130)
    console.print(table(report))


def table(report: dict[str, Any]) -> Table:
    """A bench report for a person."""
    rows, ratios = report["variants"], report["ratios"]
    units = {row["action_error"].get("unit", "mixed units") for row in rows}
    title = f"one chunk of {report['policy']}, ms; {report['threads']} thread{'s' * (report['threads'] > 1)}"
    said = caption(report, ", ".join(sorted(units)))
    out = Table(title=title, caption=said, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    success = any("success" in row for row in rows)
    joules = any("joules" in row for row in rows)
    columns = ["variant", "prefix", "step", "p50", "p99", "faster", "disk", "peak MB"]
    columns += ["J"] * joules + ["error", "max"] + ["success", "jerk"] * success
    for column in columns:
        left = column == "variant"
        out.add_column(column, justify="left" if left else "right", no_wrap=not left, min_width=12 * left)
    for row in rows:
        ratio, stages = ratios[row["name"]], row["stages_ms"]
        cells = [row["name"] if row["precision"] in row["name"] else f"{row['name']}, {row['precision']}"]
        cells += [f"{stages[s]['p50']:.2f}" if s in stages else "" for s in ("prefix", "step")]
        cells += [f"{row['total_ms'][q]:.2f}" for q in ("p50", "p99")]
        cells += [f"{ratio['p50']:.2f}x", f"{row['size_mb']:.1f}"]
        cells += [f"{row['peak_rss_mb']:.0f}" if "peak_rss_mb" in row else ""]
        cells += ([f"{row['joules']:.3g}" if "joules" in row else ""]) * joules
        cells += [f"{row['action_error'][k]:.1e}" for k in ("mean", "max")]
        if success:
            cells += _success(row)
        out.add_row(*cells)
    return out


def _success(row: dict[str, Any]) -> list[str]:
    if "success" not in row:
        return ["", ""]
    s = row["success"]
    low, high = (100 * v for v in s["ci95"])
    return [f"{s['k']}/{s['n']} ({low:.0f} .. {high:.0f} %)", f"{row['jerk']:.0f}"]


def caption(report: dict[str, Any], unit: str) -> str:
    """What the numbers are of."""
    source = report["observations"]
    said = f"faster: median against {report['against']}; errors in {unit} against it, over {source['n']} "
    said += f"observations ({source['from']})"
    if report.get("load", 0.0) > BUSY:
        said += f"\nthe machine was busy (load {report['load']:.1f}): ratios hold, milliseconds less so"
    for row in report["variants"]:
        other = row.get("success", {}).get("against")
        if other is not None:
            low, high = (100 * v for v in other["ci95"])
            said += (
                f"\n{row['name']}: success {100 * other['difference']:+.1f} points against {other['policy']} "
            )
            said += f"(95 % {low:+.1f} .. {high:+.1f}, paired; McNemar's p = {other['p']:.2g})"
    return said
