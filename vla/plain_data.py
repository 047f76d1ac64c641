"""What the plain policy learns from: any LeRobotDataset v3 folder, frames on disk, the rest in memory.

A chunk is what the episode itself did next: row i of frame f is the action of frame f + i * stride. Behind
the episode's end targets stay where they are and steps are zero, and the loss does not count those rows.

    frame        f      f+1    ...   last |
    row          0      1      ...        |  H-1
    valid        1      1      ...    1   |  0
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla import dataset_body, train_data
from vla.contract import TaktError
from vla.dataset import Dataset
from vla.dataset_body import ACTION, IMAGES, STATE, Body, Told
from vla.plain_losses import augmented
from vla.preprocess import resize

DROPPED = 0.1  # share of a sentence's numbers that training leaves out


@dataclass(frozen=True)
class Wanted:
    """How frames and chunks are cut from episodes.

    Attributes:
        size: side of the frames, pixels. rows: a chunk. stride: frames from one row to the next.
        every: one frame in so many is looked at. later: rows ahead at which the state is learned.
    """

    size: int
    rows: int
    stride: int
    every: int
    later: tuple[int, ...]


@dataclass
class Frames:
    """N frames that are looked at, of E episodes.

    Attributes:
        images: (N, size, size, 3) uint8, one a camera.
        state: (N, S). chunk: (N, H, A). valid: (N, H), 0 behind the episode's end.
        later: (N, F, S), the states ahead, and the episode's last.
        sentence: (T, words), every text's. wordings: (N', W) and count (N',): numbers of the texts that
            instruction i goes by, the first `count` of them.
        said: (N,), which of these a frame was told. weight: (N,).
        points: (N, cameras, K, 3) and places: (N, K, 4), what a simulator told of K things
            (dataset_body.py); None: nobody did.
        augment: strength of what is done to frames in training.
        windows: the squares that are looked at, one a camera (plain.Config); none: all.
    """

    images: list[np.ndarray]
    state: Tensor
    chunk: Tensor
    valid: Tensor
    later: Tensor
    sentence: Tensor
    wordings: np.ndarray
    count: np.ndarray
    said: np.ndarray
    weight: np.ndarray
    points: Tensor | None = None
    places: Tensor | None = None
    augment: float = 0.0
    windows: tuple[tuple[int, int, int], ...] = ()

    def _within(self, points: Tensor) -> Tensor:
        """Whether points (B, cameras, K, 3) are in their camera's window, (B, cameras, K)."""
        if not self.windows:
            return (points[..., :2].abs() <= 1).all(-1)
        size = self.images[0].shape[1]
        left_top = torch.tensor([window[:2] for window in self.windows]) * (2 / size) - 1
        side = torch.tensor([window[2] for window in self.windows]) * (2 / size)
        inside = (points[..., :2] - left_top[:, None]) / side[:, None, None]
        return ((inside >= 0) & (inside <= 1)).all(-1)

    def batch(
        self, index: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> dict[str, Any]:
        """What `plain_losses.loss` takes, of these frames; draws wordings and what is done to frames."""
        rows, said = torch.from_numpy(index), self.said[index]
        chosen = (rng.random(len(index)) * self.count[said]).astype(np.int64)
        sentence = self.sentence[torch.from_numpy(self.wordings[said, chosen])]
        kept = rng.random(sentence.shape, np.float32) >= DROPPED
        frames = [torch.from_numpy(image[index]) for image in self.images]
        squares = self.windows or [None] * len(frames)
        moved = [augmented(f, self.augment, generator, w) for f, w in zip(frames, squares, strict=True)]
        told = {}
        if self.points is not None and self.places is not None:
            points = self.points[rows].clone()
            points[..., :2] += torch.stack([shift for _, shift in moved], 1)[:, :, None]
            points[..., 2] *= self._within(points)
            told = {"points": points, "places": self.places[rows]}
        return told | {
            "frames": [each for each, _ in moved],
            "state": self.state[rows],
            "chunk": self.chunk[rows],
            "valid": self.valid[rows],
            "later": self.later[rows],
            "sentence": sentence * torch.from_numpy(kept / np.float32(1 - DROPPED)),
        }


def bodies(folders: Sequence[Path], told: Told, cameras: Sequence[str] | None) -> tuple[list[Dataset], Body]:
    """The data sets, and what they have in common.

    Raises:
        TaktError: a folder is no data set, says too little, or differs from the first.
    """
    sets = [Dataset(path) for path in folders]
    empty = [s.root for s in sets if not len(s)]
    if empty:
        raise TaktError(f"{empty[0]} has no frames")
    return sets, dataset_body.same([dataset_body.read(s, told, cameras) for s in sets], folders)


def read(
    sets: Sequence[Dataset],
    body: Body,
    wanted: Wanted,
    weights: Sequence[float],
    encoder: Path,
    cache: Path,
    places: int = 0,
) -> Frames:
    """
    Args:
        places: of so many things it is read where they are.
        cache: folder for the decoded frames; what lies there of the same data is taken.

    Raises:
        TaktError: a file of a data set is broken, or a number is not finite.
    """
    parts = [_cut(s, body, wanted, places) for s in sets]
    chosen = [part.pop("frame") for part in parts]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name, value in joined.items():
        if not np.isfinite(value).all():
            raise TaktError(f"{', '.join(str(s.root) for s in sets)}: {name} holds what is not finite")
    texts, wordings, count, said = _texts(sets, chosen)
    tokens, mask = train_data.encode(texts, encoder)
    kept = mask[:, :, None].float()
    return Frames(
        images=[_pictures(sets, chosen, camera, wanted, cache) for camera in body.cameras],
        sentence=(tokens.float() * kept).sum(1) / kept.sum(1),
        wordings=wordings,
        count=count,
        said=said,
        weight=np.concatenate([np.full(len(c), w) for c, w in zip(chosen, weights, strict=True)]),
        state=torch.from_numpy(joined["state"]),
        chunk=torch.from_numpy(joined["chunk"]),
        valid=torch.from_numpy(joined["valid"]),
        later=torch.from_numpy(joined["later"]),
        points=torch.from_numpy(joined["points"]) if places else None,
        places=torch.from_numpy(joined["places"]) if places else None,
    )


def _cut(data: Dataset, body: Body, wanted: Wanted, places: int = 0) -> dict[str, np.ndarray]:
    """State, chunk, valid and later of the frames that are looked at, and their numbers, "frame"; where
    `places` things are, and where each camera sees them.
    """
    columns = data.columns([STATE, ACTION])
    state, action = (columns[name].astype(np.float32) for name in (STATE, ACTION))
    fresh = dataset_body.fresh(data)
    # Of a camera slower than the rows, every so many of its frames as come nearest to what is wanted.
    period = np.bincount(np.diff(np.flatnonzero(fresh), append=len(fresh))).argmax()
    every = max(1, round(wanted.every / int(period)))
    frame, ends, at = [], [], 0
    for number, episode in enumerate(data.episodes):
        # Episodes begin at different phases, so that every moment of a task is seen.
        new = at + np.flatnonzero(fresh[at : at + episode["length"]])
        looked = new[number % min(every, len(new)) :: every]
        at += episode["length"]
        frame.append(looked)
        ends.append(np.full(len(looked), at))
    frames, end = np.concatenate(frame), np.concatenate(ends)
    rows = frames[:, None] + np.arange(wanted.rows) * wanted.stride
    valid = rows < end[:, None]
    chunk = action[np.minimum(rows, end[:, None] - 1)]
    chunk[~valid] = np.where(body.actions.absolute, chunk[~valid], 0.0)
    ahead = np.array([*(row * wanted.stride for row in wanted.later), len(state)])
    later = state[np.minimum(frames[:, None] + ahead, end[:, None] - 1)]
    told = {}
    if places:
        names = [dataset_body.POINTS + camera for camera in body.cameras]
        known = data.columns([dataset_body.PLACES, *names])
        points = np.stack([known[name][frames].reshape(len(frames), places, 3) for name in names], 1)
        where = known[dataset_body.PLACES][frames].reshape(len(frames), places, 4)
        for each in (where, points):
            each[..., -1] = each[..., -1] > 0.5
        told = {"places": where, "points": points}
    return told | {
        "frame": frames, "state": state[frames], "chunk": chunk, "valid": valid.astype(np.float32),
        "later": later,
    }  # fmt: skip


def _texts(
    sets: Sequence[Dataset], chosen: Sequence[np.ndarray]
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Every text; the texts an instruction goes by and how many; and each frame's instruction.

    An episode of one instruction may bring paraphrases of its own.
    """
    number: dict[str, int] = {}
    known: dict[tuple[int, ...], int] = {}
    said = []
    for data, frames in zip(sets, chosen, strict=True):
        told, at = np.array(data.task_of(), object), 0
        wordings = train_data.wordings_of(data)
        which = np.empty(len(data), np.int64)
        for episode, texts in zip(data.episodes, wordings, strict=True):
            rows = slice(at, at + episode["length"])
            at = rows.stop
            for text in dict.fromkeys(told[rows]):
                several = texts if text == texts[0] and len(set(told[rows])) == 1 else [text]
                key = tuple(number.setdefault(each, len(number)) for each in several)
                which[rows][told[rows] == text] = known.setdefault(key, len(known))
        said.append(which[frames])
    table = np.zeros((len(known), max(map(len, known))), np.int64)
    for row, key in zip(table, known, strict=True):
        row[: len(key)] = key
    return list(number), table, np.array([len(key) for key in known]), np.concatenate(said)


def _pictures(
    sets: Sequence[Dataset], chosen: Sequence[np.ndarray], camera: str, wanted: Wanted, cache: Path
) -> np.ndarray:
    """A camera's chosen frames, (N, size, size, 3), resized as a robot's are, as a file in `cache`."""
    shape = (sum(map(len, chosen)), wanted.size, wanted.size, 3)
    key = {"camera": camera, "shape": shape, "every": wanted.every}
    key |= {"data": [[str(s.root.resolve()), len(s), s.info.get("total_episodes")] for s in sets]}
    key["frames"] = hashlib.sha256(np.concatenate(chosen).astype(np.int64).tobytes()).hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    file, note = cache / f"{camera}.u8", cache / f"{camera}.json"
    said = json.dumps(key)
    if note.is_file() and note.read_text() == said and file.is_file():
        return np.memmap(file, np.uint8, "r", shape=shape)
    note.unlink(missing_ok=True)
    out, at = np.memmap(file, np.uint8, "w+", shape=shape), 0
    for data, frames in zip(sets, chosen, strict=True):
        for number, episode in enumerate(data.episodes):
            first = episode["dataset_from_index"]
            mine = frames[(frames >= first) & (frames < first + episode["length"])] - first
            pictures = data.images(IMAGES + camera, [number])
            for i in mine:
                out[at] = resize(pictures[i], wanted.size, wanted.size)
                at += 1
    out.flush()
    note.write_text(said)  # last: a file without it is not whole
    return np.memmap(file, np.uint8, "r", shape=shape)
