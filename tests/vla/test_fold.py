"""A folded model is the model."""

from __future__ import annotations

import pytest
import torch

from tests.vla import folders
from vla import fold, smolvla


def asked(c: smolvla.Config, seed: int) -> tuple[list[torch.Tensor], ...]:
    g = torch.Generator().manual_seed(seed)
    frames = [torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8, generator=g) for _ in range(c.views)]
    present = torch.tensor([[True] * c.views, [True] + [False] * (c.views - 1)])
    mask = torch.arange(c.words)[None] < torch.tensor([[4], [c.words]])
    ids = torch.randint(0, c.vocabulary, (2, c.words), generator=g)
    return frames, present, torch.randn(2, c.state, generator=g), ids, mask.long()


@pytest.mark.parametrize("every", [0, 2, 3])
@pytest.mark.parametrize("steps", [1, 4, 10])
@torch.inference_mode()
def test_folding_changes_nothing_but_rounding(every: int, steps: int) -> None:
    torch.manual_seed(every)
    model = smolvla.SmolVLA(smolvla.Config(**{**vars(smolvla.tiny()), "every": every})).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quick = fold.folded(model, steps)
    c, inputs = model.config, asked(model.config, steps)
    answers = []
    for each in (model, quick):
        memory, x = (
            each.prefix(*inputs),
            torch.randn(2, *each.noise_shape, generator=torch.Generator().manual_seed(1)),
        )
        weights = torch.tensor([[1.0] * 3 + [0.0] * (c.rows - 3)] * 2)
        kept = torch.ones(2, c.rows, c.actions)
        for i in range(steps):
            x, actions = each.step(
                memory, x, torch.tensor([i / steps]), torch.tensor([1 / steps]), kept, weights
            )
        answers.append(actions)
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-4)
    # And it is another computation, on weights of its own.
    assert not torch.equal(answers[1], answers[0])
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    folded = [name for name in quick.state_dict() if not name.startswith("vision.")]
    names = {name.rsplit(".", 2)[-2] for name in folded if name.endswith("weight")}
    assert not names & {"input_layernorm", "q_proj", "gate_proj", "action_in_proj"}


def test_a_folded_model_has_fewer_operations() -> None:
    model = folders.model("smolvla")

    def operations(each: smolvla.SmolVLA) -> int:
        inputs = asked(each.config, 0)
        with torch.profiler.profile() as profile, torch.inference_mode():
            memory, x = each.prefix(*inputs), torch.zeros(2, *each.noise_shape)
            each.velocity(memory, x, torch.tensor([0.0]))
        return sum(1 for event in profile.events() if event.name == "aten::linear")

    assert operations(fold.folded(model, 10)) < 0.8 * operations(model)
