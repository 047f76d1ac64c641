"""Folders people have: what is read is what was written, and a folder that lies is refused in one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime import so101
from runtime.policies import open_policy
from tests.vla import folders
from vla import checkpoint, flow, folder, folder_spec, normalise
from vla.contract import Observation, Policy, Prefix, TaktError

KINDS = pytest.mark.parametrize("kind", folders.KINDS)


def seen(seed: int = 0, words: str = "lift it", size: tuple[int, int] = folders.FRAME) -> Observation:
    rng = np.random.default_rng(seed)
    frames = {f"camera{i}": rng.integers(0, 256, (*size, 3), dtype=np.uint8) for i in range(2)}
    return Observation(3.0, rng.normal(size=6).astype(np.float32), frames, words)


def tell(path: Path, **extra: Any) -> None:
    (path / "takt.json").write_text(json.dumps(extra))


def edit(path: Path, **changes: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(path: Path) -> str:
    with pytest.raises(TaktError) as caught:
        open_policy(str(path))
    line = str(caught.value)
    assert "\n" not in line
    return line


# -- what is read


@KINDS
def test_a_folder_gives_the_model_that_was_written(kind: str, tmp_path: Path) -> None:
    written = folders.write(tmp_path / "p", kind)
    read = checkpoint.MAKERS[kind](folder.read(tmp_path / "p"), torch.float32)
    ours = read.state_dict()
    assert ours.keys() == written.state_dict().keys()
    for name, value in written.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)
    # Buffers that are not stored: built, and not left empty as the weights were.
    for name, value in read.named_buffers():
        assert value.device.type == "cpu" and torch.isfinite(value.float()).all(), name


@KINDS
def test_it_is_a_policy_that_answers(kind: str, tmp_path: Path) -> None:
    folders.write(tmp_path / "p", kind)
    policy = open_policy(str(tmp_path / "p"))
    assert isinstance(policy, Policy)
    policy.reset(4)
    chunk = policy.infer(seen())
    assert chunk.actions.shape == (10, 6) and chunk.time == 3.0
    assert np.isfinite(chunk.actions).all()
    assert set(chunk.stages) == {"preprocess", "words", "prefix", "steps"}
    policy.reset(4)
    assert np.array_equal(policy.infer(seen()).actions, chunk.actions)
    # Another state is another answer, and so is another frame; other noise too, where there is any.
    policy.reset(4)
    moved = Observation(3.0, seen().state + 0.5, seen().frames, "lift it")
    assert not np.allclose(policy.infer(moved).actions, chunk.actions, atol=1e-4)
    policy.reset(4)
    blind = Observation(3.0, seen().state, {k: v * 0 for k, v in seen().frames.items()}, "lift it")
    assert not np.allclose(policy.infer(blind).actions, chunk.actions, atol=1e-4)
    policy.reset(5)
    assert np.allclose(policy.infer(seen()).actions, chunk.actions, atol=1e-4) == (kind == "act")


@pytest.mark.parametrize("kind", [kind for kind in folders.KINDS if kind != "act"])
def test_words_decide_and_what_is_missing_does_not(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    policy = open_policy(str(path))
    first = policy.infer(seen(words="lift it")).actions
    policy.reset(0)
    assert not np.allclose(policy.infer(seen(words="push up")).actions, first, atol=1e-4)
    # A camera that is not there: whatever its frame would be.
    tell(path, cameras={"camera1": None})
    policy = open_policy(str(path))
    assert [c.name for c in policy.spec.cameras] == ["camera0"]
    one = policy.infer(seen()).actions
    assert not np.allclose(one, first, atol=1e-4)
    # Of any size: the frame is brought to the model's.
    policy.infer(seen(size=(31, 77)))


def test_act_wants_frames_of_its_size_and_resizes_others(tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "act")
    policy = open_policy(str(tmp_path / "p"))
    double = seen(size=(128, 192))
    halved = {
        k: v.reshape(64, 2, 96, 2, 3).mean((1, 3)).round().astype(np.uint8) for k, v in double.frames.items()
    }
    whole = policy.infer(double).actions
    assert np.array_equal(policy.infer(Observation(3.0, double.state, halved, "")).actions, whole)
    tell(tmp_path / "p", cameras={"camera1": None})
    assert "cannot do without" in refused(tmp_path / "p")


@KINDS
def test_takt_json_names_and_scales(kind: str, tmp_path: Path) -> None:
    """What was learned in degrees is asked and answered in rad."""
    path = tmp_path / "p"
    folders.write(path, kind)
    plain = open_policy(str(path))
    before = plain.infer(seen()).actions
    names = [f"j{i}" for i in range(6)]
    scale, shift = [0.5, 2.0, -1.0, 1.0, 0.1, 3.0], [0.0, 1.0, 0.0, -1.0, 0.2, 0.0]
    tell(path, state=names, actions=names, scale=scale, shift=shift, fps=10, cameras={"camera0": "top"})
    policy = open_policy(str(path))
    assert policy.spec.state == policy.spec.actions.names == tuple(names)
    assert policy.spec.dt == pytest.approx(0.1) and policy.spec.cameras[0].name == "top"
    o = seen()
    frames = {"top": o.frames["camera0"], "camera1": o.frames["camera1"]}
    state = (o.state * scale + shift).astype(np.float32)
    after = policy.infer(Observation(3.0, state, frames, "lift it")).actions
    np.testing.assert_allclose(after, before * scale + shift, rtol=1e-3, atol=1e-3)
    assert plain.spec.actions.dimensions[0].unit == "rad"
    tell(path, scale=[100.0] * 6)
    assert open_policy(str(path)).spec.actions.dimensions[0].unit == "1"  # beyond a turn: no angle in rad


@KINDS
def test_in_bfloat16_it_answers_nearly_the_same(kind: str, tmp_path: Path) -> None:
    folders.write(tmp_path / "p", kind)
    exact = open_policy(str(tmp_path / "p")).infer(seen()).actions
    tell(tmp_path / "p", dtype="bfloat16")
    rough = open_policy(str(tmp_path / "p")).infer(seen()).actions
    assert not np.array_equal(rough, exact)
    assert np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("kind", [kind for kind in folders.KINDS if kind != "act"])
def test_the_rows_of_a_running_plan_pull(kind: str, tmp_path: Path) -> None:
    """Real-time chunking: rows of weight 1 end near what was kept, and none where nothing weighs."""
    folders.write(tmp_path / "p", kind)
    policy = open_policy(str(tmp_path / "p"))
    free = policy.infer(seen()).actions
    kept = (free + np.linspace(0.5, 1.0, 10)[:, None]).astype(np.float32)
    none = Prefix(kept, np.zeros(10, np.float32))
    policy.reset(0)
    assert np.array_equal(policy.infer(seen(), none).actions, free)
    policy.reset(0)
    drawn = policy.infer(seen(), Prefix(kept, flow.hard(10, 4))).actions
    assert np.abs(drawn[:4] - kept[:4]).max() < 0.1 * np.abs(free[:4] - kept[:4]).max()


def test_a_deadline_leaves_out_steps(tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "smolvla")
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    policy = checkpoint.open_folder(str(tmp_path / "p"))
    policy._clock = clock
    assert len(policy.infer(seen()).step_seconds) == 10
    assert 1 <= len(policy.infer(seen(), deadline=0.1).step_seconds) < 10


@pytest.mark.parametrize("mode", [None, "MIN_MAX", "QUANTILES"])
def test_a_feature_without_its_statistics_is_named(mode: str | None, tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "smolvla")
    if mode is None:
        (tmp_path / "p" / "policy_preprocessor.json").unlink()
        assert "no statistics of observation.state" in refused(tmp_path / "p")
        return
    edit(tmp_path / "p", normalization_mapping={"STATE": mode, "ACTION": mode})
    if mode == "MIN_MAX":
        open_policy(str(tmp_path / "p"))
    else:
        assert "q01" in refused(tmp_path / "p")


# -- folders that lie


def broken(path: Path, key: str, value: torch.Tensor | None) -> None:
    tensors = load_file(path / "model.safetensors")
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    save_file(tensors, path / "model.safetensors")


KEYS = {
    "smolvla": "model.vlm_with_expert.lm_expert.layers.1.self_attn.k_proj.weight",
    "pi0": "model.paligemma_with_expert.gemma_expert.model.layers.1.mlp.up_proj.weight",
    "pi05": "model.paligemma_with_expert.gemma_expert.model.layers.1.input_layernorm.dense.bias",
    "act": "model.encoder.layers.1.linear1.weight",
}


@KINDS
def test_a_weight_that_is_missing_too_many_or_of_another_shape_is_named(kind: str, tmp_path: Path) -> None:
    for i, value in enumerate((None, torch.zeros(3, 7))):
        path = tmp_path / f"{kind}{i}"
        folders.write(path, kind)
        shape = list(load_file(path / "model.safetensors")[KEYS[kind]].shape)
        broken(path, KEYS[kind], value)
        line = refused(path)
        assert KEYS[kind] in line and str(shape) in line
        assert value is None or "[3, 7]" in line
    path = tmp_path / "more"
    folders.write(path, kind)
    broken(path, "model.surprise", torch.zeros(5))
    assert "model.surprise" in refused(path) and "[5]" in refused(path)


@KINDS
def test_what_config_json_says_has_to_fit_the_weights(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    edit(path, **({"chunk_size": 11} if kind == "act" else {"max_action_dim": 40}))
    line = refused(path)
    assert "action_in_proj.weight" in line or "decoder_pos_embed.weight" in line


def test_other_lies(tmp_path: Path) -> None:
    def fresh(kind: str = "smolvla") -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        folders.write(path, kind)
        return path

    path = fresh()
    edit(path, type="diffusion")
    assert "'diffusion'" in refused(path) and "smolvla" in refused(path)
    path = fresh()
    edit(path, type="nano")
    assert "takt export" in refused(path)
    path = fresh()
    (path / "config.json").write_text("{")
    assert "config.json is malformed" in refused(path)
    path = fresh()
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))
    assert "pytorch_model.bin is a pickle" in refused(path)
    path = fresh()
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "no safetensors file" in refused(path)
    (path / "model.safetensors").write_bytes(pickle.dumps({"weight": 1}))
    assert "no safetensors file" in refused(path)
    path = fresh()
    (path / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(path)
    path = fresh()
    edit(path, input_features={"observation.state": {"shape": [6]}})
    assert "input_features" in refused(path)
    path = fresh()
    edit(path, resize_imgs_with_padding=[128, 128])
    assert "resize_imgs_with_padding" in refused(path) and "64" in refused(path)
    path = fresh("act")
    edit(path, vision_backbone="vit")
    assert "'vit'" in refused(path) and "resnet18" in refused(path)


def test_what_would_change_the_meaning_is_not_passed_over(tmp_path: Path) -> None:
    def fresh() -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        folders.write(path, "smolvla")
        return path

    def steps(path: Path, *more: dict[str, Any], **changes: Any) -> None:
        file = path / "policy_preprocessor.json"
        data = json.loads(file.read_text())
        data["steps"][0] |= changes
        data["steps"] += more
        file.write_text(json.dumps(data))

    path = fresh()
    steps(path, {"registry_name": "delta_actions_processor"})
    assert "delta_actions_processor" in refused(path)
    path = fresh()
    edit(path, use_relative_actions=True)
    assert "use_relative_actions" in refused(path)
    path = fresh()
    steps(path, state_file="../stats.safetensors")
    assert "no name of a file beside it" in refused(path)
    path = fresh()
    edit(path, normalization_mapping={"action": "MEAN_STD"})
    assert "'action'" in refused(path)
    path = fresh()
    tell(path, scael=[1.0] * 6)
    assert "'scael'" in refused(path)
    path = fresh()
    edit(path, chunk_size=-1)
    refused(path)
    # Renamed cameras are asked for by the robot's names.
    path = fresh()
    renames = {"observation.images.top": "observation.images.camera0"}
    step = {"registry_name": "rename_observations_processor", "config": {"rename_map": renames}}
    steps(path, step)
    assert [c.name for c in open_policy(str(path)).spec.cameras] == ["top", "camera1"]


def test_another_models_tokenizer_is_told_from_the_right_one(tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "smolvla")
    file = tmp_path / "p" / "tokenizer.json"
    data = json.loads(file.read_text())
    data["model"]["vocab"] = {token: number + 100 for token, number in data["model"]["vocab"].items()}
    file.write_text(json.dumps(data))
    with pytest.raises(TaktError, match="another model's tokenizer"):
        open_policy(str(tmp_path / "p")).infer(seen(words="~~~"))


def test_a_vector_of_six_is_our_arms_joints() -> None:
    assert tuple(so101.JOINTS) == folder_spec.SO101


def test_degrees_are_not_taken_for_rad_where_only_mean_and_std_are_known(tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "smolvla")
    stats = load_file(tmp_path / "p" / "stats.safetensors")
    for name in ("min", "max"):
        del stats[f"action.{name}"]
    save_file(stats, tmp_path / "p" / "stats.safetensors")
    assert open_policy(str(tmp_path / "p")).spec.actions.dimensions[0].unit == "rad"
    stats["action.mean"] += 90
    save_file(stats, tmp_path / "p" / "stats.safetensors")
    assert open_policy(str(tmp_path / "p")).spec.actions.dimensions[0].unit == "1"


@pytest.mark.parametrize("mode", ["MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_a_dimension_that_never_changed_becomes_minus_one(mode: str) -> None:
    """As LeRobot has it, also where float32 cannot tell the number from itself and a little."""
    normal = normalise.Normalise(3)
    low, high = normalise.MODES[mode]
    same = torch.tensor([0.0, 1.0, -90.0])
    normal.set(mode, {low: same, high: same})
    assert normal(same).tolist() == [-1.0, -1.0, -1.0]
    torch.testing.assert_close(normal.inverse(torch.full((3,), -1.0)), same)


@pytest.mark.parametrize(
    "extra",
    [
        {"fps": 0}, {"fps": "fast"}, {"state": ["a"]}, {"actions": [1, 2, 3, 4, 5, 6]}, {"scale": [0.0] * 6},
        {"scale": [1.0] * 5}, {"cameras": {"camera9": "front"}},
        {"cameras": {"camera0": None, "camera1": None}},
        {"cameras": ["camera0"]}, {"steps": 0}, {"dtype": "int3"}, {"unit": ["rad"]},
    ],
)  # fmt: skip
def test_what_takt_json_may_say(extra: dict[str, Any], tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "smolvla")
    tell(tmp_path / "p", **extra)
    refused(tmp_path / "p")


def test_observations_that_do_not_fit(tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "smolvla")
    policy = open_policy(str(tmp_path / "p"))
    o = seen()
    with pytest.raises(TaktError, match="camera 'camera1' is missing"):
        policy.infer(Observation(0.0, o.state, {"camera0": o.frames["camera0"]}, ""))
    with pytest.raises(TaktError, match="float64"):
        policy.infer(Observation(0.0, o.state, {k: v / 255 for k, v in o.frames.items()}, ""))
    with pytest.raises(TaktError, match="state"):
        policy.infer(Observation(0.0, o.state[:5], o.frames, ""))
