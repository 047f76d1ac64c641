"""An evaluation that is played once for all tests of its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim import play
from sim.tabletop.suite import SUITE, Scenario
from vla.__main__ import main


@pytest.fixture(scope="package")
def short() -> Iterator[None]:
    """Episodes of a second and a half: a touch succeeds in that time, a stack does not."""
    with pytest.MonkeyPatch.context() as patch:
        scenarios = SUITE.scenarios

        def shorter(*args: Any) -> list[Scenario]:
            return [replace(s, seconds=1.5) for s in scenarios(*args)]

        patch.setattr(SUITE, "scenarios", shorter, raising=False)
        yield
        play.finish()


@pytest.fixture(scope="package")
def folder(short: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `takt eval --report` leaves of four episodes of the shipped bundle."""
    out = tmp_path_factory.mktemp("report")
    status = main(["eval", "--episodes", "4", "--seed", "20000", "--json", str(out / "a.json"),
                   "--report", str(out / "report")])  # fmt: skip
    assert status == 0
    return out
