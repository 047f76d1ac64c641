"""`takt export`: a checkpoint becomes a bundle of ONNX graphs with a manifest.

Three graphs with static shapes (runtime/engine.py runs them): words -> tokens once an instruction,
prefix -> memory once a chunk, step -> next x once a flow step. Frames go in as uint8, actions come
out in physical units. Each graph is run and compared with torch before the bundle is complete.
"""

from __future__ import annotations

import json as jsonlib
import logging
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import torch
import tyro
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from runtime import so101
from runtime.bundle import load, verify, write_manifest
from vla import minilm, nano, train
from vla.contract import CameraSpec, PolicySpec, TaktError

OPSET = 20
TOLERANCE = 1e-4  # largest accepted difference from torch, relative to the output's largest value


@dataclass
class Command:
    """Export a nano checkpoint as a bundle that ONNX Runtime runs."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Folder with config.json and model.safetensors."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the bundle; an older bundle there is replaced when the new one is complete."""
    steps: int = 4
    """Flow steps a chunk."""
    noise: float = 1.0
    """Scale of the initial noise; 0 starts from its mean."""
    replan: float = 0.2
    """Seconds of a chunk executed before the next one is wanted."""
    encoder: Path | None = None
    """Folder of all-MiniLM-L6-v2 (default: the installed package)."""
    words_from: Path | None = None
    """Take words.onnx and the tokenizer from this bundle: the encoder is the same for every checkpoint."""
    json: Path | None = None
    """Write the measured differences there."""

    def run(self) -> int:
        self._check()
        model = train.load(self.checkpoint).eval()
        with tempfile.TemporaryDirectory() as folder:
            staged = Path(folder) / "bundle"
            staged.mkdir()
            errors = self._write(model, staged)
            load(staged)  # what does not load is not published
            self._publish(staged)
        size = sum(f.stat().st_size for f in self.out.iterdir()) / 1e6
        print(f"{self.out}: {size:.1f} MB; largest difference from torch {max(errors.values()):.1e}")
        if self.json:
            self.json.write_text(jsonlib.dumps({"size_mb": size, "difference": errors}, indent=1))
        return 0

    def _publish(self, staged: Path) -> None:
        """Put the new bundle beside the old one first: a full disk loses neither."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        part = self.out.resolve().with_name(f".{self.out.resolve().name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(staged, part)
        if self.out.exists():
            shutil.rmtree(self.out)
        part.rename(self.out)

    def _check(self) -> None:
        if self.steps < 1:
            raise TaktError("--steps must be at least 1")
        if self.out.exists() and not replaceable(self.out):
            raise TaktError(f"{self.out} is there and is no bundle; choose a new folder")
        if not (0 < self.replan < 60 and 0 <= self.noise < 10):
            raise TaktError("--replan is above 0 and below 60 s, --noise from 0 to 10")
        for name in ("words.onnx", "tokenizer.json"):
            if self.words_from is not None and not (self.words_from / name).is_file():
                raise TaktError(f"--words-from {self.words_from} has no {name}; name a bundle")

    def _write(self, model: nano.Nano, out: Path) -> dict[str, float]:
        errors: dict[str, float] = {}
        if self.words_from:
            verify(self.words_from)  # what is copied gets a manifest of its own
            source = self.words_from / "policy.json"
            measured = jsonlib.loads(source.read_text()).get("tolerances", {}) if source.is_file() else {}
            errors |= {k: float(v) for k, v in measured.items() if k == "words"}
            for name in ("words.onnx", "tokenizer.json"):
                shutil.copy(self.words_from / name, out / name)
        else:
            encoder = train.encoder_folder(self.encoder)
            errors["words"] = export_words(encoder, out / "words.onnx")
            shutil.copy(encoder / "tokenizer.json", out / "tokenizer.json")
        errors["prefix"] = export_prefix(model, out / "prefix.onnx")
        errors["step"] = export_step(model, out / "step.onnx")
        for name, error in errors.items():
            if not error <= TOLERANCE:
                raise TaktError(f"{name}.onnx differs from torch by {error:.2e}, more than {TOLERANCE:.0e}")
        policy = {
            "format": 1,
            "spec": spec(model.config, self.replan).to_json(),
            "graphs": {"words": "words.onnx", "prefix": "prefix.onnx", "step": "step.onnx"},
            "tokenizer": "tokenizer.json",
            "words_length": train.TOKENS,
            "sampler": {"steps": self.steps, "noise": self.noise},
            "provenance": self._provenance(),
            "tolerances": errors,
        }
        (out / "policy.json").write_text(jsonlib.dumps(policy, indent=1))
        write_manifest(out)
        return errors

    def _provenance(self) -> dict[str, Any]:
        made = {"architecture": "nano", "torch": torch.__version__, "opset": OPSET}
        training = self.checkpoint / "training.json"
        return made | ({"training": jsonlib.loads(training.read_text())} if training.is_file() else {})


def replaceable(folder: Path) -> bool:
    """Whether a folder is empty or a bundle and nothing else, altered or not."""
    if not folder.is_dir():
        return False
    try:
        listed = jsonlib.loads((folder / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return not any(folder.iterdir())
    return {f.name for f in folder.iterdir()} <= {"manifest.json", *listed}


def spec(c: nano.Config, replan: float) -> PolicySpec:
    """The contract of a nano policy for the SO-101."""
    robot = so101.spec(())
    return PolicySpec(
        name="nano",
        state=robot.state,
        actions=robot.actions,
        cameras=tuple(CameraSpec(name, c.size, c.size) for name in c.cameras),
        chunk_length=c.rows,
        dt=0.1,
        replan=replan,
    )


class _Prefix(nn.Module):
    def __init__(self, model: nano.Nano) -> None:
        super().__init__()
        self.model = model

    def forward(self, front: Tensor, wrist: Tensor, state: Tensor, tokens: Tensor, mask: Tensor) -> Any:
        cond, joints = self.model.prefix([front, wrist], state, tokens, mask)
        return cond, joints + 0.0  # an output must not be an input itself


class _Step(nn.Module):
    def __init__(self, model: nano.Nano) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        return self.model.step(*inputs)


def export_prefix(model: nano.Nano, path: Path) -> float:
    """Write prefix.onnx; returns its difference from torch."""
    c = model.config
    generator = torch.Generator().manual_seed(0)
    frames = [
        torch.randint(0, 256, (1, c.size, c.size, 3), generator=generator, dtype=torch.uint8)
        for _ in c.cameras
    ]
    mask = (torch.arange(train.TOKENS)[None] < 12).long()
    tokens = torch.randn(1, train.TOKENS, c.words, generator=generator)
    inputs = {f"frames_{name}": frame for name, frame in zip(c.cameras, frames, strict=True)}
    inputs |= {"state": torch.zeros(1, c.state), "tokens": tokens, "mask": mask}
    return _export(_Prefix(model), inputs, ["memory_cond", "memory_state"], path)


def export_step(model: nano.Nano, path: Path) -> float:
    """Write step.onnx; returns its difference from torch."""
    c = model.config
    generator = torch.Generator().manual_seed(0)
    chunk = (1, c.rows, c.actions)
    inputs = {
        "memory_cond": torch.randn(1, c.cond, generator=generator),
        "memory_state": torch.randn(1, c.state, generator=generator),
        "x": torch.randn(chunk, generator=generator),
        "t": torch.tensor([0.25]),
        "dt": torch.tensor([0.25]),
        "kept": torch.randn(chunk, generator=generator),
        "kept_mask": (torch.arange(c.rows)[None] < 2).float(),
    }
    return _export(_Step(model), inputs, ["x_next", "actions"], path)


def export_words(encoder: Path, path: Path) -> float:
    """Write words.onnx with int8 weights; returns its difference from torch (with the same rounding)."""
    model = minilm.rounded(minilm.load(encoder)).eval()
    ids = torch.randint(0, minilm.VOCABULARY, (1, train.TOKENS), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(train.TOKENS)[None] < 12).long()
    inputs = {"ids": ids, "mask": mask}
    _export(model, inputs, ["tokens"], path)
    graph = onnx.load(path)
    _store_int8(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    return _difference(model, inputs, path)


@torch.inference_mode()
def _export(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> float:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators nobody here uses
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
    program = torch.onnx.export(
        module.eval(), tuple(inputs.values()), input_names=list(inputs), output_names=outputs,
        opset_version=OPSET, dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None  # only when asked to write a file itself
    proto = program.model_proto
    for node in [*proto.graph.node, *proto.graph.value_info]:
        node.ClearField("metadata_props")  # source paths of the exporting machine
        node.ClearField("doc_string")
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return _difference(module, inputs, path)


@torch.inference_mode()
def _difference(module: nn.Module, inputs: dict[str, Tensor], path: Path) -> float:
    """Largest difference between torch and ONNX Runtime, relative to each output's largest value."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    wanted = module(*inputs.values())
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    pairs = zip(got, (w.numpy() for w in wanted), strict=True)
    return float(max(np.abs(g - w).max() / max(float(np.abs(w).max()), 1e-9) for g, w in pairs))


