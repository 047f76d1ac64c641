"""msgpack with arrays in it, as clients of other projects write it, read as if an enemy had.

    openpi   {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}      keys are bytes
             {b"__npgeneric__": True, b"data": number, b"dtype": "<f8"}
    GR00T    {"__ndarray_class__": True, "as_npy": what np.save writes}
    vla-eval {"__ndarray__": True, "data": bytes, "dtype": "<f4", "shape": [..]}
             {"__image__": True, "format": "png", "data": bytes, "shape": [h, w, c]}      jpeg, png, raw

An array is a read-only view of the message: its size is compared with its bytes before it is made, its dtype
is one of a list, and neither np.load nor a parser of Python literals sees what a stranger sent. A message may
hold only so many maps and lists, because an empty one is a byte on the wire and sixty in memory.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from runtime.fields import WireError

MAX_BYTES = 64 << 20
_ENTRIES = 1024  # of one map or list
_CONTAINERS = 2048  # maps and lists in one message
_RANK = 8
_MAGIC = re.compile(rb"\x93NUMPY(?:\x01\x00|[\x02\x03]\x00)")
# What np.save writes, to the letter; structured types have a list for their descr and do not fit.
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,16})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,200})\), \} *\n"
)
_NUMBERS = ["b1", "i1", "u1", *(f"{kind}{size}" for kind in "iu" for size in (2, 4, 8)), "f2", "f4", "f8"]
_DTYPES = {f"{order}{number}": np.dtype(f"{order}{number}") for number in _NUMBERS for order in "<>|"}
_TEXT = re.compile(r"[<>]U[1-9][0-9]{0,4}")  # numpy's texts, which some simulators send for instructions


def unpack(data: bytes, array: Callable[[dict[Any, Any]], Any], entries: int = _ENTRIES) -> Any:
    """The value in a message; raises WireError for anything else, and nothing but WireError.

    Args:
        array: turns a map into the array that it stands for, or gives it back: `openpi_array`, `gr00t_array`,
            `harness_array`.
        entries: of one map or list, at the most.
    """
    if len(data) > MAX_BYTES:
        raise WireError(f"a message of {len(data)} bytes; at most {MAX_BYTES} are accepted")
    left = _CONTAINERS

    def count(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise WireError(f"a message of more than {_CONTAINERS} maps and lists")
        return value

    limits = {"max_map_len": entries, "max_array_len": entries}
    try:
        return msgpack.unpackb(
            data, raw=False, object_hook=lambda value: array(count(value)), list_hook=count, **limits
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError):
        raise WireError("not a msgpack message within the protocol's limits") from None


# ---- openpi ----


def openpi_array(value: dict[Any, Any]) -> Any:
    """The array or number that a map stands for; any other map as it is."""
    if b"__ndarray__" in value:
        return _view(_dtype(value.get(b"dtype")), _shape(value.get(b"shape")), value.get(b"data"))
    if b"__npgeneric__" in value:
        _dtype(value.get(b"dtype"))
        number = value.get(b"data")
        if type(number) not in (bool, int, float):
            raise WireError("a numpy number that is none")
        return number
    return value


def openpi_pack(value: Any) -> bytes:
    """A message with arrays as openpi's clients read them."""
    return msgpack.packb(value, default=_openpi_map)


def _openpi_map(value: Any) -> Any:
    return {key.encode(): part for key, part in _harness_map(value).items()}


# ---- GR00T ----


def gr00t_array(value: dict[Any, Any]) -> Any:
    """The array that a map stands for; any other map as it is."""
    if "__ndarray_class__" not in value:
        return value
    data = value.get("as_npy")
    if not isinstance(data, bytes) or not (magic := _MAGIC.match(data)):
        raise WireError("an array that np.save did not write")
    start = magic.end() + (2 if data[6] == 1 else 4)
    end = start + int.from_bytes(data[magic.end() : start], "little")
    header = _HEADER.fullmatch(data, start, end) if start <= end <= min(len(data), start + 1024) else None
    if header is None:
        raise WireError("an array with a header that np.save does not write for numbers")
    descr, fortran, sides = header.groups()
    shape = _shape([int(side) for side in sides.decode().replace(" ", "").split(",") if side])
    dtype = _dtype(descr.decode(errors="replace"))
    return _view(dtype, shape, memoryview(data)[end:], "F" if fortran == b"True" else "C")


