"""`takt report`: what a run or a bench left, as a picture.

A run's latency budget (runtime/report.py), or variants side by side (export/pareto.py), by what the file
holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from export import compared, pareto
from runtime import report
from vla.contract import TaktError


@dataclass
class Command(report.Command):
    """Draw a run's latency budget, or what a bench has measured."""

    def run(self) -> int:
        pareto.check(self.out)
        found = self._bench()
        if found is None:
            return super().run()
        if self.rate is not None or self.deadline is not None:
            raise TaktError("--rate and --deadline are for a run's budget; this is a bench's")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        pareto.save(found, self.out)
        if self.json is not None:
            about = {"picture": str(self.out), "variants": found["variants"], "ratios": found["ratios"]}
            self.json.write_text(json.dumps(about, indent=2) + "\n")
        compared.show(found)
        print(f"picture: {self.out.resolve()}")
        return 0

    def _bench(self) -> dict[str, Any] | None:
        """A bench's report; None where the file is something else.

        Raises:
            TaktError: it is one that lacks what belongs to it.
        """
        try:
            data = json.loads(self.run_file.read_text())
        except ValueError:
            return None
        if not isinstance(data, dict) or "variants" not in data or "ratios" not in data:
            return None
        try:
            compared.table(data)
            pareto.draw(data)
        except (KeyError, TypeError, ValueError, StopIteration):
            raise TaktError(f"{self.run_file} is not what takt bench --json writes: measure again") from None
        return data
