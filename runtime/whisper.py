"""Speech by a Whisper model of yours (faster-whisper), whatever the policy: no grammar of what can be said.

    speech --> PocketSphinx, as it comes --> "stop" --> told at once, and voids what is still being recognised
           \\-> when it is over: Whisper, in a thread ------> a line of text

A word that halts the arm, spoken alone, never waits for the model. Needs the extra `whisper` and a folder in
CTranslate2's form (model.bin, config.json, tokenizer.json); nothing is fetched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtime.spoken import Say, kind
from vla.contract import TaktError

FILES = ("model.bin", "config.json", "tokenizer.json")
SHORT = 1.5  # s; what the grammar takes for "stop" in a longer stretch may be any sentence forced into it
RATE = 16_000  # samples a second, what either model was trained on
# Whisper makes sentences of noise; its own measures of doubt, at the thresholds of its authors (arXiv
# 2212.04356, section 4.5), leave those out.
SILENT, UNLIKELY = 0.6, -1.0


class Decoder(Protocol):
    """What turns one stretch of speech after the other into lines."""

    def begin(self) -> None:
        """Speech begins."""

    def take(self, speech: bytes) -> None:
        """More of it: 16-bit samples at `RATE`."""

    def end(self, tell: Callable[[str], None]) -> None:
        """It is over; `tell` is given its line, now or from a thread, where it said anything."""

    def finish(self) -> None:
        """Wait until all that has ended has been told."""


class Whisper:
    """A decoder that listens twice; see the head of this file."""

    def __init__(self, folder: Path, words: Any) -> None:
        """
        Args:
            words: a decoder with `begin`, `take` and `text()`, which knows the words that halt.

        Raises:
            TaktError: faster-whisper is not installed, or the folder has no model that it reads.
        """
        check(folder)
        from faster_whisper import WhisperModel

        try:
            self._model = WhisperModel(
                str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
            )
        except Exception as error:  # what CTranslate2 and the tokenizer raise, of several kinds
            why = " ".join(str(error).split())[:200]
            raise TaktError(
                f"--voice-model {folder}: not a model that faster-whisper reads ({why})"
            ) from None
        self._words = words
        self._speech = bytearray()
        self._threads = ThreadPoolExecutor(1)  # one sentence after the other
        self._pending: list[Future[None]] = []
        self._told = threading.Lock()
        self._stops = 0

    def begin(self) -> None:
        self._speech.clear()
        self._words.begin()

    def take(self, speech: bytes) -> None:
        self._speech += speech
        self._words.take(speech)

    def end(self, tell: Callable[[str], None]) -> None:
        word = self._words.text()
        speech = bytes(self._speech)
        if len(speech) <= SHORT * RATE * 2 and kind(word)[0] in (Say.STOP, Say.WAIT):
            with self._told:
                self._stops += 1
                tell(word)
            return
        self._pending = [one for one in self._pending if not one.done()]
        self._pending.append(self._threads.submit(self._recognise, speech, self._stops, tell))

    def finish(self) -> None:
        for one in self._pending:
            one.result()

    def _recognise(self, speech: bytes, stops: int, tell: Callable[[str], None]) -> None:
        if stops != self._stops:
            return
        sound = np.frombuffer(speech, "<i2").astype(np.float32) / 32768
        try:
            pieces, _ = self._model.transcribe(
                sound, beam_size=5, temperature=0.0, condition_on_previous_text=False, without_timestamps=True
            )
            likely = [p.text for p in pieces if p.no_speech_prob <= SILENT or p.avg_logprob >= UNLIKELY]
        except Exception as error:  # of CTranslate2: one sentence is lost, not the ears
            print(f"a sentence was not recognised: {' '.join(str(error).split())}", file=sys.stderr)
            return
        text = " ".join(" ".join(likely).split())
        with self._told:  # what a stop came after is void, however far it was
            if text and stops == self._stops:
                tell(text)


def check(folder: Path) -> None:
    """Whether speech can be recognised by the model in a folder, as far as its files tell.

    Raises:
        TaktError: faster-whisper is not installed, or a file is missing.
    """
    if find_spec("faster_whisper") is None:  # importing it takes long, and is for the process that listens
        raise TaktError("--voice-model needs faster-whisper: pip install 'takt-vla[whisper]'")
    # Without a tokenizer faster-whisper would ask the hub for one.
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise TaktError(
            f"--voice-model {folder}: {', '.join(missing)} missing; wanted is a Whisper model in "
            "CTranslate2's form, as ct2-transformers-converter --copy_files tokenizer.json writes it"
        )
