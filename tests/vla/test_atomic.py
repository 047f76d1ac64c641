"""A file is the old one or the new one, whoever looks and whatever fails."""

from __future__ import annotations

import os
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
