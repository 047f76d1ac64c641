"""A file is the old one or the new one, whoever looks and whatever fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vla import atomic

PATIENCE = 60.0


@pytest.mark.parametrize("synced", [False, True])
def test_who_waits_for_a_file_reads_it_whole(tmp_path: Path, synced: bool) -> None:
    path, texts, read = tmp_path / "report.json", [c * 200_000 for c in "abc"], 0

    def write(text: str) -> None:
        for _ in range(100):
            atomic.write(path, text, synced)

    with ThreadPoolExecutor(3) as pool:  # as processes that build one engine
        written = [pool.submit(write, text) for text in texts]
        while not all(w.done() for w in written):
            try:
                assert path.read_text() in texts
                path.unlink()
                read += 1
            except FileNotFoundError:
                pass
        for w in written:
            w.result()
    assert read > 0
    assert {file.name for file in tmp_path.iterdir()} <= {path.name}


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "arm.json"
    atomic.write_json(path, {"a": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write(path, "new", synced=True)
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        atomic.write(pipe, "said\n")
        assert read.result(PATIENCE) == "said\n"
    assert pipe.is_fifo()


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "there.json", tmp_path / "here.json"
    target.write_text("old")
    link.symlink_to(target.name)
    atomic.write(link, b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_the_mode_is_what_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    atomic.write(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_output_that_others_write_to_is_added_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with open(log, "w") as out:
        code = (
            "import sys; from pathlib import Path; from vla import atomic\n"
            "print('before'); atomic.write(Path('/dev/stdout'), 'said\\n'); print('after')"
        )
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert log.read_text() == "before\nsaid\nafter\n"


def test_a_file_in_a_folder_of_others_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def refused(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")  # as a file that is mounted is

    monkeypatch.setattr(os, "replace", refused)
    atomic.write(path, "new")
    assert path.read_text() == "new"
    with pytest.raises(OSError, match="busy"):
        atomic.write(path, "newer", synced=True)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_who_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(tmp_path / "report.json", "new")
    assert not list(tmp_path.iterdir())


def test_what_is_private_is_so_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        atomic.write(tmp_path / "engine", b"code", synced=True, private=True)
    finally:
        os.umask(before)
    assert (tmp_path / "engine").stat().st_mode & 0o777 == 0o600


def test_a_long_name_is_no_longer_beside_it(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 250)
    atomic.write(path, "said")
    assert path.read_text() == "said"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm here")
def test_files_in_shared_memory_are_replaced_as_any() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "COMMIT"
        atomic.write(path, "old")
        before = path.stat().st_ino
        atomic.write(path, "new", synced=True)
        assert path.read_text() == "new" and path.stat().st_ino != before
