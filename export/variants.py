"""A variant in a process of its own: opened, asked and timed there; its parent says whose turn it is.

So each has its own memory and threads, none is warmed by another, and the others sleep while one works.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime import bundle, engines
from runtime.child import follow
from runtime.policies import kind_of, open_policy
from vla.contract import Observation, Policy, PolicySpec, TaktError

# What has to be the same in policies that are compared.
ASPECTS: dict[str, Callable[[PolicySpec], Any]] = {
    "state": lambda spec: list(spec.state),
    "actions": lambda spec: [(d.name, d.unit) for d in spec.actions.dimensions],
    "cameras": lambda spec: sorted(c.name for c in spec.cameras),
    "rows": lambda spec: (spec.chunk_length, round(spec.dt, 6)),
}
STAGES = ("preprocess", "words", "prefix", "steps")


@dataclass(frozen=True)
class Variant:
    """
    Attributes:
        place: what `runtime.policies.open_policy` takes, or a nano checkpoint.
        like: the bundle whose spec and sampler a nano checkpoint takes.
        threads: of the engine. engine: what runs a bundle, see runtime/engines.py.
    """

    name: str
    place: str
    like: str
    threads: int = 1
    engine: str = engines.DEFAULT


@dataclass(frozen=True)
class Round:
    """What a turn took, s.

    Attributes:
        total: whole chunks, shape (N,), by a stopwatch around `infer`; the words were known.
        stages: name -> shape (N,), as the policy says.
        step: shape (N, steps).
        words: the stage "words" for instructions that were new, shape (M,); empty where there is none.
    """

    total: np.ndarray
    stages: dict[str, np.ndarray]
    step: np.ndarray
    words: np.ndarray


class Worker:
    """The parent's side; `with Worker(variant) as worker`."""

    def __init__(self, variant: Variant) -> None:
        """Starts the process; `spec` waits until the policy is open."""
        self.variant = variant
        # Spawned, never forked: engines and their threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, variant, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    def spec(self) -> PolicySpec:
        return self._ask("spec")

    def answers(self, observations: list[Observation]) -> np.ndarray:
        """Actions for each, shape (N, H, A), the i-th with the noise of seed i; `round` asks the same."""
        return self._ask("answers", observations)

    def round(self, warm: int, chunks: int, new: int) -> Round:
        """Time `chunks` after `warm` that do not count, then `new` with an instruction never read before."""
        return self._ask("round", warm, chunks, new)

    def memory(self) -> float | None:
        """The most that the process has used so far, MB; None where the system does not tell."""
        return self._ask("memory")

    def _ask(self, *question: Any) -> Any:
        try:
            self._pipe.send(question)
            good, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise TaktError(
                f"{self.variant.name}: its process ended, status {self._process.exitcode} (out of memory?)"
            ) from None
        if not good:
            raise TaktError(f"{self.variant.name}: {answer}")
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()  # the child ends by itself when it next listens
        self._process.join(0.5 if exc[0] is None else 0.0)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


# -- the child


def _work(pipe: Any, variant: Variant, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends us
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would work in others' turns
    follow(parent)
    asked: _Asked | None = None
    while True:
        try:
            what, *rest = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            asked = asked or _Asked(opened(variant))
            answer = True, getattr(asked, what)(*rest)
        except TaktError as error:
            answer = False, str(error)
        except Exception as error:  # an engine's own, as out of memory
            answer = False, " ".join(f"{type(error).__name__}: {error}".split())[:300]
        pipe.send(answer)


def opened(variant: Variant) -> Policy:
    """The policy of a variant."""
    place = Path(variant.place)
    if kind_of(place) in ("nano", "plain"):
        from export import reference  # torch, which a bundle does without

        made = reference.nano if kind_of(place) == "nano" else reference.plain
        return made(place, bundle.load(Path(variant.like)), variant.threads)
    return open_policy(variant.place, variant.threads, variant.engine)


def check_same(specs: Sequence[PolicySpec], names: Sequence[str]) -> None:
    """Variants can be compared: they look at the same and their chunks have the same rows.

    Raises:
        TaktError: two do not, with what differs.
    """
    for spec, name in zip(specs[1:], names[1:], strict=True):
        for what, of in ASPECTS.items():
            if of(spec) != of(specs[0]):
                raise TaktError(
                    f"{names[0]} and {name} differ in {what} and cannot be compared: "
                    f"{of(specs[0])} against {of(spec)}"
                )


class _Asked:
    """A policy that answers its parent."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._observations: list[Observation] = []
        self._text = ""
        self._new = 0  # instructions made up so far

    def spec(self) -> PolicySpec:
        return self._policy.spec

    def answers(self, observations: list[Observation]) -> np.ndarray:
        self._observations, self._text = observations, observations[0].instruction
        chunks = []
        for i, seen in enumerate(observations):
            self._policy.reset(i)
            chunks.append(self._policy.infer(seen).actions)
        return np.stack(chunks)

    def round(self, warm: int, chunks: int, new: int) -> Round:
        rows: list[tuple[float, dict[str, float], tuple[float, ...]]] = []
        gc.collect()
        gc.disable()
        try:
            for i in range(-warm, chunks):
                # One instruction, as a robot has: its words are known after the first answer.
                seen = replace(self._observations[i % len(self._observations)], instruction=self._text)
                self._policy.reset(i + warm)
                begun = time.perf_counter()
                chunk = self._policy.infer(seen)
                took = time.perf_counter() - begun
                if i >= 0:
                    rows.append((took, chunk.stages, chunk.step_seconds))
            words = [self._read_new() for _ in range(new)]
        finally:
            gc.enable()
        stages = {s: np.array([r[1][s] for r in rows]) for s in STAGES if all(s in r[1] for r in rows)}
        known = np.array([w for w in words if w is not None])
        return Round(np.array([r[0] for r in rows]), stages, np.array([r[2] for r in rows]), known)

    def _read_new(self) -> float | None:
        """What words that were never seen take, s; None from a policy that does not say."""
        self._new += 1
        seen = self._observations[self._new % len(self._observations)]
        # Short, to fit any tokenizer's length: words are padded to it, so that their number does not matter.
        text = f"take {self._new}"
        chunk = self._policy.infer(replace(seen, instruction=text))
        return chunk.stages.get("words")

    def memory(self) -> float | None:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
