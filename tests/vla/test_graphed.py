"""A chunk in one piece is the chunk step by step, whatever was asked before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.vla.test_fold import asked, made
from vla import fold
from vla.graphed import Graphed

STEPS = 4
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def stepwise(model: Any, inputs: list[torch.Tensor]) -> torch.Tensor:
    views = model.config.views
    memory = model.prefix(inputs[:views], *inputs[views : views + 4])
    x, kept, weights = inputs[views + 4 :]
    actions = x
    for i in range(STEPS):
        t, dt = (torch.tensor([value], device=x.device) for value in (i / STEPS, 1 / STEPS))
        x, actions = model.step(memory, x, t, dt, kept, weights)
    return actions


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["smolvla, every 2", "pi0", "pi05"])
@torch.inference_mode()
def test_one_piece_is_step_by_step(name: str, device: str) -> None:
    model = fold.folded(made(name), STEPS).to(device)
    c, given = model.config, []
    for seed in (1, 2):
        g = torch.Generator().manual_seed(seed)
        frames, *rest = asked(c, seed)
        more = [
            torch.randn(2, *model.noise_shape, generator=g),
            torch.randn(2, c.rows, c.actions, generator=g),
        ]
        weights = (torch.arange(c.rows)[None] < seed).float().expand(2, -1)
        given.append([tensor.to(device) for tensor in (*frames, *rest, *more, weights)])
    whole = Graphed(model, given[0][: c.views], *given[0][c.views : c.views + 4], steps=STEPS)
    first = whole(*given[0])
    kept = first.clone()
    second = whole(*given[1])
    for got, inputs in ((first, given[0]), (second, given[1])):
        torch.testing.assert_close(got, stepwise(model, inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)
    assert not torch.allclose(first, second)
