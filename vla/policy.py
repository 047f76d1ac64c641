"""A torch model and its sampler as a `Policy`: the reference for bundles, and for workstations.

It can do what a bundle cannot: guide with the denoiser's true Jacobian, by a backward pass in each step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vla import flow, minilm, nano, preprocess
from vla.contract import JOININGS, ActionChunk, Observation, PolicySpec, Prefix, TaktError
from vla.layers import pull
from vla.possible import hold
from vla.preprocess import Words

# An instruction's token states (1, L, D) and mask (1, L).
Reader = Callable[[str], tuple[Tensor, Tensor]]


class TorchSampler:
    """What policies that torch runs share: their spec, and where their noise and their prefix come from."""

    def __init__(self, spec: PolicySpec, joining: str, clock: Callable[[], float]) -> None:
        """`joining`: one of the contract's, or "jacobian"."""
        self.joining = joining
        self._spec, self._clock = spec, clock
        self._seed = self._calls = 0

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, seed: int, calls: int = 0) -> None:
        """Sampling goes on as after `calls` inferences since a reset with `seed`."""
        self._seed, self._calls = seed, calls

    def _noise(self, shape: tuple[int, int], scale: float = 1.0) -> Tensor:
        """The next draw, (1, *shape)."""
        drawn = flow.noise((1, *shape), self._seed, self._calls, scale)
        self._calls += 1
        return torch.from_numpy(drawn)

    def _rows(self, prefix: Prefix | None) -> tuple[Tensor, Tensor]:
        """What a step is given of a prefix: kept (1, H, A) and weights (1, H)."""
        shape = (self.spec.chunk_length, self.spec.actions.size)
        if prefix is None:
            return torch.zeros(1, *shape), torch.zeros(1, shape[0])
        preprocess.check_prefix(prefix, self.spec)
        weights = flow.bound(prefix.weights, self.joining, self.spec.committed)
        return torch.from_numpy(prefix.actions.astype(np.float32))[None], torch.from_numpy(weights)[None]


