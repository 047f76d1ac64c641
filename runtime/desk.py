"""One policy, many askers: what waits, in which order it is answered, and what is answered together.

asked      peer a ----- newer replaces older -----+
asked      peer b --------------------------------+--> earliest deadline first --> one worker runs the policy
                                                       a batch where it pays       and calls `done`
Every front end (the native wire, other projects' protocols) puts its requests here, so a policy is loaded
once and its one thread of work is shared fairly.
"""

from __future__ import annotations

import inspect
import itertools
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from runtime import wire
from vla.contract import ActionChunk, Policy, PolicySpec, Request, TaktError

Done = Callable[["ActionChunk | TaktError"], None]

_PEERS = 64  # peers that may wait at once
_TURN = 1.0  # s within which a request without a deadline wants to be answered, so that none is starved
_GRACE = 2.0  # s that closing waits for a running inference
_PAYS = 0.9  # a batch has to take less than this part of what its requests take alone
_RETRY = 64  # runs after which a size that did not pay is measured again
_BLEND = 0.3  # weight of the newest measurement


class Late(TaktError):
    """The deadline passed while the request waited."""


class Busy(TaktError):
    """As many peers wait as the desk has room for."""


@dataclass
class _Waiting:
    peer: Hashable
    request: Request
    done: Done
    arrival: float  # s
    place: int  # in the order of arrival; a newer request of a peer keeps it, and `since`
    since: float  # when the peer began to wait, s
    due: float = field(init=False)  # s, absolute

    def __post_init__(self) -> None:
        self.due = math.inf if self.request.deadline is None else self.arrival + self.request.deadline

    @property
    def rank(self) -> tuple[float, int]:
        return self.since + _TURN if self.due == math.inf else self.due, self.place


