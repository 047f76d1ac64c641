"""`takt report`: what a run, a bench or an evaluation left, to be looked at.

A run's latency budget (runtime/report.py) or variants side by side (export/pareto.py) as a picture, an
evaluation (sim/report) as a page, by what the file holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import compared, pareto
from runtime import report
from vla import atomic
from vla.contract import TaktError


@dataclass
class Command(report.Command):
    """Show a run's latency budget, what a bench has measured, or an evaluation."""

    out: Path | None = None  # type: ignore[assignment]
    """A picture: .png, .svg or .pdf; of an evaluation a page: .html. Default: budget.png, report.html."""
    against: tuple[Path, ...] = ()
    """Of an evaluation: others on the same seeds, to compare it with in pairs."""
    curve: Path | None = None
    """Of an evaluation: success against latency, as benchmarks/latency_curve.py wrote it."""
    policy: str | None = None
    """Of an evaluation: where its policy lies, if it is not the shipped one, to play episodes again."""
    videos: int = 8
    """Of an evaluation: failing episodes to film, at the most."""

    def run(self) -> int:
        if self.out is not None and self.out.suffix != ".html":
            pareto.check(self.out)
        data = self._read()
        bench = isinstance(data, dict) and "variants" in data and "ratios" in data
        kind = "eval" if is_eval(data) else "bench" if bench else "run"
        if kind == "eval":
            return self._page(self.out or Path("report.html"))
        self.out = self.out or Path("budget.png")
        pareto.check(self.out)
        if self.against or self.curve or self.policy:
            raise TaktError(
                "--against, --curve and --policy are for an evaluation, what takt eval --json wrote"
            )
        if not bench:
            return super().run()
        if self.rate is not None or self.deadline is not None:
            raise TaktError("--rate and --deadline are for a run's budget; this is a bench's")
        self._draws(data)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        pareto.save(data, self.out)
        if self.json is not None:
            about = {"picture": str(self.out), "variants": data["variants"], "ratios": data["ratios"]}
            atomic.write_json(self.json, about, indent=2)
        compared.show(data)
        print(f"picture: {self.out.resolve()}")
        return 0

    def _read(self) -> Any:
        """What the file holds; None for no JSON, of which the drawing of a run complains."""
        try:
            return json.loads(self.run_file.read_text())
        except (ValueError, RecursionError):
            return None

    def _draws(self, data: dict[str, Any]) -> None:
        """
        Raises:
            TaktError: this bench lacks what belongs to one.
        """
        try:
            compared.table(data)
            pareto.draw(data)
        except (KeyError, TypeError, ValueError, StopIteration):
            raise TaktError(f"{self.run_file} is not what takt bench --json writes: measure again") from None

    def _page(self, out: Path) -> int:
        # Not above: who draws a run's budget beside a robot has no simulator.
        from sim.evaluate import SHIPPED
        from sim.report import build, result

        if out.suffix != ".html":
            raise TaktError(f"{out}: the page of an evaluation ends in .html")
        if self.rate is not None or self.deadline is not None:
            raise TaktError("--rate and --deadline are for a run's budget; this is an evaluation")
        if not 0 <= self.videos <= 100:
            raise TaktError("--videos is from 0 to 100")
        found, policy = build.player(result.load(self.run_file), self.policy, SHIPPED)
        others = [result.load(path) for path in self.against]
        curve = None
        if self.curve is not None:
            try:
                curve = json.loads(self.curve.read_text())
            except OSError as error:
                raise TaktError(f"{self.curve}: {error.strerror}") from None
            except (ValueError, RecursionError):
                curve = {}
        _, replays = build.build(found, policy, out, self.videos, others, curve)
        differ = sum(bool(r.differs(found.episodes[r.index])) for r in replays)
        size = out.stat().st_size
        if self.json is not None:
            about = {"page": str(out), "bytes": size, "played_again": len(replays), "differ": differ}
            atomic.write_json(self.json, about, indent=2)
        told = f"{len(replays)} episodes played again, {differ} differ"
        print(f"page: {out.resolve()}, {size / 1e6:.1f} MB, {told}")
        return 0


def is_eval(data: Any) -> bool:
    """Whether this claims to be an evaluation; what it lacks is told when it is loaded."""
    return isinstance(data, dict) and "episodes" in data and "suite" in data
