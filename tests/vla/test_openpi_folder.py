"""Folders of openpi: the same weights and statistics in LeRobot's layout and in openpi's are one policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

from runtime.policies import open_policy
from tests.vla import folders
from vla import checkpoint, pi0
from vla.contract import Observation, TaktError
from vla.openpi_folder import CAMERAS

KIND = pytest.mark.parametrize("kind", ["pi0", "pi05"])
ROWS, WIDTH = 10, 6  # of the tiny models
UNITS = {"unit": ["rad"] * 6}


class Stored(torch.nn.Module):
    """Tensors by dotted keys, two names for one where the keys say so, as openpi's model has them."""

    def __init__(self, tensors: dict[str, torch.Tensor], tied: dict[str, str]) -> None:
        super().__init__()
        for key, value in tensors.items():
            self._place(key, torch.nn.Parameter(value))
        for key, other in tied.items():
            self._place(key, self.get_parameter(other))

    def _place(self, key: str, value: torch.nn.Parameter) -> None:
        at: torch.nn.Module = self
        *path, last = key.split(".")
        for name in path:
            if name not in dict(at.named_children()):
                at.add_module(name, torch.nn.Module())
            at = at.get_submodule(name)
        at.register_parameter(last, value)


def statistics(width: int = WIDTH) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    out = {}
    for name in ("state", "actions"):
        mean, std = rng.normal(size=width), rng.uniform(0.5, 1.0, width)
        out[name] = {"mean": mean, "std": std, "q01": mean - 2 * std, "q99": mean + 2.5 * std}
    return {name: {k: v.tolist() for k, v in each.items()} for name, each in out.items()}


def write(path: Path, kind: str, config: bool = False, stats: dict[str, Any] | None = None) -> Any:
    """As openpi's train_pytorch.py does (without config.json) or its conversion script (with)."""
    made = folders.model(kind, views=3)
    path.mkdir()
    keys = {key.removeprefix("model."): value for key, value in folders.weights(kind, made).items()}
    top = "paligemma_with_expert.paligemma."
    c = made.config
    last = f"{top}model.language_model.layers.{c.layers - 1}."
    # What openpi's model has and no policy needs: the rest of the last layer, a norm, two heads.
    g = torch.Generator().manual_seed(0)
    for name, shape in {
        f"{last}self_attn.q_proj.weight": (c.heads * c.head, c.width),
        f"{last}self_attn.o_proj.weight": (c.width, c.heads * c.head),
        f"{last}post_attention_layernorm.weight": (c.width,),
        f"{last}mlp.gate_proj.weight": (c.hidden, c.width),
        f"{top}model.language_model.norm.weight": (c.width,),
        "paligemma_with_expert.gemma_expert.lm_head.weight": (c.vocabulary, c.expert_width),
    }.items():
        keys[name] = torch.randn(shape, generator=g)
    embedding = f"{top}model.language_model.embed_tokens.weight"
    save_model(Stored(keys, {f"{top}lm_head.weight": embedding}), str(path / "model.safetensors"))
    assert embedding not in load_file(path / "model.safetensors")  # one of two names of one tensor is kept
    assets = path / "assets" / "lab" / "arm"
    assets.mkdir(parents=True)
    (assets / "norm_stats.json").write_text(json.dumps({"norm_stats": stats or statistics()}))
    if config:
        said = {
            "action_dim": 32, "action_horizon": ROWS, "paligemma_variant": "gemma_2b",
            "action_expert_variant": "gemma_300m", "precision": "float32",
        }  # fmt: skip
        (path / "config.json").write_text(json.dumps(said))
    else:
        (path / "metadata.pt").write_bytes(b"a pickle, never looked at")
        tell(path, rows=ROWS)
    folders.words(path / "tokenizer.json")
    return made


def tell(path: Path, **extra: Any) -> None:
    file = path / "takt.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(before | extra))


def in_lerobots_layout(path: Path, kind: str) -> None:
    """The same weights and statistics."""
    made = folders.write(path, kind, views=3)
    table = json.loads((path / "config.json").read_text())
    images = {
        f"observation.images.{name}": table["input_features"][f"observation.images.camera{i}"]
        for i, name in enumerate(CAMERAS)
    }
    state = table["input_features"]["observation.state"]
    mode = "MEAN_STD" if kind == "pi0" else "QUANTILES"
    table |= {
        "input_features": {"observation.state": state} | images,
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "chunk_size": made.config.rows,
    }
    (path / "config.json").write_text(json.dumps(table))
    names = {"state": "observation.state", "actions": "action"}
    stats = {f"{names[n]}.{k}": torch.tensor(v) for n, of in statistics().items() for k, v in of.items()}
    save_file(stats, path / "stats.safetensors")
    tell(path, prompt_state="plain" if kind == "pi05" else "none")


def seen(seed: int = 0, words: str = "lift it", size: tuple[int, int] = (32, 32)) -> Observation:
    rng = np.random.default_rng(seed)
    frames = {name: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for name in CAMERAS}
    return Observation(3.0, rng.normal(size=6).astype(np.float32), frames, words)


