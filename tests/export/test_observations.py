"""What variants are asked: recorded, drawn from the tabletop, or made up; the same for the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import observations
from tests import fakes
from vla.contract import CameraSpec, Observation, PolicySpec, TaktError
from vla.dataset import Feature, Writer

SPEC = fakes.arm_spec()
WALKER = replace(SPEC, state=("hip", "knee"), cameras=(CameraSpec("eye", 40, 60),))


def same(one: list[Observation], other: list[Observation]) -> bool:
    return all(
        (a.state == b.state).all()
        and a.instruction == b.instruction
        and all((a.frames[c] == b.frames[c]).all() for c in a.frames)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("spec", "kind"), [(SPEC, "tabletop"), (WALKER, "made up")])
def test_a_seed_gives_the_same_and_fits_the_policy(spec: PolicySpec, kind: str) -> None:
    pytest.importorskip("mujoco")
    asked = observations.gather(spec, 3, 30_000)
    assert asked.source["kind"] == kind
    assert len(asked.observations) == asked.source["n"] == 3
    for seen in asked.observations:
        assert (seen.state.shape, seen.state.dtype) == ((len(spec.state),), np.float32)
        assert set(seen.frames) == {c.name for c in spec.cameras}
        assert all(frame.dtype == np.uint8 for frame in seen.frames.values())
        assert seen.instruction
    assert same(asked.observations, observations.gather(spec, 3, 30_000).observations)
    assert not same(asked.observations, observations.gather(spec, 3, 30_001).observations)


def test_the_tabletops_are_seen_while_the_expert_works() -> None:
    pytest.importorskip("mujoco")
    seen = observations.tabletop(SPEC, 4, 30_000).observations
    assert len({tuple(o.state.round(3)) for o in seen}) == 4
    assert len({o.instruction for o in seen}) > 1
    assert all(frame.std() > 5 for o in seen for frame in o.frames.values())


def test_what_is_made_up_stays_within_the_limits_and_says_why() -> None:
    asked = observations.made_up(SPEC, 20, 0, "no reason")
    states = np.array([o.state for o in asked.observations])
    assert (states >= SPEC.actions.lower).all()
    assert (states <= SPEC.actions.upper).all()
    assert asked.source["why"] == "no reason"
    assert "hip" in observations.gather(WALKER, 1, 0).source["why"]
    frame = asked.observations[0].frames["front"]
    assert frame.shape == (96, 96, 3)


# -- a data set


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of five frames; each frame is one shade, and the state says which."""
    root = tmp_path_factory.mktemp("data") / "set"
    features = {
        "observation.state": Feature("float32", (2,)),
        "observation.images.eye": Feature("image", (40, 60, 3)),
    }
    with Writer(root, fps=10, features=features, robot_type="walker") as out:
        for episode in range(2):
            shades = np.arange(5) + 10 * episode
            states = np.repeat(shades[:, None], 2, axis=1).astype(np.float32)
            frames = np.repeat(shades, 40 * 60 * 3).reshape(5, 40, 60, 3).astype(np.uint8)
            columns = {"observation.state": states, "observation.images.eye": frames}
            out.add_episode(f"walk {episode}", columns)
    return root


@pytest.mark.parametrize("count", [1, 4, 10, 25])
def test_frames_of_a_data_set_keep_their_state_and_their_words(count: int, recorded: Path) -> None:
    asked = observations.gather(WALKER, count, 3, recorded)
    assert asked.source == {"kind": "data set", "folder": str(recorded), "episodes": [0, 1], "n": count}
    shades = []
    for seen in asked.observations:
        shade = int(seen.frames["eye"][0, 0, 0])
        assert (seen.frames["eye"] == shade).all()
        assert (seen.state == shade).all()
        assert seen.instruction == f"walk {shade // 10}"
        shades.append(shade)
    assert len(set(shades)) == min(count, 10) or count > 10  # no frame twice while there are others


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (replace(WALKER, cameras=(CameraSpec("nose", 40, 60),)), "observation.images.nose"),
        (replace(WALKER, state=("hip",)), "states of 2 numbers"),
    ],
)
def test_a_data_set_of_another_body_is_refused(spec: PolicySpec, says: str, recorded: Path) -> None:
    with pytest.raises(TaktError, match=says):
        observations.gather(spec, 2, 0, recorded)


def test_a_policy_without_a_state_does_not_ask_for_one(recorded: Path) -> None:
    seen = observations.gather(replace(WALKER, state=()), 2, 0, recorded).observations
    assert all(o.state.shape == (0,) for o in seen)


# -- which variants can be compared


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": ("hip",)}, "state"),
        ({"chunk_length": 4}, "rows"),
        ({"dt": 0.1}, "rows"),
        ({"cameras": ()}, "cameras"),
    ],
)
def test_variants_of_other_policies_are_refused(change: dict[str, object], says: str) -> None:
    observations.check_same([SPEC, replace(SPEC, joining="guided", name="another")], ["a", "b"])
    with pytest.raises(TaktError, match=f"a and b differ in {says}"):
        observations.check_same([SPEC, replace(SPEC, **change)], ["a", "b"])  # type: ignore[arg-type]
