"""Anybody's demonstrations all the way: trained, exported, answered by the engine as torch answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vla.__main__ as frontdoor
from export import reference
from runtime import bundle
from runtime.engine import OnnxPolicy
from tests import plain_sets
from tests.vla.test_train import NEEDS_WORDS
from vla.contract import Observation, Prefix, RobotSpec, SpecMismatch, check_match
from vla.dataset import Dataset

pytestmark = NEEDS_WORDS
ACTIONS = ["dx", "dy", "elbow.pos"]
WORDS = Path(__file__).parents[2] / "vla/bundles/nano"  # of the sentence encoder, as it was exported
SMALL = [
    "--image-size",
    "16",
    "--width",
    "0.5",
    "--batch",
    "4",
    "--draws",
    "1",
    "--threads",
    "1",
    "--steps",
    "2",
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two steps and a target that is a joint of the state, its checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("plain")
    data = plain_sets.write(folder / "data", ACTIONS)
    said = ["--data", str(data), "--relative", "dx,dy", "--unit", "m,m,rad", *SMALL]
    assert frontdoor.main(["train", str(folder / "checkpoint"), *said]) == 0
    args = [str(folder / "checkpoint"), str(folder / "bundle"), "--words-from", str(WORDS)]
    assert frontdoor.main(["export", *args]) == 0
    return folder


def looks(folder: Path) -> list[Observation]:
    """Frames of the data set, as its robot would bring them."""
    data = Dataset(folder / "data")
    states = data.columns(["observation.state"])["observation.state"]
    frames = {name: data.images(f"observation.images.{name}") for name in plain_sets.CAMERAS}
    texts = data.task_of()
    return [
        Observation(float(i), states[i], {n: f[i] for n, f in frames.items()}, texts[i])
        for i in range(0, len(data), 5)
    ]


def test_the_engine_answers_as_torch_does(made: Path) -> None:
    loaded = bundle.load(made / "bundle")
    engine, torched = OnnxPolicy(loaded), reference.plain(made / "checkpoint", loaded, 1)
    spec = engine.spec
    assert spec == torched.spec
    rng = np.random.default_rng(0)
    kept = rng.normal(size=(spec.chunk_length, spec.actions.size))
    committed = (np.arange(spec.chunk_length) < 3).astype(np.float32)
    for prefix in (None, Prefix(kept, committed)):
        for policy in (engine, torched):
            policy.reset(7)
        for seen in looks(made):
            ours, theirs = engine.infer(seen, prefix).actions, torched.infer(seen, prefix).actions
            np.testing.assert_allclose(ours, theirs, atol=2e-3, rtol=0)
            assert np.ptp(ours) > 0.1
            if prefix is not None:
                np.testing.assert_allclose(ours[:3], kept[:3], atol=1e-4, rtol=0)


def test_the_bundle_is_of_the_body_that_recorded(made: Path) -> None:
    spec = bundle.load(made / "bundle").spec
    assert spec.state == tuple(name.removesuffix(".pos") for name in plain_sets.JOINTS)
    kinds = [(d.name, d.unit, d.absolute) for d in spec.actions.dimensions]
    assert kinds == [("dx", "m", False), ("dy", "m", False), ("elbow", "rad", True)]
    assert (spec.dt, spec.replan, spec.committed) == (1 / plain_sets.FPS, 0.5, 5)
    free = (1e9,) * 3
    body = RobotSpec("crane", spec.state, spec.actions, spec.cameras, free, free, free)
    check_match(spec, body)
    with pytest.raises(SpecMismatch, match="cameras"):
        check_match(spec, replace(body, cameras=body.cameras[:1]))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--joining", "guided"], "--joining none"),
        (["--critic"], "--critic"),
        (["--frames", "32x32"], "--frames"),
    ],
)
def test_an_export_that_it_cannot_have_is_refused(
    flags: list[str], said: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [str(made / "checkpoint"), str(tmp_path / "out"), "--words-from", str(WORDS), *flags]
    assert frontdoor.main(["export", *args]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_checkpoint_is_not_served_as_it_is(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frontdoor.main(["bench", str(made / "checkpoint")]) == 1
    assert "takt export" in capsys.readouterr().err