class TorchPolicy(TorchSampler):
    """A nano model with its sampler.

    Attributes:
        joining: one of the contract's, or "jacobian": guided as arXiv 2506.07339 has it, with the vector-
            Jacobian product of the denoiser, where "guided" takes the identity.
    """

    def __init__(
        self,
        model: Any,
        spec: PolicySpec,
        reader: Reader,
        steps: int = 4,
        noise: float = 1.0,
        joining: str | None = None,
        beta: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            model: nano.Nano, or for a class made of this one another with a prefix and a step.
            steps: of the sampler. noise: scale of what it starts from. beta: bound of the guidance.
            joining: the spec's by default.
        """
        super().__init__(spec, spec.joining if joining is None else joining, clock)
        valid = (*JOININGS, "jacobian")
        if self.joining not in valid:
            raise TaktError(f"joining is one of {', '.join(valid)}, got {self.joining!r}")
        self._model, self._reader = model.eval(), reader
        self._steps, self._scale, self._beta = steps, noise, beta

    @torch.no_grad()
    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """A chunk of shape (H, A).

        Near the `deadline` (s from now) a step is the last when twice the slowest so far does not fit.

        Raises:
            TaktError: the observation or the prefix does not fit the spec.
        """
        marks = [self._clock()]
        frames = [torch.from_numpy(preprocess.frame(observation, c)) for c in self.spec.cameras]
        state = torch.from_numpy(preprocess.state(observation, self.spec))
        marks.append(self._clock())
        words = self._reader(observation.instruction)
        marks.append(self._clock())
        memory = self._model.prefix(frames, state, *words)
        done = self._finished(memory)
        marks.append(self._clock())
        actions, seconds = self._sample(memory, prefix, None if deadline is None else marks[0] + deadline)
        marks.append(self._clock())
        names = ("preprocess", "words", "prefix", "steps")
        stages = dict(zip(names, np.diff(marks).tolist(), strict=True))
        rest = (tuple(seconds), marks[0], done)
        return ActionChunk(observation.time, self.spec.dt, actions, stages, *rest)

    def _finished(self, memory: Any) -> float | None:
        """The probability that the task is done; None where the model cannot tell."""
        return float(self._model.finished(memory[0]))

    def _sample(
        self, memory: Any, prefix: Prefix | None, due: float | None
    ) -> tuple[np.ndarray, list[float]]:
        """Actions, shape (H, A), and the seconds of each step; `due` on the clock."""
        rows = self._rows(prefix)
        x = self._noise((self.spec.chunk_length, self.spec.actions.size), self._scale)
        actions, seconds = sampled(self._step, memory, x, self._steps, rows, due, self._clock)
        return actions[0].numpy(), seconds

    def _step(self, memory: Any, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, weights: Tensor) -> Any:
        cond, state, still = memory
        if self.joining == "guided":
            return self._model.step_guided(cond, state, still, x, t, dt, kept, weights, self._beta)
        if self.joining == "jacobian":
            return step_jacobian(self._model, cond, state, still, x, t, dt, kept, weights, self._beta)
        return self._model.step(cond, state, still, x, t, dt, kept, weights)


def sampled(
    step: Callable[..., Any],
    memory: Any,
    x: Tensor,
    steps: int,
    rows: tuple[Tensor, Tensor],
    due: float | None,
    clock: Callable[[], float],
) -> tuple[Tensor, list[float]]:
    """Actions, shape (B, H, A), and the seconds of each step.

    Near `due`, on the clock, a step is the last when twice the slowest so far does not fit.

    Args:
        step: of a model, with flow time and its step as tensors (1,). rows: kept and weights of `flow.euler`.
    """
    seconds: list[float] = []

    def timed(memory: Any, x: Tensor, t: float, dt: float, kept: Any, weights: Any) -> Any:
        begun = clock()
        out = step(memory, x, torch.tensor([t]), torch.tensor([dt]), kept, weights)
        seconds.append(clock() - begun)
        return out

    def pace() -> bool:
        return due is None or clock() + 2 * max(seconds, default=0.0) <= due

    kept, weights = cast(Any, rows)
    return flow.euler(timed, memory, x, steps, kept, weights, pace), seconds


def step_jacobian(
    model: nano.Nano,
    cond: Tensor,
    state: Tensor,
    still: Tensor,
    x: Tensor,
    t: Tensor,
    dt: Tensor,
    kept: Tensor,
    weights: Tensor,
    beta: float = 5.0,
) -> tuple[Tensor, Tensor]:
    """As `nano.Nano.step_guided`, with the denoiser's true Jacobian."""
    clean, back = pullback(
        lambda x: model.predict(cond, x, t.expand(x.shape[:2])),
        x,
        weights[:, :, None],
        model.normalise(kept, state),
    )
    x = x + (clean - x) * nano.advance(t, dt) + back * pull(t, dt, beta)
    return x, hold(model.physical(x, state), state, kept, weights, still)


def pullback(
    denoise: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The clean estimate and J^T [W (Y - estimate)], J its Jacobian at x (arXiv 2506.07339, equation 2).

    Args:
        x, target: shape (B, H, A). weights: what broadcasts to it.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        clean = denoise(x)
        error = (weights * (target - clean)).detach()
        (back,) = torch.autograd.grad(clean, x, error)
    return clean.detach(), back


def reader(encoder: Path, length: int, kind: str = "minilm") -> Reader:
    """The sentence encoder of a folder; it remembers what it has read.

    Args:
        length: L, the fixed number of tokens. kind: see `minilm.made`.
    """
    words, model = Words(encoder / "tokenizer.json", length), minilm.made(kind, encoder)

    @lru_cache(maxsize=16)
    @torch.no_grad()
    def read(text: str) -> tuple[Tensor, Tensor]:
        ids, mask = (torch.from_numpy(a) for a in words(text))
        return model(ids, mask), mask

    return read
