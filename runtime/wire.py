"""The native protocol: one ZeroMQ frame a message, a msgpack map of a fixed schema.

    client -> server   hello   version, role, robot, spec?
                       infer   spec, session, seq, seed, call, time, state, frames, instruction,
                               prefix?, prefix_weights?, deadline?, done?
                       ping    session, sent
                       bye     session
    server -> client   welcome version, spec, session, lease
                       chunk   session, seq, time, dt, actions, stages, step_seconds, origin?, left?, done?
                       pong    session, sent, clock
                       error   session, seq, code, text

A session is a number that the server draws and gives to one connection; `seq` rises within it. The pair
(seed, call) fixes the sampling noise, so the server keeps no state of an episode and may be restarted.
`spec` in hello and infer is the digest of the spec the client was welcomed with. `origin`, `left` and
`clock` are on the server's clock. A chunk's `done` is told only to a client that asked for it, and that
asks only a server which said, by a further key of the spec in its welcome, that it understands: a peer of
before there was such a field neither says nor meets it. docs/wire.md says who may send what and when.

`decode` takes bytes from anyone: it either returns a message whose every field has been checked, or
raises WireError. Sizes are checked before anything is allocated; nothing is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from runtime import fields, jpeg
from runtime.fields import Check, WireError
from runtime.unpack import unpack
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix

VERSION = 2
MAX_BYTES = 64 << 20
MAX_ANSWER = 1 << 20  # bytes of what a server sends; it has no frames, and the control loop reads it
LEASE = 1.0  # s of silence after which another commander may take a robot
CODES = ("session", "lease", "late", "busy", "spec", "refused", "failed")
ROLES = ("command", "observe")
_MAX_ENTRIES = 256


@dataclass(frozen=True)
class Hello:
    """A client asks to command or to observe the robot of that name.

    Attributes:
        spec: digest of the spec it expects; None when it takes any.
    """

    robot: str
    role: str = "command"
    spec: str | None = None
    version: int = VERSION


@dataclass(frozen=True)
class Welcome:
    """The session that the client has now, and whether it may infer in it.

    Attributes:
        done: whether `Infer.done` is understood.
    """

    spec: PolicySpec
    session: int
    lease: bool
    version: int = VERSION
    done: bool = False


@dataclass(frozen=True)
class Infer:
    """A request.

    Attributes:
        done: whether to tell the probability that the task is done.
    """

    spec: str
    session: int
    seq: int
    seed: int
    call: int
    observation: Observation
    prefix: Prefix | None = None
    deadline: float | None = None
    done: bool = False


@dataclass(frozen=True)
class Chunk:
    """An answer; the chunk's `origin` and `left`, when it was sent, are on the server's clock, s."""

    session: int
    seq: int
    chunk: ActionChunk
    left: float | None = None


@dataclass(frozen=True)
class Ping:
    """`sent` is on the client's clock, s."""

    session: int
    sent: float


@dataclass(frozen=True)
class Pong:
    """`sent` as it came, `clock` the server's, s."""

    session: int
    sent: float
    clock: float


@dataclass(frozen=True)
class Bye:
    session: int


@dataclass(frozen=True)
class Error:
    """Why nothing else came: one of `CODES`, and a line for people. Session 0: of none in particular."""

    code: str
    text: str
    session: int = 0
    seq: int = 0


Message = Hello | Welcome | Infer | Chunk | Ping | Pong | Bye | Error


def digest(spec: PolicySpec) -> str:
    """Names a spec, 16 hex digits."""
    return hashlib.sha256(_spec_text(spec).encode()).hexdigest()[:16]


def encode(message: Message, quality: int | None = None) -> bytes:
    """A message as one frame, see `pieces`."""
    return b"".join(pieces(message, quality))


def pieces(message: Message, quality: int | None = None) -> list[bytes | memoryview]:
    """A message as the parts of one frame; arrays are little-endian, C-ordered, and not copied here.

    Messages with arrays of the same shapes and with the same texts have the same size.

    Args:
        quality: frames of an `Infer` are sent as JPEG of this quality, 1 to 100; None for raw ones.

    Raises:
        WireError: it would be larger than any server takes.
    """
    kind, content = _ENCODERS[type(message)](message)
    if quality is not None and isinstance(message, Infer):
        content["frames"] = {n: _compressed(f, quality) for n, f in message.observation.frames.items()}
    parts: list[bytes | memoryview] = []
    _write({"kind": kind, **content}, msgpack.Packer(use_bin_type=True), parts)
    size = sum(map(len, parts))
    if size > MAX_BYTES:
        raise WireError(f"a message of {size} bytes; at most {MAX_BYTES} are sent: make frames smaller")
    return parts


