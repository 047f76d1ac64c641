"""Cameras as processes: what they show, what is said when something is wrong, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robot_io.camera import Cameras, Looked
from robot_io.camera_check import found, measured, rows
from robot_io.camera_options import parse
from tests.robot_io.feeder import SIZE, Feeder, feeding, piece
from tests.runtime.peers import PATIENCE, until
from vla.contract import CameraSpec, TaktError

pytest.importorskip("simplejpeg")
ROOT = Path(__file__).parents[2]


def fed(feeder: Feeder) -> Cameras:
    return Cameras(parse(f"front:pipe:{feeder.fifo},size={SIZE[0]}x{SIZE[1]}"))


def looking(cameras: Cameras, condition: Callable[[Looked], object], what: str) -> Looked:
    """Look until a condition holds; what was seen then."""
    seen = [cameras.look()]
    until(lambda: condition(seen[0]) or (seen.insert(0, cameras.look()), time.sleep(0.005))[0], what)
    return seen[0]


def test_frames_have_the_size_that_is_wanted_and_their_time() -> None:
    sizes = (CameraSpec("wrist", 48, 64), CameraSpec("another", 8, 8))
    with Cameras(parse("front:pattern,size=32x24,wrist:pattern"), sizes) as cameras:
        assert cameras.specs == (CameraSpec("front", 24, 32), CameraSpec("wrist", 48, 64))
        before = looking(cameras, lambda s: not s.blind, "blind")  # they have only just begun
        assert {n: f.shape for n, f in before.frames.items()} == {"front": (24, 32, 3), "wrist": (48, 64, 3)}
        assert not before.blind
        after = looking(cameras, lambda s: s.captured["front"] > before.captured["front"], "no new frame")
        assert not np.array_equal(after.frames["front"], before.frames["front"])
        assert before.captured["front"] < after.captured["front"] <= time.monotonic()


def test_the_rate_is_measured() -> None:
    (row,) = [r for r in rows("front:pattern,fps=20", seconds=1.5) if r.name.startswith("camera front")]
    rate = float(row.detail.split()[0])
    assert 8.0 < rate < 21.5, row  # a busy machine skips beats
    assert "frames a second" in row.detail
    assert "were asked for" in measured(parse("front:pattern,size=1920x1080,fps=900")[0], 0.5).detail
    with pytest.raises(TaktError, match="no kind"):
        rows("front:usb:0")


def test_devices_are_listed(tmp_path: Path) -> None:
    (tmp_path / "video77").mkdir()
    (tmp_path / "video77" / "name").write_text("A Camera\n")
    (row,) = found(tmp_path)
    assert row.name == "camera /dev/video77" and row.detail.startswith("A Camera; No such file")
    (none,) = found(tmp_path / "none")
    assert none.status == "warn" and "no V4L2 device" in none.detail


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("same", "front: frozen"),
        ("dark", "front: dark"),
        ("damaged", "front: a damaged JPEG"),
        ("cut", "front: a JPEG that is cut"),
        ("small", "front: a frame of 48x32, not 96x64"),
    ],
)
def test_what_is_wrong_is_said_and_is_over_when_it_is_over(tmp_path: Path, word: str, words: str) -> None:
    with feeding(tmp_path) as feeder, fed(feeder) as cameras:
        feeder.begun()
        begun = feeder.say(word)
        seen = looking(cameras, lambda s: any(words in w for w in s.blind), f"never {words}")
        assert seen.captured["front"] <= begun, "a bad frame was handed out as a fresh one"
        kept = seen.frames["front"]
        until(lambda: time.monotonic() > begun + 0.5, "")
        np.testing.assert_array_equal(cameras.look().frames["front"], kept)
        begun = feeder.say("moving")
        seen = looking(cameras, lambda s: not s.blind, "it did not come back")
        assert seen.captured["front"] > begun - 0.1


def test_a_source_that_is_killed_is_gone_and_its_successor_is_seen(tmp_path: Path) -> None:
    with feeding(tmp_path) as feeder, fed(feeder) as cameras:
        feeder.begun()
        feeder.kill()
        looking(cameras, lambda s: "other end was closed" in "".join(s.blind), "it was not missed")
        feeder.start()
        looking(cameras, lambda s: not s.blind, "the next one was not seen")


def test_a_file_that_is_removed_is_gone_and_seen_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "still.jpg"
    path.write_bytes(piece("moving", 1))
    with Cameras(parse(f"front:file:{path}")) as cameras:
        looking(cameras, lambda s: not s.blind, "a picture may stand still")
        path.unlink()
        looking(cameras, lambda s: "still.jpg: No such file" in "".join(s.blind), "it was not missed")
        (tmp_path / "new").write_bytes(piece("moving", 2))
        (tmp_path / "new").rename(path)
        looking(cameras, lambda s: not s.blind, "it was not seen again")


def test_a_process_that_hangs_is_noticed() -> None:
    with Cameras(parse("front:pattern")) as cameras:
        os.kill(cameras.cameras[0].process.pid, signal.SIGSTOP)
        looking(cameras, lambda s: s.blind == ("front: no new frame",), "it was not noticed")
        os.kill(cameras.cameras[0].process.pid, signal.SIGCONT)
        looking(cameras, lambda s: not s.blind, "it did not come back")


def test_a_process_that_is_killed_is_started_again() -> None:
    with Cameras(parse("front:pattern,wrist:pattern")) as cameras:
        number = cameras.cameras[0]._number
        cameras.cameras[0].process.kill()
        seen = looking(cameras, lambda s: s.blind, "it was not missed")
        assert seen.blind == ("front: its process was ended by SIGKILL",)
        looking(cameras, lambda s: not s.blind, "it was not started again")
        assert cameras.cameras[0]._number > number


def test_a_camera_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robot_io.camera.FIRST", 1.5)
    cameras = Cameras(parse(f"front:pattern,wrist:v4l2:{tmp_path}/video9"))
    with pytest.raises(TaktError, match=r"camera wrist: .*/video9 is not there"), cameras:
        pass
    assert all(camera.process.poll() is not None for camera in cameras.cameras)


# A control process as far as cameras go; says who they are, and waits.
CONTROL = """
import sys, time
from robot_io.camera import Cameras
from robot_io.camera_options import parse
with Cameras(parse("front:pattern,wrist:pattern")) as cameras:
    print(*(camera.process.pid for camera in cameras.cameras), flush=True)
    if sys.argv[1] == "kill":
        cameras.cameras[0].process.kill()
    if sys.argv[1] != "go":
        while True:
            cameras.look()
            time.sleep(0.01)
"""


def memory() -> set[str]:
    """What there is of ours, and of Python's own, in the memory that has names."""
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    return {name for name in names if name.startswith(("takt", "psm_"))}


def alive(pid: int) -> bool:
    """Whether a process is there, and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
@pytest.mark.parametrize("how", ["go", "killed", "kill"])
def test_nothing_is_left(how: str) -> None:
    """Left in order; killed with -9; killed with -9 after one of its cameras was."""
    before = memory()
    control = subprocess.Popen(
        [sys.executable, "-c", CONTROL, how],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert control.stdout is not None
    pids = [int(pid) for pid in control.stdout.readline().split()]
    assert len(pids) == 2
    if how != "go":
        assert alive(pids[1])
        time.sleep(0.1)
        control.kill()
    _, errors = control.communicate(timeout=PATIENCE)
    assert errors == ""
    until(lambda: not any(alive(pid) for pid in pids), "a camera outlived who started it")
    assert memory() <= before
