"""A plain model and its sampler as a `Policy`, run by torch: what its bundle is compared with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vla.policy import TorchPolicy


class PlainPolicy(TorchPolicy):
    """A plain model, which cannot tell when a task is done and continues committed rows."""

    def _finished(self, memory: Any) -> float | None:
        return None

    def _step(self, memory: Any, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, weights: Tensor) -> Any:
        cond, origin = memory
        return self._model.step(cond, origin, x, t, dt, kept, weights)
