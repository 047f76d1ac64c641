"""`takt export`: a checkpoint becomes a bundle of ONNX graphs with a manifest.

Three graphs (runtime/engine.py runs them): words -> tokens once an instruction, prefix -> memory and
whether the task is done once a chunk, step -> next x once a flow step. On demand a fourth, critic: a
chunk -> how well it would do. Frames go in as uint8, actions come out in physical units;
prefix and step may leave the batch open, and everything else has a fixed shape. Each graph is run and
compared with torch before the bundle is complete.
"""

from __future__ import annotations

import json as jsonlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
import tyro
from torch import Tensor, nn

from export import int8
from runtime import so101
from runtime.bundle import load, verify, write_manifest
from vla import minilm, nano, train, train_data
from vla.contract import CameraSpec, PolicySpec, TaktError

Joining = Literal["prefix", "guided", "none"]
OPSET = 20
PROBABILITIES = ("done", "score")  # outputs between 0 and 1
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
    joining: Joining = "prefix"
    """How a chunk continues the running one: prefix (trained to), guided (any policy), none."""
    beta: float = 5.0
    """Bound of the guidance."""
    dynamic_batch: bool = True
    """Leave the batch open, so that one run answers several requests or draws several candidates."""
    candidates: int = 1
    """Chunks drawn at a time, of which the best is taken; more than one needs --dynamic-batch."""
    critic: bool = False
    """Add critic.onnx, which scores chunks: memory and actions in, the worth of what follows (0 .. 1) out."""
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
        if not 0 < self.beta <= 1000:
            raise TaktError(f"--beta is above 0 and at most 1000, got {self.beta:g}")
        if not 1 <= self.candidates <= (64 if self.dynamic_batch else 1):
            raise TaktError("--candidates is from 1 to 64, and 1 with --no-dynamic-batch")
        for name in ("words.onnx", "tokenizer.json"):
            if self.words_from is not None and not (self.words_from / name).is_file():
                raise TaktError(f"--words-from {self.words_from} has no {name}; name a bundle")

    def _write(self, model: nano.Nano, out: Path) -> dict[str, float]:
        errors: dict[str, float] = {}
        length, kind = train_data.TOKENS, model.config.encoder
        if self.words_from:
            length = self._copy_words(self.words_from, out, kind, errors)
        else:
            encoder = train_data.encoder_folder(self.encoder)
            errors["words"] = export_words(encoder, out / "words.onnx", kind)
            shutil.copy(encoder / "tokenizer.json", out / "tokenizer.json")
        errors["prefix"] = export_prefix(model, out / "prefix.onnx", self.dynamic_batch, length)
        beta = self.beta if self.joining == "guided" else None
        errors["step"] = export_step(model, out / "step.onnx", self.dynamic_batch, beta)
        names = ["prefix", "step"]
        if self.critic:
            errors["critic"] = export_critic(model, out / "critic.onnx", self.dynamic_batch)
            names.append("critic")
        for name, error in errors.items():
            if not error <= TOLERANCE:
                raise TaktError(f"{name}.onnx differs from torch by {error:.2e}, more than {TOLERANCE:.0e}")
        policy = {
            "format": 1,
            "spec": spec(model.config, self.replan, self.joining).to_json(),
            "graphs": {name: f"{name}.onnx" for name in ("words", *names)},
            "tokenizer": "tokenizer.json",
            "words_length": length,
            "sampler": self._sampler(),
            "provenance": {"encoder": kind} | self._provenance(),
            "tolerances": errors,
        }
        (out / "policy.json").write_text(jsonlib.dumps(policy, indent=1))
        write_manifest(out)
        return errors

    def _copy_words(self, source: Path, out: Path, kind: str, errors: dict[str, float]) -> int:
        """Take another bundle's words and their measured difference; how many tokens they read."""
        verify(source)  # what is copied gets a manifest of its own
        file = source / "policy.json"
        policy = jsonlib.loads(file.read_text()) if file.is_file() else {}
        theirs = policy.get("provenance", {}).get("encoder", "minilm")
        if theirs != kind:
            raise TaktError(f"--words-from {source} has the words of {theirs}, the policy reads {kind}")
        errors |= {k: float(v) for k, v in policy.get("tolerances", {}).items() if k == "words"}
        for name in ("words.onnx", "tokenizer.json"):
            shutil.copy(source / name, out / name)
        return int(policy.get("words_length", train_data.TOKENS))

    def _sampler(self) -> dict[str, Any]:
        sampler = {"steps": self.steps, "noise": self.noise, "candidates": self.candidates}
        return sampler | ({"beta": self.beta} if self.joining == "guided" else {})

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


