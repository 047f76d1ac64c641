"""A flow policy's whole chunk, prefix and all steps, as one CUDA graph: nothing is launched from Python.

For workstations that run a checkpoint by torch. On a CPU there is nothing to capture, and the same work is
done step by step, so that what it computes can be tested anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vla.expert import ExpertPolicy

WARM = 3  # runs before the capture, in which libraries choose their kernels and allocate


class Graphed:
    """Calls with the shapes of its first inputs; answers are copies, which later calls leave alone."""

    def __init__(
        self,
        model: ExpertPolicy,
        frames: Sequence[Tensor],
        present: Tensor,
        state: Tensor,
        ids: Tensor,
        mask: Tensor,
        steps: int,
    ) -> None:
        """
        Args:
            frames, present, state, ids, mask: of `model.prefix`, on the model's device; their shapes stay.
            steps: of the sampler.
        """
        device, c, batch = state.device, model.config, len(state)
        self._model: Any = model
        self._views = len(frames)
        noise = torch.zeros(batch, *model.noise_shape, device=device)
        kept = torch.zeros(batch, c.rows, c.actions, device=device)
        weights = torch.zeros(batch, c.rows, device=device)
        given = (*frames, present, state, ids, mask, noise, kept, weights)
        self._inputs = [tensor.clone() for tensor in given]
        # Made before the capture, which no copy from the host may be part of.
        self._times = [torch.tensor([i / steps], device=device) for i in range(steps)]
        self._dt = torch.tensor([1 / steps], device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._capture()

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """Actions (B, H, A), physical.

        Args:
            inputs: frames, one a view, present, state, ids, mask, noise (B, H, padded_actions), kept rows
                (B, H, A) and their weights (B, H).
        """
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._out.clone()

    def _run(self) -> Tensor:
        frames, rest = self._inputs[: self._views], self._inputs[self._views :]
        present, state, ids, mask, x, kept, weights = rest
        memory, actions = self._model.prefix(frames, present, state, ids, mask), x
        for t in self._times:
            x, actions = self._model.step(memory, x, t, self._dt, kept, weights)
        return actions

    @torch.inference_mode()
    def _capture(self) -> None:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self._run()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = self._run()
