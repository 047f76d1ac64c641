"""Codecs: what their clients write is read, what we write their clients read, anything else is one line."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.fields import WireError
from runtime.protocols import codec
from tests.runtime.protocols import peers

values = arrays.arrays(
    st.sampled_from(["u1", "i4", "f4", "f8", ">f4", "?", "f2", "<i8"]),
    arrays.array_shapes(min_dims=0, max_dims=5, max_side=4),
)
HOOKS = [codec.openpi_array, codec.gr00t_array]


@given(values)
def test_gr00ts_arrays(array: np.ndarray) -> None:
    for given_ in (array, np.asfortranarray(array), array[..., ::-1] if array.ndim else array):
        read = codec.unpack(peers.to_bytes({"a": given_}), codec.gr00t_array)["a"]
        np.testing.assert_array_equal(read, given_)
        assert read.dtype == given_.dtype
        back = peers.from_bytes(codec.gr00t_pack([{"a": given_}, {}]))
        np.testing.assert_array_equal(back[0]["a"], given_)


@given(values)
def test_openpis_arrays(array: np.ndarray) -> None:
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    read = codec.unpack(theirs.packb({"a": array, "b": np.float32(1.5), "c": "text"}), codec.openpi_array)
    np.testing.assert_array_equal(read["a"], array)
    assert read["a"].dtype == array.dtype
    assert (read["b"], read["c"]) == (1.5, "text")
    back = theirs.unpackb(codec.openpi_pack({"a": array}))
    np.testing.assert_array_equal(back["a"], array)
    assert back["a"].dtype == array.dtype


def test_texts_in_an_array_are_read() -> None:
    read = codec.unpack(peers.to_bytes(np.array(["put it down"])), codec.gr00t_array)
    assert read.tolist() == ["put it down"]


def npy(descr: str, shape: str, data: bytes = b"", fortran: str = "False") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def gr00t(content: Any) -> bytes:
    return msgpack.packb({"__ndarray_class__": True, "as_npy": content})


def openpi(dtype: Any = "<f4", shape: Any = (1,), data: Any = b"\0" * 4) -> bytes:
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return stream.getvalue()


HOSTILE = {
    "nothing": b"",
    "half": peers.to_bytes(np.zeros(9))[:-5],
    "more": peers.to_bytes(np.zeros(2)) + b"\0",
    "deep": b"\x91" * 100_000,
    "deep maps": b"\x81\xa1a" * 100_000,
    "long list": b"\xdd\xff\xff\xff\xff",
    "long text": b"\xdb\xff\xff\xff\xff",
    "text that is none": b"\xa2\xff\xfe",
    "key that is no text": msgpack.packb({1: 2}),
    "many lists": b"\xdc\x04\x00" + (b"\xdc\x04\x00" + b"\x90" * 1024) * 1024,
    "pickled array": gr00t(pickled()),
    "pickle": gr00t(b"\x80\x04N."),
    "npy: text": gr00t("text"),
    "npy: nothing": gr00t(b""),
    "npy: cut header": gr00t(npy("'<f4'", "(1,)")[:20]),
    "npy: huge": gr00t(npy("'<f4'", "(1000000000, 1000000000)", b"\0" * 8)),
    "npy: overflow": gr00t(npy("'<f8'", f"({2**61}, 8)", b"")),
    "npy: empty": gr00t(npy("'<f4'", "(0, 5)")),
    "npy: object": gr00t(npy("'|O'", "(1,)", b"\0" * 8)),
    "npy: void": gr00t(npy("'|V8'", "(1,)", b"\0" * 8)),
    "npy: complex": gr00t(npy("'<c8'", "(1,)", b"\0" * 8)),
    "npy: structured": gr00t(npy("[('a', '<f4')]", "(1,)", b"\0" * 4)),
    "npy: subarray": gr00t(npy("'(9999,9999)f4'", "(1,)", b"\0" * 4)),
    "npy: expression": gr00t(npy("'<f4'", "(__import__('os'),)", b"\0" * 4)),
    "npy: parentheses": gr00t(npy("'<f4'", "(" * 5000 + ")" * 5000)),
    "npy: rank": gr00t(npy("'<f4'", "(1, 1, 1, 1, 1, 1, 1, 1, 1,)", b"\0" * 4)),
    "openpi: object": openpi("|O", data=b"\0" * 8),
    "openpi: void": openpi("|V4"),
    "openpi: complex": openpi("<c8", data=b"\0" * 8),
    "openpi: subarray": openpi("(99999,99999)f4"),
    "openpi: dtype": openpi(7),
    "openpi: huge": openpi(shape=(2**62,)),
    "openpi: overflow": openpi(shape=(2**25, 2**25, 2**25)),
    "openpi: negative": openpi(shape=(-1,)),
    "openpi: float side": openpi(shape=(1.0,)),
    "openpi: no shape": openpi(shape=None),
    "openpi: more bytes": openpi(data=b"\0" * 8),
    "openpi: text for bytes": openpi(data="abcd"),
    "openpi: keys alone": msgpack.packb({b"__ndarray__": True}),
    "openpi: scalar": msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}),
    "openpi: scalar's dtype": msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_one_line(name: str) -> None:
    array = codec.openpi_array if name.startswith("openpi") else codec.gr00t_array
    tracemalloc.start()
    try:
        with pytest.raises(WireError) as caught:
            codec.unpack(HOSTILE[name], array)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_a_message_that_is_too_long() -> None:
    with pytest.raises(WireError, match="at most"):
        codec.unpack(bytes(codec.MAX_BYTES + 1), codec.openpi_array)


@pytest.mark.parametrize("hook", HOOKS, ids=["openpi", "gr00t"])
@given(data=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_one_line(hook: Callable[[dict], Any], data: bytes) -> None:
    for message in (
        data,
        openpi(data=data),
        openpi(dtype=data),
        gr00t(data),
        gr00t(b"\x93NUMPY\x01\x00" + data),
    ):
        assert "\n" not in peers.refusal(partial(codec.unpack, message, hook))


@given(st.data())
def test_a_message_with_a_few_bytes_changed(data: st.DataObject) -> None:
    whole = bytearray(peers.to_bytes({"video.front": np.zeros((1, 4, 4, 3), np.uint8), "task": ["words"]}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert "\n" not in peers.refusal(lambda: codec.unpack(bytes(whole), codec.gr00t_array))
