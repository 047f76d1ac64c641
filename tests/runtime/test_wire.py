"""What is encoded comes back; anything else is a WireError and never another exception."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import wire
from runtime.unpack import unpack
from tests import fakes
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix

SPEC = fakes.arm_spec()
ids = st.integers(0, 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary()
)
trees = st.recursive(
    leaves, lambda t: st.one_of(st.lists(t, max_size=4), st.dictionaries(st.text(max_size=8), t, max_size=4))
)
KINDS = ["hello", "welcome", "infer", "chunk", "ping", "pong", "bye", "error"]
FIELDS = ["version", "spec", "session", "seq", "seed", "call", "time", "dt", "state", "frames", "instruction"]
FIELDS += [
    "text",
    "code",
    "role",
    "robot",
    "sent",
    "clock",
    "origin",
    "left",
    "done",
    "step_seconds",
    "stages",
    "lease",
]
arrays = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["<f4", "|u1", "|O", "<f8", "<U1", "jpeg"]),
        "shape": st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**63)), max_size=4),
        "data": st.binary(max_size=64),
    }
)


def infer() -> wire.Infer:
    frames = {"front": np.arange(48, dtype=np.uint8).reshape(4, 4, 3)}
    seen = Observation(1.25, np.array([0.5, -1.0], np.float32), frames, "put it — there")
    prefix = Prefix(np.ones((3, 2), np.float32), np.array([True, False, False]))
    return wire.Infer("abc", 2**63 - 1, 4, 5, 6, seen, prefix, 0.05)


MESSAGES = [
    wire.Hello("arm"),
    wire.Hello("arm", "observe", "abc"),
    wire.Welcome(SPEC, 3, True),
    wire.Welcome(SPEC, 3, True, done=True),
    infer(),
    replace(infer(), done=True),
    wire.Chunk(
        1, 2, ActionChunk(0.1, 0.05, np.ones((2, 3), np.float32), {"prefix": 0.01}, (0.1, 0.2), 7.0), 8.0
    ),
    wire.Chunk(1, 2, ActionChunk(0.1, 0.05, np.ones((2, 3), np.float32))),
    wire.Chunk(1, 2, ActionChunk(0.1, 0.05, np.ones((2, 3), np.float32), done=0.25)),
    wire.Ping(1, 2.5),
    wire.Pong(1, 2.5, 3.5),
    wire.Bye(1),
    wire.Error("late", "no", 1, 2),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_messages_come_back(message: wire.Message) -> None:
    back = wire.decode(wire.encode(message))
    assert type(back) is type(message)
    np.testing.assert_equal(asdict(back), asdict(message))


def test_peers_from_before_done_look_past_it() -> None:
    """They refuse a field that they do not know, and take a spec with a key that they do not."""
    said = msgpack.unpackb(wire.encode(wire.Welcome(SPEC, 3, True, done=True)))
    assert set(said) == {"kind", "version", "spec", "session", "lease"}
    theirs = PolicySpec.from_json(json.loads(said["spec"]))
    assert wire.digest(theirs) == wire.digest(SPEC)
    assert "done" not in msgpack.unpackb(wire.encode(infer()))
    untold = wire.Chunk(1, 2, ActionChunk(0.1, 0.05, np.ones((2, 3), np.float32)))
    assert "done" not in msgpack.unpackb(wire.encode(untold))


@pytest.mark.parametrize("done", [-0.1, 1.1])
def test_done_is_a_probability(done: float) -> None:
    chunk = ActionChunk(0.1, 0.05, np.ones((2, 3), np.float32), done=done)
    with pytest.raises(wire.WireError, match="probability"):
        wire.decode(wire.encode(wire.Chunk(1, 2, chunk)))


@given(ids, ids, finite, st.text(max_size=100))
def test_requests_come_back(session: int, seq: int, time: float, text: str) -> None:
    message = wire.Infer("d", session, seq, 0, 0, Observation(time, np.zeros(1, np.float32), {}, text))
    back = wire.decode(wire.encode(message))
    assert (back.session, back.seq, back.observation.time) == (session, seq, time)
    assert back.observation.instruction == text


def refused_or_message(data: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        wire.decode(data)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    refused_or_message(data)


@settings(max_examples=300)
@given(
    st.sampled_from(KINDS),
    st.dictionaries(
        st.one_of(st.sampled_from(FIELDS), st.text(max_size=5)),
        st.one_of(trees, arrays, st.dictionaries(st.text(max_size=5), arrays, max_size=3)),
        max_size=13,
    ),
)
def test_random_maps_are_refused(kind: str, fields: dict) -> None:
    refused_or_message(msgpack.packb({**fields, "kind": kind}))


@settings(max_examples=300)
@given(st.sampled_from(MESSAGES), st.data())
def test_damaged_messages_are_refused(message: wire.Message, data: st.DataObject) -> None:
    good = wire.encode(message)
    cut = data.draw(st.integers(0, len(good)))
    damage = data.draw(st.binary(max_size=8))
    refused_or_message(good[:cut] + damage + good[cut + len(damage) :])
    refused_or_message(good[:cut])


@settings(max_examples=300)
@given(st.sampled_from(MESSAGES), st.data())
def test_one_wrong_field_is_refused(message: wire.Message, data: st.DataObject) -> None:
    fields = msgpack.unpackb(wire.encode(message))
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(st.one_of(trees, arrays))
    refused_or_message(msgpack.packb(fields))


@pytest.mark.parametrize("data", [b"\x91" * 100_000, b"\x81\xa1a" * 50_000, b"\xdd\xff\xff\xff\xff", b""])
def test_deep_and_boastful_messages_are_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


def test_missing_and_unknown_fields_are_refused() -> None:
    fields = msgpack.unpackb(wire.encode(infer()))
    for name in set(fields) - {"deadline"}:
        with pytest.raises(wire.WireError):
            wire.decode(msgpack.packb({k: v for k, v in fields.items() if k != name}))
    with pytest.raises(wire.WireError, match="unknown"):
        wire.decode(msgpack.packb(fields | {"more": 1}))


def test_sizes_are_checked_before_anything_is_made() -> None:
    fields = msgpack.unpackb(wire.encode(infer()))
    fields["state"] = {"dtype": "<f4", "shape": [2**60], "data": b""}
    with pytest.raises(wire.WireError, match="state"):
        wire.decode(msgpack.packb(fields))
    with pytest.raises(wire.WireError, match="at most"):
        wire.decode(bytes(wire.MAX_BYTES + 1))


def test_another_version_is_named() -> None:
    hello = msgpack.unpackb(wire.encode(wire.Hello("arm")))
    for other in (hello | {"version": 1}, {"kind": "hello", "version": 1}, hello | {"version": 9, "new": 1}):
        with pytest.raises(wire.WireError, match=r"speaks version .*upgrade"):
            wire.decode(msgpack.packb(other))


def test_the_wire_has_one_way_to_write_a_message() -> None:
    """Pieces that are joined are what msgpack would have packed at once, but for the size of headers."""
    for message in MESSAGES:
        fields = msgpack.unpackb(wire.encode(message))
        assert wire.decode(msgpack.packb(fields)) is not None
        assert msgpack.unpackb(msgpack.packb(fields)) == fields


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    good = infer()
    state = np.array([0.0, value], np.float32)
    with pytest.raises(wire.WireError, match="finite"):
        wire.decode(wire.encode(replace(good, observation=replace(good.observation, state=state))))
    actions = np.full((2, 3), value, np.float32)
    with pytest.raises(wire.WireError, match="finite"):
        wire.decode(wire.encode(wire.Chunk(1, 2, ActionChunk(0.1, 0.05, actions))))


def test_frames_together_have_a_limit_whatever_their_form() -> None:
    fields = msgpack.unpackb(wire.encode(infer()))
    boast = {"dtype": "jpeg", "shape": [8000, 8000, 3], "data": b""}
    fields["frames"] = {"a": boast}
    with pytest.raises(wire.WireError, match="frames of more than"):
        wire.decode(msgpack.packb(fields))


def test_a_message_too_large_to_be_taken_is_not_sent() -> None:
    frames = {"a": np.zeros((5000, 5000, 3), np.uint8)}
    seen = Observation(0.0, np.zeros(1, np.float32), frames)
    with pytest.raises(wire.WireError, match="make frames smaller"):
        wire.encode(wire.Infer("d", 1, 0, 0, 0, seen))


def test_specs_have_names() -> None:
    assert wire.digest(SPEC) == wire.digest(fakes.arm_spec())
    assert wire.digest(SPEC) != wire.digest(fakes.arm_spec(dt=0.1))


plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary()
    ),
    lambda t: st.one_of(st.lists(t, max_size=20), st.dictionaries(st.text(), t, max_size=20)),
    max_leaves=12,
)


@given(plain)
def test_what_msgpack_packs_is_read_alike(value: object) -> None:
    """Two readers of one format."""
    data = msgpack.packb(value)
    try:
        ours = unpack(data, 256)
    except ValueError:
        assert depth(value) > 8
    else:
        np.testing.assert_equal(with_bytes(ours), msgpack.unpackb(data))


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def with_bytes(value: object) -> object:
    """Views as the bytes they show."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    return {k: with_bytes(v) for k, v in value.items()} if isinstance(value, dict) else value


