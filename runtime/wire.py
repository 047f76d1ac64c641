"""The native protocol: one ZeroMQ frame a message, a msgpack map of a fixed schema.

    client -> server   hello   version
                       infer   spec, session, seq, seed, time, state, frames, instruction, prefix?, deadline?
    server -> client   welcome version, spec
                       chunk   session, seq, time, dt, actions, stages
                       error   session, seq, text

A session is a client's random number for one episode, `seq` counts its requests from 0. The pair
(seed, seq) fixes the sampling noise, so the server keeps no state of a session and may be restarted.
`spec` in an infer is the digest of the spec the client was welcomed with.

`decode` takes bytes from anyone: it either returns a message whose every field has been checked, or
raises WireError. Sizes are checked before anything is allocated; nothing is ever executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from runtime import fields
from runtime.fields import Check, WireError
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix

VERSION = 1
MAX_BYTES = 64 << 20
HEARTBEAT = 100  # ms between the transport's heartbeats
HEARTBEAT_TIMEOUT = 400  # ms after which a silent peer counts as gone
_MAX_ENTRIES = 32


@dataclass(frozen=True)
class Hello:
    version: int = VERSION


@dataclass(frozen=True)
class Welcome:
    spec: PolicySpec
    version: int = VERSION


@dataclass(frozen=True)
class Infer:
    spec: str
    session: int
    seq: int
    seed: int
    observation: Observation
    prefix: Prefix | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class Chunk:
    session: int
    seq: int
    chunk: ActionChunk


@dataclass(frozen=True)
class Error:
    text: str
    session: int = 0
    seq: int = 0


Message = Hello | Welcome | Infer | Chunk | Error


def digest(spec: PolicySpec) -> str:
    """Names a spec, 16 hex digits."""
    return hashlib.sha256(_spec_text(spec).encode()).hexdigest()[:16]


def encode(message: Message) -> bytes:
    """A message as one frame; arrays are sent as little-endian C-ordered bytes."""
    kind, content = _ENCODERS[type(message)](message)
    return msgpack.packb({"kind": kind, **content}, use_bin_type=True)


def decode(data: bytes) -> Message:
    """The message in a frame; raises WireError for anything else, and nothing but WireError."""
    if len(data) > MAX_BYTES:
        raise WireError(f"a message of {len(data)} bytes; at most {MAX_BYTES} are accepted")
    try:
        message = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_map_len=_MAX_ENTRIES, max_array_len=_MAX_ENTRIES
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError):
        raise WireError("not a msgpack map within the protocol's limits") from None
    if not isinstance(message, dict):
        raise WireError(f"a {type(message).__name__} instead of a map")
    kind = message.pop("kind", None)
    if not isinstance(kind, str) or kind not in _SCHEMAS:
        raise WireError(f"a message of unknown kind; known are {sorted(_SCHEMAS)}")
    schema, build = _SCHEMAS[kind]
    return build(fields.checked(message, schema, kind))


# ---- encoding ----


def _spec_text(spec: PolicySpec) -> str:
    return json.dumps(spec.to_json(), sort_keys=True, separators=(",", ":"))


def _packed(array: np.ndarray, dtype: str) -> dict[str, Any]:
    array = np.ascontiguousarray(array, dtype=dtype)
    return {"dtype": dtype, "shape": list(array.shape), "data": array.tobytes()}


def _infer(m: Infer) -> tuple[str, dict[str, Any]]:
    o = m.observation
    content: dict[str, Any] = {"spec": m.spec, "session": m.session, "seq": m.seq, "seed": m.seed}
    content |= {"time": o.time, "state": _packed(o.state, "<f4"), "instruction": o.instruction}
    content["frames"] = {name: _packed(frame, "|u1") for name, frame in o.frames.items()}
    if m.prefix is not None:
        content["prefix"] = _packed(m.prefix.actions, "<f4")
        content["prefix_weights"] = _packed(m.prefix.weights, "<f4")
    if m.deadline is not None:
        content["deadline"] = m.deadline
    return "infer", content


def _chunk(m: Chunk) -> tuple[str, dict[str, Any]]:
    c = m.chunk
    content = {"session": m.session, "seq": m.seq, "time": c.time, "dt": c.dt}
    return "chunk", content | {"actions": _packed(c.actions, "<f4"), "stages": c.stages}


_ENCODERS: dict[type, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    Hello: lambda m: ("hello", {"version": m.version}),
    Welcome: lambda m: ("welcome", {"version": m.version, "spec": _spec_text(m.spec)}),
    Infer: _infer,
    Chunk: _chunk,
    Error: lambda m: ("error", {"session": m.session, "seq": m.seq, "text": m.text[: fields.MAX_TEXT]}),
}

# ---- decoding ----


def _spec(value: Any) -> PolicySpec:
    try:
        return PolicySpec.from_json(json.loads(fields.text(value)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise WireError("wanted a policy's spec") from None


def _to_infer(f: dict[str, Any]) -> Infer:
    if (f["prefix"] is None) != (f["prefix_weights"] is None):
        raise WireError("infer: prefix and prefix_weights come together")
    prefix = None
    if f["prefix"] is not None:
        if len(f["prefix"]) != len(f["prefix_weights"]):
            raise WireError("infer: prefix and prefix_weights differ in length")
        prefix = Prefix(f["prefix"], f["prefix_weights"])
    observation = Observation(f["time"], f["state"], f["frames"], f["instruction"])
    return Infer(f["spec"], f["session"], f["seq"], f["seed"], observation, prefix, f["deadline"])


def _to_chunk(f: dict[str, Any]) -> Chunk:
    if len(f["actions"]) == 0 or not f["dt"] > 0:
        raise WireError("chunk: wanted at least one row and a positive dt")
    return Chunk(f["session"], f["seq"], ActionChunk(f["time"], f["dt"], f["actions"], f["stages"]))


_IDS: dict[str, Check] = {"session": fields.integer, "seq": fields.integer}
_SCHEMAS: dict[str, tuple[dict[str, Check], Callable[[dict[str, Any]], Message]]] = {
    "hello": ({"version": fields.integer}, lambda f: Hello(**f)),
    "welcome": ({"version": fields.integer, "spec": _spec}, lambda f: Welcome(**f)),
    "infer": (
        {
            **_IDS,
            "spec": fields.text,
            "seed": fields.integer,
            "time": fields.number,
            "state": fields.array("<f4", 1),
            "frames": fields.map_of(fields.array("|u1", 3, least=1)),
            "instruction": fields.text,
            "prefix?": fields.array("<f4", 2),
            "prefix_weights?": fields.array("<f4", 1),
            "deadline?": fields.number,
        },
        _to_infer,
    ),
    "chunk": (
        {
            **_IDS,
            "time": fields.number,
            "dt": fields.number,
            "actions": fields.array("<f4", 2),
            "stages": fields.map_of(fields.number),
        },
        _to_chunk,
    ),
    "error": ({**_IDS, "text": fields.text}, lambda f: Error(**f)),
}
