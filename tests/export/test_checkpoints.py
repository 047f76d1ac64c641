"""Folders of others become bundles that answer as they do, without torch; with fewer bits, nearly."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import vla.__main__ as frontdoor
from export import observations, quantise, tensorrt
from runtime import bundle
from runtime.engine import GraphPolicy, OnnxPolicy
from runtime.graphs import OnnxGraph
from runtime.tensorrt_library import Library
from tests.vla import folders, test_openpi_folder, test_processors
from vla import checkpoint, flow
from vla.contract import Observation, Prefix, Request

KINDS = folders.KINDS
STEPS = 4
FLAGS = {"act": [], "smolvla": ["--steps", str(STEPS)]}  # open batches, which take longer to export
FIXED = ["--steps", str(STEPS), "--no-dynamic-batch"]
Export = Callable[..., Path]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The bundle of a kind, made once for each list of flags; its folder is `bundle.parent / "folder"`."""
    made: dict[tuple[str, ...], Path] = {}

    def get(kind: str, *flags: str) -> Path:
        key = (kind, *flags)
        if key not in made:
            place = tmp_path_factory.mktemp(kind)
            of, more = (get(kind), list(flags)) if flags else (place / "folder", FLAGS.get(kind, FIXED))
            if not flags:
                folders.write(place / "folder", kind)
            args = [str(of), str(place / "bundle"), *more, "--samples", "3", "--json", str(place / "r.json")]
            assert frontdoor.main(["export", *args]) == 0
            made[key] = place / "bundle"
        return made[key]

    return get


