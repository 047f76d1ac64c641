"""A nano checkpoint's graphs: words, reader, prefix, step and, on demand, critic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from export import int8
from export.graph import Part, difference, write
from runtime import so101
from vla import minilm, nano, train_data
from vla.contract import CameraSpec, PolicySpec

Joining = Literal["prefix", "guided", "none"]


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


class _Reader(nn.Module):
    def __init__(self, model: nano.Nano) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, mask: Tensor) -> Any:
        return tuple(self.model.read(tokens, mask).values())


class _Prefix(nn.Module):
    def __init__(self, model: nano.Nano, said: list[str]) -> None:
        super().__init__()
        self.model, self.said = model, said

    def forward(self, *inputs: Tensor) -> Any:
        eyes = len(self.model.config.cameras)
        said = dict(zip(self.said, inputs[eyes + 1 :], strict=True))
        cond, joints, still = self.model.prefix_of(list(inputs[:eyes]), inputs[eyes], said)
        # An output must not be an input itself.
        return cond, joints + 0.0, still, self.model.finished(cond)


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
        self,
        cond: Tensor,
        state: Tensor,
        still: Tensor,
        x: Tensor,
        t: Tensor,
        dt: Tensor,
        kept: Tensor,
        kept_mask: Tensor,
    ) -> Any:
        if self.beta is None:
            return self.model.step(cond, state, still, x, t, dt, kept, kept_mask)
        return self.model.step_guided(cond, state, still, x, t, dt, kept, kept_mask, self.beta)


def _tokens(c: nano.Config, length: int, batch: int, g: torch.Generator) -> dict[str, Tensor]:
    used = torch.arange(batch)[:, None] + 12
    return {
        "tokens": torch.randn(batch, length, c.words, generator=g),
        "mask": (torch.arange(length)[None] < used).long(),
    }


def reader(model: nano.Nano, length: int = train_data.TOKENS) -> Part:
    """For words of `length` tokens."""

    def inputs(batch: int) -> dict[str, Tensor]:
        return _tokens(model.config, length, batch, torch.Generator().manual_seed(batch))

    return Part("reader", _Reader(model), inputs, tuple(f"said_{n}" for n in _said(model, length)), once=True)


@torch.inference_mode()
def _said(model: nano.Nano, length: int, batch: int = 1) -> dict[str, Tensor]:
    return model.read(**_tokens(model.config, length, batch, torch.Generator().manual_seed(batch)))


def prefix(model: nano.Nano, length: int = train_data.TOKENS) -> Part:
    """What looks at the frames, of words that `reader` has read."""
    c = model.config

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        shape = (batch, c.size, c.size, 3)
        frames = {f"frames_{n}": torch.randint(0, 256, shape, generator=g).to(torch.uint8) for n in c.cameras}
        said = {f"said_{name}": value for name, value in _said(model, length, batch).items()}
        return frames | {"state": torch.randn(batch, c.state, generator=g) * 0.3} | said

    module = _Prefix(model, list(_said(model, length)))
    return Part("prefix", module, inputs, ("memory_cond", "memory_state", "memory_still", "done"))


def step(model: nano.Nano, beta: float | None = None) -> Part:
    """Guided up to `beta`, or (None) with a hard prefix."""
    c = model.config

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        chunk = (batch, c.rows, c.actions)
        weights = torch.rand(batch, c.rows, generator=g)
        return {
            "memory_cond": torch.randn(batch, c.cond, generator=g),
            "memory_state": torch.randn(batch, c.state, generator=g),
            "memory_still": torch.zeros(batch, 1),
            "x": torch.randn(chunk, generator=g),
            "t": torch.tensor([0.25]),
            "dt": torch.tensor([0.25]),
            "kept": torch.randn(chunk, generator=g),
            "kept_mask": (torch.arange(c.rows)[None] < 2).float().repeat(batch, 1)
            if beta is None
            else weights,
        }

    return Part("step", _Step(model, beta), inputs, ("x_next", "actions"))


def critic(model: nano.Nano) -> Part:
    c = model.config

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        state = torch.randn(batch, c.state, generator=g) * model.state_std + model.state_mean
        # Chunks as there are some: of others every critic says next to nothing, which hides its differences.
        spread = torch.randn(batch, c.rows, c.actions, generator=g) * model.action_std
        return {
            "memory_cond": torch.randn(batch, c.cond, generator=g),
            "memory_state": state,
            "actions": spread + model.action_mean + state[:, None] * model.relative,
        }

    return Part("critic", _Critic(model), inputs, ("score",))


def export_words(encoder: Path, path: Path, kind: str = "minilm") -> float:
    """Write words.onnx with int8 weights; returns its difference from torch (with the same rounding)."""
    model = minilm.made(kind, encoder)
    ids = torch.randint(
        0, minilm.VOCABULARY, (1, train_data.TOKENS), generator=torch.Generator().manual_seed(0)
    )
    inputs = {"ids": ids, "mask": (torch.arange(train_data.TOKENS)[None] < 12).long()}
    write(Part("words", model, lambda batch: inputs, ("tokens",)), path)
    graph = onnx.load(path)
    int8.store(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    return difference(model, inputs, path)
