"""The control loop's end of the recorder: hands ticks over, never waits, never raises in the loop.

    with Recorder(folder, rate, say) as recorder:
        recorder.begin(spec, "put the red cube in the blue bowl")
        recorder.put(...)                       every tick; a copy of the frames, and a message
        commit = recorder.end("done", success=True)     when the robot is safe

Writing is done by a process of its own (`runtime.record_process`), between which and the loop there is a
short bounded queue. Ticks that do not fit are dropped and counted in the episode: what is slow, or dead, or
has no room left, costs rows and never the beat.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from runtime.child import stop
from runtime.journal import Commit, Meta
from runtime.slots import Slots
from vla.contract import Observation, RobotSpec, TaktError

QUEUE = 0.4  # s of ticks that may wait at either end
RISK = 0.9  # s of ticks that are not on the disk yet; with so many, further ones are dropped and counted
WAIT = 30.0  # s for the recorder to start, and to begin and complete an episode


class Recorder:
    """One recorder of one robot.

    Attributes:
        recovered: episodes that a recorder before had left behind and this one has closed, by name.
        number: of the episode.
        dropped: ticks of this episode that were not handed over.
        problem: why nothing is recorded, "" while all is well.
    """

    def __init__(self, folder: Path, rate: float, say: Callable[[str], object] = print) -> None:
        """`say` is told, in a line and once an episode, what keeps it from recording."""
        self._folder, self._rate, self._say = folder, rate, say
        self.recovered: dict[str, Commit] = {}
        self.number, self.dropped, self.problem = -1, 0, ""
        self._child: subprocess.Popen[bytes] | None = None
        self._shown: dict[str, object] = {}
        self._verdicts: Mapping[str, int] = {}
        self._waiting: deque[tuple[int, float]] = deque()
        self._free: deque[int] = deque()  # places for frames that the recorder is done with
        self._put = self._tick = self._begun = 0
        self._ended: dict[str, Any] | None = None
        self._open = False

    def __enter__(self) -> Recorder:
        """
        Raises:
            TaktError: it cannot write there, or does not start.
        """
        self._start()
        return self

    def __exit__(self, *exc: object) -> None:
        """An episode that is still open is completed without a label."""
        if self._open:
            with contextlib.suppress(TaktError):  # it was told already, and the next recorder closes it
                self.end("left")
        self._stop()

    # -- an episode

    def begin(self, spec: RobotSpec, instruction: str, about: Mapping[str, Any] | None = None) -> int:
        """A new episode; its number. A recorder that has ended is started anew.

        Raises:
            TaktError: it cannot be recorded.
        """
        if self._dead:
            self._stop()
            self._start()
        meta = Meta(
            robot=spec.name,
            state=spec.state,
            actions=spec.actions,
            cameras=spec.cameras,
            rate=self._rate,
            instruction=instruction,
            monotonic=time.monotonic(),
            wall=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            about=dict(about or {}),
        )
        self._sizes = {c.name: (c.height, c.width, 3) for c in spec.cameras}
        count = 2 * self._queue if spec.cameras else 0
        self._slots.lay_out(self._sizes, count, fresh=True)
        self._free = deque(range(count))
        self.problem, self.dropped, self._put, self._tick = "", 0, 0, 0
        self._shown, self._verdicts, self._ended = {}, {}, None
        self._waiting.clear()
        self._begun = -1
        self._send({"do": "begin", "meta": meta.to_json(), "slots": count})
        self._await(lambda: self._begun >= 0 or self.problem != "", "it did not begin an episode")
        if self.problem:
            raise TaktError(f"{self._folder}: {self.problem}")
        self.number, self._open = self._begun, True
        return self.number

    def put(
        self,
        now: float,
        seen: Observation,
        target: np.ndarray | None,
        command: np.ndarray,
        mode: str = "",
        verdicts: Mapping[str, int] | None = None,
    ) -> bool:
        """One tick; False when it was dropped. It never waits.

        Args:
            now: the tick's time, s, monotonic.
            target, command: what was asked for, None for nothing, and what the robot was told; shape (A,).
            mode: the guard's state.
            verdicts: the filter's counts so far.
        """
        counts = dict(verdicts or {})
        done = [name for name, count in counts.items() if count > self._verdicts.get(name, 0)]
        self._verdicts = counts
        tick, self._tick = self._tick, self._tick + 1
        self._hear()
        self._look()
        # What is dropped is counted, what is lost is not: no more than `RISK` is ever there to be lost.
        if self.problem or (self._waiting and time.monotonic() - self._waiting[0][1] > RISK):
            self.dropped += 1
            return False
        fresh = self._fresh(seen)
        if fresh and not self._free:
            self.dropped += 1
            return False
        head = {
            "do": "tick",
            "tick": tick,
            "time": now,
            "seen": seen.time,
            "state": np.asarray(seen.state, np.float32).tobytes(),
            "target": None if target is None else np.asarray(target, float).tobytes(),
            "command": np.asarray(command, float).tobytes(),
            "mode": mode,
            "verdicts": done,
            "captured": dict(seen.captured),
            "frames": list(fresh),
            "slot": self._free[0] if fresh else -1,
        }
        for camera, frame in fresh.items():
            # Copied: whoever made it may overwrite it while the message waits.
            np.copyto(self._slots[self._free[0]][camera], frame)
        if not self._send(head):
            self.dropped += 1
            return False
        if fresh:
            self._free.popleft()
        for camera, frame in fresh.items():
            self._shown[camera] = seen.captured.get(camera, frame)
        self._put += 1
        self._waiting.append((self._put, time.monotonic()))
        return True

    def end(self, ended: str, success: bool | None = None) -> Commit:
        """Complete the episode; when this returns nothing of what the commit counts can be lost.

        Raises:
            TaktError: the recorder has died, or cannot write even that; what is on the disk is closed by the
                next recorder or reader of the folder.
        """
        self._open = False
        gone = f"episode {self.number} is left open, and what is on the disk of it will be found"
        end = {"do": "end", "ended": ended, "dropped": self.dropped, "success": success}
        self._look()
        if self._dead or not self._send(end, wait=True):
            raise TaktError(f"{self._folder}: {self.problem or 'the recorder does not answer'}; {gone}")
        self._await(lambda: self._ended is not None, gone)
        if not self._ended:
            raise TaktError(f"{self._folder}: {self.problem}; {gone}")
        return Commit(**self._ended)

    @property
    def recording(self) -> bool:
        """Whether an episode has begun that was not ended."""
        return self._open

    @property
    def at_risk(self) -> float:
        """How long ago the oldest tick was handed over that is not on the disk yet, s."""
        self._hear()
        return time.monotonic() - self._waiting[0][1] if self._waiting else 0.0

    @property
    def durable(self) -> int:
        """Ticks of this episode that are on the disk, as far as the recorder has said so."""
        self._hear()
        return self._waiting[0][0] - 1 if self._waiting else self._put

    @property
    def pid(self) -> int:
        """Of the recorder's process."""
        assert self._child is not None
        return self._child.pid

    # -- its process

    def _start(self) -> None:
        queue = self._queue = max(2, math.ceil(QUEUE * self._rate))
        self._slots = Slots()
        self._private = tempfile.TemporaryDirectory(prefix="takt-rec-")
        address = f"ipc://{self._private.name}/ticks"
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, queue)
        self._socket.setsockopt(zmq.SNDTIMEO, round(WAIT * 1000))
        self._socket.bind(address)
        command = [sys.executable, "-m", "runtime.record_process", str(self._folder.resolve()), address]
        self._child = subprocess.Popen(
            [*command, "--queue", str(queue), "--memory", str(self._slots.handle)],
            stdin=subprocess.PIPE,
            pass_fds=(self._slots.handle,),
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            # Ctrl-C in the terminal reaches the control loop alone, which ends the recorder last.
            start_new_session=True,
        )
        self.problem, self._ready = "", False
        try:
            self._await(lambda: self._ready or self.problem != "", "the recorder does not start")
            if self.problem:
                raise TaktError(self.problem)
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        assert child.stdin is not None
        child.stdin.close()  # it completes what is open, and ends
        try:
            child.wait(WAIT)
        except subprocess.TimeoutExpired:
            stop(child)
        self._socket.close()
        self._slots.close()
        self._private.cleanup()

    def _send(self, message: dict[str, Any], wait: bool = False) -> bool:
        try:
            self._socket.send(msgpack.packb(message), 0 if wait else zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _hear(self) -> None:
        while True:
            try:
                told = msgpack.unpackb(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            if "ready" in told:
                self._ready = True
                self.recovered = {name: Commit(**row) for name, row in told["ready"].items()}
            elif "begun" in told:
                self._begun = told["begun"]
            elif "free" in told:
                self._free.append(told["free"])
            elif "durable" in told:
                while self._waiting and self._waiting[0][0] <= told["durable"]:
                    self._waiting.popleft()
            elif "ended" in told:
                self._ended = told["ended"]
                self._waiting.clear()
            elif "failed" in told:
                self._fail(told["failed"])
                if told.get("open"):
                    self._ended = {}

    @property
    def _dead(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def _look(self) -> None:
        if self._dead:
            self._fail(DEAD)

    def _fail(self, why: str) -> None:
        if not self.problem and self._open:
            self._say(f"takt: episode {self.number} is no longer recorded: {why}; the robot goes on")
        self.problem = self.problem or why

    def _await(self, over: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT
        while not over():
            self._socket.poll(20)
            self._hear()
            if not over() and self._dead:
                raise TaktError(f"{self._folder}: {self.problem or DEAD}; {what}")
            if time.monotonic() > end:
                raise TaktError(f"{self._folder}: the recorder does not answer: {what}")

    def _fresh(self, seen: Observation) -> dict[str, np.ndarray]:
        """The frames that were not handed over yet."""
        found = {}
        for camera in self._sizes:
            if camera not in seen.frames:
                continue
            frame = seen.frames[camera]
            mark = seen.captured.get(camera, frame)
            before = self._shown.get(camera)
            if mark is before or (camera in seen.captured and mark == before):
                continue
            if frame.shape == self._sizes[camera] and frame.dtype == np.uint8:
                found[camera] = frame
        return found


DEAD = "the recorder has ended"
