"""Lines that come while the arm moves, typed or spoken: read at the tick, never waited for."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TextIO

from runtime.instruct import Words
from runtime.voice import Ears

_MOST = 4096  # bytes of a line; what is longer is no instruction
_TURN = 8  # lines a tick


class Typed:
    """The lines of a terminal or a pipe, without a thread.

    Attributes:
        open: false once its end was read.
    """

    def __init__(self, source: TextIO | None = None) -> None:
        """`source` is standard input by default; one that is no file is closed from the beginning."""
        self.open, self._rest = True, b""
        try:
            self._file = (source or sys.stdin).fileno()
        except (AttributeError, ValueError, OSError):
            self.open = False

    def poll(self) -> list[str]:
        """The lines that are complete by now."""
        if not self.open or not self._ready():
            return []
        try:
            data = os.read(self._file, _MOST)
        except OSError:
            data = b""
        self.open = bool(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        self._rest = self._rest[-_MOST:]
        texts = [line.decode("utf-8", "replace").strip() for line in lines]
        return [text for text in texts if text][:_TURN]

    def _ready(self) -> bool:
        return not _in_background(self._file) and bool(select.select([self._file], [], [], 0.0)[0])


def _in_background(terminal: int) -> bool:
    """Whether reading would stop this process: a job that is not in front may not read its terminal."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # a pipe, or a terminal that is not ours
        return False


@dataclass(frozen=True)
class Heard:
    """Where a person's words come from: what is typed and what is spoken; None where nothing is."""

    typed: Typed | None
    ears: Ears | None

    @staticmethod
    def open(stack: ExitStack, voice: str | None, policy: str, keys: bool = False) -> Heard:
        """
        Args:
            voice: what is listened to, see `Ears`; None for nothing. `stack` closes it.
            policy: the name of the policy whose language is spoken.
            keys: read standard input even where it is no terminal.
        """
        ears = None if voice is None else stack.enter_context(Ears(voice, policy))
        terminal = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
        return Heard(Typed() if keys or terminal else None, ears)

    @property
    def polls(self) -> tuple[Callable[[], list[str]], ...]:
        """Each gives the lines that have come."""
        return tuple(source.poll for source in (self.typed, self.ears) if source is not None)


class Conversation:
    """An `until` of the loop: hears what is typed, prints what is said back, and knows when it is over."""

    def __init__(
        self,
        words: Words,
        seconds: float,
        begun: float,
        sources: tuple[Callable[[], list[str]], ...] = (),
        stays: Callable[[], bool] = lambda: False,
        show: Callable[[str], None] = print,
        hear: Callable[[str, float], object] | None = None,
    ) -> None:
        """
        Args:
            seconds: that a step may take; so long after the last words it is over.
            begun: s, when the first words were said.
            sources: each gives the lines that have come.
            stays: whether to wait for more words when the plan is done.
            show: takes a line for people.
            hear: is told a line and when, s, in place of the words themselves.
        """
        self.words, self.seconds = words, seconds
        self._heard, self._sources, self._stays, self._show = begun, sources, stays, show
        self._hear = hear or words.hear
        self._shown = 0

    def __call__(self, now: float) -> bool:
        for source in self._sources:
            for line in source():
                self._hear(line, now)
                self._heard = now
        self._tell()
        if self.words.over:
            return not self._stays()
        return now - self._heard >= self.seconds * max(1, len(self.words.plan))

    def _tell(self) -> None:
        new = self.words.lines - self._shown
        if new > 0:
            for _, line in list(self.words.log)[-new:]:
                self._show(f"  {line}")
        self._shown = self.words.lines