def refused(path: Path) -> str:
    with pytest.raises(TaktError) as caught:
        open_policy(str(path))
    line = str(caught.value)
    assert "\n" not in line
    return line


@KIND
@pytest.mark.parametrize("config", [False, True])
def test_the_same_weights_in_both_layouts_are_the_same_policy(
    kind: str, config: bool, tmp_path: Path
) -> None:
    write(tmp_path / "openpi", kind, config)
    in_lerobots_layout(tmp_path / "lerobot", kind)
    one, two = (open_policy(str(tmp_path / name)) for name in ("openpi", "lerobot"))
    assert one.spec.chunk_length == two.spec.chunk_length == ROWS
    assert [c.name for c in one.spec.cameras] == [c.name for c in two.spec.cameras] == list(CAMERAS)
    for seed in range(3):
        one.reset(seed)
        two.reset(seed)
        ours, theirs = one.infer(seen(seed)).actions, two.infer(seen(seed)).actions
        # openpi adds 1e-6 to each width, LeRobot 1e-8 and on one way only.
        assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()
    # A camera that is not there.
    absent = {"right_wrist_0_rgb": None}
    for name in ("openpi", "lerobot"):
        tell(tmp_path / name, cameras=absent)
    one, two = (open_policy(str(tmp_path / name)) for name in ("openpi", "lerobot"))
    ours, theirs = one.infer(seen()).actions, two.infer(seen()).actions
    assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()


@KIND
def test_numbers_are_normalised_as_openpi_does(kind: str, tmp_path: Path) -> None:
    """Its formulas, in float64; both ways."""
    stats = statistics()
    stats["actions"]["std"][2] = 0.0  # what never moved
    stats["actions"]["q99"][2] = stats["actions"]["q01"][2]
    write(tmp_path / "p", kind, stats=stats)
    policy = checkpoint.open_folder(str(tmp_path / "p"))
    x = np.random.default_rng(0).normal(size=(4, 6))
    for name, normal in (("state", policy._model.of_state), ("actions", policy._model.of_actions)):
        s = {k: np.array(v) for k, v in stats[name].items()}
        if kind == "pi0":
            there, back = (x - s["mean"]) / (s["std"] + 1e-6), x * (s["std"] + 1e-6) + s["mean"]
        else:
            wide = s["q99"] - s["q01"] + 1e-6
            there, back = (x - s["q01"]) / wide * 2 - 1, (x + 1) / 2 * wide + s["q01"]
        given = torch.from_numpy(x).float()
        np.testing.assert_allclose(normal(given).numpy(), there, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(normal.inverse(given).numpy(), back, rtol=2e-5, atol=2e-6)


def test_what_is_read_is_what_openpis_tokenizer_reads(tmp_path: Path) -> None:
    write(tmp_path / "pi0", "pi0")
    policy = checkpoint.open_folder(str(tmp_path / "pi0"))
    state = seen().state
    assert policy.prompt.of(" pick_up\nthe cube \n", state) == "pick up the cube\n"
    write(tmp_path / "pi05", "pi05")
    policy = checkpoint.open_folder(str(tmp_path / "pi05"))
    normal = policy._model.of_state(torch.from_numpy(state)[None])[0].numpy().astype(np.float64)
    bins = np.digitize(normal, bins=np.linspace(-1, 1, 256 + 1)[:-1]) - 1
    # The robot's six numbers: openpi pads after it has put them into words.
    said = f"Task: pick up the cube, State: {' '.join(map(str, bins))};\nAction: "
    assert policy.prompt.of(" pick_up\nthe cube \n", state) == said
    tell(tmp_path / "pi05", prompt_state="none")  # discrete_state_input=False, as its pi05_libero
    policy = checkpoint.open_folder(str(tmp_path / "pi05"))
    assert policy.prompt.of("pick_up", state) == "pick up\n"
    tell(tmp_path / "pi05", prompt_state="some")
    assert "prompt_state is one of plain, padded, none" in refused(tmp_path / "pi05")
    tell(tmp_path / "pi0", prompt_state="plain")
    assert "prompt_state is one of none" in refused(tmp_path / "pi0")


def test_pictures_are_shrunk_as_pil_does() -> None:
    pil = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for h, w in ((480, 640), (64, 96), (31, 77), (225, 224)):
        frame = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        pixels = 224 if h > 100 else 32
        ratio = max(h / pixels, w / pixels)
        size = (int(w / ratio), int(h / ratio))
        canvas = pil.new("RGB", (pixels, pixels), 0)
        corner = (int((pixels - size[0]) / 2), int((pixels - size[1]) / 2))
        canvas.paste(pil.fromarray(frame).resize(size, resample=pil.BILINEAR), corner)
        ours = pi0.pictures(torch.from_numpy(frame)[None], pixels, -1.0, smooth=True)
        ours = ((ours[0].permute(1, 2, 0) + 1) / 2 * 255).numpy()
        off = np.abs(ours - np.asarray(canvas, np.float32))
        # PIL reckons with whole numbers of 22 bits: what is at a half may fall to the other side.
        assert off.max() < 1.01 and (off > 0.01).mean() < 0.01


def test_a_frame_of_another_size_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "p", "pi0")
    policy = open_policy(str(tmp_path / "p"))
    assert np.isfinite(policy.infer(seen(size=(48, 64))).actions).all()


