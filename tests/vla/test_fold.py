"""A folded model is the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.vla import folders
from vla import act, fold, pi0, smolvla
from vla.contract import TaktError
from vla.layers import RMSNorm

MAKERS: dict[str, Callable[[], Any]] = {
    **{
        f"smolvla, every {n}": lambda n=n: smolvla.SmolVLA(replace(smolvla.tiny(), every=n))
        for n in (0, 2, 3)
    },
    "pi0": lambda: pi0.Pi0(pi0.tiny()),
    "pi05": lambda: pi0.Pi0(pi0.tiny(adaptive=True)),
}
EACH = pytest.mark.parametrize("name", MAKERS)


def made(name: str) -> Any:
    """With random weights of which none is what it was initialised with, gains least of all."""
    torch.manual_seed(len(name))
    model = MAKERS[name]().eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.weight.data += 0.3 * torch.randn_like(module.weight)
    return model


def asked(c: Any, seed: int) -> tuple[Any, ...]:
    g = torch.Generator().manual_seed(seed)
    frames = [torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8, generator=g) for _ in range(c.views)]
    present = torch.tensor([[True] * c.views, [True] + [False] * (c.views - 1)])
    mask = torch.arange(c.words)[None] < torch.tensor([[4], [c.words]])
    ids = torch.randint(0, c.vocabulary, (2, c.words), generator=g)
    return frames, present, torch.randn(2, c.state, generator=g), ids, mask.long()


def answer(model: Any, steps: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Actions, with three rows of a running plan that bind."""
    c, inputs = model.config, asked(model.config, steps)
    memory = model.prefix(*inputs)
    x = torch.randn(2, *model.noise_shape, generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([[1.0] * 3 + [0.0] * (c.rows - 3)] * 2)
    kept, actions = torch.ones(2, c.rows, c.actions), torch.zeros(0)
    for i in range(steps):
        x, actions = model.step(
            memory, x, torch.tensor([i / steps]), torch.tensor([1 / steps]), kept, weights
        )
    return actions


@EACH
@pytest.mark.parametrize("steps", [1, 4, 10])
@torch.inference_mode()
def test_folding_changes_nothing_but_rounding(name: str, steps: int) -> None:
    model = made(name)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quick = fold.folded(model, steps)
    plain, ours = answer(model, steps), answer(quick, steps)
    for fewer in range(1, steps + 1):  # as a sampler makes that is short of time
        left = answer(model, fewer) - answer(quick, fewer)
        assert left.abs().max() < 1e-5 * plain.abs().max()
    # And it is another computation, on weights of its own.
    assert not torch.equal(ours, plain)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    folded = [name for name in quick.state_dict() if not name.startswith("vision.")]
    names = {name.rsplit(".", 2)[-2] for name in folded if name.endswith("weight")}
    left = {"input_layernorm", "post_attention_layernorm", "expert_norm", "q_proj", "gate_proj", "dense"}
    left |= {"time_mlp_in", "time_mlp_out"} if name == "pi05" else {"action_in_proj", "action_time_mlp_in"}
    assert not names & left


@EACH
@torch.inference_mode()
def test_each_step_has_its_own_row(name: str) -> None:
    """Steps in any order, as of a sampler that a deadline ends early."""
    model, steps = made(name), 7
    quick, inputs = fold.folded(model, steps), asked(model.config, 0)
    one, two = (each.prefix(*inputs) for each in (model, quick))
    x = torch.randn(2, *model.noise_shape, generator=torch.Generator().manual_seed(1))
    found = []
    for i in (5, 0, 6, 3):
        t = torch.tensor([i / steps])
        plain, ours = model.velocity(one, x, t), quick.velocity(two, x, t)
        assert (ours - plain).abs().max() < 1e-5 * plain.abs().max()
        found.append(plain)
    assert all((a - b).abs().max() > 1e-3 * a.abs().max() for a, b in pairwise(found))


@EACH
@torch.inference_mode()
def test_in_bfloat16_it_stays_as_near_as_the_plain_one(name: str) -> None:
    model = made(name)
    exact = answer(model, 4)
    rough = model.to(torch.bfloat16)
    for normal in ("of_state", "of_actions"):  # which a folder keeps in float32
        getattr(rough, normal).float()
    far, ours = (answer(each, 4) - exact for each in (rough, fold.folded(rough, 4)))
    assert ours.norm() < 2 * far.norm()


@pytest.mark.parametrize("kind", ["smolvla", "pi0", "pi05"])
def test_a_folded_model_has_fewer_operations(kind: str) -> None:
    model = folders.model(kind)

    def operations(each: Any) -> int:
        inputs = asked(each.config, 0)
        with torch.inference_mode():
            memory, x = each.prefix(*inputs), torch.zeros(2, *each.noise_shape)
            with torch.profiler.profile() as profile:
                each.velocity(memory, x, torch.tensor([0.0]))
        return sum(1 for event in profile.events() if event.name == "aten::linear")

    assert operations(fold.folded(model, 10)) < 0.7 * operations(model)


def test_a_model_without_steps_has_nothing_to_fold() -> None:
    with pytest.raises(TaktError, match="ACT has nothing to fold"):
        fold.folded(act.ACT(act.tiny()), 1)  # type: ignore[type-var]
