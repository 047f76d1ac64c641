"""An episode is written: rows and frames into a journal's folder, see `runtime.journal`.

Nothing in here runs beside the control loop: `runtime.record_process` does, in a process of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from av.video.reformatter import VideoReformatter

from runtime import journal
from runtime.journal import Commit, Meta
from vla import atomic
from vla.contract import CameraSpec, TaktError

# Kept free on the disk for the end of an episode that has filled it.
_RESERVE = 256 << 10
_MILLISECOND = Fraction(1, 1000)
# Frames are kept as they come: no encoder that looks ahead, a key frame each second.
_ENCODER = {"preset": "ultrafast", "tune": "zerolatency", "crf": "18"}
# A cluster for each frame, and each written out when it is complete.
_MUXER = {"cluster_time_limit": "1", "flush_packets": "1"}
_APART = 2  # ms between two frames, at least: what is nearer than the limit above shares a cluster
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class Row:
    """One tick.

    Attributes:
        tick: its number, from 0; where one is missing it was dropped.
        time, seen: of the tick and of what the robot measured, s, monotonic.
        state: shape (S,).
        target: what was asked for, shape (A,); None while nothing was.
        command: what the guard let through and the robot was told, shape (A,).
        mode: the guard's state.
        verdicts: what the safety filter rejected or clamped in this tick, by name.
        captured: camera -> when the frame that this tick saw was taken, s.
    """

    tick: int
    time: float
    seen: float
    state: np.ndarray
    target: np.ndarray | None
    command: np.ndarray
    mode: str
    verdicts: tuple[str, ...] = ()
    captured: Mapping[str, float] = field(default_factory=dict)


def schema(meta: Meta) -> pa.Schema:
    """The columns of ticks.arrow."""
    states, actions = pa.list_(pa.float32(), len(meta.state)), pa.list_(pa.float64(), meta.actions.size)
    columns = [("tick", pa.int64()), ("time", pa.float64()), ("seen", pa.float64()), ("state", states)]
    columns += [("target", actions), ("command", actions)]
    columns += [("mode", pa.string()), ("verdicts", pa.list_(pa.string()))]
    for camera in meta.cameras:
        columns += [(f"frame/{camera.name}", pa.int32()), (f"captured/{camera.name}", pa.float64())]
    return pa.schema(columns)


class Film:
    """One camera's frames, each with its time.

    Attributes:
        frames: how many it holds.
    """

    def __init__(self, path: Path, camera: CameraSpec, rate: float, begun: float) -> None:
        if camera.height % 2 or camera.width % 2:
            size = f"{camera.height}x{camera.width}"
            raise TaktError(f"camera {camera.name!r}: films need an even height and width, not {size}")
        self.frames = 0
        self._begun, self._last, self._waits = begun, -_APART, False
        self._convert = VideoReformatter()
        self._film = av.open(str(path), "w", format="matroska", options=_MUXER)
        options = _ENCODER | {"g": str(max(1, round(rate)))}
        self._stream: Any = self._film.add_stream("libx264", rate=max(1, round(rate)), options=options)
        self._stream.height, self._stream.width = camera.height, camera.width
        self._stream.pix_fmt, self._stream.time_base = "yuv420p", _MILLISECOND
        self._stream.codec_context.time_base = _MILLISECOND
        self._stream.codec_context.thread_count = 1
        self._film.start_encoding()  # which opens the file: its folder gets another name before a frame comes
        self._handle = os.open(path, os.O_RDONLY)

    def put(self, pixels: np.ndarray, time: float) -> None:
        """A frame, shape (height, width, 3), uint8 RGB, taken at `time`, s."""
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._frame = self._convert.reformat(frame, format="yuv420p", **_ONE_THREAD)
        self._write(round((time - self._begun) * 1000))
        self._waits = True

    def sync(self) -> None:
        """When this returns every frame that was put is on the disk."""
        if self._waits:
            # The muxer keeps the last frame until there is another: the same once more costs a few bytes.
            self._write(self._last)
            self._waits = False
        os.fsync(self._handle)

    def close(self) -> None:
        """Complete and on the disk."""
        try:
            self._film.mux(self._stream.encode(None))
            self._film.close()
            os.fsync(self._handle)
        finally:
            os.close(self._handle)

    def _write(self, at: int) -> None:
        self._last = max(self._last + _APART, at)
        self._frame.pts, self._frame.time_base = self._last, _MILLISECOND
        self._film.mux(self._stream.encode(self._frame))
        self.frames += 1


class Episode:
    """One episode that is being recorded.

    Attributes:
        folder: where; its name is the episode's number.
        rows, durable: rows put, and rows that are on the disk.
    """

    def __init__(self, root: Path, meta: Meta) -> None:
        """
        Raises:
            TaktError: a camera's size that no film can have.
            OSError: the disk.
        """
        root.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=journal.NEW, dir=root))
        self.rows = self.durable = 0
        self._meta, self._schema = meta, schema(meta)
        self._pending: list[Row] = []
        self._numbers: list[dict[str, int]] = []
        self._shown = dict.fromkeys((c.name for c in meta.cameras), -1)
        self._file = open(new / journal.TICKS, "wb", buffering=0)  # noqa: SIM115 (open as long as this)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        with open(new / journal.RESERVE, "wb") as reserve:
            os.posix_fallocate(reserve.fileno(), 0, _RESERVE)
        self._films = {
            c.name: Film(journal.camera_file(new, c.name), c, meta.rate, meta.monotonic) for c in meta.cameras
        }
        os.chmod(new, 0o777 & ~_umask())
        os.fsync(self._file.fileno())
        atomic.write(new / journal.META, json.dumps(meta.to_json(), indent=1) + "\n", synced=True)
        self.folder = journal.place(root, new)

    def put(self, row: Row, frames: Mapping[str, np.ndarray]) -> None:
        """One tick, and the frames that are new in it.

        Raises:
            OSError: the disk; then call `give_up`.
        """
        for camera, pixels in frames.items():
            film = self._films[camera]
            film.put(pixels, row.captured.get(camera, row.seen))
            self._shown[camera] = film.frames - 1
        self._pending.append(row)
        self._numbers.append(dict(self._shown))
        self.rows += 1

    def sync(self) -> int:
        """Put all rows so far on the disk, their frames first; how many those are. Raises as `put` does."""
        if self._pending:
            for film in self._films.values():
                film.sync()
            self._stream.write_batch(self._batch())
            os.fsync(self._file.fileno())
            self._pending, self._numbers = [], []
            self.durable = self.rows
        return self.durable

    def end(self, ended: str, dropped: int = 0, success: bool | None = None) -> Commit:
        """Complete the episode; when this returns nothing can be lost of it. Raises as `put` does."""
        self.sync()
        self._stream.close()
        os.fsync(self._file.fileno())
        for film in self._films.values():
            film.close()
        frames = {camera: film.frames for camera, film in self._films.items()}
        commit = Commit(self.rows, frames, dropped, ended, success)
        journal.write_commit(self.folder, commit)
        self._file.close()
        return commit

    def give_up(self, ended: str, dropped: int = 0, success: bool | None = None) -> Commit:
        """Complete it with what is on the disk, as nothing more can be written."""
        (self.folder / journal.RESERVE).unlink(missing_ok=True)
        for film in self._films.values():
            with contextlib.suppress(OSError, av.FFmpegError):  # what it could write is there
                film.close()
        commit = journal.close(self.folder, ended, dropped + self.rows - self.durable, success)
        self._file.close()
        return commit

    def _batch(self) -> pa.RecordBatch:
        rows, numbers = self._pending, self._numbers
        states = np.concatenate([np.asarray(r.state, np.float32) for r in rows])
        size = self._meta.actions.size
        empty = np.zeros(size)
        targets = np.concatenate([empty if r.target is None else np.asarray(r.target, float) for r in rows])
        commands = np.concatenate([np.asarray(r.command, float) for r in rows])
        missing = pa.array([r.target is None for r in rows])
        columns = [
            pa.array([r.tick for r in rows], pa.int64()),
            pa.array([r.time for r in rows], pa.float64()),
            pa.array([r.seen for r in rows], pa.float64()),
            pa.FixedSizeListArray.from_arrays(pa.array(states), len(self._meta.state)),
            pa.FixedSizeListArray.from_arrays(pa.array(targets), size, mask=missing),
            pa.FixedSizeListArray.from_arrays(pa.array(commands), size),
            pa.array([r.mode for r in rows], pa.string()),
            pa.array([list(r.verdicts) for r in rows], pa.list_(pa.string())),
        ]
        for camera in self._films:
            columns.append(pa.array([n[camera] for n in numbers], pa.int32()))
            columns.append(pa.array([r.captured.get(camera) for r in rows], pa.float64()))
        return pa.record_batch(columns, schema=self._schema)


def _umask() -> int:
    """What the user keeps from others; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