def test_how_many_numbers_the_robot_has(tmp_path: Path) -> None:
    """As many as there are statistics, which may be padded; or as takt.json names, the first ones."""
    path = tmp_path / "p"
    write(path, "pi0", stats=statistics(32))
    assert open_policy(str(path)).spec.actions.size == 32
    six = [f"j{i}" for i in range(6)]
    tell(path, state=[*six, "tail"], actions=six)
    policy = open_policy(str(path))
    assert policy.spec.actions.names == tuple(six) and len(policy.spec.state) == 7
    tell(path, actions=[f"j{i}" for i in range(33)])
    assert "names 33 of actions; there are statistics of 32" in refused(path)


def test_no_number_is_taken_for_rad(tmp_path: Path) -> None:
    """Its actions may be relative to the state, which the folder does not tell."""
    write(tmp_path / "p", "pi0")
    dimensions = open_policy(str(tmp_path / "p")).spec.actions.dimensions
    assert {d.unit for d in dimensions} == {"1"}
    stats = statistics()["actions"]
    low = np.minimum(stats["q01"], np.array(stats["mean"]) - 3 * np.array(stats["std"]))
    np.testing.assert_allclose([d.lower for d in dimensions], low, rtol=1e-6)
    tell(tmp_path / "p", **UNITS)
    assert open_policy(str(tmp_path / "p")).spec.actions.dimensions[0].unit == "rad"


def test_rows_are_told_or_openpis_default(tmp_path: Path) -> None:
    path = tmp_path / "p"
    write(path, "pi0", config=True)
    tell(path, rows=4)
    assert open_policy(str(path)).spec.chunk_length == 4
    (path / "takt.json").unlink()
    (path / "config.json").unlink()
    assert open_policy(str(path)).spec.chunk_length == 50
    for wrong in (0, "ten", 2.5, 10**9):
        tell(path, rows=wrong)
        refused(path)


def test_folders_that_lie(tmp_path: Path) -> None:
    def fresh(kind: str = "pi0", **more: Any) -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        write(path, kind, **more)
        return path

    path = fresh()
    shutil.copytree(path / "assets" / "lab", path / "assets" / "other")
    assert "lab/arm, other/arm" in refused(path)
    tell(path, asset="other/arm")
    open_policy(str(path))
    tell(path, asset="droid")
    assert "lab/arm, other/arm" in refused(path)
    shutil.rmtree(path / "assets")
    assert "assets/<asset_id>/norm_stats.json" in refused(path)
    path = fresh()
    stats = statistics()
    stats["actions"]["std"] = stats["actions"]["std"][:5]
    (path / "assets/lab/arm/norm_stats.json").write_text(json.dumps({"norm_stats": stats}))
    assert "norm_stats.json is malformed" in refused(path)
    path = fresh("pi05")
    stats = statistics()
    stats["state"]["q01"] = None
    (path / "assets/lab/arm/norm_stats.json").write_text(json.dumps({"norm_stats": stats}))
    assert "q01" in refused(path)
    path = fresh(config=True)
    (path / "config.json").write_text(json.dumps({"action_dim": 7}))
    assert "action_dim is 7, the weights have 32" in refused(path)
    path = fresh()
    (path / "tokenizer.json").unlink()
    assert "google/paligemma-3b-pt-224" in refused(path)
    path = fresh()
    (path / "model.safetensors").unlink()
    (path / "params").mkdir()
    assert "convert_jax_model_to_pytorch.py" in refused(path)
    path = tmp_path / "lerobot"
    folders.write(path, "pi0")
    tell(path, rows=5)
    assert "no key 'rows'" in refused(path)


@KIND
def test_actions_relative_to_the_state_come_out_absolute(kind: str, tmp_path: Path) -> None:
    """DeltaActions, as takt.json tells it: make_bool_mask(5, -1)."""
    path = tmp_path / "p"
    write(path, kind)
    distances = open_policy(str(path)).infer(seen()).actions
    tell(path, relative=[True] * 5)
    ours = open_policy(str(path)).infer(seen()).actions
    wanted = distances + seen().state * np.array([1, 1, 1, 1, 1, 0])
    assert np.abs(ours - wanted).max() < 1e-5 * np.abs(wanted).max()
    for wrong in ([True] * 7, ["yes"], "all", [1]):
        tell(path, relative=wrong)
        assert "relative is" in refused(path)
    tell(path, relative=[True] * 6, state=["a", "b"])
    assert "relative to a state of 2 numbers" in refused(path)
