"""Cameras as words."""

from __future__ import annotations

import pytest

from robot_io.camera_options import Asked, parse
from vla.contract import TaktError


def test_a_camera_and_its_options() -> None:
    front, wrist = parse(
        "front:v4l2:/dev/video0,size=1280x720,fps=15,fourcc=YUYV,wrist:file:/tmp/a:b.mp4,same=5"
    )
    assert front == Asked("front", "v4l2", "/dev/video0", (1280, 720), 15.0, "YUYV", 3, 4.0)
    assert (wrist.name, wrist.kind, wrist.place, wrist.same) == ("wrist", "file", "/tmp/a:b.mp4", 5)
    assert parse("a:feed:ipc:///tmp/x/frames")[0].place == "ipc:///tmp/x/frames"


@pytest.mark.parametrize(
    "text", ["front:pattern,fps=12.5,dark=0", "a:pipe:/tmp/f,size=64x48,same=0,b:v4l2:/dev/video2"]
)
def test_what_is_told_means_the_same(text: str) -> None:
    asked = parse(text)
    assert parse(",".join(camera.told() for camera in asked)) == asked


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot tell what ''"),
        ("front", "cannot tell what 'front'"),
        ("front:v4l2", "v4l2 needs a place"),
        ("front:pattern:x", "a pattern has no place"),
        ("front:usb:0", "no kind 'usb'; valid: v4l2, file, pattern, pipe, feed"),
        ("fps=30,front:pattern", "stands before any camera"),
        ("front:pattern,front:pattern", "front is there twice"),
        ("front:pattern,size=0x4", "size=0x4 is not WIDTHxHEIGHT"),
        ("front:pattern,fps=nan", "fps=nan is not 0.1 to 1000"),
        ("front:pattern,same=1.5", "same=1.5 is not a count"),
        ("front:pattern,fourcc=MJ", "fourcc=MJ is not four letters"),
        ("front:pattern,speed=3", "cannot tell what 'speed=3'"),
    ],
)
def test_what_makes_no_sense_is_one_line(text: str, words: str) -> None:
    with pytest.raises(TaktError) as raised:
        parse(text)
    assert words in str(raised.value) and "\n" not in str(raised.value)