class Pace:
    """Seconds that batches take, measured by size, and the size that pays best."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._tried: dict[int, int] = {}  # size -> the run in which it was measured last
        self._runs = 0

    def note(self, size: int, seconds: float) -> None:
        """A batch of `size` took `seconds`."""
        known = self.seconds.get(size, seconds)
        self.seconds[size] = known + _BLEND * (seconds - known)
        self._tried[size] = self._runs
        self._runs += 1

    def choose(self, most: int, left: float) -> int:
        """How many of `most` requests to answer together, of which the first is due in `left` s.

        A size that was never measured is taken to cost as much as its requests alone, so trying it misses
        no deadline unless batching is worse than none.
        """
        if most < 2 or 1 not in self.seconds:
            return 1
        alone = self.seconds[1]
        if self._stale(most) and max(self.seconds.get(most, 0.0), most * alone) <= left:
            return most
        paying = [
            (seconds / size, -size)
            for size, seconds in self.seconds.items()
            if 1 < size <= most and seconds <= min(left, _PAYS * size * alone)
        ]
        return -min(paying)[1] if paying else 1

    def _stale(self, size: int) -> bool:
        return size not in self._tried or self._runs - self._tried[size] > _RETRY


class Desk:
    """A policy and the requests that wait for it; a context manager.

    Attributes:
        spec: the policy's.
        digest: names the spec, see `wire.digest`.
        clock: monotonic s; the origins of chunks are on it.
        answered, failed, late: requests by how they ended; one that was replaced is in none of them.
        batches: runs of the policy, of one request or more.
    """

    def __init__(
        self, policy: Policy, batch: int = 8, clock: Callable[[], float] = time.monotonic, peers: int = _PEERS
    ) -> None:
        """
        Args:
            batch: requests that may be answered together at most.
            clock: monotonic s.
            peers: peers that may wait at once.

        Raises:
            TaktError: the policy cannot be shared, because its noise is not fixed by seed and call.
        """
        self._run_batch: Callable[[Sequence[Request]], list[ActionChunk]] | None
        self._run_batch = getattr(policy, "infer_batch", None)
        if self._run_batch is None and not _takes_two(policy.reset):
            raise TaktError(
                f"policy {policy.spec.name!r} cannot be shared: it needs infer_batch(requests) or "
                "reset(seed, calls)"
            )
        self.spec: PolicySpec = policy.spec
        self.digest = wire.digest(self.spec)
        self.answered = self.failed = self.late = self.batches = 0
        self.pace = Pace()
        self._policy: Any = policy
        self._batch = batch if self._run_batch is not None else 1
        self.clock = clock
        self._peers = peers
        self._places = itertools.count()
        self._waiting: dict[Hashable, _Waiting] = {}
        self._changed = threading.Condition()
        self._over = False
        self._worker = threading.Thread(target=self._work, name="takt-desk", daemon=True)
        self._worker.start()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer what waits with one line, and end the worker after the inference that runs."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._worker.join(_GRACE)

    def submit(self, peer: Hashable, request: Request, done: Done) -> bool:
        """Ask without waiting; False when the house is full or closed.

        The newest request of a peer replaces its waiting one, whose `done` is then never called. The
        earliest deadline is answered first, equals by arrival; a request without one ranks as one that is
        due a second after its peer began to wait, so that none is starved. A request whose
        deadline passed while it waited is answered with `Late` and not run.

        Args:
            done: called once, from the worker's thread, with the chunk or with what went wrong.
        """
        with self._changed:
            old = self._waiting.get(peer)
            if self._over or (old is None and len(self._waiting) >= self._peers):
                return False
            place = next(self._places) if old is None else old.place
            now = self.clock()
            since = now if old is None else old.since
            self._waiting[peer] = _Waiting(peer, request, done, now, place, since)
            self._changed.notify()
        return True

    def withdraw(self, peer: Hashable) -> None:
        """Drop the waiting request of a peer that has gone; its `done` is never called."""
        with self._changed:
            self._waiting.pop(peer, None)

    def ask(self, peer: Hashable, request: Request, timeout: float) -> ActionChunk:
        """Ask and wait up to `timeout` s, for protocols that answer in turn.

        Raises:
            Busy: the house is full.
            TaktError: what went wrong, or that no answer came in time.
        """
        answers: queue.SimpleQueue[ActionChunk | TaktError] = queue.SimpleQueue()
        if not self.submit(peer, request, answers.put):
            raise Busy(f"{self._peers} others wait already: ask again later")
        try:
            answer = answers.get(timeout=timeout)
        except queue.Empty:
            self.withdraw(peer)
            raise TaktError(f"the policy gave no answer within {timeout:g} s") from None
        if isinstance(answer, TaktError):
            raise answer
        return answer

    # ---- the worker ----

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if self._over:
                    rest = list(self._waiting.values())
                    self._waiting.clear()
                    break
                late, batch = self._next(self.clock())
            for waiting in late:
                self.late += 1
                _tell(waiting, Late("the deadline passed while the request waited"))
            if batch:
                self._run(batch)
        for waiting in rest:
            self.failed += 1
            _tell(waiting, TaktError("the server is closing"))

    def _next(self, now: float) -> tuple[list[_Waiting], list[_Waiting]]:
        """Take from what waits the requests that are too late, and those to answer now."""
        late = [w for w in self._waiting.values() if w.due <= now]
        queued = sorted((w for w in self._waiting.values() if w.due > now), key=lambda w: w.rank)
        left = min((w.due for w in queued), default=math.inf) - now
        batch = queued[: self.pace.choose(min(len(queued), self._batch), left)]
        for waiting in late + batch:
            del self._waiting[waiting.peer]
        return late, batch

    def _run(self, batch: list[_Waiting]) -> None:
        start = self.clock()
        requests = [w.request if w.due == math.inf else _left(w, start) for w in batch]
        try:
            chunks = self._infer(requests)
            for chunk in chunks:
                _check(chunk, self.spec)
        except Exception as error:
            if len(batch) > 1:  # it may be the fault of one: each has its own try
                for waiting in batch:
                    self._run([waiting])
                return
            self.batches += 1
            self.failed += 1
            _tell(batch[0], _as_line(error))
            return
        self.pace.note(len(batch), self.clock() - start)
        self.batches += 1
        self.answered += len(batch)
        for waiting, chunk in zip(batch, chunks, strict=True):
            stages = {"queue": start - waiting.arrival, **chunk.stages}
            _tell(waiting, replace(chunk, stages=stages, origin=waiting.arrival))

    def _infer(self, requests: list[Request]) -> list[ActionChunk]:
        if self._run_batch is not None:
            chunks = list(self._run_batch(requests))
            if len(chunks) != len(requests):
                raise ValueError(f"{len(requests)} requests got {len(chunks)} answers")
            return chunks
        (ask,) = requests
        self._policy.reset(ask.seed, ask.call)
        return [self._policy.infer(ask.observation, ask.prefix, ask.deadline)]


def _left(waiting: _Waiting, now: float) -> Request:
    """The request with the time that is left to it."""
    return replace(waiting.request, deadline=waiting.due - now)


def _check(chunk: ActionChunk, spec: PolicySpec) -> None:
    """No front end hands out what no robot may be given."""
    actions = np.asarray(chunk.actions)
    if actions.ndim != 2 or not len(actions) or actions.shape[1] != spec.actions.size:
        raise TaktError(f"policy {spec.name!r} gave actions of shape {actions.shape}")
    if not np.isfinite(actions).all():
        raise TaktError(f"policy {spec.name!r} gave actions that are not finite: export it again")


def _as_line(error: Exception) -> TaktError:
    if isinstance(error, TaktError):
        return error
    # An engine may raise anything; the peer learns that it failed, the operator why.
    print(f"takt: inference failed: {type(error).__name__}: {error}", file=sys.stderr)
    return TaktError("inference failed, see the server's log")


def _tell(waiting: _Waiting, answer: ActionChunk | TaktError) -> None:
    try:
        waiting.done(answer)
    except Exception as error:  # a front end's fault must not end the work for the others
        print(f"takt: an answer was lost: {type(error).__name__}: {error}", file=sys.stderr)


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether `function` can be called with two arguments."""
    try:
        inspect.signature(function).bind(0, 0)
    except (TypeError, ValueError):
        return False
    return True
