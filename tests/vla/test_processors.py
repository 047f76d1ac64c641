"""What LeRobot's processors say is done, or the folder is refused in one line; counts beyond reason too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.policies import open_policy
from tests.vla import folders
from tests.vla.test_checkpoint import broken, edit, refused, seen, tell
from vla import checkpoint, flow, siglip_folder
from vla.contract import Observation, Prefix, TaktError
from vla.folder import Folder
from vla.normalise import MODES, Normalise

FLOW = pytest.mark.parametrize("kind", ["smolvla", "pi0", "pi05"])
KINDS = pytest.mark.parametrize("kind", folders.KINDS)


def processor(path: Path, which: str, *steps: dict[str, Any]) -> None:
    (path / f"policy_{which}processor.json").write_text(json.dumps({"name": which, "steps": list(steps)}))


def normaliser(
    name: str = "normalizer_processor", file: str | None = "stats.safetensors", **config: Any
) -> Any:
    return {"registry_name": name, "config": {"eps": 1e-8, **config}, "state_file": file}


def statistics(path: Path, file: str = "stats.safetensors", **changes: torch.Tensor) -> None:
    """Change some, by names with _ for ."""
    stats = load_file(path / "stats.safetensors")
    stats |= {key.replace("__", "."): value for key, value in changes.items()}
    save_file(stats, path / file)


def answer(path: Path, **changes: Any) -> np.ndarray:
    return open_policy(str(path)).infer(seen(**changes)).actions


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """But for rounding, which depends on where in memory weights lie."""
    return bool(np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max())


# -- counts


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("smolvla", "chunk_size"), ("smolvla", "num_steps"), ("smolvla", "tokenizer_max_length"),
        ("smolvla", "max_state_dim"), ("pi0", "num_inference_steps"), ("pi0", "chunk_size"),
        ("pi05", "chunk_size"), ("act", "chunk_size"),
        ("act", "n_encoder_layers"), ("act", "n_decoder_layers"), ("act", "dim_model"),
        ("act", "dim_feedforward"), ("act", "n_heads"), ("act", "latent_dim"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [10**12, 10**400, 0, -3, 2.0, "4", None, True, [1]])
def test_a_count_beyond_reason_is_refused_before_memory_runs_out(
    kind: str, name: str, value: Any, written: dict[str, Path]
) -> None:
    path = written[kind]
    before = (path / "config.json").read_text()
    edit(path, **{name: value})
    try:
        assert name in refused(path)
    finally:
        (path / "config.json").write_text(before)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("folders")
    for kind in folders.KINDS:
        folders.write(top / kind, kind)
    return {kind: top / kind for kind in folders.KINDS}


@KINDS
def test_features_beyond_reason(kind: str, tmp_path: Path) -> None:
    folders.write(tmp_path / "p", kind)
    features = json.loads((tmp_path / "p" / "config.json").read_text())["input_features"]
    for name, shape in (
        ("observation.state", [10**12]), ("observation.state", [0]),
        ("observation.images.camera0", [3, 10**9, 10**9]), ("observation.images.camera0", [3, -1, 64]),
    ):  # fmt: skip
        edit(tmp_path / "p", input_features={**features, name: {**features[name], "shape": shape}})
        assert name in refused(tmp_path / "p")


@FLOW
def test_a_robot_with_more_numbers_than_the_model_reads(kind: str, tmp_path: Path) -> None:
    """Padding to fewer would cut them off in silence."""
    path = tmp_path / "p"
    folders.write(path, kind)
    for name, group in (("observation.state", "input_features"), ("action", "output_features")):
        before = (path / "config.json").read_text()
        features = json.loads(before)[group]
        edit(path, **{group: {**features, name: {**features[name], "shape": [33]}}})
        assert f"{name} has 33 numbers, the model reads 32" in refused(path)
        (path / "config.json").write_text(before)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("smolvla", "min_period", 0), ("smolvla", "max_period", "long"), ("pi0", "min_period", float("nan")),
        ("pi05", "max_period", float("inf")), ("act", "n_heads", 3),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be(kind: str, name: str, value: Any, tmp_path: Path) -> None:
    folders.write(tmp_path / "p", kind)
    edit(tmp_path / "p", **{name: value})
    refused(tmp_path / "p")


def test_heads_of_siglip(tmp_path: Path) -> None:
    """The tower of 1152 has 16, not 18 of 64 each; no weight shows it."""
    for width, heads in ((768, 12), (1024, 16), (1152, 16), (32, 2)):
        shapes = {
            "embeddings.patch_embedding.weight": (width, 3, 14, 14),
            "embeddings.position_embedding.weight": (256, width),
            "encoder.layers.0.mlp.fc1.weight": (10, width),
        }
        read = Folder(tmp_path, {}, shapes, {}, {}, {}, {})
        assert siglip_folder.sizes(read, "", None, 16).heads == heads
        assert siglip_folder.sizes(read, "", 4, 16).heads == 4
        with pytest.raises(TaktError, match="cannot be"):
            siglip_folder.sizes(read, "", 5, 16)


# -- statistics


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "IDENTITY"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_statistics_that_cannot_be(mode: str, bad: float | None) -> None:
    low, high = MODES[mode]
    good = {low: torch.tensor([0.0, 1.0]), high: torch.tensor([0.0, 2.0])}
    Normalise(2).set(mode, good)
    for name in (low, high) if bad is not None else (high,):
        value = good[name].clone()
        value[1] = bad if bad is not None else -0.5
        with pytest.raises(TaktError, match=rf"what\.{name} holds a value (that is not finite|below)"):
            Normalise(2).set(mode, {**good, name: value}, what="what")


@KINDS
def test_the_postprocessor_has_to_belong_to_the_preprocessor(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    modes = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    before = answer(path)
    processor(path, "pre", normaliser(norm_map=modes))
    processor(path, "post", normaliser("unnormalizer_processor", norm_map=modes))
    assert same(answer(path), before)
    # Of the state the second's do not matter, and neither do statistics that the mode does not take.
    statistics(path, "other.safetensors", observation__state__mean=torch.ones(6), action__max=torch.ones(6))
    changed = load_file(path / "other.safetensors")
    changed = {k.replace("observation__", "observation."): v for k, v in changed.items()}
    save_file(changed, path / "other.safetensors")
    processor(path, "post", normaliser("unnormalizer_processor", "other.safetensors", norm_map=modes))
    assert same(answer(path), before)
    save_file({**changed, "action.std": torch.full((6,), 2.0)}, path / "other.safetensors")
    assert "differ in std of the actions" in refused(path)
    processor(path, "post", normaliser("unnormalizer_processor", None, norm_map=modes))
    assert "differ in mean of the actions" in refused(path)
    back = normaliser("unnormalizer_processor", norm_map={**modes, "ACTION": "MIN_MAX"})
    processor(path, "post", back)
    assert "by MEAN_STD, the postprocessor turns them back by MIN_MAX" in refused(path)
    processor(path, "post", normaliser("unnormalizer_processor", norm_map=modes, eps=1e-6))
    assert "eps 1e-08 and 1e-06" in refused(path)
    features = {"action": {"type": "ACTION", "shape": [7]}}
    processor(path, "post", normaliser("unnormalizer_processor", norm_map=modes, features=features))
    assert "action as ACTION [7], config.json as ACTION [6]" in refused(path)


@KINDS
def test_what_a_processor_leaves_as_it_is(kind: str, tmp_path: Path) -> None:
    """A feature that is not among its own, or not among the keys that it normalises."""
    path = tmp_path / "p"
    folders.write(path, kind)
    edit(path, normalization_mapping={"STATE": "MEAN_STD", "ACTION": "MEAN_STD"})
    normal = answer(path)
    edit(path, normalization_mapping={"STATE": "IDENTITY", "ACTION": "MEAN_STD"})
    plain = answer(path)
    assert not np.allclose(normal, plain, atol=1e-4)
    edit(path, normalization_mapping={"STATE": "MEAN_STD", "ACTION": "MEAN_STD"})
    action = {"action": {"type": "ACTION", "shape": [6]}}
    state = {"observation.state": {"type": "STATE", "shape": [6]}}
    for config, wanted in (
        ({"normalize_observation_keys": []}, plain),
        ({"normalize_observation_keys": ["observation.state"]}, normal),
        ({"features": action}, plain),
        ({"features": {**action, **state}}, normal),
        ({"norm_map": {"ACTION": "MEAN_STD"}}, plain),
        ({"norm_map": {"ACTION": "MEAN_STD", "STATE": "MEAN_STD"}}, normal),
    ):
        processor(path, "pre", normaliser(**config))
        assert same(answer(path), wanted), config
    processor(path, "pre", normaliser(normalize_observation_keys="observation.state"))
    assert "normalize_observation_keys" in refused(path)
    processor(path, "pre", normaliser(), normaliser())
    assert "two steps 'normalizer_processor'" in refused(path)


@FLOW
def test_pictures_that_would_be_normalised_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    modes = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    before = answer(path)
    edit(path, normalization_mapping=modes)
    assert same(answer(path), before)  # without statistics LeRobot leaves them as they are
    stats = load_file(path / "stats.safetensors")
    stats |= {f"observation.images.camera0.{k}": torch.full((3, 1, 1), 0.5) for k in ("mean", "std")}
    save_file(stats, path / "stats.safetensors")
    assert '"VISUAL" has to be "IDENTITY"' in refused(path)
    processor(path, "pre", normaliser(normalize_observation_keys=["observation.state"]))
    assert same(answer(path), before)


# -- words


@FLOW
def test_as_many_tokens_are_read_as_the_step_says(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    before = answer(path)
    words = {"registry_name": "tokenizer_processor", "config": {"max_length": 180, "padding_side": "right"}}
    processor(path, "pre", normaliser(), words)
    policy = checkpoint.open_folder(str(path))
    assert policy._words is not None and policy._words.length == policy._model.config.words == 180
    # What is not there is not seen.
    assert same(policy.infer(seen()).actions, before)
    words["config"]["max_length"] = 10**9  # type: ignore[index]
    processor(path, "pre", normaliser(), words)
    assert "max_length" in refused(path)
    words["config"] = {"max_length": 48, "padding_side": "left"}
    processor(path, "pre", normaliser(), words)
    assert "padding_side" in refused(path)


def test_zeros_after_the_state_are_read_where_lerobot_read_them(tmp_path: Path) -> None:
    """Up to 0.4 it put 32 numbers into pi0.5's words; since then the robot's alone."""
    path = tmp_path / "p"
    folders.write(path, "pi05")
    state = seen().state

    def numbers() -> int:
        said = checkpoint.open_folder(str(path)).prompt.of("lift it", state)
        return len(said.split("State: ")[1].split(";")[0].split())

    assert numbers() == 32
    edit(path, use_relative_actions=False)  # which LeRobot writes from 0.5.1 on
    assert numbers() == 6
    tell(path, prompt_state="padded")
    assert numbers() == 32


# -- keys of other times


@KINDS
def test_keys_of_a_compiled_model(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    before = answer(path)
    weights = load_file(path / "model.safetensors")
    save_file(
        {k.replace("model.", "model._orig_mod.", 1): v for k, v in weights.items()},
        path / "model.safetensors",
    )
    assert same(answer(path), before)
    key = next(iter(weights))
    broken(path, key, weights[key])
    assert f"{key} twice" in refused(path)


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_time_layers_that_are_called_as_the_other_models(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    before = answer(path)
    weights = load_file(path / "model.safetensors")
    mine, other = ("action_time_mlp", "time_mlp") if kind == "pi0" else ("time_mlp", "action_time_mlp")
    weights = {k.replace(f"model.{mine}_", f"model.{other}_"): v for k, v in weights.items()}
    if kind == "pi05":
        weights["model.state_proj.weight"] = torch.zeros(32, 32)
    save_file(weights, path / "model.safetensors")
    assert same(answer(path), before)
    broken(path, f"model.{other}_in.weight", None)
    assert f"lacks model.{mine}_in.weight" in refused(path)


@KINDS
def test_statistics_of_several_data_sets_among_the_weights(kind: str, tmp_path: Path) -> None:
    """As LeRobot kept them when it learned of several at once: normalize_inputs.so100-blue_buffer_..."""
    path = tmp_path / "p"
    folders.write(path, kind)
    before = answer(path)
    stats = load_file(path / "stats.safetensors")
    for name in ("policy_preprocessor.json", "stats.safetensors"):
        (path / name).unlink()
    weights = load_file(path / "model.safetensors")
    for i, own in enumerate(("so100", "so100-blue")):
        for key, value in stats.items():
            feature, _, statistic = key.rpartition(".")
            start = "unnormalize_outputs" if feature == "action" else "normalize_inputs"
            weights[f"{start}.{own}_buffer_{feature.replace('.', '_')}.{statistic}"] = value + (1 - i)
    save_file(weights, path / "model.safetensors")
    assert "statistics of so100, so100-blue" in refused(path)
    tell(path, asset="so100-blue")
    assert same(answer(path), before)
    tell(path, asset="so100")
    assert not np.allclose(answer(path), before, atol=1e-4)
    tell(path, asset="green")
    assert "so100, so100-blue" in refused(path)


@KINDS
def test_cameras_of_old_folders(kind: str, tmp_path: Path) -> None:
    """observation.image, without a name."""
    path = tmp_path / "p"
    folders.write(path, kind)
    before = answer(path)
    features = json.loads((path / "config.json").read_text())["input_features"]
    named = {
        "observation.images.camera0": "observation.image",
        "observation.images.camera1": "observation.image2",
    }
    edit(path, input_features={named.get(k, k): v for k, v in features.items()})
    assert [c.name for c in open_policy(str(path)).spec.cameras] == ["image", "image2"]
    tell(path, cameras={"image": "camera0", "image2": "camera1"})
    assert same(answer(path), before)


def test_a_message_is_one_line_whatever_the_folder_says(tmp_path: Path) -> None:
    folders.write(tmp_path / "p", "smolvla")
    edit(tmp_path / "p", type="diffusion\npolicy")
    assert "diffusion" in refused(tmp_path / "p")
    folders.write(tmp_path / "q", "pi0")
    (tmp_path / "q" / "tokenizer.json").unlink()
    words = {"registry_name": "tokenizer_processor", "config": {"tokenizer_name": "a\nb"}}
    processor(tmp_path / "q", "pre", normaliser(), words)
    assert "tokenizer.json of a b" in refused(tmp_path / "q")


def test_scale_of_a_state_that_is_longer_than_the_actions(tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, "smolvla")
    features = json.loads((path / "config.json").read_text())["output_features"]
    edit(path, output_features={"action": {**features["action"], "shape": [4]}})
    stats = load_file(path / "stats.safetensors")
    save_file(
        {k: v[:4] if k.startswith("action") else v for k, v in stats.items()}, path / "stats.safetensors"
    )
    tell(path, scale=[0.5, 1, 1, 1, 2, 2])
    policy = checkpoint.open_folder(str(path))
    assert policy.infer(seen()).actions.shape == (10, 4)
    assert policy.spec.actions.dimensions[0].upper == 1.0
    tell(path, scale=[1.0] * 4)
    assert "scale is a list of 6" in refused(path)


# -- actions relative to the state


def relative(path: Path, **config: Any) -> None:
    """As LeRobot from 0.5.1 on writes it."""
    edit(path, use_relative_actions=config.get("enabled", True))
    step = {"enabled": True, "exclude_joints": ["gripper"], "action_names": None, **config}
    processor(path, "pre", {"registry_name": "relative_actions_processor", "config": step}, normaliser())
    back = {"registry_name": "absolute_actions_processor", "config": {"enabled": step["enabled"]}}
    processor(path, "post", normaliser("unnormalizer_processor"), back)


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_actions_relative_to_the_state_come_out_absolute(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, kind)
    edit(path, use_relative_actions=False)
    distances = answer(path)
    relative(path, enabled=False)
    assert same(answer(path), distances)
    relative(path)
    assert same(answer(path), distances + seen().state)
    names = ["shoulder.pos", "elbow.pos", "wrist.pos", "Gripper.pos", "base.pos", "head.pos"]
    relative(path, action_names=names)
    mask = np.array([1, 1, 1, 0, 1, 1])
    whole = answer(path)
    assert same(whole, distances + mask * seen().state)
    # Limits: from where a joint was in training, as far as it went from there.
    dimensions = open_policy(str(path)).spec.actions.dimensions
    assert [d.lower for d in dimensions] == [-4.0, -4.0, -4.0, -2.0, -4.0, -4.0]
    # In other units, a shift among them, it is the same.
    scale, shift = np.array([0.5, 2.0, -1.0, 1.0, 0.1, 3.0]), np.array([0.0, 1.0, 0.0, -1.0, 0.2, 0.0])
    tell(path, scale=scale.tolist(), shift=shift.tolist())
    o = seen()
    there = Observation(3.0, (o.state * scale + shift).astype(np.float32), o.frames, o.instruction)
    ours = open_policy(str(path)).infer(there).actions
    np.testing.assert_allclose(ours, whole * scale + shift, rtol=1e-3, atol=1e-3)


def test_rows_of_a_running_plan_are_absolute_as_well(tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, "pi0")
    relative(path)
    policy = open_policy(str(path))
    moved = Observation(3.0, seen().state + 3, seen().frames, "lift it")
    free = policy.infer(moved).actions
    kept = (free + np.linspace(0.5, 1.0, 10)[:, None]).astype(np.float32)
    policy.reset(0)
    drawn = policy.infer(moved, Prefix(kept, flow.hard(10, 4))).actions
    assert np.abs(drawn[:4] - kept[:4]).max() < 0.1 * np.abs(free[:4] - kept[:4]).max()


def test_relative_actions_that_nobody_undoes(tmp_path: Path) -> None:
    path = tmp_path / "p"
    folders.write(path, "pi0")
    relative(path)
    processor(path, "post", normaliser("unnormalizer_processor"))
    assert "the postprocessor undoes it False" in refused(path)
    relative(path)
    edit(path, use_relative_actions=False)
    assert "use_relative_actions is False" in refused(path)
    relative(path, enabled="yes")
    assert "enabled" in refused(path)
    path = tmp_path / "q"
    folders.write(path, "smolvla")
    relative(path)
    assert "actions relative to the state is not known" in refused(path)
