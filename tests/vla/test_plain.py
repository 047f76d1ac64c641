"""Training on anybody's demonstrations: what is read, what is cut, what is refused, what is learned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vla.__main__ as frontdoor
from tests import plain_sets
from tests.vla.test_train import NEEDS_WORDS, refused
from vla import dataset_body, plain, plain_data, plain_losses, plain_train, train
from vla.contract import ActionSpace, Dimension, TaktError
from vla.dataset import Dataset, Writer, merge
from vla.dataset_body import Told

STEPS = ["dx", "dy"]
NAMES = tuple(name.removesuffix(".pos") for name in plain_sets.JOINTS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def joints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_sets.write(tmp_path_factory.mktemp("plain") / "joints")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_sets.write(tmp_path_factory.mktemp("plain") / "steps", [*STEPS, "grip"])


# -- whose actions they are


def test_targets_that_are_named_like_the_state_need_no_telling(joints: Path) -> None:
    body = dataset_body.read(Dataset(joints), Told())
    assert body.state == body.actions.names == NAMES
    assert body.actions.absolute.all()
    assert {d.unit for d in body.actions.dimensions} == {"rad"}
    assert body.cameras == tuple(plain_sets.CAMERAS)
    seen = Dataset(joints).columns(["action"])["action"]
    assert (body.actions.lower < seen.min(0)).all()
    assert (body.actions.upper > seen.max(0)).all()


def test_other_actions_are_as_told(steps: Path) -> None:
    data = Dataset(steps)
    with pytest.raises(TaktError, match=r"--absolute .* --relative"):
        dataset_body.read(data, Told())
    body = dataset_body.read(data, Told(relative=tuple(STEPS), units=("m", "m", "1")))
    kinds = [(d.name, d.unit, d.absolute) for d in body.actions.dimensions]
    assert kinds == [("dx", "m", False), ("dy", "m", False), ("grip", "1", True)]
    assert not dataset_body.read(data, Told(relative=("all",))).actions.absolute.any()
    assert dataset_body.read(data, Told(absolute=True)).actions.absolute.all()


def test_the_data_s_own_word_comes_first_and_survives_a_merge(tmp_path: Path) -> None:
    space = ActionSpace((*(Dimension(n, "1", -1, 1, False) for n in STEPS), Dimension("grip", "m", 0, 2)))
    parts = [plain_sets.write(tmp_path / str(i), [*STEPS, "grip"], i) for i in range(2)]
    for part in parts:
        dataset_body.write(part, space)
    merge(parts, tmp_path / "all")
    assert dataset_body.read(Dataset(tmp_path / "all"), Told(absolute=True)).actions == space
    for spoiled in ('{"actions": []}', "{", '{"actions": [{"name": "dx"}]}'):
        (parts[0] / dataset_body.FILE).write_text(spoiled)
        with pytest.raises(TaktError, match=r"takt\.json") as caught:
            dataset_body.read(Dataset(parts[0]), Told())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (Told(absolute=True, relative=("dx",)), "--absolute"),
        (Told(relative=("dz",)), "no action 'dz'"),
        (Told(absolute=True, units=("m", "m")), "--unit"),
    ],
)
def test_what_does_not_fit_the_actions_is_refused(told: Told, said: str, steps: Path) -> None:
    with pytest.raises(TaktError, match=said):
        dataset_body.read(Dataset(steps), told)


def test_data_sets_of_two_bodies_are_refused(joints: Path, steps: Path, tmp_path: Path) -> None:
    faster = plain_sets.write(tmp_path / "faster", fps=20)
    for other, said in ((faster, "fps"), (steps, "actions")):
        with pytest.raises(TaktError, match=f"in {said}: "):
            plain_data.bodies([joints, other], Told(absolute=True), None)


# -- what is cut from an episode


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("every", [1, 4, 50])
def test_a_chunk_is_what_the_episode_did_next(steps: Path, stride: int, every: int) -> None:
    data = Dataset(steps)
    body = dataset_body.read(data, Told(relative=tuple(STEPS)))
    rows = 4
    cut = plain_data._cut(data, body, plain_data.Wanted(16, rows, stride, every, (2,)))
    action, state = (data.columns([name])[name] for name in ("action", "observation.state"))
    bounds = [(e["dataset_from_index"], e["dataset_to_index"]) for e in data.episodes]
    assert [any(a <= f < b for f in cut["frame"]) for a, b in bounds] == [True] * len(bounds)
    for f, frame in enumerate(cut["frame"]):
        (end,) = [b for a, b in bounds if a <= frame < b]
        for i in range(rows):
            at = frame + i * stride
            assert cut["valid"][f, i] == (at < end)
            if at < end:
                assert (cut["chunk"][f, i] == action[at]).all()
            else:  # steps end, a target stays
                assert (cut["chunk"][f, i, :2] == 0).all()
                assert cut["chunk"][f, i, 2] == action[end - 1, 2]
        assert (cut["later"][f, 0] == state[min(frame + 2 * stride, end - 1)]).all()
        assert (cut["later"][f, 1] == state[end - 1]).all()


def test_frames_that_repeat_an_older_one_are_not_looked_at(tmp_path: Path) -> None:
    data = plain_sets.write(tmp_path / "slow", [*STEPS, "grip"], every=3)
    sets, body = plain_data.bodies([data], Told(relative=tuple(STEPS)), None)
    fresh = sets[0].columns([dataset_body.FRESH])[dataset_body.FRESH][:, 0] > 0.5
    first = [e["dataset_from_index"] for e in sets[0].episodes]
    assert not fresh.all() and not fresh[first].all()

    def looked(every: int) -> np.ndarray:
        return plain_data._cut(sets[0], body, plain_data.Wanted(16, 4, 1, every, ()))["frame"]

    # All that are new, whatever was asked for in between; an episode's first is new in any case.
    assert set(looked(1)) == set(looked(3)) == set(np.flatnonzero(fresh)) | set(first)
    for every, spacing in ((4, 1), (5, 2), (6, 2)):  # the nearest that there is
        got = looked(every)
        assert set(got) <= set(looked(3)) and (len(got) < len(looked(3))) == (spacing > 1)


def config(cameras: int = 1, absolute: bool = True) -> plain.Config:
    names = tuple(plain_sets.CAMERAS)[:cameras]
    actions = tuple(Dimension(n, "rad", -3.0, 3.0, absolute) for n in NAMES)
    return plain.tiny(plain.Config(names, NAMES, actions, rows=6, dt=0.1, committed=3, later=(3,)))


def batch(c: plain.Config, count: int = 5) -> dict[str, object]:
    g = torch.Generator().manual_seed(3)
    shape = (count, c.size, c.size, 3)
    return {
        "frames": [torch.randint(0, 256, shape, generator=g).to(torch.uint8) for _ in c.cameras],
        "state": torch.randn(count, len(c.state), generator=g),
        "sentence": torch.randn(count, c.words, generator=g),
        "chunk": torch.randn(count, c.rows, len(c.actions), generator=g),
        "valid": (torch.arange(c.rows)[None] < torch.tensor([6, 5, 3, 1, 2])[:, None]).float(),
        "later": torch.randn(count, 2, len(c.state), generator=g),
    }


def random(c: plain.Config) -> plain.Plain:
    """A tiny model none of whose weights is zero."""
    torch.manual_seed(0)
    model = plain.Plain(c)
    with torch.no_grad():
        torch.nn.init.normal_(model.outlet.weight, std=0.1)
        for buffer in (model.state_mean, model.action_mean):
            buffer.normal_(std=0.3)
        for buffer in (model.state_std, model.action_std):
            buffer.uniform_(0.5, 1.5)
    return model


def test_rows_behind_the_end_teach_nothing() -> None:
    c = config()
    model, given = random(c), batch(c)

    def gradient(changed: torch.Tensor, share: float) -> torch.Tensor:
        model.zero_grad()
        g = torch.Generator().manual_seed(1)
        # The noisy chunk itself holds the rows behind the end; what is asked of the head is about the loss.
        target, cond = model.normalise(changed, model.origin(given["state"])), torch.ones(5, c.known)
        x = target.detach().clone()
        error = plain_losses.flow_loss(model, cond, x, given["valid"], 1, g, share)
        error.backward()
        assert model.outlet.bias.grad is not None
        return model.outlet.bias.grad.reshape(c.rows, -1).clone()

    behind = given["valid"].sum(0) == 0
    assert not behind.any()
    given["valid"][:, 4:] = 0  # nobody's last two rows count
    for share in (0.0, 1.0):
        grad = gradient(given["chunk"], share)
        assert (grad[4:] == 0).all()
        assert (grad[3:4] != 0).any()


def test_a_target_is_predicted_from_the_joint_of_its_name() -> None:
    c = config()
    model, state = random(c), torch.randn(4, len(NAMES))
    assert torch.equal(model.origin(state), state)
    assert (random(config(absolute=False)).origin(state) == 0).all()
    turned = replace(c, actions=c.actions[::-1])
    assert torch.equal(random(turned).origin(state), state.flip(1))
    chunk = torch.randn(4, c.rows, len(NAMES))
    back = model.physical(model.normalise(chunk, state), state)
    torch.testing.assert_close(back, chunk, atol=1e-5, rtol=0)


def test_a_committed_row_comes_out_as_it_went_in() -> None:
    c = config(2)
    model, given = random(c).eval(), batch(c)
    tokens, mask = torch.randn(5, 7, c.words), torch.ones(5, 7, dtype=torch.int64)
    memory = model.prefix(given["frames"], given["state"], tokens, mask)
    kept_mask = (torch.arange(c.rows)[None] < 2).float().expand(5, -1)
    x = torch.randn(5, c.rows, len(NAMES))
    t = torch.tensor([0.0])
    _, actions = model.step(*memory, x, t, torch.tensor([1.0]), given["chunk"], kept_mask)
    torch.testing.assert_close(actions[:, :2], given["chunk"][:, :2], atol=1e-5, rtol=0)
    assert (actions[:, 2:] - given["chunk"][:, 2:]).abs().max() > 0.1


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_frames_are_moved_and_recoloured_within_reason(strength: float) -> None:
    side = 64
    line = torch.arange(side, dtype=torch.float32) * 2 + 60
    frames = line[None, None, :, None].expand(8, side, side, 3).to(torch.uint8).contiguous()
    g = torch.Generator().manual_seed(0)
    out, shift = plain_losses.augmented(frames, strength, g)
    assert out.dtype == torch.uint8
    assert out.shape == frames.shape
    if strength == 0.0:
        assert torch.equal(out, frames)
        assert not shift.any()
        return
    # 2 pixels of 64, a fifth and a twentieth of the light, a twentieth of its range.
    bound = (frames.float() + 4) * 1.2 * 1.05 + 255 * 0.05 + 1
    assert (out.float() <= bound).all()
    assert len({tuple(image.flatten().tolist()) for image in out}) == 8


def test_what_is_seen_moves_with_its_frame() -> None:
    side, g = 64, torch.Generator().manual_seed(1)
    frames = torch.zeros(8, side, side, 3, dtype=torch.uint8)
    frames[:, 20:23, 40:43] = 255
    out, shift = plain_losses.augmented(frames, 2.0, g)
    for image, by in zip(out[..., 0] > 128, shift, strict=True):
        v, u = ((torch.nonzero(image).float().mean(0) + 0.5) * 2 / side - 1).tolist()
        then = torch.tensor([41.5, 21.5]) * 2 / side - 1
        torch.testing.assert_close(torch.tensor([u, v]), then + by)
    assert shift.abs().max() > 0.05


def test_a_window_sees_what_a_frame_without_its_surroundings_would_show() -> None:
    """The same cells, at the same places of the whole frame, whatever is painted around them."""
    whole, part = config(2), replace(config(2), windows=((8, 16, 16), (0, 0, 32)))
    model, given = random(part).eval(), batch(part)
    tokens, mask = torch.randn(5, 7, part.words), torch.ones(5, 7, dtype=torch.int64)

    def known(frames: list[torch.Tensor]) -> torch.Tensor:
        return model.prefix(frames, given["state"], tokens, mask)[0]

    before = known(given["frames"])
    painted = [image.clone() for image in given["frames"]]
    painted[0][:, :16], painted[0][:, :, :8], painted[0][:, :, 24:] = 0, 0, 0
    torch.testing.assert_close(known(painted), before)
    painted[0][:, 20, 12] = 255
    assert (known(painted) - before).abs().max() > 1e-4
    grids = [{tuple(at) for at in eye.grid.tolist()} for eye in model.eyes]  # type: ignore[operator,union-attr]
    everywhere = {tuple(at) for at in random(whole).eyes[0].grid.tolist()}  # type: ignore[operator,union-attr]
    assert grids[1] == everywhere and grids[0] < everywhere and len(grids[0]) == 16
    assert min(grids[0])[0] > -0.5 and min(at[1] for at in grids[0]) > 0.0


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_window_of_a_moved_frame_is_the_moved_frame_s_window(strength: float) -> None:
    frames = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    whole, shift = plain_losses.augmented(frames, strength, torch.Generator().manual_seed(0))
    part, same = plain_losses.augmented(frames, strength, torch.Generator().manual_seed(0), (8, 4, 16))
    assert torch.equal(shift, same)
    assert torch.equal(part, whole[:, 4:20, 8:24])


def test_what_is_outside_the_window_is_not_to_be_found() -> None:
    zeros = torch.zeros(1)
    data = plain_data.Frames(
        [np.zeros((1, 32, 32, 3), np.uint8)] * 2,
        *[zeros] * 5,
        *[np.zeros(1)] * 4,
        windows=((8, 16, 16), (0, 0, 16)),
    )  # type: ignore[misc]
    # The first window is u from -0.5 to 0.5 and v from 0 to 1, the other the upper left quarter.
    points = torch.tensor([[0.0, 0.5], [-0.49, 0.01], [-0.51, 0.5], [0.0, -0.1], [0.51, 0.9]])
    both = data._within(points.expand(1, 2, 5, 2)).tolist()
    assert both == [[[True, True, False, False, False], [False, False, False, True, False]]]


# -- where a simulator tells where things are


def test_a_keypoint_that_is_where_its_thing_is_loses_least() -> None:
    c = replace(config(2), taught=2)
    model = random(c)
    grid = model.eyes[0].grid  # type: ignore[union-attr]
    points = torch.tensor([[[0.5, -0.25, 1.0], [-0.5, 0.0, 1.0]], [[0.1, 0.1, 1.0], [9.0, 9.0, 0.0]]])[None]
    places = torch.tensor([[[0.1, 0.2, 0.3, 1.0], [5.0, 5.0, 5.0, 0.0]]])

    known = torch.zeros(1, c.known)

    def losses(at: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = [-30 * ((grid[None, None] - at[:, k, :, None, :2]) ** 2).sum(-1) for k in range(2)]
        extra = [torch.cat([m, torch.randn(1, c.keypoints - 2, len(grid))], 1) for m in maps]
        return plain_losses.taught(model, known, extra, points, places)

    right, wrong = losses(points), losses(points + torch.tensor([0.3, 0.0, 0.0]))
    assert right["points"] < 0.1 < wrong["points"]
    assert right["where"] < wrong["where"]
    # What is not there is not asked for: neither its keypoint nor its place.
    elsewhere = points.clone()
    elsewhere[0, 1, 1, :2] = 0.9
    for name, value in losses(elsewhere).items():
        torch.testing.assert_close(value, right[name])
    known[0, -6:] = ((places[0, :, :3] - model.place_mean) / model.place_std).flatten()
    known[0, -3:] = 7.0
    assert losses(points)["places"] == 0


def test_a_window_s_spot_is_the_whole_frame_s() -> None:
    """As sharp: what a map is taught does not hang on how much of the frame is looked at."""
    whole, part = replace(config(), taught=1), replace(config(), taught=1, windows=((8, 16, 16),))
    places, points = torch.zeros(1, 1, 4), torch.tensor([[[[0.0, 0.5, 1.0]]]])
    losses = []
    for c in (whole, part):
        grid = random(c).eyes[0].grid  # type: ignore[union-attr]
        spot = -((grid - points[0, 0, 0, :2]) ** 2).sum(-1) / (2 * (2 * 4 / c.size) ** 2)
        maps = spot.expand(1, c.keypoints, -1)
        losses.append(plain_losses.taught(random(c), torch.zeros(1, c.known), [maps], points, places))
    # The tails that lie outside are all that differs.
    torch.testing.assert_close(losses[1]["where"], losses[0]["where"], rtol=0.1, atol=0)


@NEEDS_WORDS
def test_what_a_simulator_told_is_learned_unless_it_is_left_out(
    joints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = plain_sets.write(tmp_path / "told", places=2)
    assert trained(tmp_path / "a", told, "--steps", "3", "--json", str(tmp_path / "a.json")) == 0
    assert "2 places told" in capsys.readouterr().out
    assert {"points", "where", "places"} < json.loads((tmp_path / "a.json").read_text())[-1].keys()
    assert plain_train.load(tmp_path / "a").config.taught == 2
    # The policy goes on where nobody tells, and was never asked to know it in the first place.
    more = ["--init", str(tmp_path / "a"), "--steps", "2"]
    batch = ["--batch", "4", "--draws", "2", "--threads", "1"]
    assert frontdoor.main(["train", str(tmp_path / "b"), "--data", str(joints), *more, *batch]) == 0
    assert plain_train.load(tmp_path / "b").config.taught == 2
    assert trained(tmp_path / "c", told, "--steps", "2", "--no-aux") == 0
    assert plain_train.load(tmp_path / "c").config.taught == 0
    assert trained(tmp_path / "d", told, "--steps", "2", "--data", str(told), str(joints)) == 0
    assert plain_train.load(tmp_path / "d").config.taught == 0


# -- the command


def trained(out: Path, data: Path, *flags: str) -> int:
    small = ["--image-size", "16", "--width", "0.5", "--batch", "4", "--draws", "2", "--threads", "1"]
    return frontdoor.main(["train", str(out), "--data", str(data), *small, *flags])


@NEEDS_WORDS
def test_a_recorded_data_set_trains_with_no_word_about_it(joints: Path, tmp_path: Path) -> None:
    assert trained(tmp_path / "out", joints, "--steps", "3") == 0
    files = sorted(f.name for f in (tmp_path / "out").iterdir())
    assert files == ["config.json", "model.safetensors", "training.json"]
    spec = plain_train.load(tmp_path / "out").config.spec(0.5, "prefix")
    assert (spec.state, spec.actions.names) == (NAMES, NAMES)
    assert [(c.name, c.height, c.width) for c in spec.cameras] == [("top.2", 16, 16), ("wrist-cam", 16, 16)]
    assert (spec.dt, spec.chunk_length, spec.committed, spec.name) == (0.1, 10, 5, "plain crane")


@NEEDS_WORDS
def test_a_square_is_looked_at_in_half_precision(joints: Path, tmp_path: Path) -> None:
    losses = []
    for name, more in (("full", []), ("half", ["--bf16"])):
        flags = ["--image-size", "32", "--crop", "wrist-cam=0,0,0.75", "0.25,0.5,0.5", "--steps", "4"]
        out = ["--json", str(tmp_path / f"{name}.json")]
        assert trained(tmp_path / name, joints, *flags, *more, *out) == 0
        losses.append(json.loads((tmp_path / f"{name}.json").read_text())[-1])
    model = plain_train.load(tmp_path / "half")
    assert model.config.windows == ((8, 16, 16), (0, 0, 24))
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    assert losses[0]["flow"] != losses[1]["flow"]
    assert losses[1]["total"] == pytest.approx(losses[0]["total"], rel=0.02)
    more = ["--init", str(tmp_path / "half"), "--steps", "1", "--batch", "2", "--draws", "1"]
    assert frontdoor.main(["train", str(tmp_path / "more"), "--data", str(joints), *more]) == 0
    assert plain_train.load(tmp_path / "more").config.windows == model.config.windows


@NEEDS_WORDS
def test_an_interrupted_run_ends_like_an_unbroken_one(joints: Path, tmp_path: Path) -> None:
    def loop(out: Path, seed: int) -> plain_train.Trainer:
        options = train.Command(
            out=out, data=[str(joints)], steps=6, batch=4, draws=2, image_size=16, width=0.5
        )
        sets, body = plain_data.bodies([joints], Told(), None)
        c = plain_train.sized(options, body, "crane")
        wanted = plain_data.Wanted(c.size, c.rows, 1, 1, c.later)
        encoder = plain_train.encoder_folder(None)
        frames = plain_data.read(sets, body, wanted, [1.0], encoder, tmp_path / "cache")
        frames.augment = 1.0
        torch.manual_seed(seed)
        model = plain.Plain(c)
        plain_train.measure(model, frames)
        return plain_train.Trainer(options, model, frames, 1)

    loop(tmp_path / "unbroken", 0).run()
    part = loop(tmp_path / "broken", 0)
    while part.step < 3:
        part._update()
    part._save()
    loop(tmp_path / "broken", 99).run()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@NEEDS_WORDS
@pytest.mark.parametrize(
    ("then", "said"),
    [
        (["--crop", "0.5,0.5,0.5", "--bf16"], "windows"),
        (["--crop", "0,0,0.75", "--bf16"], "windows"),
        (["--crop", "0,0,0.5"], "bf16"),
        (["--crop", "0,0,0.5", "--bf16", "--no-aux"], "taught"),
        (["--crop", "0,0,0.5", "--bf16", "--width", "0.25"], "fine"),
    ],
)
def test_an_interrupted_run_goes_on_as_it_was_begun_or_not_at_all(
    then: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = plain_sets.write(tmp_path / "data", places=1)
    begun = ["--image-size", "32", "--crop", "0,0,0.5", "--bf16", "--steps", "2"]
    assert trained(tmp_path / "out", data, *begun) == 0
    # As after an interruption: there is something to go on with.
    (tmp_path / "out" / "resume.safetensors").write_bytes(b"")
    small = ["--image-size", "32", "--width", "0.5", "--batch", "4", "--draws", "2", "--threads", "1"]
    line = refused([str(tmp_path / "out"), "--data", str(data), *small, "--steps", "2", *then], capsys)
    assert said in line and "was begun with another" in line


@NEEDS_WORDS
def test_decoded_frames_are_kept_and_not_taken_for_others(joints: Path, tmp_path: Path) -> None:
    sets, body = plain_data.bodies([joints], Told(), None)
    encoder = plain_train.encoder_folder(None)

    def read(size: int) -> list[np.ndarray]:
        wanted = plain_data.Wanted(size, 4, 1, 2, ())
        return plain_data.read(sets, body, wanted, [1.0], encoder, tmp_path).images

    first = [np.array(image) for image in read(16)]
    file = tmp_path / "top.2.u8"
    when = file.stat().st_mtime_ns
    assert all((a == b).all() for a, b in zip(first, read(16), strict=True))
    assert file.stat().st_mtime_ns == when
    assert read(8)[0].shape[1:] == (8, 8, 3)
    # As many frames of the same data, and others.
    looked = dataset_body.fresh
    try:
        for start in (1, 0):
            fresh = np.arange(len(sets[0])) % 2 == start
            dataset_body.fresh = lambda data, fresh=fresh: fresh  # type: ignore[assignment, misc]
            chosen = plain_data._cut(sets[0], body, plain_data.Wanted(16, 4, 1, 2, ()))["frame"]
            whole = sets[0].images("observation.images.wrist-cam")
            expected = np.stack([plain_data.resize(whole[i], 16, 16) for i in chosen])
            np.testing.assert_array_equal(read(16)[1], expected)
    finally:
        dataset_body.fresh = looked


@pytest.mark.slow
def test_where_a_square_is_is_learned_from_what_was_done(tmp_path: Path) -> None:
    """A dot that goes to the square of the colour that is said: the frames alone tell where it is."""
    rng = np.random.default_rng(0)
    colours = np.array([[220, 40, 40], [40, 40, 220]])
    sentence = torch.randn(2, 384, generator=torch.Generator().manual_seed(5))
    c = config()
    c = replace(c, state=("x", "y"), actions=c.actions[:2], rows=2, committed=0, keypoints=8, later=())

    def tables(count: int, side: int = c.size) -> tuple[np.ndarray, np.ndarray]:
        """Frames, and the places of the red and of the blue square, (count, 2, 2), 0 .. 1."""
        frames = np.full((count, side, side, 3), 128, np.uint8)
        places = np.empty((count, 2, 2), np.float32)
        for i in range(count):
            for colour, half in enumerate(rng.permutation(2)):
                u, v = rng.integers(2, side - 7), rng.integers(0, side // 2 - 6) + half * side // 2
                frames[i, v : v + 5, u : u + 5] = colours[colour]
                places[i, colour] = u / side, v / side
        return frames, places

    frames, places = tables(600)
    said = np.arange(600) % 2
    goal = torch.from_numpy(places[np.arange(600), said])
    data = plain_data.Frames(
        [frames], torch.zeros(600, 2), goal[:, None].expand(-1, 2, -1).clone(), torch.ones(600, 2),
        goal[:, None], sentence, np.array([[0], [1]]), np.array([1, 1]), said, np.ones(600),
    )  # fmt: skip
    torch.manual_seed(0)
    model = plain.Plain(c)
    plain_train.measure(model, data)
    options = train.Command(out=tmp_path, steps=500, batch=32, draws=1, rate=4e-3)
    plain_train.Trainer(options, model, data, 1).run()
    model = plain_train.load(tmp_path).eval()
    frames, places = tables(100)
    for colour in range(2):
        with torch.no_grad():
            text = sentence[colour : colour + 1].expand(100, -1)[:, None]
            memory = model.prefix(
                [torch.from_numpy(frames)], torch.zeros(100, 2), text, torch.ones(100, 1, dtype=torch.int64)
            )
            x, none = torch.zeros(100, 2, 2), torch.zeros(100, 2)
            zero, one = torch.tensor([0.0]), torch.tensor([1.0])
            _, actions = model.step(*memory, x, zero, one, torch.zeros(100, 2, 2), none)
        error = np.abs(actions[:, 1].numpy() - places[:, colour]).max(1)
        other = np.abs(actions[:, 1].numpy() - places[:, 1 - colour]).max(1)
        assert np.median(error) < 0.08, np.median(error)  # of a frame's side
        assert np.median(other) > 0.25


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dt", "0.15"], "--dt"),
        (["--dt", "0"], "--dt"),
        (["--cameras", "front"], "valid: top.2, wrist-cam"),
        (["--committed", "10"], "--committed"),
        (["--augment", "-1"], "--augment"),
        (["--rows", "0"], "--rows"),
        (["--image-size", "50"], "multiple of 8"),
        (["--no-aux"], "--no-aux"),
        (["--crop", "0.5,0.5"], "three numbers"),
        (["--crop", "nan,0,0.5"], "shares of the frame"),
        (["--crop", "0,0,1e307"], "shares of the frame"),
        (["--crop", "0,0,0.5", "0.5,0.5,0.5"], "once"),
        (["--crop", "wrist-cam=0,0,0.5", "wrist-cam=0,0,0.5"], "once"),
        (["--crop", "0.5,0.5,0.75"], "not beyond its edge"),
        (["--crop", "0,0,0.05"], "at least 16"),
        (["--crop", "front=0,0,0.5"], "top.2, wrist-cam"),
        (["--bf16", "--compile"], "--bf16"),
    ],
)
def test_flags_that_do_not_fit_the_data_are_refused(
    flags: list[str], said: str, joints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused([str(tmp_path / "out"), "--data", str(joints), *flags], capsys)
    assert not (tmp_path / "out").exists()


def test_steps_cannot_be_thinned(steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [str(tmp_path / "out"), "--data", str(steps), "--relative", "all", "--dt", "0.2"]
    assert "summed" in refused(args, capsys)


@pytest.mark.parametrize("left_out", ["action", "observation.state", "pictures"])
def test_a_data_set_that_lacks_what_a_policy_needs_is_refused(
    left_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {
        name: f
        for name, f in plain_sets.features(plain_sets.JOINTS).items()
        if name != left_out and not (left_out == "pictures" and f.visual)
    }
    with Writer(tmp_path / "data", 10, wanted, "crane") as out:
        columns = {
            n: np.zeros((3, *f.shape), np.uint8 if f.visual else np.float32) for n, f in wanted.items()
        }
        out.add_episode("push", columns)
    line = refused([str(tmp_path / "out"), "--data", str(tmp_path / "data")], capsys)
    assert ("observation.images.NAME" if left_out == "pictures" else left_out) in line


@NEEDS_WORDS
def test_numbers_that_are_not_finite_are_refused(joints: Path, tmp_path: Path) -> None:
    sets, body = plain_data.bodies([joints], Told(), None)
    columns = sets[0].columns

    def broken(*args: object) -> dict[str, np.ndarray]:
        found = columns(*args)  # type: ignore[arg-type]
        for value in found.values():
            if value.dtype.kind == "f":
                value[2] = np.nan
        return found

    sets[0].columns = broken  # type: ignore[method-assign]
    wanted = plain_data.Wanted(16, 4, 1, 1, ())
    with pytest.raises(TaktError, match="not finite"):
        plain_data.read(sets, body, wanted, [1.0], plain_train.encoder_folder(None), tmp_path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    windows = ([[0, 0, 16], [0, 0, 16]], [[20, 0, 16]], [[0, 0, 12]], [[0, 0]], 3)
    for change in (
        {"version": 99}, {"fine": "x"}, {"actions": [{}]}, *({"windows": each} for each in windows)
    ):  # fmt: skip
        said = {"type": "plain", **config().to_json(), **change}
        (tmp_path / "config.json").write_text(json.dumps(said))
        with pytest.raises(TaktError) as caught:
            plain_train.load(tmp_path)
        assert "\n" not in str(caught.value)
