"""A bundle becomes a policy: three graphs run by an engine.

    words    ids, mask (1, L) int64                                     -> tokens (1, L, D)
    prefix   frames_<camera> (1, h, w, 3) uint8, state (1, S), tokens, mask -> memory_*
    step     memory_*, x (1, H, A), t (1,), dt (1,), kept (1, H, A), kept_mask (1, H)
                                                                        -> x_next, actions (1, H, A)

Everything without a type is float32; `kept` and `actions` are in physical units. An exporter drops
the inputs a graph does not use, so a graph is fed the inputs it has. An engine is anything that is a
`Graph`; the policy does not know which one runs it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from runtime.bundle import Bundle
from vla import flow, preprocess
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix, TaktError

Arrays = dict[str, np.ndarray]
# The shape of a port; None where a graph leaves the size open.
Shape = tuple[int | None, ...]
_WORDS_KEPT = 16  # instructions whose tokens are remembered


class Graph(Protocol):
    """One compiled graph.

    Attributes:
        inputs: name -> (numpy dtype name, shape).
        outputs: names, in order.
    """

    inputs: dict[str, tuple[str, Shape]]
    outputs: list[str]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """All outputs by name; `feeds` may hold more than the graph takes."""


class OnnxGraph:
    """A graph run by ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise TaktError("onnxruntime is not installed: pip install 'takt-vla[cpu]'") from None
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # Threads that spin while they wait starve the control process on a small machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the engine's own exception classes are not public
            raise TaktError(f"{path} cannot be loaded by ONNX Runtime: {_line(error)}") from None
        self.inputs = {i.name: (_dtype(i.type), _shape(i.shape)) for i in self._session.get_inputs()}
        self.outputs = [o.name for o in self._session.get_outputs()]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        values = self._session.run(self.outputs, {name: feeds[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))


class GraphPolicy:
    """Prefix once a chunk, steps of the sampler, words once an instruction."""

    def __init__(self, bundle: Bundle, graphs: Mapping[str, Graph]) -> None:
        """`graphs` holds "prefix", "step" and, where the bundle has a tokenizer, "words"."""
        check_graphs(bundle, graphs)
        self._bundle = bundle
        self._graphs = graphs
        self._words = None
        if bundle.tokenizer is not None:
            self._words = preprocess.Words(bundle.tokenizer, bundle.words_length)
        self._tokens: OrderedDict[str, Arrays] = OrderedDict()
        self._seed = self._calls = 0

    @property
    def spec(self) -> PolicySpec:
        return self._bundle.spec

    def reset(self, seed: int, calls: int = 0) -> None:
        """Sampling goes on as after `calls` inferences since a reset with `seed`."""
        self._seed, self._calls = seed, calls

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """A chunk of shape (H, A). The bundle fixes the number of steps, so `deadline` changes nothing.

        Raises:
            TaktError: the observation does not fit the spec, or the actions are not finite.
        """
        watch = _Stopwatch()
        feeds = self._feeds(observation)
        watch.mark("preprocess")
        feeds |= self._instruction(observation.instruction)
        watch.mark("words")
        memory = self._graphs["prefix"](feeds)
        watch.mark("prefix")
        actions = self._sample(memory, prefix)
        watch.mark("steps")
        return ActionChunk(observation.time, self.spec.dt, actions, watch.stages)

    def _feeds(self, observation: Observation) -> Arrays:
        feeds = {f"frames_{c.name}": preprocess.frame(observation, c) for c in self.spec.cameras}
        feeds["state"] = preprocess.state(observation, self.spec)
        return feeds

    def _instruction(self, text: str) -> Arrays:
        """tokens and mask of an instruction; computed once."""
        if self._words is None:
            return {}
        if text not in self._tokens:
            ids, mask = self._words(text)
            self._tokens[text] = {"mask": mask, **self._graphs["words"]({"ids": ids, "mask": mask})}
        self._tokens.move_to_end(text)
        if len(self._tokens) > _WORDS_KEPT:
            self._tokens.popitem(last=False)
        return self._tokens[text]

    def _sample(self, memory: Arrays, prefix: Prefix | None) -> np.ndarray:
        """Actions, shape (H, A), float32, physical units."""
        shape = (1, self.spec.chunk_length, self.spec.actions.size)
        # Noise depends on the seed and the call alone: not on the batch, the worker or the server.
        rng = np.random.default_rng([self._seed, self._calls])
        self._calls += 1
        noise = (self._bundle.noise * rng.standard_normal(shape)).astype(np.float32)
        kept, mask = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
        if prefix is not None:
            if prefix.actions.shape != shape[1:] or prefix.weights.shape != shape[1:2]:
                raise TaktError(f"a prefix has shape {shape[1:]}, got {prefix.actions.shape}")
            kept[0], mask[0] = prefix.actions, prefix.weights
        actions = np.asarray(flow.euler(self._step, memory, noise, self._bundle.steps, kept, mask))[0]
        if not np.isfinite(actions).all():
            raise TaktError(f"policy {self.spec.name!r} gave actions that are not finite: export it again")
        return actions

    def _step(
        self, memory: Arrays, x: np.ndarray, t: float, dt: float, kept: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        scalars = {"t": np.array([t], np.float32), "dt": np.array([dt], np.float32)}
        out = self._graphs["step"](memory | scalars | {"x": x, "kept": kept, "kept_mask": mask})
        return out["x_next"], out["actions"]


class OnnxPolicy(GraphPolicy):
    """A bundle run by ONNX Runtime on the CPU."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        super().__init__(bundle, {name: OnnxGraph(file, threads) for name, file in bundle.graphs.items()})


def check_graphs(bundle: Bundle, graphs: Mapping[str, Graph]) -> None:
    """Compare the graphs' inputs and outputs with the spec, once.

    Raises:
        TaktError: one line with the graph, the input and both shapes.
    """
    spec, length = bundle.spec, bundle.words_length
    row = (1, spec.chunk_length, spec.actions.size)
    words = {"ids": ("int64", (1, length)), "mask": ("int64", (1, length))}
    prefix: dict[str, tuple[str, Shape]] = {"state": ("float32", (1, len(spec.state)))}
    prefix |= {f"frames_{c.name}": ("uint8", (1, c.height, c.width, 3)) for c in spec.cameras}
    if "words" in graphs:
        _check(bundle, graphs, "words", words, outputs={"tokens"})
        prefix |= {"tokens": ("float32", (1, length, None)), "mask": words["mask"]}
    _check(bundle, graphs, "prefix", prefix, needed={f"frames_{c.name}" for c in spec.cameras})
    memory: dict[str, tuple[str, Shape]] = {
        name: port for name, port in graphs["step"].inputs.items() if name in graphs["prefix"].outputs
    }
    step = memory | {"x": ("float32", row), "kept": ("float32", row), "kept_mask": ("float32", row[:2])}
    step |= {"t": ("float32", (1,)), "dt": ("float32", (1,))}
    _check(bundle, graphs, "step", step, needed={"x", "dt"}, outputs={"x_next", "actions"})


def _check(
    bundle: Bundle,
    graphs: Mapping[str, Graph],
    name: str,
    offered: Mapping[str, tuple[str, Shape]],
    needed: set[str] = frozenset(),  # type: ignore[assignment]
    outputs: set[str] = frozenset(),  # type: ignore[assignment]
) -> None:
    graph, file = graphs[name], bundle.graphs[name]
    for port, (dtype, shape) in graph.inputs.items():
        if port not in offered:
            raise TaktError(f"{file} takes an input {port!r}; the spec offers {sorted(offered)}")
        if dtype != offered[port][0] or not _fits(shape, offered[port][1]):
            wanted = f"{offered[port][0]} {offered[port][1]}"
            raise TaktError(f"{file} takes {port!r} as {dtype} {shape}; the spec says {wanted}")
    for kind, lacking in (("input", needed - set(graph.inputs)), ("output", outputs - set(graph.outputs))):
        if lacking:
            raise TaktError(f"{file} lacks the {kind} {sorted(lacking)}: export the policy again")


def _fits(shape: Shape, wanted: Shape) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def _shape(sizes: list[object]) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _dtype(kind: str) -> str:
    """ONNX Runtime's "tensor(float)" as numpy's "float32"."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _Stopwatch:
    """Seconds between marks, by name."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = now - self._last
        self._last = now
