"""What people speak into a page: pieces of sound while they hold its button, words once they let go.

    begin --> pieces of at most 4096 bytes --> end --> a process that recognises --> lines of text

The recogniser computes in a process of its own, started when somebody first speaks, so that a stop never
waits for it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from runtime import voice
from runtime.child import follow
from runtime.skills import find
from vla.contract import TaktError

LONGEST = 10.0  # s of one utterance; what is held longer is cut
_BYTES = 2  # a sample, 16 bits


class Talk:
    """The ears of all pages; each has a `Held` of its own."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def understands(self, policy: str) -> bool:
        """Whether anything that is said to this policy can be recognised here."""
        return find_spec("pocketsphinx") is not None and _grammar(policy)

    async def words(self, sound: bytes, policy: str) -> list[str]:
        """The lines spoken in a sound: 16-bit samples at `voice.RATE`.

        Raises:
            TaktError: one line.
        """
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, follow, (os.getpid(),))
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, recognised, sound, policy)
        except BrokenProcessPool:
            self._pool = None  # the next who speaks starts another
            raise TaktError("what recognises speech has ended; say it again") from None


class Held:
    """What one page has said while its button was held."""

    def __init__(self) -> None:
        self._sound: bytearray | None = None

    def begin(self) -> None:
        self._sound = bytearray()

    def take(self, piece: bytes) -> bool:
        """More sound; False where nobody holds the button."""
        if self._sound is None:
            return False
        room = round(LONGEST * voice.RATE) * _BYTES - len(self._sound)
        self._sound += piece[: max(0, room)]
        return True

    def end(self) -> bytes:
        """All of it, whole samples; b"" where nobody held the button."""
        sound, self._sound = bytes(self._sound or b""), None
        return sound[: len(sound) // _BYTES * _BYTES]


def recognised(sound: bytes, policy: str) -> list[str]:
    """In the process that recognises."""
    return voice.transcribe(np.frombuffer(sound, "<i2"), _decoder(policy))


@lru_cache(maxsize=1)
def _decoder(policy: str) -> Any:
    return voice.decoder(find(policy))


@lru_cache(maxsize=8)
def _grammar(policy: str) -> bool:
    try:
        return bool(voice.grammar(find(policy)))
    except TaktError:
        return False
