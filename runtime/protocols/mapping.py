"""From the keys of a robot that speaks another protocol to a policy's observation, and back.

A mapping is a small JSON file; `docs/protocols.md` explains its keys. Without one, `default` takes the
policy's own names. Everything in it is compared with the policy's spec once, at the start:

    cameras      policy's camera -> their key
    state        their keys, in the order in which they make up the policy's state
    instruction  their key for the words; the first that is there, of several
    actions      the columns of "actions"; GR00T: their key -> the policy's dimensions
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.protocols.keymap import Camera, Group, KeyMap, Part
from vla.contract import PolicySpec, TaktError

PROTOCOLS = ("gr00t", "openpi", "vla-eval")
DIALECTS = ("n1.5", "n1.6")
LAYOUTS = ("hwc", "chw")
# Their unit -> ours, and the factor from theirs to ours.
UNITS: dict[str, tuple[str, float]] = {
    "rad": ("rad", 1.0),
    "deg": ("rad", math.pi / 180.0),
    "m": ("m", 1.0),
    "mm": ("m", 1e-3),
    "1": ("1", 1.0),
    "%": ("1", 1e-2),
    "rad/s": ("rad/s", 1.0),
    "deg/s": ("rad/s", math.pi / 180.0),
    "m/s": ("m/s", 1.0),
    "mm/s": ("m/s", 1e-3),
}
_KEYS = {"cameras", "state", "instruction", "actions", "deadline_ms", "seed", "about"}
# Keys that one protocol has; what vla-evaluation-harness is told at hello is the last three.
_HELLO = ("observation_params", "action_spec", "observation_spec")
_OWN: dict[str, set[str]] = {"gr00t": {"dialect"}, "openpi": set(), "vla-eval": {"rate", "execute", *_HELLO}}
_NUMBERS = {"unit", "scale", "offset"}
_WORDS = (  # where GR00T's robots and simulators have their words
    "annotation.human.task_description",
    "annotation.human.action.task_description",
    "annotation.human.coarse_action",
    "task",
)


def load(path: Path | None, protocol: str, spec: PolicySpec) -> KeyMap:
    """The mapping in a file, or the default one without a file.

    Raises:
        TaktError: one line with the file, what is wrong in it and the valid names.
    """
    if path is None:
        return parse(default(protocol, spec), protocol, spec)
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise TaktError(f"mapping {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TaktError(f"mapping {path} is no JSON: {error}") from None
    return parse(data, protocol, spec, f"mapping {path}")


def default(protocol: str, spec: PolicySpec) -> dict[str, Any]:
    """The mapping of a robot that uses the policy's own names, as its file would be."""
    pictures, state, words = {
        "openpi": ("observation/", "observation/state", "prompt"),
        "gr00t": ("", "state", list(_WORDS)),
        "vla-eval": ("images/", "state", "task_description"),
    }[protocol]
    names = list(spec.actions.names)
    return {
        "cameras": {camera.name: pictures + camera.name for camera in spec.cameras},
        "state": [{"key": state}] if spec.state else [],
        "instruction": words,
        "actions": {"action": names} if protocol == "gr00t" else names,
    }


def parse(data: Any, protocol: str, spec: PolicySpec, where: str = "mapping") -> KeyMap:
    """The mapping that a file's content means, compared with the policy's spec.

    Raises:
        TaktError: one line with `where`, what is wrong and the valid names.
    """
    try:
        return _Parser(protocol, spec).parse(data)
    except _Wrong as error:
        raise TaktError(f"{where}: {error}") from None


class _Wrong(Exception):
    """What is wrong in a mapping."""