def decode(data: bytes | memoryview) -> Message:
    """The message in a frame; raises WireError for anything else, and nothing but WireError.

    Arrays are views of `data`, which has to stay as it is.
    """
    if len(data) > MAX_BYTES:
        raise WireError(f"a message of {len(data)} bytes; at most {MAX_BYTES} are accepted")
    try:
        message = unpack(data, _MAX_ENTRIES)
    except ValueError:
        raise WireError("not a msgpack map within the protocol's limits") from None
    if not isinstance(message, dict):
        raise WireError(f"a {type(message).__name__} instead of a map")
    kind = message.pop("kind", None)
    if not isinstance(kind, str) or kind not in _SCHEMAS:
        raise WireError(f"a message of unknown kind; known are {sorted(_SCHEMAS)}")
    schema, build = _SCHEMAS[kind]
    version = message.get("version", VERSION)
    # Another version may have other fields: this line is the one that helps.
    if kind in ("hello", "welcome") and isinstance(version, int) and version != VERSION:
        raise WireError(f"the other side speaks version {version}, this one {VERSION}: upgrade the older")
    return build(fields.checked(message, schema, kind))


# ---- encoding ----


def _write(value: Any, packer: msgpack.Packer, parts: list[bytes | memoryview]) -> None:
    """msgpack of a value, appended to `parts`."""
    if isinstance(value, dict):
        parts.append(packer.pack_map_header(len(value)))
        for key, item in value.items():
            parts.append(packer.pack(key))
            _write(item, packer, parts)
    elif isinstance(value, memoryview):
        parts += [b"\xc6" + len(value).to_bytes(4, "big"), value]
    elif type(value) is int and value >= 0:
        parts.append(b"\xcf" + value.to_bytes(8, "big"))
    else:
        parts.append(packer.pack(value))


def _spec_text(spec: PolicySpec) -> str:
    return json.dumps(spec.to_json(), sort_keys=True, separators=(",", ":"))


def _packed(array: np.ndarray, dtype: str) -> dict[str, Any]:
    array = np.ascontiguousarray(array, dtype=dtype)
    return {"dtype": dtype, "shape": list(array.shape), "data": array.reshape(-1).view(np.uint8).data}


def _compressed(frame: np.ndarray, quality: int) -> dict[str, Any]:
    return {"dtype": "jpeg", "shape": list(frame.shape), "data": memoryview(jpeg.encode(frame, quality))}


def _infer(m: Infer) -> tuple[str, dict[str, Any]]:
    o = m.observation
    content: dict[str, Any] = {"spec": m.spec, "session": m.session, "seq": m.seq}
    content |= {"seed": m.seed, "call": m.call, "time": o.time, "instruction": o.instruction}
    content["state"] = _packed(o.state, "<f4")
    content["frames"] = {name: _packed(frame, "|u1") for name, frame in o.frames.items()}
    if m.prefix is not None:
        content["prefix"] = _packed(m.prefix.actions, "<f4")
        content["prefix_weights"] = _packed(m.prefix.weights, "<f4")
    if m.deadline is not None:
        content["deadline"] = m.deadline
    if m.done:
        content["done"] = True
    return "infer", content


def _chunk(m: Chunk) -> tuple[str, dict[str, Any]]:
    c = m.chunk
    content: dict[str, Any] = {"session": m.session, "seq": m.seq, "time": c.time, "dt": c.dt}
    content |= {"actions": _packed(c.actions, "<f4"), "stages": dict(list(c.stages.items())[:_MAX_ENTRIES])}
    content["step_seconds"] = list(c.step_seconds[:_MAX_ENTRIES])
    known = {"origin": c.origin, "left": m.left, "done": c.done}
    return "chunk", content | {name: value for name, value in known.items() if value is not None}


def _welcome(m: Welcome) -> tuple[str, dict[str, Any]]:
    spec = _spec_text(m.spec)
    if m.done:  # where a peer that does not know of it looks past it
        spec = json.dumps({**json.loads(spec), "wire": ["done"]}, sort_keys=True, separators=(",", ":"))
    return "welcome", {"version": m.version, "spec": spec, "session": m.session, "lease": m.lease}


def _hello(m: Hello) -> tuple[str, dict[str, Any]]:
    content = {"version": m.version, "role": m.role, "robot": m.robot}
    return "hello", content if m.spec is None else content | {"spec": m.spec}


