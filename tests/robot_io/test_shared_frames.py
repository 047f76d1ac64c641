"""The newest frame in shared memory: never half of one, never a wait, and nothing left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from robot_io import shared_frames
from robot_io.shared_frames import SLOTS, Reader, Writer, create
from tests.runtime.peers import PATIENCE

HEIGHT, WIDTH = 61, 83  # rows that fill no whole words

# Each frame is of one value all over, with its checksum as its time; as fast as it can.
HAMMER = f"""
import sys, zlib
import numpy as np
from robot_io.shared_frames import Writer
writer = Writer(int(sys.argv[1]), {HEIGHT}, {WIDTH})
while True:
    image = np.full(({HEIGHT}, {WIDTH}, 3), (writer.number + 1) % 251, np.uint8)
    writer.put(image, float(zlib.crc32(image)))
"""


@pytest.fixture
def ends() -> tuple[Writer, Reader]:
    fd = create(HEIGHT, WIDTH)
    try:
        return Writer(fd, HEIGHT, WIDTH), Reader(fd, HEIGHT, WIDTH)
    finally:
        os.close(fd)


def image(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def test_the_newest_is_read_once(ends: tuple[Writer, Reader]) -> None:
    writer, reader = ends
    assert reader.newest() is None
    for value in range(3 * SLOTS):
        writer.put(image(value), 100.0 + value)
    seen = reader.newest()
    assert seen is not None and (seen.number, seen.captured) == (3 * SLOTS, 100.0 + 3 * SLOTS - 1)
    np.testing.assert_array_equal(seen.image, image(3 * SLOTS - 1))
    assert reader.newest(seen.number) is None
    writer.put(image(7), 0.0)
    assert (seen.image == 3 * SLOTS - 1).all(), "what was read is the reader's own"


def test_a_frame_is_never_torn() -> None:
    """A writer of another process that never rests, and a reader that is often late."""
    fd = create(HEIGHT, WIDTH)
    reader = Reader(fd, HEIGHT, WIDTH)
    writer = subprocess.Popen([sys.executable, "-c", HAMMER, str(fd)], pass_fds=(fd,))
    try:
        number, seen, end = 0, 0, time.monotonic() + PATIENCE
        while seen < 1000 and time.monotonic() < end:
            frame = reader.newest(number)
            if frame is None:
                continue
            assert frame.number > number, "older than what was read before"
            assert frame.captured == zlib.crc32(frame.image.data)
            assert (frame.image == frame.number % 251).all()
            number, seen = frame.number, seen + 1
        assert seen >= 100, "hardly a frame was read"
    finally:
        writer.kill()
        writer.wait()
        os.close(fd)


def test_a_frame_that_is_half_written_is_not_read(
    ends: tuple[Writer, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer ends in the middle of a frame; the frame before is still there."""
    writer, reader = ends
    writer.put(image(1), 1.0)

    class Ended(Exception):
        pass

    def end(*_: object) -> int:
        raise Ended

    with monkeypatch.context() as patch:
        patch.setattr(shared_frames, "_checksum", end)  # pixels are there, and no checksum
        with pytest.raises(Ended):
            writer.put(image(2), 2.0)
    seen = reader.newest()
    assert seen is not None and (seen.image == 1).all()
    # A writer that comes after it goes on, and wipes out what was left.
    writer.put(image(3), 3.0)
    seen = reader.newest(seen.number)
    assert seen is not None and (seen.image == 3).all()


def test_pixels_that_changed_while_they_were_read_are_not_handed_out(ends: tuple[Writer, Reader]) -> None:
    writer, reader = ends
    writer.put(image(1), 1.0)
    writer._pixels[1, 5, 5, 0] = 9  # as if the writer had come round again and not said so yet
    assert reader.newest() is None and reader.torn == 1
    writer.put(image(2), 2.0)
    assert reader.newest() is not None


def test_words_and_counts(ends: tuple[Writer, Reader]) -> None:
    writer, reader = ends
    assert reader.said() == ""
    writer.say("gone ä")
    writer.count(5, 2, 1, 29.5)
    assert reader.said() == "gone ä"
    assert reader.counts() == shared_frames.Counts(5, 2, 1, 29.5)
    writer.say("x" * 1000)
    assert reader.said() == "x" * 256
    writer.say("")
    assert reader.said() == ""


def test_the_next_writer_goes_on_counting() -> None:
    fd = create(HEIGHT, WIDTH)
    try:
        Writer(fd, HEIGHT, WIDTH).put(image(1), 1.0)
        again = Writer(fd, HEIGHT, WIDTH)
        again.put(image(2), 2.0)
        assert again.number == 2
    finally:
        os.close(fd)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm here")
def test_it_has_no_name() -> None:
    before = set(os.listdir("/dev/shm"))
    fd = create(480, 640)
    writer = Writer(fd, 480, 640)
    writer.put(np.zeros((480, 640, 3), np.uint8), 0.0)
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "takt" in name or "psm" in name}
    os.close(fd)
