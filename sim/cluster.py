"""Seeds played on a Ray cluster: `takt eval --ray ADDRESS`.

One actor a worker, one processor each, with a world and a policy of its own (sim/play.py). An actor that dies
takes its seed with it; the seed is tried once more, alone in a new actor, and is lost if that dies as well.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from sim import play
from sim.play import Options
from sim.pool import lost
from vla.contract import TaktError

LOCAL = "local"  # the address of a cluster of this machine, begun for the run
TRIES = 2  # of a seed whose actor died


def results(
    options: Options, seeds: Sequence[int], workers: int, address: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(seed, its result), in the order of the seeds.

    Args:
        workers: actors. address: as `ray.init` takes it, e.g. 10.0.0.1:6379 or auto; or LOCAL. A policy is
            opened on every node, from the same path.

    Raises:
        TaktError: Ray is not installed, the cluster is not there or too small, or something was asked
            wrongly, which every seed would meet.
    """
    ray = _connect(address, workers)
    try:
        yield from _Run(ray, options, seeds).results(workers)
    finally:
        ray.shutdown()


def _connect(address: str, workers: int) -> Any:
    try:
        import ray
    except ImportError:
        raise TaktError("--ray needs Ray: pip install 'takt-vla[ray]'") from None
    _reach(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of the run
    # A worker's warnings about processors that it may not use are of no use to who evaluates.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL:
        # Nothing is bound beyond loopback, and there is no dashboard.
        quiet |= {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error).strip().splitlines() or ["no answer"]
        raise TaktError(f"--ray {address}: {why[0]}") from None
    found = int(ray.cluster_resources().get("CPU", 0))
    if found < workers:
        ray.shutdown()
        raise TaktError(f"--ray {address} has {found} processors: --workers is at most {found}")
    return ray


def _reach(address: str) -> None:
    """Ray itself tries for minutes where nothing listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise TaktError(f"--ray {address}: {getattr(error, 'strerror', None) or error}") from None


class Player:
    """An actor's class: what a process of sim/pool.py is."""

    def __init__(self, options: Options) -> None:
        play.start(options)

    def play(self, seed: int) -> dict[str, Any]:
        return play.play(seed)


class _Run:
    def __init__(self, ray: Any, options: Options, seeds: Sequence[int]) -> None:
        self.ray, self.options, self.seeds = ray, options, seeds
        self.player = ray.remote(num_cpus=1, max_restarts=0)(Player)
        self.waiting = deque(range(len(seeds)))  # places of seeds that nobody plays yet
        self.tries = [0] * len(seeds)
        self.found: dict[int, dict[str, Any]] = {}
        self.busy: dict[Any, tuple[int, Any]] = {}  # by what was promised: a seed's place and its actor

    def results(self, workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for _ in range(min(workers, len(self.seeds))):
            self._give(self.player.remote(self.options))
        at = 0
        while at < len(self.seeds):
            while at in self.found:
                yield self.seeds[at], self.found.pop(at)
                at += 1
            if self.busy:
                (ready, *_), _ = self.ray.wait(list(self.busy))
                self._take(ready)

    def _give(self, actor: Any) -> None:
        """The next seed to an actor that has none; it ends when there is none left."""
        if self.waiting:
            place = self.waiting.popleft()
            self.tries[place] += 1
            self.busy[actor.play.remote(self.seeds[place])] = place, actor

    def _take(self, ready: Any) -> None:
        place, actor = self.busy.pop(ready)
        try:
            self.found[place] = self.ray.get(ready)
        except self.ray.exceptions.RayActorError:
            actor = self.player.remote(self.options)
            if self.tries[place] < TRIES:
                self.waiting.appendleft(place)
            else:
                self.found[place] = lost(self.options, self.seeds[place])
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, TaktError):
                raise TaktError(str(error.cause)) from None
            raise
        self._give(actor)
