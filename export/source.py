"""What is exported: a checkpoint's spec, its graphs to be, and how its words are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export import act_graphs, expert_graphs, nano_graphs, plain_graphs
from export.graph import Part, denoise
from export.nano_graphs import Joining
from runtime.policies import kind_of
from vla import checkpoint, fold, nano, plain_train, train, train_data
from vla.contract import PolicySpec, TaktError

STEPS = 4  # of nano's sampler, and of plain's


@dataclass(frozen=True)
class Wanted:
    """What can be chosen about an export; None leaves it to the checkpoint.

    Attributes:
        frames: height and width of the cameras' frames. critic: nano's, to be added.
        fused: a graph of all steps is added.
        See `export.command.Command` for the rest.
    """

    steps: int | None = None
    joining: Joining | None = None
    replan: float | None = None
    beta: float = 5.0
    frames: tuple[int, int] | None = None
    critic: bool = False
    fused: bool = False
    words_length: int = train_data.TOKENS


@dataclass(frozen=True)
class Source:
    """
    Attributes:
        kind: the architecture.
        reads: "graph", where a graph of words is written by the caller, "ids", or "" for a policy without
            words. tokenizer: its file, where it reads ids. words_length: L.
        prompt: of policy.json. sampler: of policy.json, as far as the source decides it.
        encoder: of nano's words. model: in torch, what the graphs are made of.
    """

    kind: str
    spec: PolicySpec
    parts: list[Part]
    reads: str
    sampler: dict[str, Any]
    words_length: int = 0
    tokenizer: Path | None = None
    prompt: dict[str, Any] = field(default_factory=dict)
    encoder: str = ""
    model: Any = None


def read(place: Path, wanted: Wanted) -> Source:
    """
    Raises:
        TaktError: there is no such checkpoint, or it cannot be exported as wanted; one line.
    """
    if kind_of(place) == "nano":
        return _nano(place, wanted)
    if kind_of(place) == "plain":
        return _plain(place, wanted)
    return _folder(place, wanted)


def _nano(place: Path, wanted: Wanted) -> Source:
    if wanted.frames is not None:
        raise TaktError("--frames is for checkpoints of others: a nano policy has one size")
    model: nano.Nano = train.load(place).eval()
    joining = wanted.joining or "prefix"
    guided = joining == "guided"
    step = nano_graphs.step(model, wanted.beta if guided else None)
    length = wanted.words_length
    parts = [nano_graphs.reader(model, length), nano_graphs.prefix(model, length), step]
    steps = wanted.steps or STEPS
    if wanted.fused:
        parts.append(denoise(step, steps))
    if wanted.critic:
        parts.append(nano_graphs.critic(model))
    return Source(
        kind="nano",
        spec=nano_graphs.spec(model.config, wanted.replan or 0.2, joining),
        parts=parts,
        reads="graph",
        sampler={"steps": steps} | ({"beta": wanted.beta} if guided else {}),
        words_length=wanted.words_length,
        encoder=model.config.encoder,
        model=model,
    )


def _plain(place: Path, wanted: Wanted) -> Source:
    if wanted.frames is not None or wanted.critic:
        raise TaktError("--frames and --critic are not for a plain policy: it has one size and no critic")
    model = plain_train.load(place).eval()
    c = model.config
    joining = wanted.joining or ("prefix" if c.committed else "none")
    if joining == "guided" or (joining == "prefix" and not c.committed):
        raise TaktError(
            f"{place} cannot join chunks by {joining!r}: --joining none, or prefix where it was trained"
        )
    parts = [plain_graphs.prefix(model, wanted.words_length), plain_graphs.step(model)]
    steps = wanted.steps or STEPS
    if wanted.fused:
        parts.append(denoise(parts[1], steps))
    replan = wanted.replan or max(1, c.rows // 2) * c.dt
    return Source(
        kind="plain",
        spec=c.spec(replan, joining),
        parts=parts,
        reads="graph",
        sampler={"steps": steps},
        words_length=wanted.words_length,
        encoder=c.encoder,
        model=model,
    )


def _folder(place: Path, wanted: Wanted) -> Source:
    if wanted.critic:
        raise TaktError("--critic is of nano policies; other checkpoints have none")
    policy = checkpoint.open_folder(str(place))
    spec = _spec(policy.spec, wanted)
    if policy.kind == "act":
        cameras = spec.cameras
        return Source(
            "act", spec, [act_graphs.prefix(policy.model, cameras), act_graphs.step(policy.model)],
            reads="", sampler={"steps": 1}, model=policy.model,
        )  # fmt: skip
    steps = wanted.steps or policy.steps
    model = fold.folded(policy.model, steps)
    c, file = model.config, checkpoint.tokenizer(checkpoint.found(str(place)))
    if Tokenizer.from_file(str(file)).get_vocab_size() > c.vocabulary:
        raise TaktError(f"{file} has more words than the policy ({c.vocabulary}): it is another model's")
    step = expert_graphs.step(model, spec.cameras, 1 / steps if steps > 1 else 0.0)
    parts = [expert_graphs.prefix(model, spec.cameras), step]
    if wanted.fused:
        parts.append(denoise(step, steps))
    return Source(
        kind=policy.kind,
        spec=spec,
        parts=parts,
        reads="ids",
        sampler={"steps": steps, "width": c.padded_actions},
        words_length=c.words,
        tokenizer=file,
        prompt=policy.prompt.to_json(),
        model=model,
    )


def _spec(spec: PolicySpec, wanted: Wanted) -> PolicySpec:
    joining = wanted.joining or spec.joining
    if joining == "prefix" or (joining == "guided" and spec.joining == "none"):
        raise TaktError(f"{spec.name} cannot join chunks by {joining!r}: --joining {spec.joining} or none")
    cameras: Sequence[Any] = spec.cameras
    if wanted.frames is not None:
        height, width = wanted.frames
        cameras = [replace(camera, height=height, width=width) for camera in cameras]
    committed = spec.chunk_length // 2 if joining == "guided" else 0
    return replace(
        spec, joining=joining, cameras=tuple(cameras), committed=committed,
        replan=wanted.replan or spec.replan,
    )  # fmt: skip