def _store_int8(graph: onnx.GraphProto) -> None:
    """Replace each large matrix, already rounded to int8 steps, by int8 values and their scales."""
    for tensor in list(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.ndim != 2 or array.size < 100_000:
            continue
        found = _int8_axis(array)
        if found is None:  # the table of places is not rounded
            continue
        axis, values, scale = found
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(values, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        gather = [n for n in graph.node if n.op_type == "Gather" and n.input[0] == name]
        if gather:
            _gather_int8(graph, gather[0], name)
        else:
            _matrix_int8(graph, name, axis)


def _int8_axis(array: np.ndarray) -> tuple[int, np.ndarray, np.ndarray] | None:
    """(axis, int8 values, scales) when the array is int8 times one scale per index of an axis, else None."""
    for axis in (0, 1):
        scale = (np.maximum(np.abs(array).max(axis=1 - axis), 1e-8) / 127).astype(np.float32)
        wide = scale[:, None] if axis == 0 else scale[None, :]
        values = np.rint(array / wide)
        if np.abs(values * wide - array).max() < 1e-6 * np.abs(array).max():
            return axis, values.astype(np.int8), scale
    return None


def _matrix_int8(graph: onnx.GraphProto, name: str, axis: int) -> None:
    """int8 values times scales, folded to floats when a session loads.

    Not DequantizeLinear: ONNX Runtime fuses that into a product with rounded activations.
    """
    graph.initializer.append(numpy_helper.from_array(np.array([1 - axis], np.int64), f"{name}_other"))
    nodes = [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [f"{name}_scale", f"{name}_other"], [f"{name}_wide"]),
        helper.make_node("Mul", [f"{name}_float", f"{name}_wide"], [name]),
    ]
    for offset, new in enumerate(nodes):
        graph.node.insert(offset, new)


def _gather_int8(graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> None:
    """Look up int8 rows and their scales instead of rows of floats: the table stays small in memory."""
    at = list(graph.node).index(node)
    ids, out = node.input[1], node.output[0]
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{name}_last"))
    nodes = [
        helper.make_node("Gather", [f"{name}_int8", ids], [f"{name}_rows"], axis=0),
        helper.make_node("Cast", [f"{name}_rows"], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scale", ids], [f"{name}_row_scale"], axis=0),
        helper.make_node("Unsqueeze", [f"{name}_row_scale", f"{name}_last"], [f"{name}_wide"]),
        helper.make_node("Mul", [f"{name}_float", f"{name}_wide"], [out]),
    ]
    graph.node.remove(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(at + offset, new)
