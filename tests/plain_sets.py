"""Small data sets as people record them: two cameras with odd names, a state, actions, words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla.dataset import Feature, Writer

CAMERAS = {"top.2": (24, 40), "wrist-cam": (32, 32)}  # height, width
JOINTS = ["base.pos", "elbow.pos", "claw.pos"]
TEXTS = ("push the square", "pull the square", "push the square")
LENGTHS = (9, 6, 7)
FPS = 10


def features(actions: list[str], state: list[str] | None = None) -> dict[str, Feature]:
    pictures = {f"observation.images.{n}": Feature("image", (*size, 3)) for n, size in CAMERAS.items()}
    names = JOINTS if state is None else state
    return {
        "observation.state": Feature("float32", (len(names),), names),
        "action": Feature("float32", (len(actions),), actions),
        **pictures,
    }


def write(
    folder: Path,
    actions: list[str] | None = None,
    seed: int = 0,
    fps: int = FPS,
    places: int = 0,
    every: int = 1,
) -> Path:
    """Three episodes of noise; actions are named like the joints unless others are given.

    Args:
        places: of so many things it is said where they are.
        every: rows from one new frame to the next.
    """
    rng = np.random.default_rng(seed)
    wanted = features(actions or JOINTS)
    if places:
        wanted |= {f"privileged.points.{name}": Feature("float32", (3 * places,), None) for name in CAMERAS}
        wanted |= {"privileged.places": Feature("float32", (4 * places,), None)}
    if every > 1:
        wanted |= {"camera.fresh": Feature("float32", (1,), None)}
    with Writer(folder, fps, wanted, "crane") as out:
        for text, length in zip(TEXTS, LENGTHS, strict=True):
            columns = {}
            for name, f in wanted.items():
                shape = (length, *f.shape)
                picture = f.dtype == "image"
                columns[name] = (
                    rng.integers(0, 256, shape, np.uint8) if picture else rng.normal(size=shape)
                ).astype(np.uint8 if picture else np.float32)
            if every > 1:
                columns["camera.fresh"] = (np.arange(length) % every == 1).astype(np.float32)[:, None]
            out.add_episode(text, columns)
    return folder
