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

import numpy as np

from runtime import voice
from runtime.child import follow
from runtime.skills import find
from runtime.whisper import Decoder
from vla.contract import TaktError

LONGEST = 10.0  # s of one utterance; what is held longer is cut
PATIENCE = 20.0  # s for one to be recognised; the first one waits for its process as well
_BYTES = 2  # a sample, 16 bits


class Talk:
    """The ears of all pages; each has a `Held` of its own."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._turn = asyncio.Lock()  # one after the other

    def understands(self, policy: str) -> bool:
        """Whether anything that is said to this policy can be recognised here."""
        return _understood(policy)

    async def words(self, sound: bytes, policy: str) -> list[str]:
        """The lines spoken in a sound: 16-bit samples at `voice.RATE`.

        Raises:
            TaktError: one line.
        """
        async with self._turn:
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(1, context, follow, (os.getpid(),))
            asked = asyncio.get_running_loop().run_in_executor(self._pool, recognised, sound, policy)
            try:
                return await asyncio.wait_for(asked, PATIENCE)
            except (BrokenProcessPool, asyncio.TimeoutError):
                self._end()
                raise TaktError("what recognises speech has ended; say it again") from None

    def _end(self) -> None:
        """The next who speaks starts another process."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None


class Held:
    """What one page has said while its button was held.

    Attributes:
        number: of the command that began it: a stop that came after that one voids what was said.
        waiting: utterances of this page that are not recognised yet.
    """

    def __init__(self) -> None:
        self._sound: bytearray | None = None
        self.number = self.waiting = 0

    def begin(self, number: int) -> None:
        self._sound, self.number = bytearray(), number

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
def _decoder(policy: str) -> Decoder:
    return voice.decoder(find(policy))


@lru_cache(maxsize=8)
def _understood(policy: str) -> bool:
    try:
        voice.understands(find(policy))
    except TaktError:
        return False
    return True
