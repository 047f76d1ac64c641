"""A bundle becomes a policy: its graphs (runtime/graphs.py) run by an engine, on time.

    preprocess | words | prefix | step step step ...
               | once an instruction     | as many as fit before the deadline, at least one

An engine is anything that is a `Graph`; the policy does not know which one runs it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from runtime.bundle import Bundle
from runtime.graphs import Arrays, Graph, Looping, OnnxGraph, batched, check_graphs
from runtime.pace import Pace
from runtime.think import Judge, Thinking, judge_of
from vla import flow, preprocess
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix, Request, TaktError

_WORDS_KEPT = 16  # instructions whose tokens are remembered


class GraphPolicy:
    """Prefix once a chunk, steps of the sampler, words once an instruction; a `SharedPolicy`.

    Attributes:
        pace: what prefix and steps have taken lately.
        think: how many chunks are drawn, and who judges them.
        judge: says how good each of them is; whoever has a simulator of the scene may put it here.
    """

    def __init__(
        self,
        bundle: Bundle,
        graphs: Mapping[str, Graph],
        clock: Callable[[], float] = time.monotonic,
        think: Thinking | None = None,
    ) -> None:
        """
        Args:
            graphs: those of the bundle, and what `think` needs.
            clock: s.
            think: how many chunks to draw and who judges them; the bundle's number, and coherence.

        Raises:
            TaktError: the graphs do not fit the spec, or cannot do what `think` asks.
        """
        check_graphs(bundle, graphs)
        self.pace = Pace()
        self.think = Thinking(bundle.candidates) if think is None else think
        self.judge: Judge = judge_of(self.think, bundle.spec, graphs)
        self._bundle, self._graphs, self._clock = bundle, graphs, clock
        self._batched = batched(graphs)
        self._loops = isinstance(graphs["step"], Looping)
        if self.think.candidates > 1 and not self._batched:
            raise TaktError(
                f"{bundle.path} draws candidates with a batch of one: export with --dynamic-batch"
            )
        self._words = None
        if bundle.tokenizer is not None:
            self._words = preprocess.Words(bundle.tokenizer, bundle.words_length, bundle.prompt.strips)
        self._tokens: OrderedDict[str, Arrays] = OrderedDict()
        self._seed = self._calls = 0

    @property
    def spec(self) -> PolicySpec:
        return self._bundle.spec

    def reset(self, seed: int, calls: int = 0) -> None:
        """Sampling goes on as after `calls` inferences since a reset with `seed`."""
        self._seed, self._calls = seed, calls

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """A chunk of shape (H, A).

        With a deadline it makes the steps that fit by what its own recent ones took, 1 to the bundle's
        number, and ends with the step at hand when they turn out slower (`flow.euler`). Which answer comes
        then depends on the machine's mood; without a deadline it is a function of seed and call.

        What it takes of a prefix depends on the spec's `joining`: "prefix" commits whole rows (weight 1) up
        to `spec.committed` and leaves the others free, "guided" takes all weights, "none" samples as if
        there were no prefix. Where several candidates are drawn, the best is chosen by all weights.

        Raises:
            TaktError: observation or prefix do not fit the spec, or the actions are not finite.
        """
        request = Request(observation, prefix, deadline, self._seed, self._calls)
        (chunk,) = self._answer([request])
        self._calls += 1
        return chunk

    def infer_batch(self, requests: Sequence[Request]) -> list[ActionChunk]:
        """The answers, in the order of the requests.

        Prefix and steps run once for all of them when the graphs leave the batch open, and one after the
        other otherwise; the earliest deadline rules. One request is answered to the bit as by `infer`;
        in a larger batch the last digits differ, since sums are taken in another order.

        Raises:
            TaktError: as `infer`, for the first request that cannot be answered; none is answered then.
        """
        if not requests:
            return []
        if self._batched:
            return self._answer(requests)
        begun, chunks = self._clock(), []
        for r in requests:
            left = None if r.deadline is None else r.deadline - (self._clock() - begun)
            (chunk,) = self._answer([Request(r.observation, r.prefix, left, r.seed, r.call)])
            chunks.append(chunk)
        return chunks

    def _answer(self, requests: Sequence[Request]) -> list[ActionChunk]:
        watch = _Stopwatch(self._clock)
        deadline = min((r.deadline for r in requests if r.deadline is not None), default=None)
        due = None if deadline is None else watch.origin + deadline
        feeds = _stack([self._feeds(r.observation) for r in requests])
        watch.mark("preprocess")
        feeds |= _stack([self._instruction(self._bundle.prompt(r.observation)) for r in requests])
        watch.mark("words")
        memory = dict(self._graphs["prefix"](feeds))
        done = memory.pop("done", None)  # graphs of before it was told have none
        watch.mark("prefix")
        actions, seconds = self._sample(memory, requests, due)
        watch.mark("steps")
        chosen = self._choose(memory, actions, requests)
        if actions.shape[1] > 1:
            watch.mark("judge")
        self.pace.ran(watch.stages["prefix"], seconds, len(requests), actions.shape[0] * actions.shape[1])
        told = [None] * len(requests) if done is None else [float(p) for p in done]
        if not all(p is None or 0 <= p <= 1 for p in told):
            raise TaktError(f"policy {self.spec.name!r} told no probability of being done: export it again")
        rest = (tuple(seconds), watch.origin)
        return [
            ActionChunk(r.observation.time, self.spec.dt, a, dict(watch.stages), *rest, p)
            for a, r, p in zip(chosen, requests, told, strict=True)
        ]

    def _feeds(self, observation: Observation) -> Arrays:
        feeds = {f"frames_{c.name}": preprocess.frame(observation, c) for c in self.spec.cameras}
        feeds["state"] = preprocess.state(observation, self.spec)
        return feeds

    def _instruction(self, text: str) -> Arrays:
        """What the prefix is given of a text, computed once.

        What a reader says of it, else its tokens (or ids, where no graph makes tokens of them) and mask.
        """
        if self._words is None:
            return {}
        if text not in self._tokens:
            ids, mask = self._words(text)
            made = {"ids": ids, "mask": mask}
            if "words" in self._graphs:
                made = {"mask": mask, **self._graphs["words"](made)}
            if "reader" in self._graphs:
                made = dict(self._graphs["reader"](made))
            self._tokens[text] = made
        self._tokens.move_to_end(text)
        if len(self._tokens) > _WORDS_KEPT:
            self._tokens.popitem(last=False)
        return self._tokens[text]

    def _sample(
        self, memory: Arrays, requests: Sequence[Request], due: float | None
    ) -> tuple[np.ndarray, list[float]]:
        """Actions of every request's draws, shape (B, C, H, A), physical units, and each step's seconds."""
        left = None if due is None else due - self._clock()
        most, asked = self._bundle.steps, len(requests)
        draws = self.pace.candidates_in(left, most, self.think.candidates, asked)
        steps = self.pace.steps_in(left, most, asked * draws)
        shape = (draws, self.spec.chunk_length, self._bundle.noise_width)
        noise = np.concatenate([flow.noise(shape, r.seed, r.call, self._bundle.noise) for r in requests])
        rows = [self._rows(r.prefix) for r in requests]
        kept, weights = (np.repeat(np.stack(part), draws, axis=0) for part in zip(*rows, strict=True))
        if draws > 1:  # one look at the frames serves all draws
            memory = {name: np.repeat(value, draws, axis=0) for name, value in memory.items()}
        # In one run where the graphs or the engine can, and where no step is likely to be left out.
        if steps == most and ("denoise" in self._graphs or self._loops):
            actions, seconds = self._whole(memory, noise, kept, weights)
        else:
            each = self.pace.step(asked * draws)
            actions, seconds = self._stepwise(memory, noise, kept, weights, steps, due, each)
        if not np.isfinite(actions).all():
            raise TaktError(f"policy {self.spec.name!r} gave actions that are not finite: export it again")
        return actions.reshape(asked, draws, *actions.shape[1:]), seconds

    def _whole(
        self, memory: Arrays, x: np.ndarray, kept: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, list[float]]:
        """All steps in one run; they are taken to be equally long."""
        begun, steps, step = self._clock(), self._bundle.steps, self._graphs["step"]
        feeds = memory | {"x": x, "kept": kept, "kept_mask": weights}
        made = step.loop(feeds, steps) if isinstance(step, Looping) else self._graphs["denoise"](feeds)
        return np.asarray(made["actions"]), [(self._clock() - begun) / steps] * steps

    def _stepwise(
        self,
        memory: Arrays,
        x: np.ndarray,
        kept: np.ndarray,
        weights: np.ndarray,
        steps: int,
        due: float | None,
        each: float | None,
    ) -> tuple[np.ndarray, list[float]]:
        """Steps by a graph of one, fewer where they turn out slower than `each` and `due` comes near."""
        seconds: list[float] = []

        def step(*args: Any) -> tuple[np.ndarray, np.ndarray]:
            begun = self._clock()
            out = self._step(*args)
            seconds.append(self._clock() - begun)
            return out

        def pace() -> bool:
            likely = max([each or 0.0, *seconds[-1:]])
            return due is None or self._clock() + 2 * likely <= due

        return np.asarray(flow.euler(step, memory, x, steps, kept, weights, pace)), seconds

    def _rows(self, prefix: Prefix | None) -> tuple[np.ndarray, np.ndarray]:
        """What the step graph is given of a prefix: rows (H, A) and weights (H,), float32."""
        shape = (self.spec.chunk_length, self.spec.actions.size)
        if prefix is None:
            return np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)
        preprocess.check_prefix(prefix, self.spec)
        weights = flow.bound(prefix.weights, self.spec.joining, self.spec.committed)
        return prefix.actions.astype(np.float32), weights

    def _choose(self, memory: Arrays, actions: np.ndarray, requests: Sequence[Request]) -> list[np.ndarray]:
        """Of each request's draws (B, C, H, A) the one that the judge likes best, each (H, A)."""
        if actions.shape[1] == 1:
            return [draws[0] for draws in actions]
        chosen = []
        for i, (draws, r) in enumerate(zip(actions, requests, strict=True)):
            repeated = self._rows(r.prefix)[1] * (self.spec.joining == "prefix") > 0
            mine = partial(_row, memory, i)
            chosen.append(draws[int(np.argmin(self.judge(draws, r, repeated, mine)))])
        return chosen

    def _step(
        self, memory: Arrays, x: np.ndarray, t: float, dt: float, kept: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        scalars = {"t": np.array([t], np.float32), "dt": np.array([dt], np.float32)}
        out = self._graphs["step"](memory | scalars | {"x": x, "kept": kept, "kept_mask": weights})
        return out["x_next"], out["actions"]


class OnnxPolicy(GraphPolicy):
    """A bundle run by ONNX Runtime on the CPU."""

    def __init__(self, bundle: Bundle, threads: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        graphs = {name: OnnxGraph(file, threads) for name, file in bundle.graphs.items()}
        super().__init__(bundle, graphs, clock)


def _row(memory: Arrays, i: int) -> Arrays:
    """Row `i` of each, a batch of one, on the host."""
    return {name: np.asarray(value)[i : i + 1] for name, value in memory.items()}


def _stack(feeds: list[Arrays]) -> Arrays:
    """One batch of what each request feeds; a batch of one is passed through."""
    if len(feeds) == 1:
        return dict(feeds[0])
    return {name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]}


class _Stopwatch:
    """Seconds between marks, by name.

    Attributes:
        origin: when it was started, on its clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.stages: dict[str, float] = {}
        self._clock = clock
        self.origin = self._last = clock()

    def mark(self, stage: str) -> None:
        now = self._clock()
        self.stages[stage] = now - self._last
        self._last = now
