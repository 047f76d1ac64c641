"""Films of what happened: saved physics states rendered afterwards, so that filming costs no beat."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sim.tabletop.world import CAMERAS, PEOPLE, World

# Pixels of a film by default; the view for people is 4 by 3, and each frame of the policy half as high.
HEIGHT, WIDTH, INSET = 480, 640, 240


def film(
    world: World,
    states: Iterable[np.ndarray],
    path: Path,
    fps: int | Fraction,
    height: int = HEIGHT,
    crf: int = 20,
) -> None:
    """Write an MP4: the view for people, and beside it the two frames the policy saw.

    Args:
        states: what `world.save()` returned, one a frame.
        fps: frames a second, the rate at which the states were saved.
        height: pixels, a multiple of 12.
        crf: how coarse, from 0 to 51; more is smaller.
    """
    part = path.with_suffix(".part.mp4")  # an interrupted film does not replace a good one
    with av.open(str(part), "w") as container:
        # One thread: a film is then a function of its frames, whatever machine it is made on.
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = height * 4 // 3 + height // 2, height, "yuv420p"
        for state in states:
            world.restore(state)
            frame = av.VideoFrame.from_ndarray(picture(world, height), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    part.replace(path)


def picture(world: World, height: int = HEIGHT) -> np.ndarray:
    """One frame of a film, shape (height, 4 / 3 height + height / 2, 3), uint8."""
    small = [world.frame(camera) for camera in CAMERAS]
    inset = height // 2
    rows = (np.arange(inset) * small[0].shape[0]) // inset
    insets = [image[rows][:, rows] for image in small]
    return np.hstack([world.frame(PEOPLE, height, height * 4 // 3), np.vstack(insets)])
