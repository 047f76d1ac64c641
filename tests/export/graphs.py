"""Every graph that Takt exports, small, in every precision: what TensorRT is to build.

`GRAPHS` is the list; a new graph is one line in it. Nano's are the shipped ones and the graph of all its
steps; the others' are of scaled-down policies with random weights.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from export import expert_graphs, graph, nano_graphs, plain_graphs, quantise
from vla import fold, pi0, plain, smolvla, train
from vla.contract import CameraSpec, Dimension

ROOT = Path(__file__).parents[2]
NANO = ROOT / "vla" / "bundles" / "nano"
STEPS = 2  # of the graphs of all steps
CAMERAS = (CameraSpec("front", 48, 64), CameraSpec("wrist", 48, 64))
INT8, FP8 = quantise.How("int8", static=True), quantise.How("fp8", static=True)


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Of what is made once for all tests; it goes when they end."""
    return tempfile.TemporaryDirectory()


def crane() -> plain.Config:
    """Of a body whose actions are steps and, one of them, a joint of its state."""
    actions = tuple(Dimension(name, "m", -1, 1, name == "elbow") for name in ("dx", "dy", "elbow"))
    state = ("base", "elbow")
    small = plain.tiny(plain.Config(("top", "side"), state, actions, 6, 0.1, committed=2, taught=2))
    return replace(small, windows=((8, 0, 16), (0, 8, 24)))


@cache
def parts(kind: str) -> dict[str, graph.Part]:
    """The graphs to be of a kind of policy, by name."""
    torch.manual_seed(0)
    if kind == "nano":
        model = train.load(ROOT / "checkpoints" / "nano").eval()
        made = [nano_graphs.prefix(model), nano_graphs.step(model), nano_graphs.reader(model)]
    elif kind == "plain":
        # What training makes of it: the outlet begins at 0, and nothing would come of anything.
        small = plain.Plain(crane())
        torch.nn.init.normal_(small.outlet.weight, std=0.3)
        made = [plain_graphs.prefix(small.eval()), plain_graphs.step(small)]
    else:
        whole = smolvla.SmolVLA(smolvla.tiny()) if kind == "smolvla" else pi0.Pi0(pi0.tiny(kind == "pi05"))
        folded = fold.folded(whole.eval(), 4)
        made = [expert_graphs.prefix(folded, CAMERAS), expert_graphs.step(folded, CAMERAS, 0.25)]
    made.append(graph.denoise(made[1], STEPS))
    return {part.name: part for part in made}


@cache
def file(kind: str, part: str, how: quantise.How | None = None) -> Path:
    """A graph of a policy, plain or quantised."""
    place = Path(folder().name) / f"{kind}-{part}{'-' + how.precision if how else ''}.onnx"
    if how is not None:
        shutil.copy(file(kind, part), place)
        given = [feeds(onnx.load(str(place)), seed) for seed in (1, 1)]
        quantise.quantise(place, how, given)
    elif kind == "nano" and part != "denoise":
        shutil.copy(NANO / f"{part}.onnx", place)
    else:
        graph.write(parts(kind)[part], place)
    return place


def feeds(model: onnx.ModelProto, batch: int) -> dict[str, np.ndarray]:
    """Random inputs, open sizes taken as `batch`."""
    rng, made = np.random.default_rng(batch), {}
    for port in model.graph.input:
        kind = port.type.tensor_type
        sizes = [d.dim_value or batch for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if port.name == "mask":
            made[port.name] = np.ones(sizes, dtype)
        elif np.issubdtype(dtype, np.floating):
            made[port.name] = rng.uniform(0, 0.5, sizes).astype(dtype)
        else:
            made[port.name] = rng.integers(0, 100, sizes).astype(dtype)
    return made


# What is built: name -> (what gives the ONNX file, the precisions that it is built in).
# A graph that is quantised, or in half precision already, is built as it is typed: ("",).
GRAPHS: dict[str, tuple[Callable[[], Path], tuple[str, ...]]] = {
    "nano-words": (lambda: file("nano", "words"), ("",)),  # in fp16 by the test of takt build
    "nano-reader": (lambda: file("nano", "reader"), ("", "fp16")),
    "nano-critic": (lambda: file("nano", "critic"), ("", "fp16")),
}
KINDS = ("nano", "plain", "smolvla", "pi0", "pi05")
for _kind in KINDS:
    for _part in ("prefix", "step", "denoise"):
        GRAPHS[f"{_kind}-{_part}"] = (lambda k=_kind, p=_part: file(k, p)), ("", "fp16")
        GRAPHS[f"{_kind}-{_part}-int8"] = (lambda k=_kind, p=_part: file(k, p, INT8)), ("",)
# Whose export takes long: their parts are in others as well.
SLOW = ("smolvla-denoise", "pi0-denoise", "pi05-prefix", "pi05-denoise")
NAMES = [pytest.param(name, marks=pytest.mark.slow if name.startswith(SLOW) else ()) for name in GRAPHS]
HALVES = [p for p in NAMES if "fp16" in GRAPHS[str(p.values[0])][1]]
BUILDS = [
    pytest.param(p.values[0], precision, marks=p.marks)
    for p in NAMES
    for precision in GRAPHS[str(p.values[0])][1]
]
