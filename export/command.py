"""`takt export`: a checkpoint becomes a bundle of ONNX graphs with a manifest.

    read (source.py) -> graphs (graph.py) -> fewer bits (quantise.py) -> the gate (parity.py) -> the folder

The graphs, which runtime/engine.py runs: words -> tokens once an instruction (nano), prefix -> memory and
whether the task is done once a chunk, step -> next x once a flow step. On demand a fourth, critic: a chunk ->
how well it would do. Each is run and compared with torch before the bundle is complete.
"""

from __future__ import annotations

import json as jsonlib
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from export import lower, measures, mixed, nano_graphs, quantise, source
from export.graph import OPSET, TOLERANCE, write
from export.nano_graphs import Joining
from export.parity import Gate, Refused
from export.quantise import Precision
from runtime.bundle import load, verify
from runtime.machine import machine
from vla import atomic, train_data
from vla.contract import TaktError

MIXED_EPISODES = 40  # of each candidate of --mixed, where nothing else is said
# What a bundle has in it already, and what is asked only where bits are saved.
_MAKING = (
    "steps", "noise", "replan", "joining", "beta", "frames", "dynamic_batch", "candidates", "critic", "fused",
    "encoder", "words_from",
)  # fmt: skip
_GATED = ("keep", "observations", "tries", "episodes", "tolerance")