class _Parser:
    def __init__(self, protocol: str, spec: PolicySpec) -> None:
        self._protocol, self._spec = protocol, spec
        # A state's components have no units of their own; one that is commanded too has the command's.
        self._units = {d.name: d.unit for d in spec.actions.dimensions}

    def parse(self, data: Any) -> KeyMap:
        keys = _KEYS | _OWN[self._protocol]
        _want(isinstance(data, dict), "wanted a map", sorted(keys))
        others = {key: name for name, own in _OWN.items() for key in own - keys}
        for key in set(data) & set(others):
            raise _Wrong(f"{key} is of --protocol {others[key]}; known here are {sorted(keys)}")
        _known(data, keys, "key")
        defaults = default(self._protocol, self._spec)
        data = defaults | data
        if (dialect := data.get("dialect")) is not None:
            _want(dialect in DIALECTS, "dialect is one of", DIALECTS)
        return KeyMap(
            self._cameras(data["cameras"]),
            self._state(data["state"]),
            self._instruction(data["instruction"]),
            self._actions(data["actions"]),
            _deadline(data.get("deadline_ms")),
            dialect,
            _seed(data.get("seed", 0)),
            *self._pace(data.get("rate"), data.get("execute")),
            {key: _plain(data[key], key) for key in _HELLO if key in data},
        )

    def _pace(self, rate: Any, execute: Any) -> tuple[float, int]:
        """Steps a second, and how many of them a chunk serves."""
        spec = self._spec
        own = 1.0 / spec.dt
        rate = own if rate is None else rate
        _want(type(rate) in (int, float) and 0 < rate <= 1000, "rate is", ["steps a second, up to 1000"])
        if abs(rate / own - 1) > 1e-3 and not spec.actions.absolute.all():
            raise _Wrong(
                f"rate {rate:g} is not that of the policy's rows, {own:g}, and steps cannot be split"
            )
        most = math.floor((spec.chunk_length - 1) * spec.dt * rate + 1e-6) + 1
        if execute is None:
            return float(rate), max(1, min(most, round(spec.replan * rate)))
        _want(type(execute) is int and 1 <= execute <= most, "execute is a number from", [f"1 to {most}"])
        return float(rate), execute

    def _cameras(self, data: Any) -> dict[str, Camera]:
        names = [camera.name for camera in self._spec.cameras]
        _want(isinstance(data, dict), "cameras is a map from the policy's cameras to their keys", names)
        _known(data, names, "camera")
        _complete(data, names, "camera")
        return {name: self._camera(data[name]) for name in names}

    def _camera(self, data: Any) -> Camera:
        if not isinstance(data, dict):
            return Camera(self._key(data, "video."))
        _known(data, {"key", "layout"}, "key of a camera")
        layout = data.get("layout", "hwc")
        _want(layout in LAYOUTS, f"layout {layout!r} is unknown; known are", LAYOUTS)
        return Camera(self._key(data.get("key"), "video."), layout == "chw")

    def _state(self, data: Any) -> tuple[Part, ...]:
        names = self._spec.state
        _want(isinstance(data, list), 'state is a list of {"key": ...} for', names)
        for entry in data:
            _want(isinstance(entry, dict) and "key" in entry, 'an entry of state wants "key"', names)
            _known(entry, {"key", "indices", "slice", "size"} | _NUMBERS, "key of a state's entry")
        chosen = [_indices(entry) for entry in data]
        sizes = [_size(entry, picks) for entry, picks in zip(data, chosen, strict=True)]
        _want(sizes.count(None) < 2, 'two entries of state have no "size"; one may take the rest of', names)
        rest = len(names) - sum(size or 0 for size in sizes)
        total = len(names) - rest
        if (rest < 0) or (rest > 0) != (None in sizes):
            held = f"{total} components" + (" and the rest" if None in sizes else "")
            raise _Wrong(f"state makes up {held}; the policy has {len(names)}: {list(names)}")
        parts, start = [], 0
        for entry, picks, fixed in zip(data, chosen, sizes, strict=True):
            size = rest if fixed is None else fixed
            gain, bias = self._numbers(entry, names[start : start + size])
            parts.append(Part(self._key(entry["key"], "state."), picks, gain, bias))
            start += size
        return tuple(parts)

    def _instruction(self, data: Any) -> tuple[str, ...]:
        if data is None:
            return ()
        keys = data if isinstance(data, list) else [data]
        _want(bool(keys), "instruction is a key, several, or null", ["prompt"])
        return tuple(self._key(key, "language.") for key in keys)

    def _actions(self, data: Any) -> tuple[Group, ...]:
        names = self._spec.actions.names
        if self._protocol != "gr00t":
            _want(isinstance(data, list), "actions is a list of the policy's dimensions", names)
            data = {"actions": data}
        _want(isinstance(data, dict), "actions is a map from their keys to lists of", names)
        groups = []
        for key, entries in data.items():
            _want(isinstance(entries, list) and bool(entries), f"actions: {key!r} wants a list of", names)
            groups += [self._group(self._key(key, "action."), entry) for entry in entries]
        used = [names[column] for group in groups for column in group.columns]
        _complete(used, names, "action")
        for name in names:
            _want(used.count(name) == 1, f"actions: {name!r} stands there twice, of", names)
        return tuple(groups)

    def _group(self, key: str, entry: Any) -> Group:
        entry = {"names": [entry]} if isinstance(entry, str) else entry
        names = list(self._spec.actions.names)
        fits = isinstance(entry, dict) and isinstance(entry.get("names"), list) and entry["names"]
        _want(bool(fits), 'an entry of actions is a name or {"names": [...]}, of', names)
        _known(entry, {"names"} | _NUMBERS, "key of an action's entry")
        _known(entry["names"], names, "action")
        gain, bias = self._numbers(entry, entry["names"])
        columns = tuple(names.index(name) for name in entry["names"])
        absolute = bool(self._spec.actions.absolute[list(columns)].all())
        return Group(key, columns, 1.0 / gain, -bias / gain, absolute)

    def _numbers(self, entry: dict[str, Any], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """gain and bias of ours = gain * theirs + bias, each shape (len(names),)."""
        factor = 1.0
        if (unit := entry.get("unit")) is not None:
            _want(isinstance(unit, str) and unit in UNITS, f"unit {unit!r} is unknown; known are", UNITS)
            ours, factor = UNITS[unit]
            for name in names:
                if (has := self._units.get(name, ours)) != ours:
                    fitting = [known for known, (to, _) in UNITS.items() if to == has]
                    raise _Wrong(f"unit {unit!r} does not fit {name!r}, which is in {has}: say {fitting}")
        scale = _row(entry.get("scale", 1.0), "scale", names)
        offset = _row(entry.get("offset", 0.0), "offset", names)
        _want(bool((scale != 0).all()), "a scale of 0 loses", names)
        return factor * scale, factor * offset

    def _key(self, key: Any, prefix: str) -> str:
        """Their key; GR00T's without the modality in front, which its flat observations have."""
        _want(isinstance(key, str) and bool(key), f"{key!r} is no key; a key is a text such as", ["front"])
        return key.removeprefix(prefix) if self._protocol == "gr00t" else key


def _want(fits: bool, message: str, valid: Iterable[str]) -> None:
    if not fits:
        raise _Wrong(f"{message} {list(valid)}")


def _known(given: Iterable[Any], valid: Iterable[str], what: str) -> None:
    valid = list(valid)
    for name in given:
        if name not in valid:
            raise _Wrong(f"unknown {what} {name!r}; known are {sorted(valid)}")


def _complete(given: Iterable[Any], names: Iterable[str], what: str) -> None:
    given = set(given)
    if lacking := [name for name in names if name not in given]:
        raise _Wrong(f"{what} {lacking[0]!r} is missing; the policy has {list(names)}")


def _indices(entry: dict[str, Any]) -> tuple[int, ...] | None:
    """Which of a key's numbers an entry of the state takes; None for all."""
    _want(not {"indices", "slice"} <= set(entry), "an entry of state has one of", ["indices", "slice"])
    if (piece := entry.get("slice")) is not None:
        _want(_counts(piece) and len(piece) == 2 and piece[0] < piece[1], "a slice is", ["[start, stop]"])
        return tuple(range(*piece))
    if (picks := entry.get("indices")) is not None:
        _want(_counts(picks) and bool(picks), "indices is a list of", ["integers from 0 to 65535"])
        return tuple(picks)
    return None


def _size(entry: dict[str, Any], picks: tuple[int, ...] | None) -> int | None:
    """How many components an entry of the state gives; None for those that are left over."""
    size = entry.get("size")
    if size is None:
        return None if picks is None else len(picks)
    _want(_counts([size]) and size > 0, "a size is", ["a positive integer"])
    _want(picks is None or size == len(picks), "size and the numbers taken differ in", [str(entry["key"])])
    return size


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 16 for n in value)


def _row(value: Any, what: str, names: Sequence[str]) -> np.ndarray:
    """One number for all, or a list of one each; shape (len(names),)."""
    numbers = value if isinstance(value, list) else [value] * len(names)
    fits = len(numbers) == len(names) and all(
        type(n) in (int, float) and math.isfinite(n) and abs(n) < 1e9 for n in numbers
    )
    _want(fits, f"{what} is a number or a list of one each for", names)
    return np.array(numbers, np.float64)


def _deadline(value: Any) -> float | None:
    if value is None:
        return None
    _want(type(value) in (int, float) and 0 < value < 1e7, "deadline_ms is", ["a positive number of ms"])
    return value / 1000.0


def _seed(value: Any) -> int:
    _want(type(value) is int and 0 <= value < 1 << 63, "seed is", ["an integer from 0"])
    return value


def _plain(value: Any, what: str) -> dict[str, Any]:
    """A map that goes out as it is."""
    _want(isinstance(value, dict), f"{what} is a map of", ["names to what the benchmark takes"])
    return value
