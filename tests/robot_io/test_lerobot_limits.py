"""Laws of the limits' file: nothing without limits, and numbers that come back as they went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_io import lerobot_limits
from runtime.safety import Limits
from tests.robot_io.bridged import LIMITS
from vla.contract import TaktError

ABOUT = {
    "type": "slide",
    "state": ["shoulder.pos", "elbow.pos", "x.vel", "current"],
    "actions": list(LIMITS),
    "units": {"shoulder.pos": "deg"},
    "cameras": {"top": [48, 64]},
}


def without(feature: str, *keys: str, **more: Any) -> dict[str, dict[str, Any]]:
    row = {k: v for k, v in LIMITS[feature].items() if k not in keys}
    return LIMITS | {feature: row | more}


def test_a_body_in_si() -> None:
    body = lerobot_limits.body(ABOUT, LIMITS)
    spec = body.spec
    assert spec.state == ("shoulder", "elbow.pos", "x.vel", "current")
    assert [(d.unit, d.absolute) for d in spec.actions.dimensions] == [("rad", True)] * 2 + [("m/s", False)]
    np.testing.assert_allclose(spec.actions.lower[:2], np.radians([-40, -60]))
    np.testing.assert_allclose(spec.max_velocity[:2], np.radians([60, 90]))
    assert body.moving == ("x.vel",)
    Limits.of(spec)  # nothing is missing for the guard


@pytest.mark.parametrize("scale", [1.0, -2.0, 0.019])
def test_numbers_come_back_and_stay_in_range(scale: float) -> None:
    body = lerobot_limits.body(ABOUT, without("elbow.pos", scale=scale, offset=0.3))
    numbers = np.array([12.5, -33.0, 0.05])
    si = body.seen(np.append(numbers, 7.0))
    assert si[3] == 7.0  # what is only read, and has no unit, is handed on
    np.testing.assert_allclose(body.command(si[:3].astype(float)), numbers, rtol=1e-5)
    assert (body.spec.actions.lower < body.spec.actions.upper).all()
    for far in (-1e6, 1e6):
        told = body.command(np.full(3, far))
        assert (told >= body.lower).all() and (told <= body.upper).all()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({}, r"shoulder\.pos \(lower, upper, velocity, acceleration, lead\), elbow\.pos \(unit, lower"),
        (without("elbow.pos", "velocity"), r"with elbow\.pos \(velocity\)"),
        (without("elbow.pos", unit="turns"), "in 'turns'; valid: deg, rad"),
        (without("shoulder.pos", unit="percent"), "LeRobot's configuration makes it 'deg'"),
        (without("elbow.pos", lower=float("nan")), "its lower is a finite number"),
        (without("elbow.pos", lower=5), "lower is below upper"),
        (without("x.vel", lower=0.05), "with 0 between"),
        (without("elbow.pos", lead=0), "are above 0"),
        (without("elbow.pos", scale=0), "its scale is not 0"),
        (without("elbow.pos", name="shoulder"), "one name"),
        (LIMITS | {"wrist.pos": {}}, r"no 'wrist\.pos'; it has shoulder\.pos"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(rows: dict[str, dict[str, Any]], words: str) -> None:
    with pytest.raises(TaktError, match=words):
        lerobot_limits.body(ABOUT, rows)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "is no JSON"), ("[]", "limits are"), ('{"a": {"min": 1}}', "a has no 'min'")]
)
def test_files_of_another_form(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "limits.json").write_text(text)
    with pytest.raises(TaktError, match=words):
        lerobot_limits.read(tmp_path / "limits.json")
