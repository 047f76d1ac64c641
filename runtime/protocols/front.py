"""What the front ends of other projects' protocols share: where they listen, who may ask, what is said."""

from __future__ import annotations

import hmac
import itertools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from runtime.bind import loopback
from runtime.fields import WireError
from runtime.protocols.keymap import KeyMap, Missing
from vla.contract import Observation, TaktError

_LONGEST = 500  # characters of an answer to what was wrong


def endpoint(bind: str, scheme: str, guarded: bool) -> tuple[str, int]:
    """Host and port of SCHEME://HOST:PORT; port 0 where it is `*`.

    Args:
        guarded: whether other machines may reach it, because a key is asked for or the network is trusted.

    Raises:
        TaktError: it is malformed, or open to other machines and not guarded.
    """
    given, _, rest = bind.partition("://")
    host, _, port = rest.rpartition(":")
    number = 0 if port == "*" else int(port) if port.isascii() and port.isdecimal() else -1
    if given != scheme or not host or not 0 <= number < 65536:
        raise TaktError(f"cannot bind {bind!r}: give {scheme}://127.0.0.1:PORT")
    host = host.strip("[]")
    if not guarded and not loopback(host):
        raise TaktError(
            f"refusing to bind {bind}: other machines could reach it and nothing asks who is speaking; "
            f"use {scheme}://127.0.0.1:PORT and a tunnel, or say --token-file FILE or --trust-network"
        )
    return ("0.0.0.0" if host == "*" else host), number


def written(host: str, port: int, scheme: str) -> str:
    """An address as people and clients write it."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def allowed(token: str | None, given: object) -> bool:
    """Whether a client that gave this may ask; compared in a time that tells nothing."""
    if token is None:
        return True
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), token.encode())


def names(keys: Iterable[object]) -> list[str]:
    """Some of a stranger's keys, for a message."""
    return sorted(str(key)[:60] for key in itertools.islice(keys, 16))


def said(error: BaseException) -> str:
    """An error as a peer may see it: one line, and of a fault of ours no more than that there was one."""
    if isinstance(error, TaktError):
        return " ".join(str(error).split())[:_LONGEST]
    print(f"takt: a request failed: {type(error).__name__}: {error}", file=sys.stderr)
    return "the request failed, see the server's log"


def observation(
    value: Any, mapping: KeyMap, now: float, picture: Callable[[Any], Any] = lambda found: found
) -> Observation:
    """An observation that comes as a map; a key with slashes may lead through maps within maps.

    Args:
        now: when it arrived, s.
        picture: what stands under a camera's key -> its frame.

    Raises:
        WireError: it is no map, or does not fit the mapping.
    """
    if not isinstance(value, dict):
        raise WireError(f"a {type(value).__name__} instead of an observation")

    def find(key: str) -> Any:
        found = value
        if key in value:
            return value[key]
        for step in key.split("/"):
            if not isinstance(found, dict) or step not in found:
                raise Missing(f"{key!r} is missing; the request has {names(value)}")
            found = found[step]
        return found

    return mapping.observation(now, lambda key: picture(find(key)), lambda key: _row(find(key)), find)


def _row(value: Any) -> Any:
    """A gripper may come as a number, or an array of one without sides."""
    if type(value) in (int, float):
        return np.array([value], np.float64)
    return value.reshape(1) if isinstance(value, np.ndarray) and value.ndim == 0 else value
