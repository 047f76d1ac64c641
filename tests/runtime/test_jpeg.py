"""Frames as JPEG: near what they were, compared with what was declared, and refused when damaged."""

from __future__ import annotations

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import jpeg, wire
from tests import fakes
from vla.contract import Observation, TaktError

simplejpeg = pytest.importorskip("simplejpeg")


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth, as what a camera sees mostly is."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([3 * x, 4 * y, x + 2 * y], axis=-1).clip(0, 255).astype(np.uint8)


def message(quality: int | None) -> wire.Infer:
    seen = Observation(0.0, np.zeros(2, np.float32), {"front": picture(), "wrist": picture(33, 17)}, "go")
    back = wire.decode(wire.encode(wire.Infer("d", 1, 0, 0, 0, seen), quality))
    assert isinstance(back, wire.Infer)
    return back


def test_raw_frames_come_back_exactly_and_jpeg_nearly() -> None:
    for name, frame in message(None).observation.frames.items():
        np.testing.assert_array_equal(frame, message(None).observation.frames[name])
    for quality, most in ((95, 3.0), (60, 8.0)):
        back = message(quality).observation.frames
        assert back["front"].shape == (48, 64, 3)
        assert back["wrist"].shape == (33, 17, 3)
        assert np.abs(back["front"].astype(float) - picture()).mean() < most


def test_the_declared_shape_has_to_be_the_true_one() -> None:
    data = jpeg.encode(picture(), 90)
    np.testing.assert_equal(jpeg.decode(data, (48, 64, 3)).shape, (48, 64, 3))
    for shape in [(64, 48, 3), (48, 64, 1), (48, 65, 3)]:
        with pytest.raises(wire.WireError, match="declared"):
            jpeg.decode(data, shape)


def test_only_baseline_is_taken() -> None:
    data = jpeg.encode(picture(), 90)
    start = data.index(b"\xff\xc0")
    progressive = data[: start + 1] + b"\xc2" + data[start + 2 :]
    for bad in (progressive, b"", b"\xff\xd8", b"\x89PNG", data[2:], b"\xff\xd8\xff\xe0\x00\x00" * 9):
        with pytest.raises(wire.WireError):
            jpeg.decode(bad, (48, 64, 3))


def test_every_cut_is_refused() -> None:
    data = jpeg.encode(picture(), 90)
    for cut in range(0, len(data) - 2):
        with pytest.raises(wire.WireError):
            jpeg.decode(data[:cut], (48, 64, 3))


@given(st.data())
def test_damage_is_refused_or_decoded_and_nothing_else(data: st.DataObject) -> None:
    good = bytearray(jpeg.encode(picture(), 90))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(wire.WireError):
        assert jpeg.decode(bytes(good), (48, 64, 3)).shape == (48, 64, 3)


def test_a_corrupt_jpeg_makes_the_message_one_that_is_refused() -> None:
    fields = msgpack.unpackb(
        wire.encode(wire.Infer("d", 1, 0, 0, 0, fakes.observation(fakes.arm_spec())), 90)
    )
    fields["frames"]["front"]["data"] = fields["frames"]["front"]["data"][:100]
    with pytest.raises(wire.WireError, match="JPEG"):
        wire.decode(msgpack.packb(fields))


def test_without_the_decoder_both_ends_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg.encode(picture(), 90)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    with pytest.raises(wire.WireError, match="raw"):
        jpeg.decode(data, (48, 64, 3))
    with pytest.raises(TaktError, match="pip install"):
        jpeg.encode(picture(), 90)