@given(st.binary(max_size=60))
def test_what_msgpack_refuses_is_refused(data: bytes) -> None:
    try:
        ours = unpack(data, 256)
    except ValueError:
        return
    np.testing.assert_equal(with_bytes(ours), msgpack.unpackb(data, strict_map_key=False))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536])
def test_every_size_of_header_is_read(size: int) -> None:
    for value in ("x" * size, b"x" * size, [7] * size, {str(i): i for i in range(size)}):
        assert with_bytes(unpack(msgpack.packb(value), 1 << 17)) == value


def test_views_are_of_the_message_and_read_only() -> None:
    data = bytearray(msgpack.packb({"a": b"abc"}))
    view = unpack(data, 256)["a"]
    assert view.readonly
    data[-1] = ord("z")
    assert bytes(view) == b"abz"
    with pytest.raises(ValueError, match="distinct"):
        unpack(b"\x82\xa1a\x01\xa1a\x02", 256)
    for bad in (b"\xc1", b"\xd4\x01\x00", b"\x01\x01", b"\x81\x01\x01", b"\xa1\xff", b"\x92\x01"):
        with pytest.raises(ValueError):
            unpack(bad, 256)


def test_requests_of_one_shape_have_one_size() -> None:
    good = infer()
    other = replace(good, session=1, seq=2**40, seed=0, call=9, deadline=1e9)
    assert len(wire.encode(good)) == len(wire.encode(other))
