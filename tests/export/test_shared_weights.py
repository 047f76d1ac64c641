"""A graph of all steps with fewer bits: each weight is stored once, the answers are those of the steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export import graph, quantise
from export.quantise import How
from runtime.graphs import OnnxGraph
from tests.export.test_quantise import HOWS

STEPS, WIDTH = 3, 64


class Step(nn.Module):
    """A sampler's step over chunks of one row, whose weights have the sizes that are worth quantising."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"up": nn.Linear(2 * WIDTH, 96), "down": nn.Linear(96, WIDTH)})

    def forward(self, memory: Tensor, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, mask: Tensor) -> Any:
        h = torch.relu(self.model["up"](torch.cat([x[:, 0], memory], 1)))
        x = x + (self.model["down"](h)[:, None] - x) * dt * (1 - mask[:, :, None])
        return x, x * 2 + kept * mask[:, :, None] + t * 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """step.onnx and denoise.onnx of the same weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("graphs")
    step = graph.Part("step", Step(), inputs, ("x_next", "actions"))
    for part in (step, graph.denoise(step, STEPS)):
        assert graph.write(part, folder / f"{part.name}.onnx") < 1e-5
    return folder


def inputs(batch: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(batch)
    row = torch.randn(1, 1, WIDTH, generator=g)
    times = {"t": torch.tensor([0.0]), "dt": torch.tensor([1 / STEPS])}
    return {"memory_a": torch.randn(1, WIDTH, generator=g), "x": row, **times} | {
        "kept": torch.zeros(1, 1, WIDTH), "kept_mask": torch.zeros(1, 1)
    }  # fmt: skip


def stepwise(step: OnnxGraph, given: dict[str, np.ndarray]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Actions after all steps, and what each was given."""
    fed, feeds = [], dict(given)
    for i in range(STEPS):
        feeds |= {"t": np.array([i / STEPS], np.float32)}
        fed.append(dict(feeds))
        out = step(feeds)
        feeds["x"] = out["x_next"]
    return out["actions"], fed


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_all_steps_in_one_are_the_steps_and_no_larger(plain: Path, how: How, tmp_path: Path) -> None:
    observed = [{k: v.numpy() for k, v in inputs(seed).items()} for seed in range(1, 5)]
    given = [call for one in observed for call in stepwise(OnnxGraph(plain / "step.onnx"), one)[1]]
    made: dict[str, Path] = {}
    for name, feeds, times in (("step", given, 1), ("denoise", observed, STEPS)):
        made[name] = Path(shutil.copy(plain / f"{name}.onnx", tmp_path))
        report = quantise.quantise(made[name], how, feeds, ())
        assert (report.quantised, report.products) == (2 * times, 2 * times)
    few = [
        [w for w in onnx.load(file).graph.initializer if len(w.dims) >= 2 and np.prod(w.dims) >= 1024]
        for file in made.values()
    ]
    assert len(few[0]) == len(few[1]) == 2
    assert quantise.size(made["denoise"]) < 1.5 * quantise.size(made["step"])
    step, whole = OnnxGraph(made["step"]), OnnxGraph(made["denoise"])
    for one in observed:
        wanted, _ = stepwise(step, one)
        np.testing.assert_allclose(whole(one)["actions"], wanted, rtol=0, atol=2e-3 * np.abs(wanted).max())
        if how.precision != "fp16":  # whose sampler computes in fp32 between products alone
            np.testing.assert_allclose(whole(one)["actions"], wanted, rtol=1e-5, atol=1e-5)


def test_groups_and_rules_do_not_ask_which_graph_a_layer_is_in(plain: Path) -> None:
    """What is kept of the step is kept of the graph of all steps."""
    names = {part: quantise.names(plain / f"{part}.onnx", ["up$"], HOWS[0]) for part in ("step", "denoise")}
    assert [quantise.module(name) for name in names["step"]] == ["down"]
    assert [quantise.module(name) for name in names["denoise"]] == ["down"] * STEPS
    assert {quantise.group(name) for of in names.values() for name in of} == {"down"}
