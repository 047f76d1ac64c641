"""Checks for values that came over a wire.

A check takes any value and returns the checked one, or raises WireError; it never raises anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vla.contract import TaktError

MAX_TEXT = 1 << 16
MAX_NAME = 64
MAX_SIDE = 1 << 16
Check = Callable[[Any], Any]


class WireError(TaktError):
    """Bytes that are not a message of the protocol."""


def integer(value: Any) -> int:
    """An integer that fits a signed 64-bit one and is not negative."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise WireError("wanted an integer in [0, 2^63)")
    return value


def boolean(value: Any) -> bool:
    """True or False."""
    if type(value) is not bool:
        raise WireError("wanted true or false")
    return value


def number(value: Any) -> float:
    """A finite number, as a float."""
    if type(value) not in (float, int) or not math.isfinite(value):
        raise WireError("wanted a finite number")
    return float(value)


def numbers(most: int) -> Check:
    """Up to `most` finite numbers, as a tuple."""

    def check(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise WireError(f"wanted at most {most} numbers")
        return tuple(map(number, value))

    return check


def text(value: Any) -> str:
    """A text of bounded length."""
    if type(value) is not str or len(value) > MAX_TEXT:
        raise WireError(f"wanted a text of at most {MAX_TEXT} characters")
    return value


def name(value: Any) -> str:
    """A short text that can be printed on one line."""
    if type(value) is not str or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise WireError(f"wanted a name of 1 to {MAX_NAME} printable characters")
    return value


def one_of(*choices: str) -> Check:
    """One of the texts."""

    def check(value: Any) -> str:
        if type(value) is not str or value not in choices:
            raise WireError(f"wanted one of {', '.join(choices)}")
        return value

    return check


def parts(value: Any, dtype: str, rank: int, least: int = 0) -> tuple[tuple[int, ...], Any]:
    """Shape and bytes of a packed array whose dtype and rank are as told, no side shorter than `least`."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data"} or value["dtype"] != dtype:
        raise WireError(f"wanted an array of dtype {dtype}")
    shape, data = value["shape"], value["data"]
    if not isinstance(shape, list) or len(shape) != rank or not isinstance(data, bytes | memoryview):
        raise WireError(f"wanted an array of rank {rank}")
    sizes = tuple(integer(n) for n in shape)
    if not least <= min(sizes) <= max(sizes) <= MAX_SIDE:
        raise WireError(f"wanted sides between {least} and {MAX_SIDE}")
    return sizes, data


def array(dtype: str, rank: int, least: int = 0) -> Check:
    """An array of exactly this dtype and rank, no side shorter than `least`; floats are finite.

    Its size is compared with its bytes before it is made; the result is a read-only view of them.
    """

    def check(value: Any) -> np.ndarray:
        shape, data = parts(value, dtype, rank, least)
        if math.prod(shape) * np.dtype(dtype).itemsize != len(data):
            raise WireError("an array's shape and its bytes differ")
        made = np.frombuffer(data, dtype).reshape(shape)
        if made.dtype.kind == "f" and not np.isfinite(made).all():
            raise WireError("an array holds what is not finite")
        return made

    return check


def map_of(check: Check) -> Check:
    """A map from texts to values that pass `check`."""

    def check_map(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise WireError("wanted a map")
        return {text(key): check(item) for key, item in value.items()}

    return check_map


def checked(fields: dict[str, Any], schema: Mapping[str, Check], kind: str) -> dict[str, Any]:
    """Every field checked; a name that ends in "?" in the schema may be left out (then None)."""
    names = {name.removesuffix("?"): name for name in schema}
    if extra := set(fields) - set(names):
        raise WireError(f"{kind}: {len(extra)} unknown fields; known are {sorted(names)}")
    values: dict[str, Any] = {}
    for name, key in names.items():
        if name not in fields:
            if key == name:
                raise WireError(f"{kind}: field {name!r} is missing")
            values[name] = None
            continue
        try:
            values[name] = schema[key](fields[name])
        except WireError as error:
            raise WireError(f"{kind}: field {name!r}: {error}") from None
    return values