def gr00t_pack(value: Any) -> bytes:
    """A message with arrays as GR00T's clients read them."""
    return msgpack.packb(value, default=_gr00t_map)


def _gr00t_map(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        stream = io.BytesIO()
        np.save(stream, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": stream.getvalue()}
    raise TypeError(f"{type(value).__name__} has no place in a message")


# ---- vla-evaluation-harness ----


@dataclass(frozen=True)
class Picture:
    """A picture as it came, not decoded yet: `shape` is what it claims to be."""

    kind: str
    data: bytes
    shape: tuple[int, ...]

    def decode(self) -> np.ndarray:
        """Shape (h, w, c), uint8.

        Raises:
            WireError: it is no such picture, or of another size than it claims.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.data), formats=[self.kind]) as image:
                # Before a byte of it is decoded: a small file may say that it is enormous.
                if (image.height, image.width) != self.shape[:2] or len(image.getbands()) != self.shape[2]:
                    raise WireError(f"a {self.kind} of another size than {list(self.shape)}, which it claims")
                return np.asarray(image)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise WireError(f"a {self.kind} that cannot be decoded") from None


@dataclass(frozen=True)
class Refused:
    """What is not taken, and why; a benchmark may send more than anybody reads."""

    why: str

    def __str__(self) -> str:
        return self.why


def harness_array(value: dict[Any, Any]) -> Any:
    """The array or `Picture` that a map stands for, or `Refused`; any other map as it is."""
    try:
        return _harness_array(value)
    except WireError as error:
        return Refused(str(error))


def _harness_array(value: dict[Any, Any]) -> Any:
    if value.get("__image__"):
        shape, kind, data = _shape(value.get("shape")), value.get("format"), value.get("data")
        if len(shape) != 3 or shape[2] not in (1, 3, 4) or math.prod(shape) > MAX_BYTES:
            raise WireError(f"a picture is (height, width, 1, 3 or 4), of at most {MAX_BYTES} bytes")
        if kind == "raw":
            return _view(np.dtype(np.uint8), shape, data)
        if kind not in ("jpeg", "png") or not isinstance(data, bytes):
            raise WireError("a picture is raw, jpeg or png")
        return Picture(kind, data, shape)
    if value.get("__ndarray__"):
        return _view(_dtype(value.get("dtype")), _shape(value.get("shape")), value.get("data"))
    return value


def harness_pack(value: Any) -> bytes:
    """A message with arrays as vla-evaluation-harness reads them."""
    return msgpack.packb(value, default=_harness_map)


def _harness_map(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        return {
            "__ndarray__": True, "data": data.tobytes(), "dtype": data.dtype.str, "shape": list(data.shape),
        }  # fmt: skip
    raise TypeError(f"{type(value).__name__} has no place in a message")


# ---- all ----


def _dtype(name: Any) -> np.dtype:
    if isinstance(name, str):
        if name in _DTYPES:
            return _DTYPES[name]
        if _TEXT.fullmatch(name):
            return np.dtype(name)
    raise WireError(f"an array of a dtype that is not accepted; accepted are numbers: {', '.join(_NUMBERS)}")


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _RANK:
        raise WireError(f"an array needs a shape of at most {_RANK} sides")
    if not all(type(side) is int and 1 <= side <= MAX_BYTES for side in value):
        raise WireError(f"an array's sides lie between 1 and {MAX_BYTES}")
    return tuple(value)


def _view(dtype: np.dtype, shape: tuple[int, ...], data: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(data, bytes | memoryview) or math.prod(shape) * dtype.itemsize != len(data):
        raise WireError("an array's shape and its bytes differ")
    return np.frombuffer(data, dtype).reshape(shape, order=order)
