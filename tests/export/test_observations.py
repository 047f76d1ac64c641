"""What variants are asked: recorded, drawn from the tabletop, or made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import bench, observations
from export.variants import check_same
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


@pytest.mark.parametrize(("spec", "origin"), [(SPEC, "tabletop"), (WALKER, "made up")])
def test_the_same_is_asked_each_time_and_fits_the_policy(spec: PolicySpec, origin: str) -> None:
    pytest.importorskip("mujoco")
    asked, said = observations.gather(spec, 3)
    assert said.startswith(origin)
    assert len(asked) == 3
    for seen in asked:
        assert (seen.state.shape, seen.state.dtype) == ((len(spec.state),), np.float32)
        assert set(seen.frames) >= {c.name for c in spec.cameras}
        assert all(frame.dtype == np.uint8 for frame in seen.frames.values())
        assert seen.instruction
    assert same(asked, observations.gather(spec, 3)[0])
    assert len({tuple(seen.state) for seen in asked}) == 3


def test_where_the_tabletop_cannot_be_drawn_observations_are_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(count: int) -> list[Observation]:
        raise TaktError("cannot render here")

    monkeypatch.setattr(observations, "tabletop", fail)
    seen, source = bench.Command((), inputs=2)._observations(SPEC)
    assert source == {"from": "made up: cannot render here", "n": 2}
    assert len(seen) == 2


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


@pytest.mark.parametrize("count", [1, 4, 10])
def test_frames_of_a_data_set_keep_their_state_and_their_words(count: int, recorded: Path) -> None:
    asked, said = observations.gather(WALKER, count, recorded)
    assert "data set" in said
    shades = []
    for seen in asked:
        shade = int(seen.frames["eye"][0, 0, 0])
        assert (seen.frames["eye"] == shade).all()
        assert (seen.state == shade).all()
        assert seen.instruction == f"walk {shade // 10}"
        shades.append(shade)
    assert len(set(shades)) == count


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (replace(WALKER, cameras=(CameraSpec("nose", 40, 60),)), "nose"),
        (replace(WALKER, state=("hip",)), "states of 2 numbers"),
    ],
)
def test_a_data_set_of_another_body_is_refused(spec: PolicySpec, says: str, recorded: Path) -> None:
    with pytest.raises(TaktError, match=says):
        bench.Command((), inputs=2, observations=recorded)._observations(spec)


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
    check_same([SPEC, replace(SPEC, joining="guided", name="another")], ["a", "b"])
    with pytest.raises(TaktError, match=f"a and b differ in {says}"):
        check_same([SPEC, replace(SPEC, **change)], ["a", "b"])  # type: ignore[arg-type]