def spec(c: nano.Config, replan: float, joining: Joining = "prefix") -> PolicySpec:
    """The contract of a nano policy for the SO-101.

    Committed rows are those of training with a prefix; half the chunk with guidance, which asks for
    d <= H - s and d <= s (arXiv 2506.07339).
    """
    robot = so101.spec(())
    return PolicySpec(
        name="nano",
        state=robot.state,
        actions=robot.actions,
        cameras=tuple(CameraSpec(name, c.size, c.size) for name in c.cameras),
        chunk_length=c.rows,
        dt=0.1,
        replan=replan,
        joining=joining,
        committed={"prefix": c.committed, "guided": c.rows // 2, "none": 0}[joining],
    )


# The number of rows -> example inputs by name.
Inputs = Callable[[int], dict[str, Tensor]]


class _Prefix(nn.Module):
    def __init__(self, model: nano.Nano) -> None:
        super().__init__()
        self.model = model

    def forward(self, front: Tensor, wrist: Tensor, state: Tensor, tokens: Tensor, mask: Tensor) -> Any:
        cond, joints = self.model.prefix([front, wrist], state, tokens, mask)
        # An output must not be an input itself.
        return cond, joints + 0.0, self.model.finished(cond)


class _Critic(nn.Module):
    def __init__(self, model: nano.Nano) -> None:
        super().__init__()
        self.model = model

    def forward(self, cond: Tensor, state: Tensor, actions: Tensor) -> Tensor:
        return self.model.score(cond, state, actions)


class _Step(nn.Module):
    """The step with a hard prefix, or with guidance up to `beta`: the same inputs and outputs."""

    def __init__(self, model: nano.Nano, beta: float | None) -> None:
        super().__init__()
        self.model, self.beta = model, beta

    def forward(
        self, cond: Tensor, state: Tensor, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, kept_mask: Tensor
    ) -> Any:
        if self.beta is None:
            return self.model.step(cond, state, x, t, dt, kept, kept_mask)
        return self.model.step_guided(cond, state, x, t, dt, kept, kept_mask, self.beta)


def export_prefix(
    model: nano.Nano, path: Path, dynamic_batch: bool = False, length: int = train_data.TOKENS
) -> float:
    """Write prefix.onnx for words of `length` tokens; returns its difference from torch."""
    c, outputs = model.config, ["memory_cond", "memory_state", "done"]

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        shape = (batch, c.size, c.size, 3)
        frames = {f"frames_{n}": torch.randint(0, 256, shape, generator=g).to(torch.uint8) for n in c.cameras}
        used = torch.arange(batch)[:, None] + 12
        return frames | {
            "state": torch.randn(batch, c.state, generator=g) * 0.3,
            "tokens": torch.randn(batch, length, c.words, generator=g),
            "mask": (torch.arange(length)[None] < used).long(),
        }

    return _export_batches(_Prefix(model), inputs, outputs, path, dynamic_batch)


def export_step(
    model: nano.Nano, path: Path, dynamic_batch: bool = False, beta: float | None = None
) -> float:
    """Write step.onnx, guided up to `beta` or (None) with a hard prefix; its difference from torch."""
    c = model.config

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        chunk = (batch, c.rows, c.actions)
        weights = torch.rand(batch, c.rows, generator=g)
        return {
            "memory_cond": torch.randn(batch, c.cond, generator=g),
            "memory_state": torch.randn(batch, c.state, generator=g),
            "x": torch.randn(chunk, generator=g),
            "t": torch.tensor([0.25]),
            "dt": torch.tensor([0.25]),
            "kept": torch.randn(chunk, generator=g),
            "kept_mask": (torch.arange(c.rows)[None] < 2).float().repeat(batch, 1)
            if beta is None
            else weights,
        }

    return _export_batches(_Step(model, beta), inputs, ["x_next", "actions"], path, dynamic_batch)


def export_critic(model: nano.Nano, path: Path, dynamic_batch: bool = False) -> float:
    """Write critic.onnx; returns its difference from torch."""
    c = model.config

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        return {
            "memory_cond": torch.randn(batch, c.cond, generator=g),
            "memory_state": torch.randn(batch, c.state, generator=g),
            "actions": torch.randn(batch, c.rows, c.actions, generator=g),
        }

    return _export_batches(_Critic(model), inputs, ["score"], path, dynamic_batch)


def _export_batches(
    module: nn.Module, inputs: Inputs, outputs: list[str], path: Path, dynamic: bool
) -> float:
    """Export for a batch of one or of any size; the largest difference from torch, for batches of 1 and 3."""
    if not dynamic:
        return _export(module, inputs(1), outputs, path)
    # Traced with 3: an example of 1 would be taken for a constant.
    example, batch = inputs(3), torch.export.Dim("batch", min=1, max=4096)
    shapes = tuple({} if value.shape[0] == 1 else {0: batch} for value in example.values())
    error = _export(module, example, outputs, path, shapes)
    return max(error, _difference(module, inputs(1), path))


def export_words(encoder: Path, path: Path, kind: str = "minilm") -> float:
    """Write words.onnx with int8 weights; returns its difference from torch (with the same rounding)."""
    model = minilm.made(kind, encoder)
    ids = torch.randint(
        0, minilm.VOCABULARY, (1, train_data.TOKENS), generator=torch.Generator().manual_seed(0)
    )
    mask = (torch.arange(train_data.TOKENS)[None] < 12).long()
    inputs = {"ids": ids, "mask": mask}
    _export(model, inputs, ["tokens"], path)
    graph = onnx.load(path)
    int8.store(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    return _difference(model, inputs, path)


@torch.inference_mode()
def _export(
    module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path, shapes: Any = None
) -> float:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators nobody here uses
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
    warnings.filterwarnings("ignore", message="# The axis name")  # one name for the batch of every input
    program = torch.onnx.export(
        module.eval(), tuple(inputs.values()), input_names=list(inputs), output_names=outputs,
        opset_version=OPSET, dynamo=True, verbose=False, dynamic_shapes=shapes,
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
    """Largest difference between torch and ONNX Runtime, relative to each output's largest value.

    Probabilities are compared as they are: one of 1e-11 need not be right to four digits.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    got = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    wanted = module(*inputs.values())
    wanted = [w.numpy() for w in (wanted if isinstance(wanted, tuple) else (wanted,))]
    scales = [
        1.0 if n in PROBABILITIES else max(float(np.abs(w).max()), 1e-9)
        for n, w in zip(names, wanted, strict=True)
    ]
    return float(max(np.abs(g - w).max() / scale for g, w, scale in zip(got, wanted, scales, strict=True)))
