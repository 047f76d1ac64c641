"""Streams of bytes for decoders: noise, and pieces of packets in it, whole, cut and changed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

# Quick by default; the million is there to be asked for: -m full
COUNTS = [8_000, pytest.param(1_000_000, marks=pytest.mark.full)]


def streams(chance: random.Random, count: int, packet: bytes, header: bytes) -> Iterator[list[bytes]]:
    """`count` streams, each in one to three pieces, some 40 bytes in all."""
    for _ in range(count):
        stream = b""
        for _ in range(chance.randrange(1, 4)):
            kind = chance.randrange(5)
            if kind == 0:
                stream += chance.randbytes(chance.randrange(20))
            elif kind == 1:
                stream += header + chance.randbytes(chance.randrange(12))
            elif kind == 2:
                stream += packet[: chance.randrange(len(packet) + 1)]
            elif kind == 3:
                changed = bytearray(packet)
                changed[chance.randrange(len(changed))] = chance.randrange(256)
                stream += changed
            else:
                stream += packet
        cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(3)))
        yield [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
