"""Recorded episodes are read: their rows as arrays, their frames one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from av.video.reformatter import VideoReformatter

from runtime import journal
from runtime.journal import Commit, Meta
from vla.contract import TaktError

_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class Recorded:
    """One complete episode of N rows.

    Attributes:
        folder, meta, commit: see `journal`.
        tick: shape (N,), int64; a number that is missing was dropped.
        time, seen: shape (N,), s, monotonic; of the tick, and of what the robot measured.
        state: shape (N, S), float32.
        target: shape (N, A); NaN in rows for which nothing was asked.
        command: shape (N, A).
        mode: the guard's state, N of them.
        verdicts: what the safety filter did, N of them.
        frame: camera -> shape (N,), the number of the frame in its film that a row saw, -1 for none yet.
        captured: camera -> shape (N,), s; NaN where the robot did not say.
    """

    folder: Path
    meta: Meta
    commit: Commit
    tick: np.ndarray
    time: np.ndarray
    seen: np.ndarray
    state: np.ndarray
    target: np.ndarray
    command: np.ndarray
    mode: list[str]
    verdicts: list[list[str]]
    frame: dict[str, np.ndarray]
    captured: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.tick)

    def frames(self, camera: str) -> Iterator[tuple[int, np.ndarray]]:
        """Each frame of a film: its number, and shape (height, width, 3), uint8 RGB.

        Raises:
            TaktError: the film is broken.
        """
        path, convert = journal.camera_file(self.folder, camera), VideoReformatter()
        number = 0
        try:
            with av.open(str(path)) as film:
                film.streams.video[0].codec_context.thread_count = 1
                for frame in film.decode(video=0):
                    if number >= self.commit.frames[camera]:
                        return
                    yield number, convert.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()
                    number += 1
        except (av.FFmpegError, OSError, IndexError) as error:
            # What counts is there, and what comes after it may be torn.
            if number < self.commit.frames[camera]:
                raise TaktError(f"{path}: frame {number} cannot be read: {error}") from None


def episodes(root: Path) -> list[Path]:
    """The complete episodes below `root`, by number; what was left behind is closed first.

    Raises:
        TaktError: there is none.
    """
    if not root.is_dir():
        raise TaktError(f"there is no folder {root}")
    journal.recover(root)
    found = [path for path in journal.folders(root) if (path / journal.COMMIT).exists()]
    if not found:
        raise TaktError(f"{root} holds no recorded episode: takt record makes them")
    return found


def read(folder: Path) -> Recorded:
    """
    Raises:
        TaktError: it is no complete episode, or it is broken.
    """
    meta, commit = journal.read_meta(folder), journal.read_commit(folder)
    if commit is None:
        raise TaktError(f"{folder} is not complete: it is being recorded")
    path = folder / journal.TICKS
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all() if commit.rows else None
    except (OSError, pa.ArrowInvalid) as error:
        raise TaktError(f"{path} cannot be read: {error}") from None
    if table is None or len(table) < commit.rows:
        if commit.rows:
            assert table is not None
            raise TaktError(f"{path} has {len(table)} rows, {journal.COMMIT} says {commit.rows}")
        return _nothing(folder, meta, commit)
    return _rows(folder, meta, commit, table.slice(0, commit.rows).combine_chunks())


def _rows(folder: Path, meta: Meta, commit: Commit, table: pa.Table) -> Recorded:
    rows, size = len(table), meta.actions.size

    def column(name: str) -> np.ndarray:
        found: np.ndarray = table[name].to_numpy()
        return found

    def wide(name: str, width: int) -> np.ndarray:
        listed = table[name].combine_chunks()
        # A row without values still has its place in the values below it.
        values: np.ndarray = listed.values.to_numpy(zero_copy_only=False)[listed.offset * width :]
        values = values[: rows * width].reshape(rows, width).copy()
        empty = listed.is_null().to_numpy(zero_copy_only=False)
        if empty.any():
            values[empty] = np.nan
        return values

    names = [c.name for c in meta.cameras]
    return Recorded(
        folder,
        meta,
        commit,
        column("tick"),
        column("time"),
        column("seen"),
        wide("state", len(meta.state)),
        wide("target", size),
        wide("command", size),
        table["mode"].to_pylist(),
        table["verdicts"].to_pylist(),
        {name: column(f"frame/{name}") for name in names},
        {name: np.asarray(column(f"captured/{name}"), float) for name in names},
    )


def _nothing(folder: Path, meta: Meta, commit: Commit) -> Recorded:
    none, size = np.zeros(0), meta.actions.size
    frame = {c.name: np.zeros(0, np.int32) for c in meta.cameras}
    return Recorded(
        folder,
        meta,
        commit,
        np.zeros(0, np.int64),
        none,
        none,
        np.zeros((0, len(meta.state)), np.float32),
        np.zeros((0, size)),
        np.zeros((0, size)),
        [],
        [],
        frame,
        {name: none for name in frame},
    )
