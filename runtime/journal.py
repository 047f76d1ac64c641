"""An episode on disk, so that none of it is lost: a folder that grows, and a marker that says it is whole.

    JOURNALS/000007/episode.json     who, what, when: written before the first row
                    ticks.arrow      an Arrow stream, a row a tick, a batch every `SYNC` s
                    front.mkv        a camera's frames, H.264; a row holds the number of the frame it saw
                    COMMIT           how many rows and frames count, and how it ended

Every batch is on the disk (fsync) before the next begins, its frames before its rows. COMMIT is written
beside, synced, and renamed: an episode that has it is complete, whatever happened since. One without it is
being recorded (its ticks.arrow is locked) or was left behind; `recover` then counts what is whole, cuts the
torn end of ticks.arrow off and writes COMMIT. It may run any number of times, and no episode ever gets
another number. `runtime.journal_writer` writes such folders, `runtime.journal_reader` reads them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import pyarrow as pa

from vla import atomic
from vla.contract import ActionSpace, CameraSpec, TaktError

FORMAT = 1
SYNC = 0.4  # s of rows between two syncs; with what may wait on the way it stays below 1 s
META, TICKS, COMMIT, RESERVE = "episode.json", "ticks.arrow", "COMMIT", "reserve"
NEW = ".new-"  # what a folder is called until it holds its first files


@dataclass(frozen=True)
class Meta:
    """What is known before the first row.

    Attributes:
        robot: its name.
        state: names of the state's components; S of them.
        actions: the command space; A dimensions.
        cameras: whose frames are kept.
        rate: ticks a second.
        instruction: the words that were obeyed.
        monotonic, wall: when it began: s on the clock of all times in the rows, and ISO 8601 in UTC.
        about: whatever else should stand in the record, such as the policy's name.
    """

    robot: str
    state: tuple[str, ...]
    actions: ActionSpace
    cameras: tuple[CameraSpec, ...]
    rate: float
    instruction: str
    monotonic: float
    wall: str
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        cameras = [asdict(c) for c in self.cameras]
        return {**vars(self), "format": FORMAT, "actions": self.actions.to_json(), "cameras": cameras}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Meta:
        """Raises KeyError, TypeError or ValueError for what is none."""
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}, this reads {FORMAT}")
        known = {key: value for key, value in data.items() if key != "format"}
        known["state"], known["actions"] = tuple(data["state"]), ActionSpace.from_json(data["actions"])
        known["cameras"] = tuple(CameraSpec(**row) for row in data["cameras"])
        return Meta(**known)


@dataclass(frozen=True)
class Commit:
    """What counts of an episode, and how it ended.

    Attributes:
        rows: of ticks.arrow, from the first.
        frames: camera -> frames of its film, from the first.
        dropped: ticks that were not recorded, as the recorder could not keep up or could not write.
        ended: why it ended; "lost" where its recorder was killed.
        success: what the operator said of it; None where nobody did.
        recovered: whether it was closed after the fact.
    """

    rows: int
    frames: dict[str, int]
    dropped: int
    ended: str
    success: bool | None = None
    recovered: bool = False


def camera_file(folder: Path, camera: str) -> Path:
    """Where a camera's film is."""
    return folder / f"{camera}.mkv"


def folders(root: Path) -> list[Path]:
    """The episodes below `root`, by number, complete or not."""
    found = [path for path in root.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def place(root: Path, new: Path) -> Path:
    """Give a folder that was prepared at `new` the number after the last one."""
    number = max((int(path.name) for path in folders(root)), default=-1) + 1
    while True:
        path = root / f"{number:06d}"
        try:
            os.rename(new, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            number += 1  # another recorder was faster
            continue
        atomic.sync(root)
        return path


def read_meta(folder: Path) -> Meta:
    """
    Raises:
        TaktError: the folder is no episode.
    """
    try:
        return Meta.from_json(json.loads((folder / META).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaktError(f"{folder} is no recorded episode: {META}: {error}") from None


def read_commit(folder: Path) -> Commit | None:
    """None while there is none.

    Raises:
        TaktError: it is broken.
    """
    try:
        return Commit(**json.loads((folder / COMMIT).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise TaktError(f"{folder / COMMIT} is broken: {error}; delete it, and it is made anew") from None


def recover(root: Path) -> dict[str, Commit]:
    """Close what was left behind below `root`; the episodes that this closed, by name.

    What another process is recording stays as it is. Twice is as good as once.
    """
    closed: dict[str, Commit] = {}
    if not root.is_dir():
        return closed
    for folder in folders(root):
        if (folder / COMMIT).exists():
            (folder / RESERVE).unlink(missing_ok=True)
            continue
        with locked(folder) as mine:
            if mine and not (folder / COMMIT).exists():
                closed[folder.name] = close(folder, "lost")
    for folder in root.glob(f"{NEW}*"):
        with locked(folder) as mine:
            if mine:  # it was about to begin: there is no row in it
                shutil.rmtree(folder, ignore_errors=True)
    return closed


def close(folder: Path, ended: str, dropped: int = 0, success: bool | None = None) -> Commit:
    """Commit what is whole in an episode whose writer did not, or could not."""
    (folder / RESERVE).unlink(missing_ok=True)
    meta = read_meta(folder)
    frames = {c.name: count_frames(camera_file(folder, c.name)) for c in meta.cameras}
    rows, end = _whole_rows(folder / TICKS, frames)
    if (folder / TICKS).exists():
        os.truncate(folder / TICKS, end)
        atomic.sync(folder / TICKS)
    for camera in frames:
        if camera_file(folder, camera).exists():
            atomic.sync(camera_file(folder, camera))
    result = Commit(rows, frames, dropped, ended, success, recovered=True)
    write_commit(folder, result)
    return result


def write_commit(folder: Path, commit: Commit) -> None:
    """Last of all: when this returns the episode is complete, and stays so."""
    atomic.write(folder / COMMIT, json.dumps(asdict(commit), indent=1) + "\n", synced=True)
    (folder / RESERVE).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether nobody else records into the folder; nobody begins to while this lasts."""
    try:
        handle = os.open(folder / TICKS, os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def count_frames(path: Path) -> int:
    """Frames of a film that are there in full, whatever follows them."""
    count = 0
    try:
        with av.open(str(path)) as film:
            for packet in film.demux(video=0):
                count += packet.size > 0
    except (av.FFmpegError, OSError, IndexError):
        pass  # nothing was in it yet, or its end is torn
    return count


def _whole_rows(path: Path, frames: dict[str, int]) -> tuple[int, int]:
    """How many rows are whole and have their frames, and the byte at which the last whole batch ends."""
    rows = end = 0
    missing = False
    try:
        with pa.OSFile(str(path)) as file:
            stream = pa.ipc.open_stream(file)
            end = file.tell()
            while True:
                batch = stream.read_next_batch()
                for i in range(len(batch)):
                    missing |= any(batch[f"frame/{c}"][i].as_py() >= n for c, n in frames.items())
                    rows += not missing
                end = file.tell()
    except (StopIteration, OSError, pa.ArrowInvalid):
        return rows, end
