"""Recorded episodes as motions and as a data set: each beat has its row, and the frame that it saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime import collect, journal_reader, motion
from runtime.journal_writer import Episode, Row
from tests.runtime import recording
from vla.contract import TaktError
from vla.dataset import Dataset

RATE = 20


def record(
    root: Path, ticks: list[float], success: bool | None = True, first: int = 0, parking: int = 0
) -> Path:
    """Rows at these times, in beats; frames from tick `first` on, and a tail that brakes."""
    episode = Episode(root, recording.meta(("front",), RATE, 50.0))
    for i, beat in enumerate(ticks):
        mode = "PARKING" if i >= len(ticks) - parking else "RUNNING"
        time = 50.0 + beat / RATE
        row = Row(i, time, time - 0.002, recording.state(i), recording.target(i), recording.command(i), mode)
        episode.put(row, {"front": recording.frame(i)} if i >= first else {})
    episode.end("done", 2, success)
    return episode.folder


@pytest.mark.parametrize(
    ("ticks", "rows", "repeated"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], 0),
        ([0, 1.4, 2, 2.6], [0, 1, 2, 3], 0),  # late by less than half a beat
        ([0, 1, 4, 5], [0, 1, 1, 1, 2, 3], 2),  # two ticks were left out
        ([0, 1, 1.5, 2], [0, 1, 3], 0),
        ([0], [0], 0),
    ],
)
def test_every_beat_has_a_row(tmp_path: Path, ticks: list[float], rows: list[int], repeated: int) -> None:
    found = journal_reader.read(record(tmp_path, ticks))
    chosen, count = motion.beat(found, 1 / RATE)
    assert (chosen.tolist(), count) == (rows, repeated)


def test_what_is_not_driven_is_no_motion(tmp_path: Path) -> None:
    record(tmp_path, list(range(9)), parking=4)
    played = motion.load(tmp_path, 0, recording.spec())
    np.testing.assert_array_equal(played.commands, [recording.command(i) for i in range(5)])
    assert (played.state, played.instruction, played.dt) == (recording.JOINTS, recording.WORDS, 1 / RATE)
    record(tmp_path, list(range(4)), parking=4)
    with pytest.raises(TaktError, match="no row in which the robot was driven"):
        motion.load(tmp_path, 1, recording.spec())
    with pytest.raises(TaktError, match="no complete episode 7; valid: 0, 1"):
        motion.load(tmp_path, 7, recording.spec())
    with pytest.raises(TaktError, match="no folder"):
        motion.load(tmp_path / "away", 0, recording.spec())


def test_a_data_set_is_what_was_recorded(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    record(root, [0, 1, 2, 5, 6], first=1)
    record(root, list(range(6)), success=None)
    found = [journal_reader.read(path) for path in journal_reader.episodes(root)]
    assert collect.write(found, tmp_path / "data") == 2
    data = Dataset(tmp_path / "data")
    assert (data.fps, data.robot_type, data.tasks) == (RATE, "two", [recording.WORDS])
    # The first tick had no frame yet; ticks 3 and 4 were not recorded, and 2 stands for them.
    saw = [1, 2, 2, 2, 3, 4, *range(6)]
    columns = data.columns(["observation.state", "action", "measured_time"])
    np.testing.assert_array_equal(columns["observation.state"], [recording.state(i) for i in saw])
    np.testing.assert_allclose(columns["action"], [recording.command(i) for i in saw], rtol=1e-6)
    beats = np.array([0, 1, 1, 1, 4, 5, *range(6)])
    np.testing.assert_allclose(columns["measured_time"][:, 0], beats / RATE - 0.002, atol=1e-9)
    pictures = data.images("observation.images.front")
    assert np.abs(pictures.mean(axis=(1, 2, 3)) - [recording.grey(i) for i in saw]).max() < 12
    rows = [{k: e[k] for k in ("success", "labelled", "journal", "dropped")} for e in data.episodes]
    assert rows == [
        {"success": True, "labelled": True, "journal": "runs/000000", "dropped": 2},
        {"success": False, "labelled": False, "journal": "runs/000001", "dropped": 2},
    ]
    # It is played from there as from the journals.
    played = motion.load(tmp_path / "data", 1, recording.spec())
    np.testing.assert_allclose(played.commands, [recording.command(i) for i in range(6)], rtol=1e-6)
    assert played.actions == recording.SPACE and played.instruction == recording.WORDS


def test_the_command_leaves_out_what_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for success in (True, False, None):
        record(tmp_path / "runs", list(range(4)), success=success)
    record(tmp_path / "more", list(range(4)), parking=4)
    command = collect.Command(tmp_path / "data", (tmp_path / "runs", tmp_path / "more"), only_successes=True)
    assert command.run() == 0
    out = capsys.readouterr().out
    assert out.count("not labelled a success") == 2 and "000000 is left out: no row of it" in out
    assert len(Dataset(tmp_path / "data").episodes) == 1
    with pytest.raises(TaktError, match="is not empty"):
        command.run()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_episodes_of_different_robots_do_not_mix(tmp_path: Path) -> None:
    record(tmp_path / "a", [0, 1])
    other = Episode(tmp_path / "b", recording.meta((), RATE))
    other.put(recording.row(0), {})
    other.end("done")
    command = collect.Command(tmp_path / "data", (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(TaktError, match="another robot, rate or cameras"):
        command.run()
    with pytest.raises(TaktError, match="no episode is left"):
        collect.Command(tmp_path / "data", (tmp_path / "b",), only_successes=True).run()
    assert not (tmp_path / "data").exists()
