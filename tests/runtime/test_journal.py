"""Laws of journals: what goes in comes out; wherever it is cut, a whole beginning is left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime import journal, journal_reader
from runtime.journal import COMMIT, META, RESERVE, TICKS, Commit
from runtime.journal_writer import Episode
from tests.runtime import recording
from vla.contract import TaktError


def record(
    root: Path, count: int, every: int = 7, end: bool = True, cameras: tuple[str, ...] = ("front",)
) -> Path:
    """An episode of so many ticks, synced every so many; an open one stays as a kill would leave it."""
    episode = Episode(root, recording.meta(cameras))
    for i in range(count):
        fresh = {name: recording.frame(i) for name in cameras}
        episode.put(recording.row(i), fresh)
        if i % every == every - 1:
            episode.sync()
    if end:
        episode.end("done", success=True)
    else:
        episode._file.close()  # and with it the lock; nothing else is tidied up
    return episode.folder


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    folder = record(tmp_path, 23, cameras=("front", "wrist"))
    found = recording.check(folder)
    assert (len(found), found.commit.rows, found.commit.dropped) == (23, 23, 0)
    assert (found.commit.ended, found.commit.success, found.commit.recovered) == ("done", True, False)
    assert found.meta == recording.meta(("front", "wrist"))
    assert found.mode == ["RUNNING"] * 23
    assert found.verdicts[:4] == [[], ["lead"], [], ["lead"]]
    np.testing.assert_allclose(found.time, np.arange(23) / 30)
    assert np.isnan(found.captured["front"]).all()
    assert sorted(p.name for p in folder.iterdir()) == [COMMIT, META, "front.mkv", TICKS, "wrist.mkv"]


def test_a_tick_without_a_new_frame_saw_the_one_before(tmp_path: Path) -> None:
    episode = Episode(tmp_path, recording.meta())
    episode.put(recording.row(0), {})
    for i in range(1, 8):
        episode.put(recording.row(i), {"front": recording.frame(i)} if i in (2, 6) else {})
        episode.sync()
    episode.end("done")
    found = recording.check(episode.folder, pictures=False)
    seen = found.frame["front"]
    shown = {n: int(pixels.mean()) for n, pixels in found.frames("front")}
    assert seen[:2].tolist() == [-1, -1]
    assert len(set(seen[2:6])) == 1 and seen[6] == seen[7] > seen[5]
    assert [abs(shown[n] - recording.grey(i)) < 12 for n, i in zip(seen[[2, 6]], (2, 6), strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize("which", [TICKS, "front.mkv"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.2, 0.5, 0.77, 0.95, 1.0])
def test_wherever_it_is_torn_a_whole_beginning_is_left(tmp_path: Path, which: str, part: float) -> None:
    folder = record(tmp_path, 40, end=False)
    os.truncate(folder / which, int(part * (folder / which).stat().st_size))
    (commit,) = journal.recover(tmp_path).values()
    assert commit.recovered and commit.ended == "lost" and commit.success is None
    assert recording.check(folder).tick.tolist() == list(range(commit.rows))
    # Five batches of seven were synced; what came later was in nobody's promise.
    assert commit.rows == 35 if part == 1.0 else commit.rows <= 35
    if part == 0.95 and which == TICKS:
        assert commit.rows >= 28


@pytest.mark.parametrize("tail", [b"\0" * 64, b"\0" * 8, b"\xff" * 40, b"RIFF, say", os.urandom(300)])
def test_rubbish_behind_the_last_batch_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    folder = record(tmp_path, 14, end=False)
    with open(folder / TICKS, "ab") as file:
        file.write(tail)
    (commit,) = journal.recover(tmp_path).values()
    assert commit.rows == 14
    recording.check(folder)


def test_recovering_twice_is_as_good_as_once_and_numbers_stay(tmp_path: Path) -> None:
    record(tmp_path, 9)
    record(tmp_path, 9, end=False)
    record(tmp_path, 9)
    shutil.rmtree(tmp_path / "000000")  # somebody has thrown one away
    assert list(journal.recover(tmp_path)) == ["000001"]
    before = recording.untouched(tmp_path)
    assert journal.recover(tmp_path) == {}
    assert recording.untouched(tmp_path) == before
    assert recording.numbers(tmp_path) == ["000001", "000002"]
    assert record(tmp_path, 3).name == "000003"


def test_what_is_being_recorded_is_left_alone(tmp_path: Path) -> None:
    episode = Episode(tmp_path, recording.meta())
    episode.put(recording.row(0), {"front": recording.frame(0)})
    episode.sync()
    assert journal.recover(tmp_path) == {}
    with pytest.raises(TaktError, match="no recorded episode"):
        journal_reader.episodes(tmp_path)
    with pytest.raises(TaktError, match="not complete"):
        journal_reader.read(episode.folder)
    episode.end("done")
    assert [path.name for path in journal_reader.episodes(tmp_path)] == ["000000"]


def test_one_that_was_about_to_begin_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{journal.NEW}abc").mkdir()
    (tmp_path / f"{journal.NEW}abc" / TICKS).write_bytes(b"")
    assert journal.recover(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_two_recorders_in_one_folder_have_numbers_of_their_own(tmp_path: Path) -> None:
    open_ = [Episode(tmp_path, recording.meta(())) for _ in range(3)]
    assert [episode.folder.name for episode in open_] == ["000000", "000001", "000002"]
    for episode in reversed(open_):
        episode.put(recording.row(0), {})
        episode.end("done")
    assert [len(recording.check(path)) for path in journal_reader.episodes(tmp_path)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / META).unlink(), "no recorded episode"),
        (lambda folder: (folder / META).write_text("{"), "no recorded episode"),
        (lambda folder: (folder / META).write_text('{"format": 99}'), "format 99"),
        (lambda folder: (folder / COMMIT).write_text("{"), "delete it, and it is made anew"),
        (lambda folder: os.truncate(folder / TICKS, 1500), "COMMIT says 23|cannot be read"),
    ],
)
def test_a_broken_folder_is_one_line(tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    folder = record(tmp_path, 23)
    spoil(folder)
    with pytest.raises(TaktError, match=says):
        journal_reader.read(folder)


def test_a_camera_that_no_film_can_hold_is_refused(tmp_path: Path) -> None:
    odd = recording.meta()
    camera = odd.cameras[0].__class__("front", 31, 32)
    with pytest.raises(TaktError, match="even height and width, not 31x32"):
        Episode(tmp_path, odd.__class__(**{**vars(odd), "cameras": (camera,)}))
    journal.recover(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Disk:
    """What a power cut would leave: files as they were at their last sync, entries as of their folder's.

    Of what was written and not synced nothing is left, which is the worst that a disk may do. Every sync is
    a moment at which the power may fail right after.
    """

    def __init__(self, root: Path, real: Callable[[int], None]) -> None:
        self._root, self._real = root, real
        self._files: dict[int, bytes] = {}  # inode -> content on the disk
        self._entries: dict[int, dict[str, int]] = {}  # folder's inode -> its entries on the disk
        self.moments: list[dict[str, bytes]] = []

    def fsync(self, handle: int) -> None:
        self._real(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        inode = os.fstat(handle).st_ino
        if path.is_dir():
            self._entries[inode] = {p.name: p.stat().st_ino for p in path.iterdir()}
        else:
            self._files[inode] = path.read_bytes()
        self.moments.append(self._left(self._root, ""))

    def _left(self, folder: Path, name: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        inode = folder.stat().st_ino if not name else int(name)
        for entry, number in self._entries.get(inode, {}).items():
            if number in self._entries:
                below = self._left(folder, str(number))
                found |= {f"{entry}/{path}": data for path, data in below.items()}
            else:
                found[entry] = self._files.get(number, b"")
        return found


def test_a_power_cut_at_any_moment_leaves_what_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every sync of a recorder: the disk as the power cut leaves it, recovered."""
    root = tmp_path / "journals"
    root.mkdir()
    disk = Disk(root, os.fsync)
    monkeypatch.setattr(os, "fsync", disk.fsync)
    promised = [(0, 0, False)]  # moments so far, rows that are durable from then on, whether it is complete
    episode = Episode(root, recording.meta())
    for i in range(12):
        episode.put(recording.row(i), {"front": recording.frame(i)})
        if i % 4 == 3:
            promised.append((len(disk.moments), episode.sync(), False))
            promised[-1] = (len(disk.moments), episode.durable, False)
    commit = episode.end("done", success=True)
    promised.append((len(disk.moments), commit.rows, True))
    monkeypatch.undo()
    assert len(disk.moments) > 12
    for n, moment in enumerate(disk.moments, 1):
        left = tmp_path / f"cut{n}"
        for path, data in moment.items():
            (left / path).parent.mkdir(parents=True, exist_ok=True)
            (left / path).write_bytes(data)
        rows, complete = next((r, c) for m, r, c in reversed(promised) if m <= n)
        journal.recover(left)
        found = [recording.check(path) for path in journal.folders(left)] if left.exists() else []
        assert sum(map(len, found)) >= rows, n
        if complete:
            assert found[0].commit == commit
        assert not any(f.commit.success for f in found) or len(found[0]) == 12
    assert json.loads((root / "000000" / COMMIT).read_text())["rows"] == 12
    assert not (root / "000000" / RESERVE).exists()


def test_a_commit_of_another_time_is_read_as_it_is(tmp_path: Path) -> None:
    commit = Commit(3, {"front": 4}, 1, "done", None, True)
    journal.write_commit(tmp_path, commit)
    assert journal.read_commit(tmp_path) == commit
    assert [path.name for path in tmp_path.iterdir()] == [COMMIT]
