"""Stand-ins that are small but real: a policy of numbers, a bundle of three tiny ONNX graphs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers

from runtime import bundle, so101
from vla.contract import ActionChunk, CameraSpec, Observation, PolicySpec, Prefix

WORDS_LENGTH = 24
CAMERAS = (CameraSpec("front", 96, 96), CameraSpec("wrist", 96, 96))
VOCABULARY = {"[UNK]": 0, "put": 1, "the": 2, "red": 3, "blue": 4, "cube": 5}


def arm_spec(chunk_length: int = 16, dt: float = 0.05, replan: float = 0.2) -> PolicySpec:
    """A policy for the SO-101."""
    robot = so101.spec(CAMERAS)
    return PolicySpec("fake", robot.state, robot.actions, CAMERAS, chunk_length, dt, replan)


def observation(spec: PolicySpec, time: float = 0.0, value: float = 0.0, shade: int = 0) -> Observation:
    """Every state component `value`, every pixel `shade`."""
    frames = {c.name: np.full((c.height, c.width, 3), shade, np.uint8) for c in spec.cameras}
    return Observation(time, np.full(len(spec.state), value, np.float32), frames, "put the red cube")


class ScriptedPolicy:
    """Answers with `script(observation)`, shape (H, A), and remembers what it was asked.

    Attributes:
        seen: the observations, in order.
        resets: the (seed, calls) it was reset with.
    """

    def __init__(self, spec: PolicySpec, script: Callable[[Observation], np.ndarray] | None = None) -> None:
        self._spec = spec
        self._script = script or (lambda o: np.zeros((spec.chunk_length, spec.actions.size)))
        self.seen: list[Observation] = []
        self.resets: list[tuple[int, int]] = []

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, seed: int, calls: int = 0) -> None:
        self.resets.append((seed, calls))

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        self.seen.append(observation)
        return ActionChunk(observation.time, self._spec.dt, self._script(observation))


def goal(observation: Observation) -> float:
    """What the bundle's graphs compute from an observation, before noise: see `write_bundle`."""
    words = [VOCABULARY.get(word, 0) for word in observation.instruction.split()][:WORDS_LENGTH]
    shades = [float(frame.mean()) / 255.0 for frame in observation.frames.values()]
    return float(np.mean(observation.state)) + float(np.mean(shades)) + 0.01 * sum(words)


def write_bundle(path: Path, spec: PolicySpec, steps: int = 5, noise: float = 1.0) -> Path:
    """A real bundle whose answer is known: noise * x0 + goal(observation), or the kept row.

    memory_goal = mean(state) + mean of the cameras' mean(frame) / 255 + 0.01 * sum(token ids)
    x_next      = x + dt * memory_goal
    actions     = x_next where kept_mask is 0, kept where it is 1
    """
    path.mkdir(parents=True)
    graphs = {"words": _words(), "prefix": _prefix(spec), "step": _step(spec)}
    for name, model in graphs.items():
        onnx.checker.check_model(model)
        onnx.save(model, str(path / f"{name}.onnx"))
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    policy: dict[str, Any] = {
        "format": 1,
        "spec": spec.to_json(),
        "graphs": {name: f"{name}.onnx" for name in graphs},
        "tokenizer": "tokenizer.json",
        "words_length": WORDS_LENGTH,
        "sampler": {"steps": steps, "noise": noise},
        "provenance": {},
        "tolerances": {},
    }
    (path / "policy.json").write_text(json.dumps(policy, indent=2))
    bundle.write_manifest(path)
    return path


def _model(name: str, nodes: list, inputs: list, outputs: list, constants: list) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _port(name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _scalar(name: str, value: float) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def _words() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Mul", ["ids", "mask"], ["kept_ids"]),
        node("Cast", ["kept_ids"], ["floats"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["floats", "axes"], ["tokens"]),
    ]
    row = (1, WORDS_LENGTH)
    inputs = [_port("ids", row, TensorProto.INT64), _port("mask", row, TensorProto.INT64)]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    return _model("words", nodes, inputs, [_port("tokens", (*row, 1))], [axes])


def _prefix(spec: PolicySpec) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["state"], ["state_mean"], keepdims=0),
        node("ReduceSum", ["tokens"], ["tokens_sum"], keepdims=0),
        node("Mul", ["tokens_sum", "word"], ["tokens_part"]),
        node("Add", ["state_mean", "tokens_part"], ["goal_0"]),
    ]
    for i, camera in enumerate(spec.cameras):
        nodes += [
            node("Cast", [f"frames_{camera.name}"], [f"float_{i}"], to=TensorProto.FLOAT),
            node("ReduceMean", [f"float_{i}"], [f"mean_{i}"], keepdims=0),
            node("Mul", [f"mean_{i}", "pixel"], [f"part_{i}"]),
            node("Add", [f"goal_{i}", f"part_{i}"], [f"goal_{i + 1}"]),
        ]
    nodes.append(node("Identity", [f"goal_{len(spec.cameras)}"], ["memory_goal"]))
    nodes.append(node("Identity", ["state"], ["memory_unused"]))
    inputs = [_port("state", (1, len(spec.state))), _port("tokens", (1, WORDS_LENGTH, 1))]
    inputs += [_port(f"frames_{c.name}", (1, c.height, c.width, 3), TensorProto.UINT8) for c in spec.cameras]
    outputs = [_port("memory_goal", ()), _port("memory_unused", (1, len(spec.state)))]
    constants = [_scalar("word", 0.01), _scalar("pixel", 1.0 / 255.0 / max(1, len(spec.cameras)))]
    return _model("prefix", nodes, inputs, outputs, constants)


def _step(spec: PolicySpec) -> onnx.ModelProto:
    node = helper.make_node
    row = (1, spec.chunk_length, spec.actions.size)
    nodes = [
        node("Mul", ["memory_goal", "dt"], ["change"]),
        node("Add", ["x", "change"], ["x_next"]),
        node("Cast", ["kept_mask"], ["bool"], to=TensorProto.BOOL),
        node("Unsqueeze", ["bool", "axes"], ["where"]),
        node("Where", ["where", "kept", "x_next"], ["actions"]),
    ]
    inputs = [_port("memory_goal", ()), _port("x", row), _port("dt", (1,))]
    inputs += [_port("kept", row), _port("kept_mask", row[:2])]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    return _model("step", nodes, inputs, [_port("x_next", row), _port("actions", row)], [axes])
