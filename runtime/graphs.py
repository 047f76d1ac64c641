"""What an engine is, and ONNX Runtime as one; graphs are compared with the spec before they run.

    words    ids, mask (1, L) int64                                     -> tokens (1, L, D)
    reader   tokens, mask                                               -> said_* (1, ...)
    prefix   frames_<camera> (B, h, w, 3) uint8, state (B, S), said_* (B, ...) or, without a
             reader, tokens (B, L, D), mask (B, L)                      -> memory_*, done? (B,)
    step     memory_*, x (B, H, W), t (1,), dt (1,), kept (B, H, A), kept_mask (B, H)
                                                                        -> x_next, actions (B, H, A)
    denoise  what step takes, without t and dt                          -> actions (B, H, A)

Words and reader run once an instruction. Where there is no graph of words, the prefix takes the ids (B, L)
themselves. W, the width of the noise, is A where the bundle names none.

Everything without a type is float32; `kept` and `actions` are in physical units. The batch B is 1, or
open where the exporter left it so. An exporter drops the inputs a graph does not use, so a graph is fed
the inputs it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from runtime.bundle import Bundle
from vla.contract import TaktError

Arrays = dict[str, np.ndarray]
# The shape of a port; None where a graph leaves the size open.
Shape = tuple[int | None, ...]


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


@runtime_checkable
class Looping(Protocol):
    """A step graph that makes several steps in one run, where each costs less than asking for it."""

    def loop(self, feeds: Mapping[str, np.ndarray], steps: int) -> Arrays:
        """The outputs after `steps` equal steps from t = 0; `feeds` are a step's but for t and dt."""


class OnnxGraph:
    """A graph run by ONNX Runtime, on the CPU unless a provider is named (runtime/engine_ort.py)."""

    def __init__(
        self, path: Path, threads: int = 1, providers: Sequence[Any] = ("CPUExecutionProvider",)
    ) -> None:
        """`providers`: names, or pairs of a name and its options, the one to be tried first in front."""
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
        # Q/DQ graphs are for other engines. Here they are worked out in floats: without VNNI the integer
        # kernels sum two products of int8 in 16 bits, where they may not fit.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = 3
        self._configure(options)
        try:
            # ReluQuantRewrite drops a Relu before fp8: it takes E4M3's zero for the least number there is.
            self._session = ort.InferenceSession(
                str(path),
                options,
                providers=list(providers),
                disabled_optimizers=["ReluQuantRewrite"],
            )
        except Exception as error:  # the engine's own exception classes are not public
            raise TaktError(f"{path} cannot be loaded by ONNX Runtime: {one_line(error)}") from None
        self.inputs = {i.name: (_dtype(i.type), _shape(i.shape)) for i in self._session.get_inputs()}
        self.outputs = [o.name for o in self._session.get_outputs()]

    def _configure(self, options: Any) -> None:
        """What a provider needs beyond this."""

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        values = self._session.run(self.outputs, {name: feeds[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))


def blank(graph: Graph) -> Arrays:
    """Zeros for every input, open sizes taken as 1: enough to see whether an engine runs a graph at all."""
    return {
        name: np.zeros([1 if size is None else size for size in shape], dtype)
        for name, (dtype, shape) in graph.inputs.items()
    }


def check_graphs(bundle: Bundle, graphs: Mapping[str, Graph]) -> None:
    """Compare the graphs' inputs and outputs with the spec, once.

    Raises:
        TaktError: one line with the graph, the input and both shapes.
    """
    spec, length = bundle.spec, bundle.words_length
    row, noise = (1, spec.chunk_length, spec.actions.size), (1, spec.chunk_length, bundle.noise_width)
    words = {"ids": ("int64", (1, length)), "mask": ("int64", (1, length))}
    prefix: dict[str, tuple[str, Shape]] = {"state": ("float32", (1, len(spec.state)))}
    prefix |= {f"frames_{c.name}": ("uint8", (1, c.height, c.width, 3)) for c in spec.cameras}
    if "words" in graphs:
        _check(bundle, graphs, "words", words, outputs={"tokens"})
        tokens: dict[str, tuple[str, Shape]] = {
            "tokens": ("float32", (1, length, None)),
            "mask": words["mask"],
        }
        prefix |= tokens
        if "reader" in graphs:
            _check(bundle, graphs, "reader", tokens)
            said = graphs["reader"].outputs
            prefix |= {port: of for port, of in graphs["prefix"].inputs.items() if port in said}
    elif bundle.tokenizer is not None:
        prefix |= words
    _check(bundle, graphs, "prefix", prefix, needed={f"frames_{c.name}" for c in spec.cameras})
    memory: dict[str, tuple[str, Shape]] = {
        name: port for name, port in graphs["step"].inputs.items() if name in graphs["prefix"].outputs
    }
    step = memory | {"x": ("float32", noise), "kept": ("float32", row), "kept_mask": ("float32", row[:2])}
    step |= {"t": ("float32", (1,)), "dt": ("float32", (1,))}
    _check(bundle, graphs, "step", step, needed={"x"}, outputs={"x_next", "actions"})
    if "denoise" in graphs:
        whole = {name: port for name, port in step.items() if name not in ("t", "dt")}
        _check(bundle, graphs, "denoise", whole, needed={"x"}, outputs={"actions"})


BATCHED = ("prefix", "step", "denoise")


def batched(graphs: Mapping[str, Graph]) -> bool:
    """Whether all but words take any number of observations at once."""
    ports = [port for name in graphs if name in BATCHED for port in graphs[name].inputs.items()]
    return all(shape[:1] == (None,) for port, (_, shape) in ports if port not in ("t", "dt"))


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


def one_line(error: object) -> str:
    """What an engine's error says, without its line breaks and at most 200 characters of it."""
    return " ".join(str(error).split())[:200] or type(error).__name__
