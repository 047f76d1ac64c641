"""Words and frames become arrays of one shape, or a line that says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests import fakes
from vla import preprocess
from vla.contract import CameraSpec, Observation, TaktError

LAW = settings(deadline=None, max_examples=50, derandomize=True)
SPEC = fakes.arm_spec()
FRONT = SPEC.cameras[0]

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 24)
factors = st.integers(1, 5)


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# -- resize


@LAW
@given(seeds, sizes, sizes, sizes, sizes)
def test_any_size_becomes_the_wanted_one_within_the_frames_range(
    seed: int, h: int, w: int, height: int, width: int
) -> None:
    image = picture(seed, h, w)
    out = preprocess.resize(image, height, width)
    assert out.shape == (height, width, 3)
    assert out.dtype == np.uint8
    for channel in range(3):
        assert image[..., channel].min() <= out[..., channel].min()
        assert out[..., channel].max() <= image[..., channel].max()


@LAW
@given(seeds, sizes, sizes, factors, factors)
def test_whole_factors_average_areas(seed: int, height: int, width: int, down: int, across: int) -> None:
    image = picture(seed, height * down, width * across)
    out = preprocess.resize(image, height, width)
    assert abs(out.mean() - image.mean()) <= 0.5
    y, x = height // 2, width // 2
    area = image[y * down : (y + 1) * down, x * across : (x + 1) * across]
    np.testing.assert_allclose(out[y, x], area.mean(axis=(0, 1)), atol=0.5)


@LAW
@given(seeds, sizes, sizes, factors, factors)
def test_enlarging_and_shrinking_again_gives_the_frame_back(
    seed: int, height: int, width: int, down: int, across: int
) -> None:
    image = picture(seed, height, width)
    large = preprocess.resize(image, height * down, width * across)
    np.testing.assert_array_equal(large, image.repeat(down, axis=0).repeat(across, axis=1))
    np.testing.assert_array_equal(preprocess.resize(large, height, width), image)


@LAW
@given(seeds, sizes, sizes, sizes, sizes)
def test_other_factors_take_pixels_as_they_are_and_in_order(
    seed: int, h: int, w: int, height: int, width: int
) -> None:
    if h % height == 0 and w % width == 0:
        return
    place = np.zeros((h, w, 3), np.uint8)
    place[..., 0], place[..., 1] = np.arange(h)[:, None], np.arange(w)[None]
    out = preprocess.resize(place, height, width).astype(int)
    rows, columns = out[:, 0, 0], out[0, :, 1]
    assert (np.diff(rows) >= 0).all()
    assert (np.diff(columns) >= 0).all()
    # Centres go to centres: no pixel comes from further than half a pixel of either grid away.
    assert (np.abs((rows + 0.5) / h - (np.arange(height) + 0.5) / height) <= 0.5 / h + 1e-9).all()
    assert (np.abs((columns + 0.5) / w - (np.arange(width) + 0.5) / width) <= 0.5 / w + 1e-9).all()


# -- a camera's frame


def test_a_frame_of_the_right_size_is_untouched_and_gets_a_batch() -> None:
    image = picture(0, FRONT.height, FRONT.width)
    out = preprocess.frame(Observation(0.0, np.zeros(6), {"front": image}), FRONT)
    assert out.shape == (1, FRONT.height, FRONT.width, 3)
    np.testing.assert_array_equal(out[0], image)


def test_a_frame_of_another_size_is_resized_and_contiguous() -> None:
    image = picture(0, 2 * FRONT.height, 3 * FRONT.width)[:, ::-1]  # a view with a negative stride
    out = preprocess.frame(Observation(0.0, np.zeros(6), {"front": image}), FRONT)
    assert out.shape == (1, FRONT.height, FRONT.width, 3)
    assert out.flags["C_CONTIGUOUS"]


def test_a_missing_camera_is_named_with_those_that_are_there() -> None:
    seen = Observation(0.0, np.zeros(6), {"wrist": picture(0, 96, 96)})
    with pytest.raises(TaktError, match=r"'front' is missing.*\['wrist'\]"):
        preprocess.frame(seen, FRONT)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((96, 96, 3), np.float32),
        np.zeros((96, 96), np.uint8),
        np.zeros((96, 96, 4), np.uint8),
        np.zeros((3, 96, 96), np.uint8),
    ],
    ids=["floats", "grey", "alpha", "channels first"],
)
def test_what_is_not_uint8_rgb_is_refused(image: np.ndarray) -> None:
    with pytest.raises(TaktError, match="wanted uint8") as caught:
        preprocess.frame(Observation(0.0, np.zeros(6), {"front": image}), FRONT)
    assert str(image.dtype) in str(caught.value)
    assert "\n" not in str(caught.value)


# -- state


def test_a_state_becomes_a_row_of_float32() -> None:
    out = preprocess.state(Observation(0.0, np.arange(6, dtype=np.float64)), SPEC)
    assert (out.shape, out.dtype) == ((1, 6), np.float32)
    np.testing.assert_array_equal(out[0], np.arange(6))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_refused(value: float) -> None:
    state = np.zeros(6, np.float32)
    state[3] = value
    with pytest.raises(TaktError, match="not finite"):
        preprocess.state(Observation(0.0, state), SPEC)


@pytest.mark.parametrize("state", [np.zeros(5), np.zeros(7), np.zeros((1, 6)), np.float32(0)])
def test_a_state_of_another_shape_is_refused_and_the_names_shown(state: np.ndarray) -> None:
    with pytest.raises(TaktError, match="shoulder_pan"):
        preprocess.state(replace(fakes.observation(SPEC), state=state), SPEC)


# -- words

WORDS = {"[UNK]": 0, **{name: i for i, name in enumerate(["a", "b", "c", "d", "e", "f", "g", "h"], 1)}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word a token; its file asks for another length and for padding, as published ones do."""
    made = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_padding(length=128)
    made.enable_truncation(128)
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    made.save(str(path))
    return path


texts = st.lists(st.sampled_from(list(WORDS)[1:]), max_size=40)


@LAW
@given(said=texts, length=st.integers(1, 24))
def test_texts_have_one_length_and_longer_ones_are_refused(
    tokenizer: Path, said: list[str], length: int
) -> None:
    words = preprocess.Words(tokenizer, length)
    if len(said) > length:
        with pytest.raises(TaktError, match=f"{len(said)} tokens, the policy reads {length}"):
            words(" ".join(said))
        return
    ids, mask = words(" ".join(said))
    assert ids.shape == mask.shape == (1, length)
    assert ids.dtype == mask.dtype == np.int64
    known = [WORDS[word] for word in said]
    np.testing.assert_array_equal(ids[0], known + [0] * (length - len(known)))
    np.testing.assert_array_equal(mask[0], [1] * len(known) + [0] * (length - len(known)))


def test_space_around_the_words_says_nothing(tokenizer: Path) -> None:
    words = preprocess.Words(tokenizer, 8)
    for padded in (" a b", "a b\n", "\t a b  "):
        np.testing.assert_array_equal(words(padded), words("a b"))


def test_a_camera_may_be_any_size() -> None:
    seen = Observation(0.0, np.zeros(6), {"top": picture(1, 480, 640)})
    assert preprocess.frame(seen, CameraSpec("top", 224, 224)).shape == (1, 224, 224, 3)
