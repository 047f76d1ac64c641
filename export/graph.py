"""A module of torch becomes an ONNX graph, checked and compared with it.

Frames go in as uint8, actions come out in physical units; the batch may be left open, everything else has a
fixed shape. runtime/graphs.py says what goes in and out of each graph.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.apart import apart
from runtime.graphs import one_line
from vla.contract import CameraSpec, TaktError

OPSET = 20
PROBABILITIES = ("done", "score")  # outputs between 0 and 1
TOLERANCE = 1e-4  # largest accepted difference from torch, relative to the output's largest value
LARGE = 1_000_000_000  # bytes of weights above which they get a file of their own; a graph ends at 2 GiB

# The number of rows -> example inputs by name.
Inputs = Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class Part:
    """A graph to be.

    Attributes:
        outputs: their names, in the module's order.
        once: it is run once an instruction, and its batch is never left open.
    """

    name: str
    module: nn.Module
    inputs: Inputs
    outputs: tuple[str, ...]
    once: bool = False


def frames(cameras: Sequence[CameraSpec], batch: int, g: torch.Generator) -> dict[str, Tensor]:
    """Random pictures of the cameras' sizes, by the names of the inputs that take them."""
    return {
        f"frames_{camera.name}": torch.randint(
            0, 256, (batch, camera.height, camera.width, 3), generator=g
        ).to(torch.uint8)
        for camera in cameras
    }


class _Denoise(nn.Module):
    """All steps of a sampler in one graph: no step waits to be asked for."""

    def __init__(self, step: nn.Module, memory: int, steps: int) -> None:
        super().__init__()
        self.step, self.memory, self.steps = step, memory, steps

    def forward(self, *inputs: Tensor) -> Tensor:
        memory, (x, kept, kept_mask) = inputs[: self.memory], inputs[self.memory :]
        dt, actions = torch.full((1,), 1.0 / self.steps), x
        for i in range(self.steps):
            t = torch.full((1,), i / self.steps)
            x, actions = self.step(*memory, x, t, dt, kept, kept_mask)
        return actions


def denoise(step: Part, steps: int) -> Part:
    """The graph of all `steps` steps, of that of one (its memory, x, t, dt, kept, kept_mask)."""
    names = [name for name in step.inputs(1) if name not in ("t", "dt")]

    def inputs(batch: int) -> dict[str, Tensor]:
        given = step.inputs(batch)
        return {name: given[name] for name in names}

    memory = len(names) - 3
    return Part("denoise", _Denoise(step.module, memory, steps), inputs, ("actions",))


def write(part: Part, path: Path, dynamic: bool = False) -> float:
    """Export for a batch of one or of any size.

    Returns:
        The largest difference from torch, for a batch of 1 and where it is open of 3, see `difference`.

    Raises:
        TaktError: torch cannot export it, or it is no valid graph.
    """
    if not dynamic or part.once:
        return _export(part, part.inputs(1), path)
    # Traced with 3: an example of 1 would be taken for a constant.
    example, batch = part.inputs(3), torch.export.Dim("batch", min=1, max=4096)
    shapes = tuple({} if value.shape[0] == 1 else {0: batch} for value in example.values())
    # A module with *inputs is traced with one of them, a tuple.
    error = _export(part, example, path, (shapes,) if _variadic(part.module) else shapes)
    return max(error, difference(part.module, part.inputs(1), path))


def _variadic(module: nn.Module) -> bool:
    return module.forward.__code__.co_flags & 0x04 != 0


@torch.inference_mode()
def _export(part: Part, inputs: dict[str, Tensor], path: Path, shapes: Any = None) -> float:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators nobody here uses
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
    warnings.filterwarnings("ignore", message="# The axis name")  # one name for the batch of every input
    module = part.module.eval()
    program = torch.onnx.export(
        module, tuple(inputs.values()), input_names=list(inputs), output_names=list(part.outputs),
        opset_version=OPSET, dynamo=True, verbose=False, dynamic_shapes=shapes,
    )  # fmt: skip
    assert program is not None  # only when asked to write a file itself
    large = sum(t.numel() * t.element_size() for t in module.state_dict().values()) > LARGE
    program.save(str(path), external_data=large)
    del program
    tidy(path)
    return difference(module, inputs, path)


def tidy(path: Path) -> None:
    """Name nodes after the modules they are of, take out where the graph was made, and check it.

    Raises:
        TaktError: it is no valid graph.
    """
    proto = onnx.load(path, load_external_data=False)
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    for i, node in enumerate(proto.graph.node):
        node.name = f"{_module(node)}/{node.op_type}_{i}"
    for node in [n for function in (proto.graph, *proto.functions) for n in function.node]:
        del node.metadata_props[:]  # stack traces with the paths of this machine
        node.ClearField("doc_string")
    for value in (*proto.graph.value_info, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    onnx.save(proto, path)
    validate(path)


def _module(node: onnx.NodeProto) -> str:
    """The path of the module a node is of, "model.expert.3.mlp"; empty where nothing says it."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            scopes = ast.literal_eval(prop.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    return ""


def validate(path: Path) -> None:
    """
    Raises:
        TaktError: ONNX's checker, its inference of shapes included, has something against the graph.
    """
    try:
        onnx.checker.check_model(str(path), full_check=path.stat().st_size < LARGE)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise TaktError(f"{path} is no valid graph ({one_line(error)})") from None


@torch.inference_mode()
def difference(module: nn.Module, inputs: dict[str, Tensor], path: Path) -> float:
    """Largest difference between torch and ONNX Runtime, relative to each output's largest value.

    Probabilities are compared as they are: one of 1e-11 need not be right to four digits.
    """
    import onnxruntime  # after `vla.contract`, which keeps it quiet

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = {port.name for port in session.get_inputs()}
    got = session.run(None, {name: value.numpy() for name, value in inputs.items() if name in taken})
    wanted = module(*inputs.values())
    wanted = [w.numpy() for w in (wanted if isinstance(wanted, tuple) else (wanted,))]
    return max(
        apart(g, w, 1e-9, 1.0 if name in PROBABILITIES else None)
        for name, g, w in zip(names, got, wanted, strict=True)
    )
