"""The record button of a console: episodes that begin and end while the arm stands.

To begin and to complete an episode takes a disk's time, which a moving arm cannot wait for; in between the
recorder never waits (runtime/recorder.py).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.guard import Guard
from vla.contract import Observation, RobotSpec, TaktError

if TYPE_CHECKING:  # what it writes with is an extra, which a run without a button does without
    from runtime.recorder import Recorder


def recorder(folder: Path, rate: float) -> Recorder:
    """What records into a folder, at `rate` ticks a second."""
    from runtime.recorder import Recorder

    return Recorder(folder, rate, lambda line: print(line, file=sys.stderr, flush=True))


class Button:
    """A recorder, and whether people want it to record.

    Attributes:
        on: whether they do.
        said: what came of it, for people.
        success: whether somebody saw the task of this episode done; None where nobody can tell.
    """

    def __init__(self, recorder: Recorder, spec: RobotSpec, about: Mapping[str, Any]) -> None:
        self._recorder, self._spec, self._about = recorder, spec, dict(about)
        self.on, self.said = False, "not recording"
        self.success: bool | None = None

    def press(self, on: bool) -> None:
        """Record, or no longer: from when the arm stands."""
        self.on = on
        if on != self._recorder.recording:
            self.said = "begins with the next instruction" if on else "ends when the arm stands"

    def tick(
        self, now: float, seen: Observation, target: np.ndarray | None, command: np.ndarray, guard: Guard,
        text: str,
    ) -> None:  # fmt: skip
        """A tick at `now`, s, whose command, shape (A,), was written. `text` is what is asked for, or ""."""
        recording = self._recorder.recording
        if guard.still and self.on and text and not recording:
            self._begin(text)
        elif guard.still and recording and not self.on:
            self.end("done")
        if self._recorder.recording:
            self._recorder.put(now, seen, target, command, guard.status.state.name, guard.verdicts)
            if self._recorder.problem:
                self.said = self._recorder.problem

    def _begin(self, text: str) -> None:
        self.success = None
        try:
            number = self._recorder.begin(self._spec, text, self._about)
            self.said = f"recording episode {number}"
        except TaktError as error:
            self.on, self.said = False, str(error)

    def end(self, why: str) -> None:
        """Complete the episode if there is one; what was recorded is said."""
        self.on = False
        if not self._recorder.recording:
            return
        try:
            commit = self._recorder.end(why, self.success)
            lost = f", {commit.dropped} not recorded" if commit.dropped else ""
            self.said = f"episode {self._recorder.number}: {commit.rows} ticks{lost}"
        except TaktError as error:
            self.said = str(error)
