"""What passes between Takt and a process in another Python environment: JSON and raw arrays, no pickle.

A message is two lengths (big-endian, 4 bytes each: of the header, of all arrays), the header in JSON, then
the arrays' bytes in the order in which the header lists them:

    {"fields": {...}, "arrays": [["state", "float32", [4]], ...]}

Both sides read this file, so it needs no more than the standard library and numpy, of any version that
still runs somewhere.
"""

from __future__ import annotations

import json
import math
import socket
import struct

import numpy as np

KINDS = ("float32", "float64", "uint8", "int64", "bool")
MOST = 256 << 20  # bytes; a larger message is a broken one
_LENGTHS = struct.Struct(">II")


class Closed(Exception):
    """The other side has gone."""


class Broken(Exception):
    """What came is no message."""


def send(link: socket.socket, fields: dict, arrays: dict | None = None) -> None:
    """Send one message.

    Args:
        fields: what JSON can say.
        arrays: name -> array of one of `KINDS`.

    Raises:
        Closed: nobody is there to read it.
    """
    ready = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    listed = [[name, array.dtype.name, list(array.shape)] for name, array in ready.items()]
    for name, kind, _ in listed:
        if kind not in KINDS:
            raise TypeError(f"array {name!r} is of kind {kind}; valid: {', '.join(KINDS)}")
    header = json.dumps({"fields": fields, "arrays": listed}).encode()
    bodies = [array.tobytes() for array in ready.values()]
    lengths = _LENGTHS.pack(len(header), sum(map(len, bodies)))
    try:
        link.sendall(b"".join([lengths, header, *bodies]))
    except (BrokenPipeError, ConnectionResetError):
        raise Closed() from None


def receive(link: socket.socket) -> tuple[dict, dict]:
    """(fields, arrays) of the next message.

    Raises:
        Closed: the other side has gone.
        Broken: what came is no message.
        TimeoutError: nothing came for as long as the socket waits.
    """
    header, body = _LENGTHS.unpack(_exactly(link, _LENGTHS.size))
    if header + body > MOST:
        raise Broken(f"a message of {header + body} bytes")
    head, data = _exactly(link, header), _exactly(link, body)
    try:
        read = json.loads(head.decode())
        fields, listed = read["fields"], [(str(n), str(k), [int(d) for d in s]) for n, k, s in read["arrays"]]
    except (ValueError, KeyError, TypeError):
        raise Broken("a header that is no JSON of ours") from None
    arrays, at = {}, 0
    for name, kind, shape in listed:
        if kind not in KINDS or min(shape, default=0) < 0:
            raise Broken(f"an array {name!r} of kind {kind} and shape {shape}")
        size = math.prod(shape) * np.dtype(kind).itemsize
        if at + size > len(data):
            raise Broken(f"an array {name!r} that is longer than its message")
        arrays[name] = np.frombuffer(data[at : at + size], kind).reshape(shape).copy()
        at += size
    if at != len(data) or not isinstance(fields, dict):
        raise Broken("bytes that belong to no array")
    return fields, arrays


def _exactly(link: socket.socket, size: int) -> bytes:
    parts, left = [], size
    while left:
        try:
            part = link.recv(min(left, 1 << 20))
        except ConnectionResetError:
            part = b""
        if not part:
            raise Closed()
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