_ENCODERS: dict[type, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    Hello: _hello,
    Welcome: _welcome,
    Infer: _infer,
    Chunk: _chunk,
    Ping: lambda m: ("ping", dict(vars(m))),
    Pong: lambda m: ("pong", dict(vars(m))),
    Bye: lambda m: ("bye", dict(vars(m))),
    Error: lambda m: ("error", vars(m) | {"text": m.text[: fields.MAX_TEXT]}),
}

# ---- decoding ----


def _spec(value: Any) -> tuple[PolicySpec, bool]:
    """A policy's spec, and whether "done" is understood."""
    try:
        content = json.loads(fields.text(value))
        offers = content.get("wire")
        return PolicySpec.from_json(content), isinstance(offers, list) and "done" in offers
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise WireError("wanted a policy's spec") from None


_raw_frame = fields.array("|u1", 3, least=1)


def _frames(value: Any) -> dict[str, np.ndarray]:
    """Frames by camera, raw or JPEG; together they take no more room than a message of raw ones could."""
    if not isinstance(value, dict):
        raise WireError("wanted a map")
    frames, room = {}, MAX_BYTES
    for name, packed in value.items():
        compressed = isinstance(packed, dict) and packed.get("dtype") == "jpeg"
        shape, data = fields.parts(packed, "jpeg" if compressed else "|u1", 3, least=1)
        room -= math.prod(shape)
        if room < 0:
            raise WireError(f"frames of more than {MAX_BYTES} bytes")
        frames[fields.text(name)] = jpeg.decode(data, shape) if compressed else _raw_frame(packed)
    return frames


def _to_infer(f: dict[str, Any]) -> Infer:
    if (f["prefix"] is None) != (f["prefix_weights"] is None):
        raise WireError("infer: prefix and prefix_weights come together")
    prefix = None
    if f["prefix"] is not None:
        if len(f["prefix"]) != len(f["prefix_weights"]):
            raise WireError("infer: prefix and prefix_weights differ in length")
        prefix = Prefix(f["prefix"], f["prefix_weights"])
    observation = Observation(f["time"], f["state"], f["frames"], f["instruction"])
    ids = (f["spec"], f["session"], f["seq"], f["seed"], f["call"])
    return Infer(*ids, observation, prefix, f["deadline"], bool(f["done"]))


def _to_chunk(f: dict[str, Any]) -> Chunk:
    if len(f["actions"]) == 0 or not f["dt"] > 0:
        raise WireError("chunk: wanted at least one row and a positive dt")
    if f["done"] is not None and not 0 <= f["done"] <= 1:
        raise WireError("chunk: done is a probability")
    measured = (f["stages"], f["step_seconds"], f["origin"], f["done"])
    chunk = ActionChunk(f["time"], f["dt"], f["actions"], *measured)
    return Chunk(f["session"], f["seq"], chunk, f["left"])


_SESSION: dict[str, Check] = {"session": fields.integer}
_IDS: dict[str, Check] = {**_SESSION, "seq": fields.integer}
_SCHEMAS: dict[str, tuple[dict[str, Check], Callable[[dict[str, Any]], Message]]] = {
    "hello": (
        {
            "version": fields.integer,
            "role": fields.one_of(*ROLES),
            "robot": fields.name,
            "spec?": fields.text,
        },
        lambda f: Hello(**f),
    ),
    "welcome": (
        {"version": fields.integer, "spec": _spec, **_SESSION, "lease": fields.boolean},
        lambda f: Welcome(f["spec"][0], f["session"], f["lease"], f["version"], f["spec"][1]),
    ),
    "infer": (
        {
            **_IDS,
            "spec": fields.text,
            "seed": fields.integer,
            "call": fields.integer,
            "time": fields.number,
            "state": fields.array("<f4", 1),
            "frames": _frames,
            "instruction": fields.text,
            "prefix?": fields.array("<f4", 2),
            "prefix_weights?": fields.array("<f4", 1),
            "deadline?": fields.number,
            "done?": fields.boolean,
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
            "step_seconds": fields.numbers(_MAX_ENTRIES),
            "origin?": fields.number,
            "left?": fields.number,
            "done?": fields.number,
        },
        _to_chunk,
    ),
    "ping": ({**_SESSION, "sent": fields.number}, lambda f: Ping(**f)),
    "pong": ({**_SESSION, "sent": fields.number, "clock": fields.number}, lambda f: Pong(**f)),
    "bye": (_SESSION, lambda f: Bye(**f)),
    "error": ({**_IDS, "code": fields.one_of(*CODES), "text": fields.text}, lambda f: Error(**f)),
}
