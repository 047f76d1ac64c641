"""A bundle in fp32 becomes one whose graphs have fewer bits, all of them or some groups of layers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from export import quantise
from runtime.bundle import write_manifest

GRAPHS = ("prefix", "step", "denoise")  # that are quantised; words are int8 already


def lower(
    plain: Path,
    staged: Path,
    how: quantise.How,
    feeds: Callable[[str], Sequence[quantise.Feeds]],
    keep: Iterable[str],
    smaller: bool = True,
) -> dict[str, quantise.Report]:
    """Write the bundle at `plain` with fewer bits to `staged`; what became of each of its graphs.

    Args:
        smaller: whether a graph that has become no smaller is refused.
        feeds: of the graph of a name, asked where scales of its activations are fixed.
        keep: regular expressions of modules that stay as they are.

    Raises:
        TaktError: as `quantise.quantise`.
    """
    shutil.copytree(plain, staged)
    reports, keep = {}, tuple(keep)
    for name in [n for n in GRAPHS if (staged / f"{n}.onnx").is_file()]:
        file = staged / f"{name}.onnx"
        given = feeds(name) if quantise.calibrated(file, how) else ()
        reports[name] = quantise.quantise(file, how, given, keep, smaller)
    (staged / "manifest.json").unlink(missing_ok=True)
    write_manifest(staged)
    return reports


def groups(plain: Path, keep: Iterable[str], how: quantise.How) -> list[str]:
    """The groups of layers of a bundle that would be quantised, as "step: blocks".

    A graph of all steps has those of the step.
    """
    found = {(graph, quantise.group(n)) for graph in GRAPHS[:2] for n in _names(plain, graph, keep, how)}
    return [f"{graph}: {group}" for graph, group in sorted(found)]


def only(plain: Path, keep: Iterable[str], chosen: Iterable[str], how: quantise.How) -> tuple[str, ...]:
    """Rules that keep all but the groups `chosen`, by the names that `groups` gives."""
    keep, wanted = tuple(keep), set(chosen)
    left = {
        quantise.exactly(n)
        for graph in GRAPHS[:2]
        for n in _names(plain, graph, keep, how)
        if f"{graph}: {quantise.group(n)}" not in wanted
    }
    return (*keep, *(f"^{rule}$" for rule in sorted(left)))


def _names(plain: Path, graph: str, keep: Iterable[str], how: quantise.How) -> list[str]:
    return quantise.names(plain / f"{graph}.onnx", keep, how)


def describe(
    staged: Path,
    how: quantise.How | None = None,
    reports: Mapping[str, quantise.Report] | None = None,
    groups: Mapping[str, str] | None = None,
    **found: Any,
) -> dict[str, Any]:
    """Write into policy.json what has been done and found, and sign it; that, for the command's JSON.

    Args:
        groups: group of layers -> its precision, where it was chosen for each.
        found: more, by its key.
    """
    policy, said = json.loads((staged / "policy.json").read_text()), dict(found)
    if how is not None and reports is not None:
        policy["precision"] = said["quantised"] = {
            "name": how.precision,
            "static": how.static,
            "graphs": {name: report.to_json() for name, report in reports.items()},
            **({"groups": dict(groups)} if groups is not None else {}),
        }
    sign(staged, policy | found)
    return said


def counted(reports: Mapping[str, quantise.Report]) -> str:
    """ "37 of 60 products quantised"."""
    done, of = (sum(getattr(r, name) for r in reports.values()) for name in ("quantised", "products"))
    return f"{done} of {of} products quantised"


def sign(folder: Path, policy: dict[str, Any]) -> None:
    """Write policy.json and the manifest."""
    (folder / "policy.json").write_text(json.dumps(policy, indent=1))
    (folder / "manifest.json").unlink(missing_ok=True)
    write_manifest(folder)
