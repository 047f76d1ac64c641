"""Films of what happened: saved physics states rendered afterwards, so that filming costs no beat."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sim.tabletop.world import CAMERAS, PEOPLE, World

HEIGHT, WIDTH, INSET = 480, 640, 240


def film(world: World, states: Iterable[np.ndarray], path: Path, fps: int) -> None:
    """Write an MP4: the view for people, and beside it the two frames the policy saw.

    Args:
        states: what `world.save()` returned, one a frame.
        fps: frames a second, the rate at which the states were saved.
    """
    part = path.with_suffix(".part.mp4")  # an interrupted film does not replace a good one
    with av.open(str(part), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps), options={"crf": "20", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH + INSET, HEIGHT, "yuv420p"
        for state in states:
            world.restore(state)
            frame = av.VideoFrame.from_ndarray(picture(world), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    part.replace(path)


def picture(world: World) -> np.ndarray:
    """One frame of a film, shape (HEIGHT, WIDTH + INSET, 3), uint8."""
    small = [world.frame(camera) for camera in CAMERAS]
    rows = (np.arange(INSET) * small[0].shape[0]) // INSET
    insets = [image[rows][:, rows] for image in small]
    return np.hstack([world.frame(PEOPLE, HEIGHT, WIDTH), np.vstack(insets)])
