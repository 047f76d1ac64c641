"""How a new chunk continues the running one. Rows are looked up by time, in every manner.

naive     the newest chunk rules from the moment it is there; the command jumps where the two differ
hold      stand still from asking to answering, then play the answer from its first row
ensemble  the average of all chunks that have a row for now (temporal ensembling, arXiv 2304.13705,
          section IV-A: w_i = exp(-m i), the oldest first)
rtc       as naive, but the policy is told which rows of the running chunk will have been executed
          when its answer arrives, and continues them (real-time chunking, arXiv 2506.07339;
          with a training-time prefix, arXiv 2512.05964)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runtime.plan import delay_rows
from vla import flow
from vla.contract import ActionChunk, PolicySpec, Prefix, TaktError

_SAME = 1e-6  # s; a tick at start + k * period carries rounding


class Naive:
    """The newest observation's chunk."""

    name = "naive"
    waits = False  # whether the arm stands still while it waits for an answer

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.chunk: ActionChunk | None = None
        self.pace = 1.0  # how fast rows are played; their times are stretched by 1 / pace
        self._absolute = spec.actions.absolute

    @property
    def dt(self) -> float:
        """Seconds between rows as they are played."""
        return self.spec.dt / self.pace

    def clear(self) -> None:
        """Forget every chunk."""
        self.chunk = None

    def play_at(self, pace: float, now: float) -> None:
        """Go on from where the running chunk is at `now` (s), at another pace."""
        if self.chunk is not None:
            self.chunk = _stretched(self.chunk, self.pace / pace, now)
        self.pace = pace

    def prefix(self, time: float, latency: float) -> Prefix | None:
        """What the policy is told of the running chunk when it is asked at `time` (s)."""
        return None

    def take(self, chunk: ActionChunk, now: float) -> bool:
        """A new chunk is there at `now` (s); False when it is of no use."""
        chunk = _stretched(chunk, 1.0 / self.pace, chunk.time)
        if (self.chunk is not None and chunk.time <= self.chunk.time) or chunk.end < now - _SAME:
            return False
        self.chunk = chunk
        return True

    def age(self, now: float) -> float:
        """How long ago the observation was made that the running chunk answers, s; 0 without one."""
        return 0.0 if self.chunk is None else now - self.chunk.time

    def row(self, now: float) -> np.ndarray | None:
        """The action for `now` (s), shape (A,); None when no chunk reaches so far."""
        return None if self.chunk is None else self.chunk.at(now, self._absolute)


class Hold(Naive):
    """Stand, think, act: what most scripts do without saying so."""

    name = "hold"
    waits = True
    _seen = -np.inf  # the time of the observation that the running chunk answers, s

    def take(self, chunk: ActionChunk, now: float) -> bool:
        if chunk.time <= self._seen:
            return False
        # The arm has stood still since the observation, so the plan is as good now as it was then.
        shift = max(0.0, now - chunk.time)
        origin = None if chunk.origin is None else chunk.origin + shift
        if not super().take(replace(chunk, time=chunk.time + shift, origin=origin), now):
            return False
        self._seen = chunk.time
        return True

    def age(self, now: float) -> float:
        return 0.0 if self.chunk is None else now - self._seen


class Ensemble(Naive):
    """An average of what several chunks say about now."""

    name = "ensemble"

    def __init__(self, spec: PolicySpec, decay: float = 0.01, keep: int = 16) -> None:
        """`decay` is the paper's m; `keep` bounds how many chunks are remembered."""
        super().__init__(spec)
        self._decay, self._keep = decay, keep
        self._chunks: list[ActionChunk] = []

    def take(self, chunk: ActionChunk, now: float) -> bool:
        if not super().take(chunk, now) or self.chunk is None:
            return False
        self._chunks = [c for c in self._chunks if c.end >= now - _SAME][1 - self._keep :] + [self.chunk]
        return True

    def clear(self) -> None:
        super().clear()
        self._chunks = []

    def play_at(self, pace: float, now: float) -> None:
        self._chunks = [_stretched(c, self.pace / pace, now) for c in self._chunks]
        super().play_at(pace, now)

    def row(self, now: float) -> np.ndarray | None:
        rows = [row for c in self._chunks if (row := c.at(now, self._absolute)) is not None]
        if not rows:
            return None
        weights = np.exp(-self._decay * np.arange(len(rows)))
        averaged = weights @ np.array(rows) / weights.sum()
        # Relative actions are steps, not places: an average of two steps is no step anybody planned.
        return np.where(self._absolute, averaged, rows[-1])


class Rtc(Naive):
    """The policy continues what will be executed anyway."""

    name = "rtc"

    def prefix(self, time: float, latency: float) -> Prefix | None:
        """The running chunk's rows from `time` on: committed for the latency, known to its end.

        time             + latency                    end of the running chunk
         |== committed ==|-- known, guides a guided policy --|   free   |
         row 0 ... d - 1   d ... overlap - 1                  ... H - 1

        A policy with a training-time prefix takes the committed rows alone, and no more of them than it
        was trained with.
        """
        spec = self.spec
        if self.chunk is None or latency <= _SAME:
            return None
        rows = [self.chunk.at(time + i * self.dt, self._absolute) for i in range(spec.chunk_length)]
        known = [row for row in rows if row is not None]
        committed = min(delay_rows(latency, self.dt), len(known))
        if committed == 0:
            return None
        actions = np.repeat(known[-1][None], spec.chunk_length, axis=0)
        actions[: len(known)] = known
        if spec.joining == "guided":
            weights = flow.weights(spec.chunk_length, committed, len(known))
        else:
            weights = flow.hard(spec.chunk_length, min(committed, spec.committed))
        return Prefix(actions.astype(np.float32), weights)


def _stretched(chunk: ActionChunk, by: float, now: float) -> ActionChunk:
    """The chunk with its rows `by` times as far apart; what it says for `now` (s) stays."""
    if by == 1.0:
        return chunk
    return replace(chunk, time=now - (now - chunk.time) * by, dt=chunk.dt * by)


JOININGS: dict[str, type[Naive]] = {each.name: each for each in (Naive, Hold, Ensemble, Rtc)}


def make(name: str | None, spec: PolicySpec) -> Naive:
    """The joining of that name; by default real-time chunking where the policy can, else naive.

    Raises:
        TaktError: no such name, or the policy cannot continue a chunk.
    """
    if name is None:
        name = "naive" if spec.joining == "none" else "rtc"
    if name not in JOININGS:
        raise TaktError(f"no joining {name!r}; valid: {', '.join(JOININGS)}")
    if name == "rtc" and spec.joining == "none":
        raise TaktError(
            f"policy {spec.name!r} cannot continue a chunk: export it with --joining prefix or guided, "
            "or join by naive, hold or ensemble"
        )
    return JOININGS[name](spec)
