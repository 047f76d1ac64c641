"""What GR00T's clients put into a request and expect in its answer, N1.5's and N1.6's (N1.7 is the same).

    N1.6   {"video": {k: uint8 (B, T, H, W, 3)}, "state": {k: float32 (B, T, D)}, "language": {k: [[str]]}}
           or, as its simulators have it, "video.k", "state.k" and the words' key side by side, words [str]
           -> [{k: float32 (B, T, D)}, info], and "action.k" for flat observations
    N1.5   flat, without B where there is one robot: uint8 (T, H, W, 3), float64 (T, D), [str]
           -> {"action.k": (T, D)}, and (T,) where D is 1

B robots ask at once, of which words have one text each; T is a history, and a policy here sees one instant,
so the newest is taken. Source: gr00t/policy/gr00t_policy.py and server_client.py of N1.6,
gr00t/model/policy.py and gr00t/eval/service.py of N1.5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.fields import WireError
from runtime.protocols import front
from runtime.protocols.keymap import KeyMap, Missing, describe
from vla.contract import Observation, PolicySpec

MODALITIES = ("video", "state", "language")
_RANKS = {"video": 3, "state": 1}  # without batch and time
_ROWS = 32  # observations in one request


@dataclass(frozen=True)
class Asked:
    """A request's observations and how its answer is to look.

    Attributes:
        observations: B of them.
        dialect: "n1.5" or "n1.6".
        flat: whether the answer's keys have "action." in front.
        batched: whether the answer has an axis for B.
    """

    observations: tuple[Observation, ...]
    dialect: str
    flat: bool
    batched: bool


def read(data: Any, mapping: KeyMap, now: float) -> Asked:
    """The observations in the data of `get_action`.

    Raises:
        WireError: one line with the key that is missing or does not fit.
    """
    if not isinstance(data, dict):
        raise WireError(f"get_action wants a map as data; got {describe(data)}")
    inner = data.get("observation")
    dialect = mapping.dialect or ("n1.6" if isinstance(inner, dict) else "n1.5")
    source = inner if dialect == "n1.6" else data
    if not isinstance(source, dict):
        raise WireError(f"get_action wants a map as observation; the data has {front.names(data)}")
    reader = _Reader(source, dialect)
    rows = reader.count(mapping)
    seen = tuple(reader.observation(mapping, now, row) for row in range(rows))
    return Asked(seen, dialect, reader.flat, reader.batched is not False)


def answer(asked: Asked, mapping: KeyMap, chunks: Sequence[np.ndarray]) -> Any:
    """The reply to a request, of B chunks, each shape (H, A)."""
    rows = [mapping.answer(chunk) for chunk in chunks]
    actions = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    if asked.dialect == "n1.6":
        return [{_flat("action", key) if asked.flat else key: value for key, value in actions.items()}, {}]
    if not asked.batched:
        actions = {key: _squeezed(value[0]) for key, value in actions.items()}
    return {_flat("action", key): value for key, value in actions.items()}


def modality_config(mapping: KeyMap, spec: PolicySpec) -> dict[str, Any]:
    """What a client may ask about the keys: modality -> a config in GR00T's form.

    A modality without keys is left out, because its clients accept no empty list.
    """
    keys = {
        "video": [camera.key for camera in mapping.cameras.values()],
        "state": [part.key for part in mapping.state],
        "language": list(mapping.instruction[:1]),
        "action": [group.key for group in mapping.actions],
    }
    return {
        modality: _config(modality, list(dict.fromkeys(found)), mapping, spec)
        for modality, found in keys.items()
        if found
    }


def _config(modality: str, keys: list[str], mapping: KeyMap, spec: PolicySpec) -> dict[str, Any]:
    steps = list(range(spec.chunk_length)) if modality == "action" else [0]
    if mapping.dialect == "n1.5":
        names = [key if modality == "language" else _flat(modality, key) for key in keys]
        text = json.dumps({"delta_indices": steps, "modality_keys": names})
        return {"__ModalityConfig_class__": True, "as_json": text}
    kinds = None
    if modality == "action":
        absolute = [all(g.absolute for g in mapping.actions if g.key == key) for key in keys]
        kinds = [
            {
                "rep": "ABSOLUTE" if held else "DELTA",
                "type": "NON_EEF",
                "format": "DEFAULT",
                "state_key": None,
            }
            for held in absolute
        ]
    content = {"delta_indices": steps, "modality_keys": keys, "action_configs": kinds}
    content |= {"sin_cos_embedding_keys": None, "mean_std_embedding_keys": None}
    return {"__ModalityConfig_class__": True, "as_json": content}


class _Reader:
    """Looks up the columns of an observation, each with B rows, the newest of their T.

    Attributes:
        flat: whether keys have their modality in front.
        batched: whether arrays have an axis for B; None before the first.
    """

    def __init__(self, source: dict[Any, Any], dialect: str) -> None:
        self._source, self._dialect = source, dialect
        self.flat = dialect == "n1.5" or not any(isinstance(source.get(m), dict) for m in MODALITIES)
        self.batched: bool | None = None

    def count(self, mapping: KeyMap) -> int:
        """B, after every array that the mapping names was looked at."""
        arrays = [("video", camera.key) for camera in mapping.cameras.values()]
        arrays += [("state", part.key) for part in mapping.state]
        sizes = {_name(m, key): len(self.column(m, key)) for m, key in arrays}
        if len(set(sizes.values())) > 1:
            raise WireError(f"arrays of one request differ in their batch: {sizes}")
        rows = next(iter(sizes.values()), 1)
        if rows > _ROWS:
            raise WireError(f"{rows} observations in one request; at most {_ROWS} are answered")
        return rows

    def observation(self, mapping: KeyMap, now: float, row: int) -> Observation:
        """The observation of one robot."""
        return mapping.observation(
            now,
            lambda key: self.column("video", key)[row],
            lambda key: self.column("state", key)[row],
            lambda key: self.words(key, row),
        )

    def column(self, modality: str, key: str) -> np.ndarray:
        """Shape (B, ...)."""
        value, rank, name = self._find(modality, key), _RANKS[modality], _name(modality, key)
        if not isinstance(value, np.ndarray):
            raise WireError(f"{name} is {describe(value)}; wanted an array")
        batched = value.ndim == rank + 2
        if not batched and not (self._dialect == "n1.5" and value.ndim == rank + 1):
            axes = "(T, ...) or (B, T, ...)" if self._dialect == "n1.5" else "(B, T, ...)"
            raise WireError(f"{name} has shape {value.shape}; wanted {axes} with {rank + 2} axes in all")
        if self.batched not in (None, batched):
            raise WireError(f"{name} has shape {value.shape}, and other arrays {'no ' * batched}batch axis")
        self.batched = batched
        return value[:, -1] if batched else value[-1:]

    def words(self, key: str, row: int) -> str:
        """The words of one row; one text may stand for all."""
        value = self._find("language", key)
        if isinstance(value, np.ndarray) and value.dtype.kind == "U":
            try:
                value = value.tolist()
            except ValueError:  # not a character
                raise WireError(f"{key!r} holds no text") from None
        rows = [value] if isinstance(value, str) else value
        if not isinstance(rows, list) or not rows or (len(rows) > 1 and row >= len(rows)):
            raise WireError(f"{key!r} is {describe(value)}; wanted a text for each observation")
        text = rows[row if len(rows) > 1 else 0]
        if isinstance(text, list) and text:
            text = text[-1]
        if not isinstance(text, str):
            raise WireError(f"{key!r} is {describe(text)}; wanted a text")
        return text

    def _find(self, modality: str, key: str) -> Any:
        group: Any = self._source
        name = key
        if not self.flat:
            group = self._source.get(modality)
        elif modality != "language":
            name = _flat(modality, key)
        if not isinstance(group, dict) or name not in group:
            held = front.names(group) if isinstance(group, dict) else []
            raise Missing(f"{_name(modality, key)} is missing; the request has {held}")
        return group[name]


def _flat(modality: str, key: str) -> str:
    return f"{modality}.{key}"


def _name(modality: str, key: str) -> str:
    return repr(_flat(modality, key))


def _squeezed(value: np.ndarray) -> np.ndarray:
    """Shape (H, D); (H,) where D is 1, as N1.5's server gives it."""
    return value[:, 0] if value.shape[1] == 1 else value
