"""The nano policy: inverses, committed rows, independence, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vla import flow, nano, nano_losses, possible
from vla.contract import TaktError

LAW = settings(deadline=None, max_examples=15, derandomize=True)
CONFIG = nano.tiny()
TOKENS = 8
# Parameters that shift all inputs of one softmax alike: it forgives that, so they learn nothing.
SHIFTS = {"reader.mix_k.bias", "reader.key.bias", "eyes.0.points.bias", "eyes.1.points.bias"}

seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(seed: int = 0) -> nano.Nano:
    """A tiny model with every weight and every normalisation at random, the zero ones too."""
    torch.manual_seed(seed)
    model = nano.Nano(CONFIG)
    with torch.no_grad():
        torch.nn.init.normal_(model.outlet.weight, std=0.3)
        for name in ("state", "action", "position"):
            getattr(model, f"{name}_mean").normal_()
            getattr(model, f"{name}_std").uniform_(0.05, 2.0)
    return model


def batch(n: int, seed: int = 0) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    size, cameras = CONFIG.size, len(CONFIG.cameras)
    frames = [
        torch.randint(0, 256, (n, size, size, 3), generator=g, dtype=torch.uint8) for _ in range(cameras)
    ]
    pixels = torch.rand(n, cameras, 3, 3, generator=g) * 2 - 1
    pixels[..., 2] = (torch.rand(n, cameras, 3, generator=g) < 0.8).float()
    classes = [torch.randint(0, k, (n,), generator=g) for k in CONFIG.classes]
    mask = (torch.arange(TOKENS)[None] < torch.randint(3, TOKENS, (n, 1), generator=g)).long()
    return {
        "frames": frames,
        "state": torch.randn(n, CONFIG.state, generator=g) * 0.5,
        "tokens": torch.randn(n, TOKENS, CONFIG.words, generator=g),
        "mask": mask,
        "chunk": torch.randn(n, CONFIG.rows, CONFIG.actions, generator=g) * 0.5,
        "pixels": pixels,
        "positions": torch.randn(n, 6, generator=g) * 0.2,
        "committed": torch.zeros(n, dtype=torch.int64),
        "present": (torch.rand(n, 3, generator=g) < 0.8).float(),
        "meaning": torch.stack(classes, 1),
        "done": (torch.rand(n, generator=g) < 0.3).float(),
        "driver": torch.randn(n, CONFIG.rows, CONFIG.actions, generator=g) * 0.5,
        "outcome": torch.rand(n, generator=g),
    }


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, CONFIG.rows, CONFIG.actions, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def sample(model: nano.Nano, b: dict[str, Any], x: Tensor, steps: int, kept: Tensor, mask: Tensor) -> Tensor:
    """The torch sampler, shape (B, H, A), physical units."""
    memory = model.prefix(b["frames"], b["state"], b["tokens"], b["mask"])

    def step(m: Any, x: Tensor, t: float, dt: float, kept: Any, mask: Any) -> tuple[Tensor, Tensor]:
        return model.step(*m, x, torch.tensor([t]), torch.tensor([dt]), kept, mask)

    return flow.euler(step, memory, x, steps, kept, mask)  # type: ignore[arg-type]


def nothing_kept(n: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(n, CONFIG.rows, CONFIG.actions), torch.zeros(n, CONFIG.rows)


@LAW
@given(seeds)
def test_normalise_and_physical_are_inverses(seed: int) -> None:
    model, b = made(seed), batch(3, seed)
    there = model.normalise(b["chunk"], b["state"])
    torch.testing.assert_close(model.physical(there, b["state"]), b["chunk"], atol=1e-5, rtol=1e-5)
    back = model.physical(b["chunk"], b["state"])
    torch.testing.assert_close(model.normalise(back, b["state"]), b["chunk"], atol=1e-3, rtol=1e-3)


def test_relative_dimensions_follow_the_joints_and_the_gripper_does_not() -> None:
    model, b = made(), batch(2)
    moved = b["state"] + 0.25
    shift = model.physical(b["chunk"], moved) - model.physical(b["chunk"], b["state"])
    torch.testing.assert_close(shift, 0.25 * model.relative.expand_as(shift))
    assert model.relative.tolist() == [1.0] * 5 + [0.0]


@LAW
@given(seeds, st.integers(1, 6), st.integers(0, CONFIG.rows))
def test_committed_rows_come_out_as_they_went_in(seed: int, steps: int, length: int) -> None:
    model, b = made(seed), batch(2, seed)
    mask = (torch.arange(CONFIG.rows)[None] < length).float().repeat(2, 1)
    out = sample(model, b, noise(2, seed), steps, b["chunk"], mask)
    held = mask.bool()
    torch.testing.assert_close(out[held], b["chunk"][held], atol=1e-4, rtol=1e-4)
    assert torch.isfinite(out).all()


def test_committed_rows_matter_to_the_others_and_rows_not_committed_do_not() -> None:
    model, b = made(), batch(2)
    mask = (torch.arange(CONFIG.rows)[None] < 3).float().repeat(2, 1)
    free = ~mask.bool()
    first = sample(model, b, noise(2), 3, b["chunk"], mask)
    inside = sample(model, b, noise(2), 3, b["chunk"] + 0.5 * mask[:, :, None], mask)
    outside = sample(model, b, noise(2), 3, b["chunk"] + 0.5 * (1 - mask[:, :, None]), mask)
    assert not torch.allclose(first[free], inside[free], atol=1e-3)
    torch.testing.assert_close(first, outside, atol=0, rtol=0)


@LAW
@given(seeds, st.integers(1, 4))
def test_an_answer_does_not_depend_on_its_companions(seed: int, steps: int) -> None:
    model, b, x = made(seed), batch(4, seed), noise(4, seed)
    together = sample(model, b, x, steps, *nothing_kept(4))
    for i in range(4):
        alone = {k: [f[i : i + 1] for f in v] if k == "frames" else v[i : i + 1] for k, v in b.items()}
        one = sample(model, alone, x[i : i + 1], steps, *nothing_kept(1))
        torch.testing.assert_close(one[0], together[i], atol=1e-4, rtol=1e-4)


@LAW
@given(seeds)
def test_masked_tokens_have_no_influence(seed: int) -> None:
    model, b = made(seed), batch(3, seed)
    before = sample(model, b, noise(3), 2, *nothing_kept(3))
    hidden = (b["mask"] == 0)[:, :, None]
    assert hidden.any()
    b["tokens"] = torch.where(hidden, torch.randn_like(b["tokens"]) * 10, b["tokens"])
    torch.testing.assert_close(sample(model, b, noise(3), 2, *nothing_kept(3)), before, atol=1e-5, rtol=1e-5)


def test_words_that_are_not_masked_have_influence() -> None:
    model, b = made(), batch(3)
    before = sample(model, b, noise(3), 2, *nothing_kept(3))
    b["tokens"] = b["tokens"].flip(0)
    assert not torch.allclose(sample(model, b, noise(3), 2, *nothing_kept(3)), before, atol=1e-3)


def test_gradient_reaches_every_parameter() -> None:
    model = made()
    nano_losses.loss(model, batch(6), 4, torch.Generator().manual_seed(0))["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        largest = parameter.grad.abs().max()
        if name in SHIFTS:
            assert largest < 1e-6, f"{name} is not a shift any more: take it from the list"
        else:
            assert largest > 1e-7, name


def test_a_loss_is_the_same_for_the_same_generator() -> None:
    model, b = made(), batch(3)
    first, second = (nano_losses.loss(model, b, 2, torch.Generator().manual_seed(5)) for _ in range(2))
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}
    assert set(first) == {*nano_losses.WEIGHTS, "total"}


def test_maps_are_the_same_for_every_sentence() -> None:
    """What a thing looks like is then learned for all sentences at once, those never heard included."""
    model, b = made(), batch(2)
    eye, calls = model.each_eye()[0], list[Tensor]()
    plain = eye.maps
    eye.maps = lambda frames: calls.append(plain(frames)) or calls[-1]  # type: ignore
    for tokens in (b["tokens"], b["tokens"].flip(0) + 1):
        model.see(b["frames"], b["state"], tokens, b["mask"])
    torch.testing.assert_close(calls[0], calls[1], atol=0, rtol=0)


def test_what_was_read_once_serves_every_look() -> None:
    """The memory is that of the whole prefix, to the bit, whatever the frames are."""
    model, b = made(), batch(2)
    said = model.read(b["tokens"], b["mask"])
    for frames in (b["frames"], [f.flip(0) for f in b["frames"]]):
        whole = model.prefix(frames, b["state"], b["tokens"], b["mask"])
        for one, other in zip(whole, model.prefix_of(frames, b["state"], said), strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_spatial_words_move_the_match_of_the_thing_alone() -> None:
    model, b = made(), batch(3)
    eye = model.each_eye()[0]
    words = model.reader(b["tokens"], b["mask"])
    before = eye(b["frames"][0], eye.ask(words))["matches"]
    with torch.no_grad():
        eye.spatial[2].weight.add_(1.0)
    after = eye(b["frames"][0], eye.ask(words))["matches"]
    assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-3)
    torch.testing.assert_close(before[:, 1:], after[:, 1:], atol=0, rtol=0)


def test_the_critic_teaches_the_prefix_nothing() -> None:
    model = made()
    nano_losses.loss(model, batch(4), 1, torch.Generator().manual_seed(0))["critic"].backward()
    assert all(p.grad is None for n, p in model.named_parameters() if not n.startswith("critic."))


def test_what_tells_the_possible_teaches_the_rest_nothing() -> None:
    model = made()
    nano_losses.loss(model, batch(4), 1, torch.Generator().manual_seed(0))["possible"].backward()
    assert all(p.grad is None for n, p in model.named_parameters() if not n.startswith("possible."))


@LAW
@given(seeds)
def test_missing_is_what_is_named_and_not_there(seed: int) -> None:
    b = batch(8, seed)
    truth = possible.missing(b["meaning"], b["present"], nano.NAMED)
    assert tuple(nano.TELLS[role][-2:] for role in nano.ROLES) == nano.NAMED
    for row, told, there in zip(truth.tolist(), b["meaning"].tolist(), b["present"].tolist(), strict=True):
        named = [any(told[i] for i in rows) for rows in nano.NAMED]
        assert row == [float(n and not p) for n, p in zip(named, there, strict=True)]


ANYWHERE = (float("inf"),) * len(CONFIG.home_within)


def doubting(model: nano.Nano, certain: bool) -> nano.Nano:
    """The model, sure that all that is named is there, or that some of it is not."""
    with torch.no_grad():
        for head in model.possible.heads:
            head[-1].bias.fill_(-60.0)  # type: ignore[index, union-attr]
        model.config = replace(model.config, clear_above=0.0, home_within=ANYWHERE)
        if not certain:
            model.possible.heads[1][-1].bias.fill_(60.0)  # type: ignore[index, union-attr]
    return model


@LAW
@given(seeds, st.integers(0, CONFIG.rows), st.sampled_from(["step", "step_guided"]))
def test_where_something_is_missing_the_arm_stays_where_the_committed_rows_lead(
    seed: int, length: int, name: str
) -> None:
    model, b = doubting(made(seed), certain=False), batch(2, seed)
    mask = (torch.arange(CONFIG.rows)[None] < length).float().repeat(2, 1)
    memory = model.prefix(b["frames"], b["state"], b["tokens"], b["mask"])
    step = getattr(model, name)
    _, actions = step(*memory, noise(2, seed), torch.zeros(1), torch.ones(1), b["chunk"], mask)
    stays = b["chunk"][:, length - 1] if length else b["state"]
    torch.testing.assert_close(actions[:, :length], b["chunk"][:, :length], atol=0, rtol=0)
    expected = stays[:, None].expand(-1, CONFIG.rows - length, -1)
    torch.testing.assert_close(actions[:, length:], expected, atol=0, rtol=0)


def test_where_nothing_is_missing_the_chunk_is_the_flows() -> None:
    model, b = doubting(made(), certain=True), batch(3)
    cond, state, still = model.prefix(b["frames"], b["state"], b["tokens"], b["mask"])
    assert still.tolist() == [[0.0]] * 3
    x, actions = model.step(cond, state, still, noise(3), torch.zeros(1), torch.ones(1), *nothing_kept(3))
    torch.testing.assert_close(actions, model.physical(x, state), atol=0, rtol=0)


def test_it_holds_where_it_is_likely_enough_that_something_clear_is_missing() -> None:
    model, b = made(), batch(4)
    inputs = (b["frames"], b["state"], b["tokens"], b["mask"])
    with torch.inference_mode():
        out = model.see(*inputs)
        missing, clear = torch.sigmoid(model.possible(out["asked"])), model.clear(out["words"])
    assert ((clear > 0) & (clear <= 1)).all()
    for above in (0.0, float(clear.median()), 1.0):
        for below in (0.0, float(1 - missing.median()), 1.0):
            model.config = replace(CONFIG, hold_below=below, clear_above=above, home_within=ANYWHERE)
            held = ((1 - missing < below) & (clear > above)).any(1)
            assert (model.prefix(*inputs)[2][:, 0] > 0).tolist() == held.tolist()


@LAW
@given(seeds)
def test_it_holds_only_where_the_arm_has_not_begun(seed: int) -> None:
    model, b = doubting(made(seed), certain=False), batch(8, seed)
    model.config = replace(model.config, home_within=CONFIG.home_within)
    within = torch.tensor(CONFIG.home_within)
    state = b["state"] * 0
    state[:, : len(within)] = torch.tensor(CONFIG.home) + within * b["state"][:, : len(within)] * 2
    state[:, len(within) :] = b["state"][:, len(within) :] * 100  # where the gripper is says nothing
    rests = [bool((row[: len(within)].abs() * 2 < 1).all()) for row in b["state"]]
    still = model.prefix(b["frames"], state, b["tokens"], b["mask"])[2]
    assert still[:, 0].tolist() == [float(r) for r in rests]


def test_what_is_absent_is_not_taught() -> None:
    model, b = made(), batch(4)
    b["pixels"][..., 2], b["present"] = 0, torch.zeros(4, 3)
    out = model.see(b["frames"], b["state"], b["tokens"], b["mask"])
    losses = nano_losses.seen(model, out, b)
    assert losses["pixels"] == losses["where"] == losses["positions"] == 0
    assert losses["sure"] > 0


def test_without_a_simulator_nothing_privileged_counts() -> None:
    model, b = made(), batch(4)
    losses = nano_losses.loss(model, b, 1, torch.Generator().manual_seed(0), privileged=False)
    assert not set(nano_losses.PRIVILEGED) & set(losses)


def test_it_learns_a_few_frames_by_heart() -> None:
    torch.manual_seed(0)
    model, b = nano.Nano(CONFIG), batch(4)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    curve = []
    for i in range(60):
        losses = nano_losses.loss(model, b, 8, torch.Generator().manual_seed(i))
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        curve.append(losses["flow"].item())
    assert np.mean(curve[-10:]) < 0.5 * np.mean(curve[:3])


def test_sizes_survive_json() -> None:
    for config in (CONFIG, nano.Config(), replace(CONFIG, committed=8)):
        assert nano.Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_sizes_of_another_architecture_are_refused() -> None:
    old = {k: v for k, v in CONFIG.to_json().items() if k != "version"}
    with pytest.raises(TaktError, match="older version"):
        nano.Config.from_json(old)
    with pytest.raises(TaktError, match="newer version"):
        nano.Config.from_json({**CONFIG.to_json(), "version": nano.VERSION + 1})


def test_committed_lengths_reach_what_the_config_says_and_no_further() -> None:
    model = made()
    for committed, share in ((1, 1.0), (8, 1.0), (4, 0.3), (4, 0.0)):
        model.config = replace(CONFIG, committed=committed)
        seen: list[Tensor] = []
        model.predict = lambda cond, x, t, seen=seen: seen.append(t) or torch.zeros_like(x)  # type: ignore
        target = torch.zeros(400, CONFIG.rows, CONFIG.actions)
        none = torch.zeros(400, dtype=torch.int64)
        generator = torch.Generator().manual_seed(0)
        nano_losses.flow_loss(model, torch.zeros(400, CONFIG.cond), target, none, 2, generator, share)
        length = (seen[0] == 1).sum(1)  # committed rows stand at the end of the flow
        expected = set(range(1, committed + 1)) if share > 0 else set()
        assert set(length.tolist()) == expected | ({0} if share < 1 else set())
        assert (length > 0).float().mean() == pytest.approx(share, abs=0.06)


def test_rows_that_are_a_running_plans_are_always_committed() -> None:
    model = made()
    model.config = replace(CONFIG, committed=8)
    seen: list[Tensor] = []
    model.predict = lambda cond, x, t: seen.append(t) or torch.zeros_like(x)  # type: ignore
    target, given = torch.zeros(30, CONFIG.rows, CONFIG.actions), torch.arange(30) % 9
    nano_losses.flow_loss(
        model, torch.zeros(30, CONFIG.cond), target, given, 2, torch.Generator().manual_seed(0), 0.0
    )
    assert (seen[0] == 1).sum(1).tolist() == 2 * given.tolist()


# -- guided


def memory(seed: int, n: int = 2) -> nano.Memory:
    g = torch.Generator().manual_seed(seed)
    cond, state = torch.randn(n, CONFIG.cond, generator=g), torch.randn(n, CONFIG.state, generator=g)
    return cond, state, torch.zeros(n, 1)


@LAW
@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_guided_by_nothing_is_not_guided(seed: int, t: float, dt: float) -> None:
    model, (cond, state, still), (kept, none) = made(seed), memory(seed), nothing_kept(2)
    at = torch.tensor([t]), torch.tensor([min(dt, 1 - t)])
    plain = model.step(cond, state, still, noise(2, seed), *at, kept, none)
    guided = model.step_guided(cond, state, still, noise(2, seed), *at, kept + 0.3, none)
    torch.testing.assert_close(guided, plain, atol=0, rtol=0)


@LAW
@given(seeds, st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 20))
def test_a_guided_step_moves_towards_the_known_rows_and_never_past_them(
    seed: int, t: float, dt: float, beta: float
) -> None:
    model, (cond, state, still) = made(seed), memory(seed)
    x, goal, part = noise(2, seed), noise(2, seed + 1), torch.rand(2, CONFIG.rows)
    kept, at = model.physical(goal, state), (torch.tensor([t]), torch.tensor([min(dt, 1 - t)]))
    plain, _ = model.step(cond, state, still, x, *at, kept, torch.zeros_like(part))
    guided, _ = model.step_guided(cond, state, still, x, *at, kept, part, beta)
    error = part[:, :, None] * (goal - model.predict(cond, x, at[0].expand(part.shape)))
    expected = min(float(at[1]) * flow.guidance(float(at[0]), beta), 1.0)
    torch.testing.assert_close(guided - plain, expected * error, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_steps_are_finite_at_both_ends_of_the_flow(t: float) -> None:
    model, (cond, state, still) = made(), memory(0)
    for step in (model.step, model.step_guided):
        at = torch.tensor([t]), torch.tensor([1 - t])
        out = step(cond, state, still, noise(2), *at, noise(2, 1), torch.ones(2, CONFIG.rows))
        assert all(torch.isfinite(o).all() for o in out)
