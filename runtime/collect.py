"""`takt dataset`: recorded episodes as a LeRobotDataset v3, which LeRobot and `takt train` read.

observation.state    what the robot measured
action               what it was told, behind the guard
observation.images.* the frames that its rows saw, as H.264
measured_time        when, s since the episode began: the format's own timestamps are frame / fps
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from runtime import journal_reader, motion
from runtime.journal import Meta
from runtime.journal_reader import Recorded
from vla import atomic
from vla.contract import TaktError
from vla.dataset import Dataset, Feature, Writer


@dataclass
class Command:
    """Make a LeRobotDataset of recorded episodes."""

    out: tyro.conf.Positional[Path]
    """The data set: a new folder."""
    journals: tuple[Path, ...]
    """Folders of recorded episodes (takt record)."""
    only_successes: bool = False
    """Leave out what is not labelled a success."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        out = self.out
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TaktError(f"{out} is not empty; choose a new folder")
        found = [path for source in self.journals for path in journal_reader.episodes(source)]
        kept, left = choose([journal_reader.read(path) for path in found], self.only_successes)
        for line in left:
            print(line)
        if not kept:
            raise TaktError("no episode is left to make a data set of")
        repeated = write(kept, out)
        data = Dataset(out)
        print(f"{out}: {len(data.episodes)} episodes, {len(data)} frames, {len(left)} episodes left out")
        if repeated:
            print(f"{repeated} frames stand for ticks that were not recorded")
        if self.json is not None:
            counts = {"episodes": len(data.episodes), "frames": len(data), "left_out": left}
            atomic.write_json(self.json, counts | {"repeated": repeated})
        return 0


def choose(found: Sequence[Recorded], only_successes: bool) -> tuple[list[Recorded], list[str]]:
    """The episodes that go into a data set, and a line for each that does not.

    Raises:
        TaktError: they are of different robots or rates.
    """
    kept: list[Recorded] = []
    left: list[str] = []
    for each in found:
        why = _why_not(each, only_successes)
        if why:
            left.append(f"{each.folder} is left out: {why}")
            continue
        if kept and _kind(each.meta) != _kind(kept[0].meta):
            raise TaktError(f"{each.folder} is of another robot, rate or cameras than {kept[0].folder}")
        kept.append(each)
    return kept, left


def write(episodes: Sequence[Recorded], out: Path) -> int:
    """The data set at `out`, whole or not at all; how many of its frames stand for more than one tick."""
    meta = episodes[0].meta
    fps = round(meta.rate)
    if abs(fps - meta.rate) > 1e-6:
        raise TaktError(f"a data set has whole frames a second; these were recorded at {meta.rate:g}")
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    repeated = 0
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        part = Path(folder) / "data"
        with Writer(part, fps, features(meta), meta.robot) as writer:
            for each in episodes:
                repeated += add(writer, each, Path(folder))
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    return repeated


def features(meta: Meta) -> dict[str, Feature]:
    """What the data set has of every frame."""
    found = {
        "observation.state": Feature("float32", (len(meta.state),), list(meta.state)),
        "action": Feature("float32", (meta.actions.size,), list(meta.actions.names)),
        "measured_time": Feature("float64", (1,)),
    }
    for camera in meta.cameras:
        shape = (camera.height, camera.width, 3)
        found[f"observation.images.{camera.name}"] = Feature("video", shape)
    return found


def add(writer: Writer, each: Recorded, scratch: Path) -> int:
    """Append one episode; how many of its frames stand for more than one tick."""
    rows, repeated = motion.beat(each, 1.0 / each.meta.rate)
    rows = rows[_seen(each, rows)]
    columns: dict[str, np.ndarray] = {
        "observation.state": each.state[rows],
        "action": each.command[rows].astype(np.float32),
        "measured_time": each.seen[rows] - each.time[rows[0]],
    }
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for camera in each.meta.cameras:
            columns[f"observation.images.{camera.name}"] = _pictures(each, camera.name, rows, Path(folder))
        commit = each.commit
        extra: dict[str, bool | str | int] = {
            "success": bool(commit.success),
            "labelled": commit.success is not None,
            "journal": f"{each.folder.parent.name}/{each.folder.name}",
            "dropped": commit.dropped,
        }
        writer.add_episode(each.meta.instruction, columns, extra)
    return repeated


def _pictures(each: Recorded, camera: str, rows: np.ndarray, scratch: Path) -> np.ndarray:
    """The frame of every row, shape (N, height, width, 3); on disk, as they may not fit into memory."""
    size = next((c.height, c.width, 3) for c in each.meta.cameras if c.name == camera)
    out = np.memmap(scratch / camera, np.uint8, "w+", shape=(len(rows), *size))
    wanted = each.frame[camera][rows]
    for number, frame in each.frames(camera):
        for i in np.flatnonzero(wanted == number):
            out[i] = frame
    return out


def _seen(each: Recorded, rows: np.ndarray) -> np.ndarray:
    """Which rows have a frame of every camera: an episode's first may not yet."""
    seen = np.ones(len(rows), bool)
    for frames in each.frame.values():
        seen &= frames[rows] >= 0
    return seen


def _why_not(each: Recorded, only_successes: bool) -> str:
    if only_successes and not each.commit.success:
        return "it is not labelled a success"
    rows, _ = motion.beat(each, 1.0 / each.meta.rate)
    if not len(rows):
        return "no row of it was recorded"
    if not _seen(each, rows).any():
        return "no row of it has a frame of every camera"
    return ""


def _kind(meta: Meta) -> tuple[object, ...]:
    return meta.robot, meta.state, meta.actions.names, meta.cameras, meta.rate
