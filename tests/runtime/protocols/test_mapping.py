"""Mappings: what is wrong is told in one line, units come back as they went, the examples load."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocols import mapping
from runtime.protocols.keymap import KeyMap
from tests import fakes
from tests.runtime.protocols.peers import refusal
from vla.contract import ActionSpace, CameraSpec, Dimension, PolicySpec, TaktError

SPEC = fakes.arm_spec()
NAMES = list(SPEC.actions.names)
EXAMPLES = Path(__file__).parents[3] / "examples" / "mappings"


def spec(cameras: tuple[str, ...], state: int, actions: dict[str, str], absolute: bool) -> PolicySpec:
    """A policy with these cameras and actions, name -> unit."""
    space = ActionSpace(tuple(Dimension(name, unit, -1.0, 1.0, absolute) for name, unit in actions.items()))
    seen = tuple(CameraSpec(camera, 64, 64) for camera in cameras)
    return PolicySpec("example", tuple(f"s{i}" for i in range(state)), space, seen, 10, 0.1, 0.5)


LIBERO = spec(
    ("image", "wrist_image"),
    8,
    dict.fromkeys(("x", "y", "z"), "m") | dict.fromkeys(("roll", "pitch", "yaw"), "rad") | {"gripper": "1"},
    absolute=False,
)
JOINTS = {f"joint_{i}": "rad/s" for i in range(1, 8)}
DROID = spec(("exterior", "wrist"), 8, JOINTS | {"gripper": "1"}, absolute=False)


def request(keymap: KeyMap, values: dict[str, Any]) -> Any:
    return keymap.observation(1.0, values.__getitem__, values.__getitem__, values.__getitem__)


def frames(*keys: str) -> dict[str, Any]:
    return {key: np.full((224, 224, 3), shade, np.uint8) for shade, key in enumerate(keys, start=1)}


def test_the_example_for_libero() -> None:
    keymap = mapping.load(EXAMPLES / "libero.json", "openpi", LIBERO)
    values = frames("observation/image", "observation/wrist_image")
    values |= {"observation/state": np.arange(8.0), "prompt": "put the bowl on the plate"}
    seen = request(keymap, values)
    assert {name: frame[0, 0, 0] for name, frame in seen.frames.items()} == {"image": 1, "wrist_image": 2}
    np.testing.assert_array_equal(seen.state, np.arange(8))
    assert seen.state.dtype == np.float32
    assert seen.instruction == "put the bowl on the plate"
    chunk = np.arange(70, dtype=np.float32).reshape(10, 7)
    np.testing.assert_array_equal(keymap.answer(chunk)["actions"], chunk)


def test_the_example_for_droid() -> None:
    keymap = mapping.load(EXAMPLES / "droid.json", "openpi", DROID)
    values = frames("observation/exterior_image_1_left", "observation/wrist_image_left")
    values |= {"observation/joint_position": np.arange(7.0), "observation/gripper_position": np.array([0.5])}
    seen = request(keymap, values | {"prompt": "open the drawer"})
    assert set(seen.frames) == {"exterior", "wrist"}
    np.testing.assert_array_equal(seen.state, [0, 1, 2, 3, 4, 5, 6, 0.5])
    assert keymap.answer(np.zeros((10, 8)))["actions"].shape == (10, 8)


def test_the_example_for_the_so101() -> None:
    keymap = mapping.load(EXAMPLES / "so101.json", "gr00t", SPEC)
    values = frames("front", "wrist") | {"annotation.human.task_description": "put the red cube"}
    values |= {"single_arm": np.array([90.0, 0, -90, 45, 180], np.float32), "gripper": np.array([100.0])}
    seen = request(keymap, values)
    halves = np.pi * np.array([0.5, 0, -0.5, 0.25, 1.0])
    np.testing.assert_allclose(seen.state, [*halves, 1.74533], atol=1e-5)
    back = keymap.answer(seen.state[None])
    np.testing.assert_allclose(back["single_arm"], values["single_arm"][None], atol=1e-4)
    np.testing.assert_allclose(back["gripper"], [[100.0]], atol=1e-3)


def test_without_a_file_the_policys_names_are_used() -> None:
    openpi = mapping.load(None, "openpi", SPEC)
    assert {name: camera.key for name, camera in openpi.cameras.items()} == {
        "front": "observation/front",
        "wrist": "observation/wrist",
    }
    assert [part.key for part in openpi.state] == ["observation/state"]
    assert openpi.instruction == ("prompt",)
    gr00t = mapping.load(None, "gr00t", SPEC)
    assert [camera.key for camera in gr00t.cameras.values()] == ["front", "wrist"]
    chunk = np.arange(96, dtype=np.float32).reshape(16, 6)
    np.testing.assert_array_equal(openpi.answer(chunk)["actions"], chunk)
    np.testing.assert_array_equal(gr00t.answer(chunk)["action"], chunk)


numbers = st.floats(-5, 5).map(lambda x: round(x, 3))
scales = st.floats(0.1, 10).map(lambda x: round(x, 3))


@given(
    st.permutations(range(6)),
    st.lists(scales, min_size=6, max_size=6),
    st.lists(numbers, min_size=6, max_size=6),
    st.sampled_from(["rad", "deg"]),
    st.lists(numbers, min_size=6, max_size=6),
)
def test_actions_undo_what_state_does(
    order: list[int], scale: list[float], offset: list[float], unit: str, values: list[float]
) -> None:
    """A state sent back as an action returns the numbers that came, in any order and unit."""
    entry = {"unit": unit, "scale": scale, "offset": offset}
    state = [{"key": "s", "indices": order, **entry}]
    actions = [{"names": NAMES, **entry}]
    keymap = mapping.parse(
        {"cameras": fakes_cameras(), "state": state, "actions": actions, "instruction": None}, "openpi", SPEC
    )
    theirs = np.array(values)
    seen = request(keymap, frames("front", "wrist") | {"s": theirs})
    back = keymap.answer(seen.state[None].astype(np.float64))["actions"][0]
    np.testing.assert_allclose(back, theirs[order], atol=5e-3)


def fakes_cameras() -> dict[str, str]:
    return {camera.name: camera.name for camera in SPEC.cameras}


def test_pieces_of_a_key_make_up_the_state() -> None:
    state = [{"key": "a", "slice": [1, 3]}, {"key": "b"}, {"key": "a", "indices": [0]}]
    keymap = mapping.parse({"cameras": fakes_cameras(), "state": state, "instruction": None}, "openpi", SPEC)
    values = frames("front", "wrist") | {"a": np.array([1, 2, 3, 4]), "b": np.array([7, 8, 9], np.int32)}
    np.testing.assert_array_equal(request(keymap, values).state, [2, 3, 7, 8, 9, 1])
    with pytest.raises(TaktError, match="'b' has 2 numbers; the mapping wants 3"):
        request(keymap, values | {"b": np.zeros(2)})
    with pytest.raises(TaktError, match="'a' has 2 numbers; the mapping wants 3"):
        request(keymap, values | {"a": np.zeros(2)})


def test_planar_frames() -> None:
    cameras = {"front": {"key": "images/cam_high", "layout": "chw"}, "wrist": "w"}
    keymap = mapping.parse({"cameras": cameras, "instruction": None}, "openpi", SPEC)
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    values = {"images/cam_high": picture.transpose(2, 0, 1), "w": picture}
    seen = request(keymap, values | {"observation/state": np.zeros(6)})
    np.testing.assert_array_equal(seen.frames["front"], picture)
    with pytest.raises(TaktError, match=r"wanted uint8 \(3, height, width\)"):
        request(keymap, values | {"images/cam_high": picture})


WRONG: list[tuple[str, Any, str]] = [
    ("openpi", [], "wanted a map"),
    ("openpi", {"camera": {}}, "unknown key 'camera'; known are"),
    ("openpi", {"cameras": {"front": "f"}}, "camera 'wrist' is missing; the policy has ['front', 'wrist']"),
    ("openpi", {"cameras": {"side": "f"}}, "unknown camera 'side'; known are ['front', 'wrist']"),
    ("openpi", {"cameras": {"front": 1, "wrist": "w"}}, "1 is no key"),
    (
        "openpi",
        {"cameras": {"front": {"key": "f", "layout": "x"}, "wrist": "w"}},
        "layout 'x' is unknown; known are ['hwc', 'chw']",
    ),
    ("openpi", {"state": {}}, "state is a list"),
    ("openpi", {"state": [{"name": "s"}]}, 'wants "key"'),
    ("openpi", {"state": [{"key": "s", "size": 5}]}, "makes up 5 components; the policy has 6"),
    ("openpi", {"state": [{"key": "s", "slice": [0, 7]}]}, "makes up 7 components; the policy has 6"),
    ("openpi", {"state": [{"key": "s", "size": 6}, {"key": "t"}]}, "6 components and the rest"),
    ("openpi", {"state": [{"key": "s"}, {"key": "t"}]}, 'two entries of state have no "size"'),
    ("openpi", {"state": [{"key": "s", "slice": [3, 1]}]}, "a slice is"),
    ("openpi", {"state": [{"key": "s", "indices": [-1]}]}, "indices is a list"),
    ("openpi", {"state": [{"key": "s", "indices": [0], "slice": [0, 1]}]}, "has one of"),
    ("openpi", {"state": [{"key": "s", "indices": [0], "size": 2}]}, "size and the numbers taken differ"),
    ("openpi", {"state": [{"key": "s", "unit": "grad"}]}, "unit 'grad' is unknown; known are"),
    ("openpi", {"state": [{"key": "s", "unit": "mm"}]}, "does not fit 'shoulder_pan', which is in rad"),
    ("openpi", {"state": [{"key": "s", "scale": 0}]}, "a scale of 0"),
    ("openpi", {"state": [{"key": "s", "scale": [1, 2]}]}, "scale is a number or a list of one each for"),
    ("openpi", {"state": [{"key": "s", "offset": float("nan")}]}, "offset is a number"),
    ("openpi", {"instruction": []}, "instruction is a key"),
    ("openpi", {"instruction": 3}, "3 is no key"),
    ("openpi", {"actions": {}}, "actions is a list of"),
    ("openpi", {"actions": NAMES[:5]}, "action 'gripper' is missing; the policy has"),
    ("openpi", {"actions": [*NAMES, "gripper"]}, "'gripper' stands there twice"),
    ("openpi", {"actions": ["jaw"]}, "unknown action 'jaw'; known are"),
    ("openpi", {"actions": [[]]}, "an entry of actions is a name"),
    ("openpi", {"actions": [{"names": NAMES, "unit": "m"}]}, "does not fit 'shoulder_pan'"),
    ("openpi", {"dialect": "n1.5"}, "dialect is of --protocol gr00t"),
    ("openpi", {"deadline_ms": 0}, "deadline_ms is"),
    ("openpi", {"seed": -1}, "seed is"),
    ("gr00t", {"dialect": "n2"}, "dialect is one of ['n1.5', 'n1.6']"),
    ("gr00t", {"actions": NAMES}, "actions is a map"),
    ("gr00t", {"actions": {"arm": "gripper"}}, "'arm' wants a list of"),
    ("gr00t", {"actions": {"arm": []}}, "'arm' wants a list of"),
]


@pytest.mark.parametrize(("protocol", "data", "words"), WRONG, ids=[row[2][:40] for row in WRONG])
def test_what_is_wrong_is_one_line(protocol: str, data: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mapping.json"
    file.write_text(json.dumps(data))
    with pytest.raises(TaktError, match=re.escape(words)) as caught:
        mapping.load(file, protocol, SPEC)
    assert str(caught.value).startswith(f"mapping {file}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(TaktError, match="No such file"):
        mapping.load(tmp_path / "none.json", "openpi", SPEC)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(TaktError, match="is no JSON"):
        mapping.load(tmp_path / "bad.json", "openpi", SPEC)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["key", "names", "unit"]), inner)
    ),
    max_leaves=12,
)


@given(st.sampled_from(mapping.PROTOCOLS), st.sampled_from(sorted(mapping._KEYS)), json_values)
def test_nothing_but_one_line_comes_of_nonsense(protocol: str, key: str, value: Any) -> None:
    assert "\n" not in refusal(lambda: mapping.parse({key: value}, protocol, SPEC))


def test_the_mapping_in_the_document_loads() -> None:
    text = (EXAMPLES.parents[1] / "docs" / "protocols.md").read_text()
    start = text.index("    {\n")
    data = json.loads(text[start : text.index("\n    }\n", start) + 6])
    assert mapping.parse(data, "gr00t", SPEC).deadline == 0.2
