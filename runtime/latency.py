"""How late answers come, for simulations: always the same, a distribution, or what was measured somewhere.

    120ms, 0.12s           always that
    lognormal:80ms,0.3     its median, and the standard deviation of its logarithm
    PROFILE.json           what `takt bench --profile` measured, on this machine or on another one

A profile holds, for each of N chunks, what its parts took, in ms; a draw is one of those chunks, whole, so
that a slow prefix and the slow steps after it stay together:

    {"format": "takt latency profile 1", "machine": {...}, "policy": "nano", "steps": 4,
     "samples_ms": {"rest": [N], "prefix": [N], "step": [N][steps]}, ...}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vla.contract import TaktError

FORMAT = "takt latency profile 1"
FORMS = "write 120ms, 0.12s, lognormal:80ms,0.3 (median, sigma), or a profile of takt bench --profile"
_STREAM = 0x1A7E  # keeps these draws apart from the sampler's noise, which is seeded by (seed, call)


class Latency(Protocol):
    """Time from an observation to its answer, s."""

    @property
    def median(self) -> float: ...

    def draw(self, rng: np.random.Generator) -> float:
        """One answer's, s. For the same state of `rng` a latency that is larger all over draws no less."""

    def to_json(self) -> dict[str, Any]:
        """What it is, in ms."""


@dataclass(frozen=True)
class Constant:
    """Always `seconds`."""

    seconds: float = 0.0

    @property
    def median(self) -> float:
        return self.seconds

    def draw(self, rng: np.random.Generator) -> float:
        return self.seconds

    def to_json(self) -> dict[str, Any]:
        return {"kind": "constant", "ms": 1e3 * self.seconds}


@dataclass(frozen=True)
class Lognormal:
    """exp of a normal distribution: never negative, with a tail. `median` in s; `sigma` of the logarithm."""

    median: float
    sigma: float

    def draw(self, rng: np.random.Generator) -> float:
        return self.median * float(np.exp(self.sigma * rng.standard_normal()))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "lognormal", "median_ms": 1e3 * self.median, "sigma": self.sigma}


@dataclass(frozen=True)
class Measured:
    """One of the chunks of a profile, each as likely as the other.

    Attributes:
        seconds: whole chunks, shape (N,), N >= 1.
        about: "machine", "policy", "engine", "steps", ... as far as the profile says.
    """

    seconds: np.ndarray = field(repr=False)
    about: dict[str, Any]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def draw(self, rng: np.random.Generator) -> float:
        return float(self.seconds[rng.integers(len(self.seconds))])

    def to_json(self) -> dict[str, Any]:
        return {"kind": "profile", "samples": len(self.seconds), **self.about}


class Draws:
    """The latencies of one episode, call by call.

    Each is a function of (seed, episode, call) alone: neither what was played before nor how often this
    episode's earlier calls drew random numbers matters, so policies are compared under the same latencies.

    Attributes:
        seconds: those drawn so far.
    """

    def __init__(self, latency: Latency, seed: int, episode: int = 0) -> None:
        self._latency, self._key = latency, (_STREAM, seed, episode)
        self.seconds: list[float] = []

    def __call__(self) -> float:
        """The next call's, s."""
        drawn = self._latency.draw(np.random.default_rng([*self._key, len(self.seconds)]))
        self.seconds.append(drawn)
        return drawn


def parse(text: str) -> Latency:
    """What `--latency` says.

    Raises:
        TaktError: it is none of the forms, or a profile that cannot be read.
    """
    name, colon, rest = text.partition(":")
    if colon and name == "lognormal":
        median, _, sigma = rest.partition(",")
        return Lognormal(_seconds(median, text), _sigma(sigma, text))
    if text.endswith(".json"):
        return read(Path(text))
    return Constant(_seconds(text, text))


def _seconds(text: str, whole: str) -> float:
    """Of "120ms" or "0.12s"; `whole` is what the message shows."""
    for suffix, unit in (("ms", 1e-3), ("s", 1.0)):
        number = text.removesuffix(suffix)
        if number != text:
            try:
                value = float(number) * unit
            except ValueError:
                break
            if np.isfinite(value) and value >= 0:
                return value
            break
    raise TaktError(f"--latency {whole!r} is no latency; {FORMS}")


def _sigma(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3:
        raise TaktError(f"--latency {whole!r} wants a sigma from 0 to 3 after the comma; {FORMS}")
    return value


def read(path: Path) -> Measured:
    """A profile.

    Raises:
        TaktError: there is no such file, or it is no profile.
    """
    if not path.is_file():
        raise TaktError(f"--latency {str(path)!r}: there is no such file; {FORMS}")
    try:
        data = json.loads(path.read_text())
        samples = data["samples_ms"]
        rest, prefix = (np.asarray(samples[part], float) for part in ("rest", "prefix"))
        steps = np.asarray(samples["step"], float)
        known = data["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise TaktError(f"{path} is no latency profile: make one with takt bench BUNDLE --profile") from None
    shaped = rest.ndim == 1 and rest.shape == prefix.shape and steps.ndim == 2 and len(steps) == len(rest)
    if not (known and shaped and len(rest)):
        raise TaktError(f"{path} is no {FORMAT!r} with N chunks of the same steps: make it anew")
    whole = (rest + prefix + steps.sum(1)) * 1e-3
    if not (np.isfinite(whole).all() and min(rest.min(), prefix.min(), steps.min(initial=0.0)) >= 0):
        raise TaktError(f"{path}: a time is negative or not finite: make it anew")
    about = {key: data[key] for key in ("machine", "policy", "engine", "precision", "threads") if key in data}
    return Measured(whole, {**about, "steps": int(steps.shape[1])})


def to_json(rest: np.ndarray, prefix: np.ndarray, step: np.ndarray, about: dict[str, Any]) -> dict[str, Any]:
    """A profile.

    Args:
        rest, prefix: shape (N,), s; `rest` is all of a chunk that is neither prefix nor step.
        step: shape (N, steps), s.
        about: "machine", "policy" and what else is known.
    """

    def ms(seconds: np.ndarray) -> list[Any]:
        return np.round(seconds * 1e3, 4).tolist()

    samples = {"rest": ms(np.maximum(rest, 0.0)), "prefix": ms(prefix), "step": ms(step)}
    return {"format": FORMAT, **about, "steps": int(step.shape[1]), "samples_ms": samples}
