"""Frames from files, a FIFO and a socket; what is no picture; what a camera's process makes of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from robot_io import camera_process
from robot_io.camera_options import Asked, parse
from robot_io.camera_process import LASTS, Camera, Judge
from robot_io.camera_sources import Gone, Pictures, Spoilt, Taken, decode, open_source, resized
from robot_io.shared_frames import Reader, Writer, create
from tests.robot_io.feeder import SIZE, picture, piece
from tests.runtime.peers import PATIENCE

cv2 = pytest.importorskip("cv2")
pytest.importorskip("simplejpeg")
WIDTH, HEIGHT = SIZE


def asked(text: str) -> Asked:
    return parse(text)[0]


def near(one: np.ndarray, two: np.ndarray, by: float = 12.0) -> bool:
    """The same picture, as far as compression goes."""
    return one.shape == two.shape and float(np.abs(one.astype(float) - two).mean()) < by


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_go_round_in_the_order_of_their_names(tmp_path: Path, suffix: str) -> None:
    for number in (3, 1, 2):
        image = cv2.cvtColor(picture(20 * number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(tmp_path / f"{number}{suffix}"), image)
    (tmp_path / "notes.txt").write_text("not a picture")
    source = open_source(asked(f"a:file:{tmp_path},fps=500"))
    seen = [source.read(1.0) for _ in range(4)]
    for taken, number in zip(seen, (1, 2, 3, 1), strict=True):
        assert taken is not None and near(taken.image, picture(20 * number), 4.0)


def test_a_film_has_its_own_rate_and_begins_again(tmp_path: Path) -> None:
    path, frames = tmp_path / "film.avi", 4
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, SIZE)
    for number in range(frames):
        film.write(cv2.cvtColor(picture(20 * number), cv2.COLOR_RGB2BGR))
    film.release()
    source = open_source(asked(f"a:file:{path}"))
    begun = time.monotonic()
    for at in range(2 * frames):
        taken = source.read(1.0)
        assert taken is not None and near(taken.image, picture(20 * (at % frames)))
    # The first is there at once; a machine that is busy skips beats and never hurries.
    assert time.monotonic() - begun >= (2 * frames - 1) / 25.0 - 0.001
    path.unlink()
    with pytest.raises(Gone, match="was removed"):
        source.read(1.0)
    source.close()


@pytest.mark.parametrize("text", ["a:file:{}/no.mp4", "a:v4l2:{}/video9", "a:pipe:{}/no", "a:file:{}/no.png"])
def test_what_is_not_there_is_gone(tmp_path: Path, text: str) -> None:
    with pytest.raises(Gone, match=r"not there|No such file"):
        open_source(asked(text.format(tmp_path))).read(0.1)


def test_what_is_no_fifo_or_no_film_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"not a film")
    with pytest.raises(Gone, match="no FIFO"):
        open_source(asked(f"a:pipe:{tmp_path}/film.mp4"))
    with pytest.raises(Gone, match="no film"):
        open_source(asked(f"a:file:{tmp_path}/film.mp4"))


def test_of_a_fifo_the_newest_whole_picture_counts(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    source = open_source(asked(f"a:pipe:{path}"))
    assert source.read(0.01) is None, "nobody writes yet"
    with open(path, "wb", buffering=0) as fifo:
        whole = [piece("moving", number) for number in (1, 2, 3)]
        fifo.write(whole[0] + whole[1] + whole[2][:100])
        taken = source.read(1.0)
        assert taken is not None and near(taken.image, picture(2), 6.0)
        assert source.read(0.01) is None
        fifo.write(whole[2][100:])
        taken = source.read(1.0)
        assert taken is not None and near(taken.image, picture(3), 6.0)
        fifo.write(piece("cut", 4) + piece("cut", 5))
        with pytest.raises(Spoilt, match="cut"):
            source.read(1.0)
    with pytest.raises(Gone, match="was closed"):
        source.read(1.0)
    source.close()


def test_of_a_publisher_the_newest_of_this_camera_counts(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/frames"
    context: zmq.Context[Any] = zmq.Context()
    out = context.socket(zmq.PUB)
    out.bind(address)
    source = open_source(asked(f"a:feed:{address}"))
    try:
        image, taken, end = picture(7), None, time.monotonic() + PATIENCE
        while taken is None:  # until the subscription is there
            out.send(msgpack.packb({"a": [HEIGHT, WIDTH, image.tobytes(), 12.5]}))
            taken = source.read(0.02)
            assert time.monotonic() < end
        assert taken.time == 12.5
        np.testing.assert_array_equal(taken.image, image)
        while source.read(0.02) is not None:
            pass
        for wrong in (
            b"\xc1",
            b"\x05",
            msgpack.packb({"a": [HEIGHT, WIDTH, b"few"]}),
            msgpack.packb({"a": 1}),
        ):
            out.send(wrong)
            with pytest.raises(Spoilt):
                source.read(1.0)
        out.send(msgpack.packb({"b": [HEIGHT, WIDTH, image.tobytes()]}))
        assert source.read(0.2) is None
    finally:
        source.close()
        context.destroy(linger=0)


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", piece("cut", 1), piece("damaged", 1), b"\xff\xd8\xff\xd9", b"\xff\xd8\xff" + bytes(99)],
    ids=["nothing", "words", "cut", "damaged", "empty", "zeros"],
)
def test_what_is_no_picture_is_spoilt(data: bytes) -> None:
    with pytest.raises(Spoilt):
        decode(data)


def test_zeros_behind_a_picture_are_none_of_it() -> None:
    assert near(decode(piece("moving", 4) + bytes(32)), picture(4), 6.0)


def test_resizing_means_over_what_a_pixel_covers() -> None:
    image = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    means = image.reshape(4, 2, 3, 2, 3).mean((1, 3))
    assert np.abs(resized(image, 4, 3) - means).max() <= 0.5
    assert resized(image, 8, 6) is image


# -- what is handed out


def test_a_frame_that_comes_again_is_not_new_and_then_frozen() -> None:
    judge = Judge(asked("a:pipe:x,same=3"))
    verdicts = [(judge(picture(n)), judge.words) for n in (1, 2, 2, 2, 2, 3)]
    assert [good for good, _ in verdicts] == [True, True, False, False, False, True]
    assert [bool(words) for _, words in verdicts] == [False, False, False, False, True, False]
    judge = Judge(asked("a:feed:x"))  # a simulator may stand still
    assert all(judge(picture(1)) for _ in range(9))


def test_dark_and_wrong_sizes_are_said_when_they_last() -> None:
    for bad, words in ((picture(1, dark=True), "dark"), (picture(1, small=True), "48x32, not 96x64")):
        judge = Judge(asked("a:pipe:x"))
        assert judge(picture(1))
        for count in range(1, LASTS + 1):
            assert not judge(bad)
            assert bool(judge.words) == (count >= LASTS)
        assert words in judge.words
        assert judge(picture(2)) and not judge.words


def test_a_source_that_is_gone_is_opened_anew_with_growing_waits() -> None:
    waits: list[float] = []
    fd = create(HEIGHT, WIDTH)
    reader = Reader(fd, HEIGHT, WIDTH)

    class Once:
        def __init__(self) -> None:
            self.left = [Taken(picture(1), 1.0), Taken(picture(2), 2.0)]

        def read(self, wait: float) -> Taken:
            if not self.left:
                raise Gone("pulled out")
            return self.left.pop(0)

        def close(self) -> None: ...

    def make(_: Asked) -> Once:
        if len(waits) in (0, 8):
            return Once()
        raise Gone("not there")

    camera = Camera(asked("a:pipe:x"), Writer(fd, HEIGHT, WIDTH), HEIGHT, WIDTH)
    camera.run(lambda: len(waits) > 9, waits.append, make)
    assert waits[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert waits[8:] == [0.1, 0.2], "it was there in between"
    assert reader.said() == "not there" and camera.opened == 2
    seen = reader.newest()
    assert seen is not None and seen.number == 4
    os.close(fd)


def test_a_picture_that_is_missing_among_others_is_gone(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(piece("moving", 1))
    source = Pictures(asked(f"a:file:{tmp_path},fps=500"))
    source.read(1.0)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(Gone, match="No such file"):
        source.read(1.0)
    assert camera_process.BEGIN < camera_process.LONGEST
