"""Our models against LeRobot's, with the same weights and noise: whole, and part by part."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.machine import machine
from tests.parity import cases
from tests.parity.answers import Answers, Case, relative, sample
from tests.parity.conftest import Open, ask
from vla import checkpoint, expert, pi0, smolvla
from vla.contract import Observation, TaktError

NAMES = [name for name, *_ in cases.TINY]
FLOW = [name for name in NAMES if not name.startswith("act")]
SMOL = [name for name in NAMES if name.startswith("smolvla")]
PI = [name for name in NAMES if name.startswith("pi")]
ACT = [name for name in NAMES if name.startswith("act")]
CLOSE = 1e-5  # of the largest number, in actions; 1e-4 is what is promised
PART = 1e-4  # in the parts: rounding of a sharp attention is larger than what is left of it at the end

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_actions_are_lerobots(answers: Open, name: str) -> None:
    asked = answers(name)
    model = asked.model()
    for case in asked:
        assert relative(sample(model, case, asked.steps), case["actions"]) < CLOSE, case.words


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_input_matters(answers: Open, name: str) -> None:
    """Else the test above would compare less than it seems to."""
    asked = answers(name)
    model = asked.model()
    case = next(iter(asked))
    before = sample(model, case, asked.steps)
    # Where pi0.5 has its state is among the words.
    keys = ["noise", "ids", "state"] if name not in ACT else ["state"]
    for key in (k for k in [*keys, "camera0"] if (k, name[:4]) != ("state", "pi05")):
        changed = sample(model, Case({**case.given, key: other(case[key])}, _asked(case)), asked.steps)
        assert relative(changed, before) > CLOSE, key


def other(value: torch.Tensor) -> torch.Tensor:
    """The same numbers in another order."""
    return value.flip(-1) if value.dtype.is_floating_point else value.roll(1, -2 if value.ndim > 2 else -1)


def _asked(case: Case) -> dict[str, object]:
    return {"text": case.words, "cameras": case.cameras}


# -- part by part: the first of these that fails names the layer


@pytest.mark.parametrize("name", SMOL)
@torch.inference_mode()
def test_parts_of_smolvla(answers: Open, name: str) -> None:
    asked = answers(name)
    model = asked.model()
    for case in asked:
        frames = case[f"camera{case.cameras[0]}"][None]
        seen = model.vision(smolvla.pictures(frames, model.config.vision.pixels))
        assert relative(seen, case["part.vision"]) < PART
        assert relative(model.connector(seen), case["part.connector"]) < PART
        state = expert.padded(model.of_state(case["state"][None]), model.config.padded_state)
        assert relative(model.state_proj(state), case["part.state"]) < PART
        start = torch.tensor([0.0])
        assert relative(model.suffix(case["noise"], start), case["part.suffix"]) < PART
        memory = model.prefix(*case.inputs(model.config.views, model.config.words))
        assert relative(-model.velocity(memory, case["noise"], start), case["part.velocity"]) < PART


@pytest.mark.parametrize("name", PI)
@torch.inference_mode()
def test_parts_of_pi(answers: Open, name: str) -> None:
    asked = answers(name)
    model = asked.model()
    for case in asked:
        frames = case[f"camera{case.cameras[0]}"][None]
        seen = model.vision(pi0.pictures(frames, model.config.vision.pixels, model.config.bars))
        assert relative(seen, case["part.vision"]) < PART
        assert relative(model.projector(seen), case["part.projector"]) < PART
        start = torch.tensor([0.0])
        assert relative(model.suffix(case["noise"], start)[0], case["part.suffix"]) < PART
        memory = model.prefix(*case.inputs(model.config.views, model.config.words))
        assert relative(-model.velocity(memory, case["noise"], start), case["part.velocity"]) < PART


@pytest.mark.parametrize("name", ACT)
@torch.inference_mode()
def test_parts_of_act(answers: Open, name: str) -> None:
    asked = answers(name)
    model = asked.model()
    for case in asked:
        frames = case.frames(len(model.config.views))
        first = model.of_views[0](frames[0].float() / 255)
        assert relative(model.backbone(first.permute(0, 3, 1, 2)), case["part.backbone"]) < PART
        assert relative(model.look(first), case["part.image"]) < PART
        tokens, places = model.embed(frames, case["state"][None])
        seen = model.encoder(tokens, places)
        assert relative(seen.transpose(0, 1), case["part.encoder"]) < PART
        queries = model.decoder_pos_embed.weight[None]
        rows = model.decoder(torch.zeros_like(queries), seen, queries, places)
        assert relative(rows.transpose(0, 1), case["part.decoder"]) < PART


# -- as a user has it: a folder, frames, words


def test_a_policy_of_a_folder_answers_as_lerobot(answers: Open, tmp_path: Path) -> None:
    for name in NAMES:
        asked = answers(name)
        for i, case in enumerate(asked):
            if i in (0, 1, 3):
                policy = _policy(asked, case, tmp_path / f"{name}-{i}")
                policy.reset(i)
                frames = {f"camera{k}": case[f"camera{k}"].numpy() for k in case.cameras}
                chunk = policy.infer(Observation(1.0, case["state"].numpy(), frames, case.words))
                assert relative(torch.from_numpy(chunk.actions)[None], case["actions"]) < CLOSE, (name, i)
                assert set(policy.spec.to_json()["cameras"][0]) == {"name", "height", "width"}


def _policy(asked: Answers, case: Case, path: Path) -> checkpoint.CheckpointPolicy:
    """The folder, told which cameras are not there and where the words are."""
    shutil.copytree(asked.path, path)
    there = {f"camera{i}" for i in case.cameras}
    gone = {name: None for name in asked.folder().cameras if name not in there}
    words = asked.path.parent / f"{asked.path.name}-words" / "tokenizer.json"
    extra = {"cameras": gone, "bars": -3.0} | ({"tokenizer": str(words)} if words.is_file() else {})
    (path / "takt.json").write_text(json.dumps(extra))
    return checkpoint.open_folder(str(path))


@pytest.mark.parametrize("name", FLOW)
def test_our_tokens_are_lerobots(answers: Open, name: str, tmp_path: Path) -> None:
    asked = answers(name)
    for i, case in enumerate(asked):
        policy = _policy(asked, case, tmp_path / str(i))
        ids, mask = policy._tokens(case.words, case["state"][None])
        count = int(case["mask"].sum())
        assert mask.sum() == count
        assert ids[0, :count].tolist() == case["ids"][0, :count].tolist()


def test_words_that_lerobot_would_cut_off_are_refused(answers: Open, tmp_path: Path) -> None:
    asked = answers("smolvla-1")
    policy = _policy(asked, next(iter(asked)), tmp_path / "folder")
    frames = {"camera0": np.zeros((60, 80, 3), np.uint8)}
    with pytest.raises(TaktError, match="say it shorter"):
        policy.infer(Observation(0.0, np.zeros(6, np.float32), frames, "put it there " * 40))


def test_statistics_of_old_folders_are_read(answers: Open, tmp_path: Path) -> None:
    """Before 0.4 LeRobot kept them among the weights."""
    from safetensors.torch import load_file, save_file

    for name in ("smolvla-2", "act-1", "pi0-2"):
        asked = answers(name)
        path = tmp_path / name
        shutil.copytree(asked.path, path)
        weights = load_file(path / "model.safetensors")
        for file, prefix in (
            ("preprocessor_step", "normalize_inputs"),
            ("postprocessor_step", "unnormalize_outputs"),
        ):
            (stats,) = (load_file(f) for f in path.glob(f"policy_{file}*.safetensors"))
            for key, value in stats.items():
                feature, _, statistic = key.rpartition(".")
                weights[f"{prefix}.buffer_{feature.replace('.', '_')}.{statistic}"] = value
        for file in (*path.glob("policy_*"),):
            file.unlink()
        save_file(weights, path / "model.safetensors")
        old = Answers(path)
        model = old.model()
        with torch.inference_mode():
            for case in old:
                assert relative(sample(model, case, old.steps), case["actions"]) < CLOSE


@pytest.mark.full
def test_full_size(tmp_path: Path) -> None:
    """SmolVLA of 450 M parameters; minutes, and out of the default run (see docs/checkpoints.md).

    What it finds is written where TAKT_PARITY_RESULT says.
    """
    found = {}
    for job in cases.FULL:
        ask(tmp_path, [job])
        asked = Answers(tmp_path / job[0])
        model = asked.model()
        with torch.inference_mode():
            for i, case in enumerate(asked):
                error = relative(sample(model, case, asked.steps), case["actions"])
                found[f"{job[0]}, case {i}"] = {
                    "cameras": len(case.cameras),
                    "tokens": int(case["mask"].sum()),
                    "error": error,
                }
        shutil.rmtree(tmp_path / job[0])  # 1.8 GB
    if "TAKT_PARITY_RESULT" in os.environ:
        result = {"machine": machine(), "against": "LeRobot 0.4.4, eager, fp32", "cases": found}
        Path(os.environ["TAKT_PARITY_RESULT"]).write_text(json.dumps(result, indent=1) + "\n")
    assert max(case["error"] for case in found.values()) < 1e-4