@dataclass
class Command:
    """Export a checkpoint as a bundle that ONNX Runtime runs."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Folder with config.json and model.safetensors: nano's, or LeRobot's smolvla, pi0, pi05, act; or a
    bundle in fp32, to be had in another precision."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the bundle; an older bundle there is replaced when the new one is complete."""
    precision: Precision = "fp32"
    """Of weights and products; what is sensitive stays in fp32."""
    static: bool = False
    """int8 with fixed scales (Q/DQ), as TensorRT and OpenVINO want it, found on observations."""
    per_tensor: bool = False
    """One scale a weight with --static, instead of one an output channel: coarser."""
    keep: tuple[str, ...] = quantise.KEEP
    """Regular expressions of modules that stay in fp32."""
    steps: int | None = None
    """Flow steps a chunk (default: the checkpoint's; 4 for nano)."""
    noise: float = 1.0
    """Scale of the initial noise; 0 starts from its mean."""
    replan: float | None = None
    """Seconds of a chunk executed before the next one is wanted (default: the checkpoint's; 0.2 for nano)."""
    joining: Joining | None = None
    """How a chunk continues the running one: prefix (trained to; nano), guided (any policy), none."""
    beta: float = 5.0
    """Bound of nano's guidance."""
    frames: str | None = None
    """Size of the cameras' frames, HEIGHTxWIDTH (default: the checkpoint's)."""
    dynamic_batch: bool = True
    """Leave the batch open, so that one run answers several requests or draws several candidates."""
    candidates: int = 1
    """Chunks drawn at a time, of which the best is taken; more than one needs --dynamic-batch."""
    critic: bool = False
    """Add nano's critic.onnx, which scores chunks: memory and actions in, the worth of what follows out."""
    fused: bool = False
    """Add denoise.onnx, all steps in one graph, for engines that gain by it."""
    encoder: Path | None = None
    """Folder of all-MiniLM-L6-v2 (default: the installed package)."""
    words_from: Path | None = None
    """Take words.onnx and the tokenizer from this bundle: every nano checkpoint has the same encoder."""
    observations: Path | None = None
    """A data set (LeRobotDataset v3) to compare on; without it the tabletop's, or seeded pictures."""
    samples: int = 16
    """Observations to compare on."""
    mixed: bool = False
    """Quantise only groups of layers that can bear it, found by action error and then in closed loop."""
    tries: int = 4
    """With --mixed: choices of groups that are played, at most."""
    episodes: int | None = None
    """Closed-loop episodes of the gate, each also with the fp32 bundle, where a suite fits the policy
    (default: none; with --mixed 40)."""
    tolerance: float | None = None
    """Largest accepted mean action error, as a share of each action's range (default: the precision's)."""
    json: Path | None = None
    """Write the measured differences there."""

    def run(self) -> int:
        self._check()
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "fp32"
            errors = self._plain(plain)
            load(plain)  # what does not load is not published
            episodes = (MIXED_EPISODES if self.mixed else 0) if self.episodes is None else self.episodes
            gate = Gate(plain, self.observations, self.samples, episodes, self.tolerance)
            lowered = self._mixed if self.mixed else self._quantised
            staged, report = lowered(plain, Path(folder) / "bundle", gate)
            self._publish(staged)
        size = measures.size(self.out)
        print(f"{self.out}: {size:.1f} MB; largest difference from torch {max(errors.values()):.1e}")
        for line in report.pop("said", []):
            print(line)
        self._tell({"size_mb": size, "difference": errors, **report})
        return 0

    def _tell(self, found: dict[str, Any]) -> None:
        if self.json:
            said = {"machine": machine(), "precision": self.precision, **found}
            atomic.write_json(self.json, said)

    def _plain(self, plain: Path) -> dict[str, float]:
        """The bundle in fp32, made or, where the checkpoint is one, taken; its differences from torch."""
        if not (self.checkpoint / "policy.json").is_file():
            made = source.read(self.checkpoint, self._wanted())
            plain.mkdir()
            return self._write(made, plain)
        made_of = load(self.checkpoint).policy
        if self.precision == "fp32" or "precision" in made_of:
            name = made_of.get("precision", {}).get("name", "fp32")
            raise TaktError(
                f"{self.checkpoint} is a bundle in {name}: one in fp32 can be had in another precision"
            )
        if said := self._said(_MAKING):
            raise TaktError(
                f"{said} is for a checkpoint: {self.checkpoint} is a bundle, which is made already"
            )
        shutil.copytree(self.checkpoint, plain)
        return {k: float(v) for k, v in made_of.get("tolerances", {}).items()} or {"prefix": 0.0}

    def _wanted(self) -> source.Wanted:
        frames = None
        if self.frames is not None:
            found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", self.frames)
            if found is None or "0" in found.groups():
                raise TaktError(f"--frames is HEIGHTxWIDTH, 480x640 for example; got {self.frames!r}")
            frames = (int(found[1]), int(found[2]))
        length = train_data.TOKENS
        if self.words_from is not None and (self.words_from / "policy.json").is_file():
            verify(self.words_from)
            length = int(_policy_of(self.words_from).get("words_length", length))
        return source.Wanted(
            self.steps, self.joining, self.replan, self.beta, frames, self.critic, self.fused, length
        )

    def _quantised(self, plain: Path, staged: Path, gate: Gate) -> tuple[Path, dict[str, Any]]:
        """The bundle in the precision wanted, once the gate has let it through, and what was found."""
        if self.precision == "fp32":
            return plain, {}
        reports = lower.lower(plain, staged, self._how(), gate.feeds, self.keep)
        if sum(r.quantised for r in reports.values()) == 0:
            raise TaktError(f"{self.precision}: nothing is left to quantise; look at --keep")
        report = lower.describe(staged, self._how(), reports)
        evidence = gate.examine(staged, self.precision)
        report |= lower.describe(staged, evidence=evidence.to_json())
        if not evidence.passed:
            self._tell(report)
            worst = gate.worst(plain, self._how(), self.keep)
            raise Refused(f"{evidence.line()}; {worst}")
        said = [f"{self.precision}: {lower.counted(reports)}; {evidence.line()}"]
        return staged, {**report, "said": said}

    def _mixed(self, plain: Path, staged: Path, gate: Gate) -> tuple[Path, dict[str, Any]]:
        """The bundle in which the groups that `mixed.Search` chooses have fewer bits, and what was found."""
        search = mixed.Search(plain, staged, self._how(), self.keep, gate)
        choice = search.run(self.tries)
        if choice.chosen is None:
            self._tell({"choice": choice.to_json()})
            raise mixed.refusal(choice, gate.tolerance(self.precision))
        candidate, evidence = choice.chosen
        reports = search.write(candidate.groups)
        bits = {g: self.precision if g in candidate.groups else "fp32" for g in choice.alone}
        report = lower.describe(staged, self._how(), reports, bits)
        report |= lower.describe(staged, evidence=evidence.to_json(), choice=choice.to_json())
        load(staged)
        said = [f"{self.precision}, mixed: {lower.counted(reports)}; {evidence.line()}"]
        said += [f"  {group}: {kind}, alone {choice.alone[group]:.1e}" for group, kind in bits.items()]
        return staged, {**report, "said": said}

    def _said(self, names: Iterable[str]) -> str:
        """The first of these flags that is not what it is by default; "" where all are."""
        usual = {each.name: each.default for each in fields(self)}
        for name in names:
            if (value := getattr(self, name)) != usual[name]:
                return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
        return ""

    def _how(self) -> quantise.How:
        return quantise.How(self.precision, self.static or self.precision == "fp8", not self.per_tensor)

    def _publish(self, staged: Path) -> None:
        """Put the new bundle beside the old one first: a full disk loses neither."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        part, old = (self.out.with_name(f".{self.out.name}.{kind}") for kind in ("part", "old"))
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(staged, part)
        if self.out.exists():  # one of the two is there whole whenever this is killed
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        part.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)

    def _check(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise TaktError("--steps must be at least 1 and at most 1000")
        if self.out.exists() and not replaceable(self.out):
            raise TaktError(f"{self.out} is there and is no bundle; choose a new folder")
        if not ((self.replan is None or 0 < self.replan < 60) and 0 <= self.noise < 10):
            raise TaktError("--replan is above 0 and below 60 s, --noise from 0 to 10")
        if not 0 < self.beta <= 1000:
            raise TaktError(f"--beta is above 0 and at most 1000, got {self.beta:g}")
        if not 1 <= self.candidates <= (64 if self.dynamic_batch else 1):
            raise TaktError("--candidates is from 1 to 64, and 1 with --no-dynamic-batch")
        if self.static and self.precision not in ("int8", "fp8"):
            raise TaktError("--static is for --precision int8; fp8 always is")
        if self.precision == "bf16":
            raise TaktError("bf16 is the engine's choice: export in fp32 and say --engine openvino:bf16")
        if self.per_tensor and not self._how().static:
            raise TaktError("--per-tensor is for --static")
        if self.mixed and self.precision in ("fp32", "fp16"):
            raise TaktError("--mixed is for fewer bits by groups of layers: say --precision int8 as well")
        if self.precision == "fp32" and (said := self._said(_GATED)):
            raise TaktError(f"{said} is for fewer bits than fp32's: say --precision as well")
        if self.precision == "fp16" and self.keep != quantise.KEEP:
            raise TaktError("--keep is not for fp16, which all of a graph is in but what has to be fp32")
        if self.out.resolve() == self.checkpoint.resolve():
            raise TaktError(f"{self.out} is what is exported; choose another folder")
        self.out = self.out.resolve()  # where a link leads
        if not 1 <= self.tries <= 32:
            raise TaktError("--tries is from 1 to 32")
        if (
            self.samples < 1
            or (self.episodes or 0) < 0
            or (self.tolerance is not None and self.tolerance <= 0)
        ):
            raise TaktError("--samples is at least 1, --episodes at least 0, --tolerance positive")
        for name in ("words.onnx", "tokenizer.json"):
            if self.words_from is not None and not (self.words_from / name).is_file():
                raise TaktError(f"--words-from {self.words_from} has no {name}; name a bundle")
        for rule in self.keep:
            try:
                re.compile(rule)
            except re.error as error:
                raise TaktError(f"--keep {rule!r} is no regular expression: {error}") from None

    def _write(self, made: source.Source, out: Path) -> dict[str, float]:
        """The bundle in fp32; each graph's difference from torch."""
        errors: dict[str, float] = {}
        graphs = {part.name: f"{part.name}.onnx" for part in made.parts}
        if made.reads == "graph":
            self._write_words(made, out, errors)
            graphs = {"words": "words.onnx"} | graphs
        elif made.tokenizer is not None:
            shutil.copy(made.tokenizer, out / "tokenizer.json")
        for part in made.parts:
            errors[part.name] = write(part, out / graphs[part.name], self.dynamic_batch)
        for name, error in errors.items():
            if not error <= TOLERANCE:
                raise TaktError(f"{name}.onnx differs from torch by {error:.2e}, more than {TOLERANCE:.0e}")
        policy: dict[str, Any] = {"format": 1, "spec": made.spec.to_json(), "graphs": graphs}
        if made.reads:
            policy |= {"tokenizer": "tokenizer.json", "words_length": made.words_length}
        if made.prompt:
            policy["prompt"] = made.prompt
        policy |= {
            "sampler": {"noise": self.noise, "candidates": self.candidates, **made.sampler},
            "provenance": self._provenance(made),
            "tolerances": errors,
        }
        lower.sign(out, policy)
        return errors

    def _write_words(self, made: source.Source, out: Path, errors: dict[str, float]) -> None:
        if self.words_from:
            self._copy_words(self.words_from, out, made.encoder, errors)
            return
        encoder = train_data.encoder_folder(self.encoder)
        errors["words"] = nano_graphs.export_words(encoder, out / "words.onnx", made.encoder)
        shutil.copy(encoder / "tokenizer.json", out / "tokenizer.json")

    def _copy_words(self, other: Path, out: Path, kind: str, errors: dict[str, float]) -> None:
        """Take another bundle's words and their measured difference."""
        policy = _policy_of(other)
        theirs = policy.get("provenance", {}).get("encoder", "minilm")
        if theirs != kind:
            raise TaktError(f"--words-from {other} has the words of {theirs}, the policy reads {kind}")
        errors |= {k: float(v) for k, v in policy.get("tolerances", {}).items() if k == "words"}
        for name in ("words.onnx", "tokenizer.json"):
            shutil.copy(other / name, out / name)

    def _provenance(self, made: source.Source) -> dict[str, Any]:
        said: dict[str, Any] = {"encoder": made.encoder} if made.encoder else {}
        said |= {"architecture": made.kind, "torch": torch.__version__, "opset": OPSET}
        training = self.checkpoint / "training.json"
        return said | ({"training": jsonlib.loads(training.read_text())} if training.is_file() else {})


def _policy_of(folder: Path) -> dict[str, Any]:
    file = folder / "policy.json"
    found = jsonlib.loads(file.read_text()) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def replaceable(folder: Path) -> bool:
    """Whether a folder is empty or a bundle and nothing else, altered or not."""
    if not folder.is_dir():
        return False
    try:
        listed = jsonlib.loads((folder / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return not any(folder.iterdir())
    return {f.name for f in folder.iterdir()} <= {"manifest.json", *listed}
