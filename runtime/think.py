"""Thinking in the budget: several chunks are drawn from one look at the frames, and a judge takes the best.

    prefix once -> memory -> N draws in one batch of steps -> judge -> one chunk

    coherence   goes on best with the running plan; without one, the draw nearest to all others
    critic      will be worth most, by a head of the policy that learned it from rollouts
    refuse      plays each in a simulator of the scene and refuses what collides or drops; then coherence
    world       the same, and of the rest takes what gets farthest

The last two need a simulator of the scene beside the policy: `takt eval` has one. A deadline that is near
makes N smaller before it costs a step (pace.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.candidates import apart
from runtime.graphs import Arrays, Graph
from vla.contract import PolicySpec, Request, TaktError

MOST = 64  # candidates
JUDGES = ("coherence", "critic", "refuse", "world")
WORLDLY = ("refuse", "world")
Memory = Callable[[], Arrays]


class Judge(Protocol):
    def __call__(
        self, chunks: np.ndarray, request: Request, repeated: np.ndarray, memory: Memory
    ) -> np.ndarray:
        """How bad each chunk is, shape (C,); the least is taken.

        Args:
            chunks: shape (C, H, A), physical units.
            request: what was asked.
            repeated: shape (H,), bool; rows that all of them have from the request's prefix.
            memory: gives what the prefix graph made of the observation, a batch of one; it may have to be
                fetched from a device.
        """


@dataclass(frozen=True)
class Thinking:
    """How many chunks are drawn, 1 to MOST, and which of JUDGES takes one."""

    candidates: int = 1
    judge: str = "coherence"


def parse(text: str | None) -> Thinking | None:
    """ "N" or "N:JUDGE"; None where nothing is said.

    Raises:
        TaktError: neither.
    """
    if text is None:
        return None
    count, colon, judge = text.partition(":")
    if not (count.isdecimal() and 1 <= int(count) <= MOST and (judge in JUDGES or not colon)):
        raise TaktError(
            f"--think is a number of candidates from 1 to {MOST}, or N:JUDGE with a judge of "
            f"{', '.join(JUDGES)}; got {text!r}"
        )
    return Thinking(int(count), judge or "coherence")


def judge_of(think: Thinking, spec: PolicySpec, graphs: Mapping[str, Graph]) -> Judge:
    """The judge; one with a simulator is put in its place by whoever has that, until then it refuses.

    Raises:
        TaktError: the bundle has no critic.
    """
    if think.judge == "critic":
        if "critic" not in graphs:
            raise TaktError("this bundle has no critic to judge candidates: takt export --critic")
        return Critic(graphs["critic"])
    return Nobody(think.judge) if think.judge in WORLDLY else Coherence(spec)


def served(text: str | None) -> Thinking | None:
    """As `parse`, for a server, which has no simulator.

    Raises:
        TaktError: also for a judge that needs one.
    """
    think = parse(text)
    if think is not None and think.judge in WORLDLY:
        raise TaktError(
            f"--think {text}: {think.judge} plays chunks in a simulator, which only takt eval has; "
            f"valid: {', '.join(j for j in JUDGES if j not in WORLDLY)}"
        )
    return think


class Coherence:
    """Goes on best with the running plan (candidates.py)."""

    def __init__(self, spec: PolicySpec) -> None:
        self._space = spec.actions

    def __call__(
        self, chunks: np.ndarray, request: Request, repeated: np.ndarray, memory: Memory
    ) -> np.ndarray:
        return apart(chunks, self._space, request.prefix, repeated)


class Critic:
    """Worth most by the policy's own critic, trained on how rollouts ended."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(
        self, chunks: np.ndarray, request: Request, repeated: np.ndarray, memory: Memory
    ) -> np.ndarray:
        feeds = {name: np.repeat(value, len(chunks), axis=0) for name, value in memory().items()}
        score = self._graph(feeds | {"actions": chunks.astype(np.float32)})["score"]
        return -np.asarray(score, np.float64)


class Nobody:
    """In the place of a judge with a simulator, where there is none."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(
        self, chunks: np.ndarray, request: Request, repeated: np.ndarray, memory: Memory
    ) -> np.ndarray:
        raise TaktError(f"the judge {self._name!r} plays chunks in a simulator, and nobody gave it one")
