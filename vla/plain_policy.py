"""A plain model and its sampler as a `Policy`, run by torch: what its bundle is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla import plain, preprocess
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix
from vla.policy import Reader, TorchSampler, sampled


class PlainPolicy(TorchSampler):
    def __init__(
        self,
        model: plain.Plain,
        spec: PolicySpec,
        reader: Reader,
        steps: int = 4,
        noise: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            reader: `policy.reader`. steps: of the sampler. noise: scale of what it starts from.
        """
        super().__init__(spec, spec.joining, clock)
        self._model, self._reader, self._steps, self._scale = model.eval(), reader, steps, noise

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
        marks.append(self._clock())
        rows, due = self._rows(prefix), None if deadline is None else marks[0] + deadline
        x = self._noise((self.spec.chunk_length, self.spec.actions.size), self._scale)
        actions, seconds = sampled(self._step, memory, x, self._steps, rows, due, self._clock)
        marks.append(self._clock())
        names = ("preprocess", "words", "prefix", "steps")
        stages = dict(zip(names, np.diff(marks).tolist(), strict=True))
        return ActionChunk(
            observation.time, self.spec.dt, actions[0].numpy(), stages, tuple(seconds), marks[0]
        )

    def _step(self, memory: Any, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, weights: Tensor) -> Any:
        cond, origin = memory
        return self._model.step(cond, origin, x, t, dt, kept, weights)