def look(spec: Any, seed: int) -> Observation:
    rng = np.random.default_rng(seed)
    frames = {c.name: observations.smooth(rng, c.height, c.width) for c in spec.cameras}
    return Observation(
        float(seed), rng.normal(size=len(spec.state)).astype(np.float32), frames, f"take {seed}"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_answers_as_the_folder(export: Export, kind: str) -> None:
    made = export(kind)
    (made.parent / "folder/takt.json").write_text(json.dumps({"steps": STEPS} if kind != "act" else {}))
    source, ours = checkpoint.open_folder(str(made.parent / "folder")), OnnxPolicy(bundle.load(made))
    spec = ours.spec
    assert [d.name for d in spec.actions.dimensions] == [d.name for d in source.spec.actions.dimensions]
    assert (spec.dt, spec.replan, spec.joining) == (source.spec.dt, source.spec.replan, source.spec.joining)
    rows = np.random.default_rng(0).normal(size=(spec.chunk_length, spec.actions.size))
    for i, prefix in enumerate((None, Prefix(rows, flow.weights(spec.chunk_length, 2, 6)))):
        for policy in (source, ours):
            policy.reset(i)
        wanted, got = (policy.infer(look(spec, i), prefix).actions for policy in (source, ours))
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_steps_are_as_the_folders(export: Export, kind: str) -> None:
    """What a sampler makes that is short of time: flow times of its own."""
    made = export(kind)
    for steps in range(1, STEPS) if kind != "act" else ():
        (made.parent / "folder/takt.json").write_text(json.dumps({"steps": steps}))
        source, loaded = checkpoint.open_folder(str(made.parent / "folder")), bundle.load(made)
        ours = OnnxPolicy(bundle.Bundle(**{**vars(loaded), "steps": steps}))
        for policy in (source, ours):
            policy.reset(steps)
        wanted, got = (policy.infer(look(ours.spec, 3)).actions for policy in (source, ours))
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_matters(export: Export, kind: str) -> None:
    """Else the tests above would compare less than they seem to."""
    policy = OnnxPolicy(bundle.load(export(kind)))

    def answer(seen: Observation, seed: int = 0) -> np.ndarray:
        policy.reset(seed)
        return policy.infer(seen).actions

    seen = look(policy.spec, 1)
    plain = answer(seen)
    for camera in seen.frames:
        frames = {**seen.frames, camera: 255 - seen.frames[camera]}
        assert np.abs(answer(Observation(1.0, seen.state, frames, seen.instruction)) - plain).max() > 0
    moved = Observation(1.0, seen.state + 0.5, seen.frames, seen.instruction)
    assert np.abs(answer(moved) - plain).max() > 0
    others = np.abs(answer(Observation(1.0, seen.state, seen.frames, "drop it")) - plain).max()
    noises = np.abs(answer(seen, seed=1) - plain).max()
    assert (others > 0, noises > 0) == (kind != "act", kind != "act")


def test_several_requests_are_answered_as_alone(export: Export) -> None:
    policy = OnnxPolicy(bundle.load(export("smolvla")))
    asked = [Request(look(policy.spec, i), None, seed=i, call=i) for i in range(3)]
    for r, chunk in zip(asked, policy.infer_batch(asked), strict=True):
        policy.reset(r.seed, r.call)
        alone = policy.infer(r.observation).actions
        np.testing.assert_allclose(chunk.actions, alone, atol=1e-4 * np.abs(alone).max(), rtol=0)


@pytest.mark.parametrize("kind", ["smolvla", "pi05"])
def test_a_bundle_runs_where_no_torch_is(export: Export, kind: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; import numpy as np\n"
        "from runtime import bundle; from runtime.engine import OnnxPolicy\n"
        "from vla.contract import Observation\n"
        f"policy = OnnxPolicy(bundle.load(Path({str(export(kind))!r})))\n"
        "frames = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in policy.spec.cameras}\n"
        "seen = Observation(0.0, np.zeros(len(policy.spec.state), np.float32), frames, 'take it')\n"
        "print(policy.infer(seen).actions.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(10, 6)"


@pytest.mark.parametrize(
    ("kind", "precision"), [("smolvla", "int8"), ("smolvla", "w4a16"), ("pi0", "int8"), ("pi05", "int8")]
)
def test_fewer_bits_are_counted_and_compared(export: Export, kind: str, precision: str) -> None:
    made = export(kind, "--precision", precision)
    policy = bundle.load(made).policy
    assert policy["evidence"]["passed"]
    assert policy["evidence"]["closed_loop"].startswith("no closed-loop evidence")
    assert 0 < policy["evidence"]["mean"] <= policy["evidence"]["tolerance"]
    for name in ("prefix", "step"):
        said = policy["precision"]["graphs"][name]
        graph = onnx.load(made / f"{name}.onnx")
        kinds = [node.op_type for node in graph.graph.node]
        found = kinds.count("MatMulInteger") + kinds.count("MatMulNBits")
        assert said["quantised"] == found
        assert 0 < found <= said["products"]
        assert said["bytes_after"] == quantise.size(made / f"{name}.onnx") < said["bytes_before"]
    kept = policy["precision"]["graphs"]["step"]["kept"]
    assert any("self_attn" in name or name.rpartition(".")[2].isdigit() for name in kept)  # attention
    assert not any("mlp" in name and "time" not in name for name in kept)


def test_a_folder_of_openpi_becomes_a_bundle_as_it_is_served(tmp_path: Path) -> None:
    """Words tidied, pictures shrunk as PIL does it, in the graph; a camera that is not there."""
    folder = tmp_path / "folder"
    test_openpi_folder.write(folder, "pi0")
    test_openpi_folder.tell(folder, steps=2, cameras={"right_wrist_0_rgb": None})
    args = ["export", str(folder), str(tmp_path / "bundle"), "--samples", "2"]
    assert frontdoor.main([*args, "--steps", "2", "--frames", "48x64", "--no-dynamic-batch"]) == 0
    ours, served = OnnxPolicy(bundle.load(tmp_path / "bundle")), checkpoint.open_folder(str(folder))
    seen = test_openpi_folder.seen(words=" pick_it\nup ", size=(48, 64))
    wanted = served.infer(seen).actions
    np.testing.assert_allclose(ours.infer(seen).actions, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_actions_relative_to_the_state_come_out_absolute(kind: str, tmp_path: Path) -> None:
    """LeRobot's `use_relative_actions`, all but the gripper's; for any state, of fp32 and of int8."""
    folder = tmp_path / "folder"
    folders.write(folder, kind)
    names = ["shoulder.pos", "elbow.pos", "wrist.pos", "gripper.pos", "base.pos", "head.pos"]
    test_processors.relative(folder, action_names=names)
    (folder / "takt.json").write_text(json.dumps({"steps": 2}))
    flags = ["--steps", "2", "--no-dynamic-batch", "--fused"]
    assert frontdoor.main(["export", str(folder), str(tmp_path / "fp32"), *flags]) == 0
    args = [str(tmp_path / "fp32"), str(tmp_path / "int8"), "--precision", "int8"]
    args += ["--samples", "3", "--tolerance", "0.05"]
    assert frontdoor.main(["export", *args]) == 0
    source = checkpoint.open_folder(str(folder))
    whole, few = (bundle.load(tmp_path / name) for name in ("fp32", "int8"))
    assert whole.spec.actions == source.spec.actions
    rows = np.random.default_rng(1).normal(size=(whole.spec.chunk_length, 6))
    for graphs in (set(whole.graphs), {"prefix", "step"}):  # all steps in one run, and one by one
        opened = [
            GraphPolicy(b, {n: OnnxGraph(f) for n, f in b.graphs.items() if n in graphs})
            for b in (whole, few)
        ]
        for i, prefix in enumerate((None, None, Prefix(rows, flow.weights(len(rows), 2, 6)))):
            for policy in (source, *opened):
                policy.reset(i)
            seen = look(whole.spec, i)
            wanted, got, near = (policy.infer(seen, prefix).actions for policy in (source, *opened))
            np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)
            assert np.abs(near - wanted).mean() < 0.03 * np.ptp(wanted)
    # The state moves what is relative to it: by as much, if nothing else heard of it.
    step = OnnxGraph(tmp_path / "fp32/step.onnx")
    feeds = {name: np.zeros([n or 1 for n in shape], kind) for name, (kind, shape) in step.inputs.items()}
    still = step(feeds)["actions"]
    moved = step({**feeds, "memory_state": np.full((1, 6), 0.5, np.float32)})["actions"] - still
    np.testing.assert_allclose(moved, 0.5 * np.array([1, 1, 1, 0, 1, 1]) * np.ones_like(moved), atol=1e-5)
    if (library := rtx()) is not None:
        for part in ("prefix", "step", "denoise"):
            ready = tensorrt.prepared(tmp_path / f"fp32/{part}.onnx", "fp16", library)
            assert len(tensorrt.build(library, ready)) > 1e4


def rtx() -> Library | None:
    """TensorRT for RTX, where it is installed."""
    return Library("tensorrt-rtx") if importlib.util.find_spec("tensorrt_rtx") else None
