"""What the front ends of other projects' protocols share: where they listen, who may ask, what is said."""

from __future__ import annotations

import hmac
import itertools
import sys
from collections.abc import Iterable

from runtime.bind import loopback
from vla.contract import TaktError

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
