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
MAX_SIDE = 1 << 16
Check = Callable[[Any], Any]


class WireError(TaktError):
    """Bytes that are not a message of the protocol."""


def integer(value: Any) -> int:
    """An integer that fits a signed 64-bit one and is not negative."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise WireError("wanted an integer in [0, 2^63)")
    return value


def number(value: Any) -> float:
    """A finite number, as a float."""
    if type(value) not in (float, int) or not math.isfinite(value):
        raise WireError("wanted a finite number")
    return float(value)


def text(value: Any) -> str:
    """A text of bounded length."""
    if type(value) is not str or len(value) > MAX_TEXT:
        raise WireError(f"wanted a text of at most {MAX_TEXT} characters")
    return value


def array(dtype: str, rank: int, least: int = 0) -> Check:
    """An array of exactly this dtype and rank, no side shorter than `least`.

    Its size is compared with its bytes before it is made; the result is a read-only view of them.
    """

    def check(value: Any) -> np.ndarray:
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data"} or value["dtype"] != dtype:
            raise WireError(f"wanted an array of dtype {dtype}")
        shape, data = value["shape"], value["data"]
        if not isinstance(shape, list) or len(shape) != rank or not isinstance(data, bytes):
            raise WireError(f"wanted an array of rank {rank}")
        sizes = [integer(n) for n in shape]
        if not least <= min(sizes) <= max(sizes) <= MAX_SIDE:
            raise WireError(f"wanted sides between {least} and {MAX_SIDE}")
        if math.prod(sizes) * np.dtype(dtype).itemsize != len(data):
            raise WireError("an array's shape and its bytes differ")
        return np.frombuffer(data, dtype).reshape(sizes)

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
