"""Seeds played by processes; one that dies takes its seed with it and no more."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from sim import play
from sim.play import Options

DIED = "its worker process died (killed, out of memory, or a crash in native code)"


def results(options: Options, seeds: Sequence[int], workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(seed, its result), in the order of the seeds.

    Raises:
        TaktError: something was asked wrongly, which every seed would meet.
    """
    if workers == 1:
        play.start(options)
        yield from ((seed, play.play(seed)) for seed in seeds)
        return
    at, alone = 0, 0
    while at < len(seeds):
        # After a death those that were being played are tried one by one, each in a process of its own.
        some = seeds[at : at + 1] if alone else seeds[at:]
        try:
            for seed, result in _pool(options, some, 1 if alone else workers):
                yield seed, result
                at += 1
        except BrokenProcessPool:
            if alone:
                yield seeds[at], lost(options, seeds[at])
                at += 1
            else:
                alone = workers + 1
        alone = max(0, alone - 1)


def _pool(options: Options, seeds: Sequence[int], workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
    # Spawned, never forked: GL contexts and engines do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, play.start, (options, os.getpid())) as pool:
        yield from zip(seeds, pool.map(play.play, seeds), strict=True)


def lost(options: Options, seed: int) -> dict[str, Any]:
    """The result of a seed whose process died."""
    scenarios = play.make_suite(options.suite).scenarios(seed, options.split, options.swap)
    episodes = [play.failed(scenario, DIED) for scenario in scenarios]
    return {"episodes": episodes, "jerk": [], "stages": {}, "latencies": []}
