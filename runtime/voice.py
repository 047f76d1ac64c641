"""Spoken instructions, offline: PocketSphinx with the grammar of what can be said, or a Whisper model of
yours (runtime/whisper.py), in a process of its own.

    microphone or file --> frames of 30 ms --> speech? --> decoder --> lines of text --> the tick
                                                  a line is told a third of a second after its last word

What was recognised is text like any that is typed, and is answered as that is. Needs the extra `voice`.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import time
import wave
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from runtime.child import follow
from runtime.skills import Skills, find
from runtime.whisper import RATE, Decoder, Whisper, check
from vla.contract import TaktError

MODEL = "TAKT_VOICE_MODEL"  # the environment's name of the Whisper model's folder, for all processes of a run
FRAME = 480  # samples, 30 ms
MICROPHONE = "microphone"
_TAIL = 1.0  # s of silence after a file, so that its last word ends
_WORDS = """
<word> = stop | halt | wait | hold on | go on | continue | faster | slower | undo that | done;
<no> = no | no no | no wait | not that one | sorry;
"""


def grammar(skills: Skills) -> str:
    """JSGF of what can be said: the words that every robot knows, and the tasks of this policy's skills.

    Raises:
        TaktError: nobody has written down what can be said to this policy.
    """
    rules = getattr(skills, "speech", "")
    if not rules:
        known = skills.known()
        if not known:
            raise TaktError("no grammar of speech for this policy: its skills (takt.skills) have no `speech`")
        rules = f"<task> = {' | '.join(known)};\n<change> = <task>;\n"
    said = "[please] <task> [(then | and then) <task>] [please] | <word> | <no> <change> | <no> <task>"
    return _jsgf(rules, said)


def _jsgf(rules: str, said: str) -> str:
    """The grammar whose sentences are `said`, made of the words that every robot knows and of these rules."""
    return f"#JSGF V1.0;\ngrammar takt;\n{_WORDS}{rules}\npublic <said> = {said};\n"


def choose(model: Path | None) -> None:
    """Have this process, and those that it starts, recognise speech by a Whisper model; None changes nothing.

    Raises:
        TaktError: faster-whisper is not installed, or the folder has no model.
    """
    if model is not None:
        check(model)
        os.environ[MODEL] = str(model.resolve())


def understands(skills: Skills) -> None:
    """Nothing, where what is said to a policy of these skills can be recognised here.

    Raises:
        TaktError: what recognises is not installed; or there is neither a grammar nor a model.
    """
    _sphinx()
    if os.environ.get(MODEL):
        check(Path(os.environ[MODEL]))
    else:
        grammar(skills)


def decoder(skills: Skills) -> Decoder:
    """PocketSphinx with that grammar; beside a Whisper model, where one was chosen.

    Raises:
        TaktError: the grammar has a word that the recogniser cannot pronounce, or is no JSGF; the model
            cannot be loaded.
    """
    if not (model := os.environ.get(MODEL)):
        return Sphinx(grammar(skills))
    try:
        rules = grammar(skills)
    except TaktError:  # any policy will do: the words that every robot knows are listened for
        rules = _jsgf("", "<word>")
    return Whisper(Path(model), Sphinx(rules))


class Sphinx:
    """A PocketSphinx decoder for a grammar: a `Decoder`."""

    def __init__(self, rules: str) -> None:
        """
        Args:
            rules: JSGF.

        Raises:
            TaktError: they have a word that the recogniser cannot pronounce, or are no JSGF.
        """
        self._made = _sphinx().Decoder(samprate=RATE, lm=None, loglevel="FATAL")
        said = set(re.findall(r"[a-z']+", re.sub(r"<[^>]*>|#.*|grammar \w+;|public", " ", rules)))
        if unknown := sorted(word for word in said if self._made.lookup_word(word) is None):
            raise TaktError(
                f"the grammar of speech has words that are not in the dictionary: {', '.join(unknown)}"
            )
        try:
            self._made.add_jsgf_string("takt", rules)
        except ValueError:
            raise TaktError("the grammar of speech is no JSGF: see `speech` of the policy's skills") from None
        self._made.activate_search("takt")

    def begin(self) -> None:
        self._made.start_utt()

    def take(self, speech: bytes) -> None:
        self._made.process_raw(speech)

    def text(self) -> str:
        """End the stretch of speech; what was said, "" for nothing that the grammar knows."""
        self._made.end_utt()
        hypothesis = self._made.hyp()
        return "" if hypothesis is None else hypothesis.hypstr.strip()

    def end(self, tell: Callable[[str], None]) -> None:
        if text := self.text():
            tell(text)

    def finish(self) -> None:
        """Nothing is left to tell."""


def samples(path: Path) -> np.ndarray:
    """A WAV file's sound, shape (n,), int16, one channel at `RATE`.

    Raises:
        TaktError: it is no WAV file of 16-bit samples.
    """
    try:
        with wave.open(str(path)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise TaktError(f"--voice {path}: no WAV file that can be read ({error})") from None
    if width != 2:
        raise TaktError(f"--voice {path}: samples of {8 * width} bits; 16 are read")
    sound = np.frombuffer(data, "<i2").reshape(-1, channels).mean(1)
    if rate != RATE:
        at = np.arange(0, len(sound), rate / RATE)
        sound = np.interp(at, np.arange(len(sound)), sound)
    return sound.astype(np.int16)


def transcribe(sound: np.ndarray, made: Decoder) -> list[str]:
    """What was said in a sound, shape (n,), int16, one line for each stretch of speech."""
    quiet = np.zeros(round(_TAIL * RATE), np.int16)
    whole, lines = np.concatenate([quiet[: RATE // 2], sound, quiet]), list[str]()
    listen((whole[i : i + FRAME] for i in range(0, len(whole) - FRAME + 1, FRAME)), made, lines.append)
    return lines


def listen(frames: Iterator[np.ndarray], made: Decoder, tell: Callable[[str], None]) -> None:
    """Tell the lines spoken in frames of `FRAME` samples, each as soon as it is recognised, to their end."""
    endpointer = _sphinx().Endpointer(sample_rate=RATE)
    size, rest, speaking = endpointer.frame_bytes, b"", False
    for frame in frames:
        rest += frame.tobytes()
        while len(rest) >= size:
            piece, rest = rest[:size], rest[size:]
            speech = endpointer.process(piece)
            if speech is not None:
                if not speaking:
                    made.begin()
                speaking = True
                made.take(speech)
            if speaking and not endpointer.in_speech:
                made.end(tell)
                speaking = False
    if speaking:
        made.end(tell)
    made.finish()


class Ears:
    """Lines that are spoken, from a process that listens; a context manager.

    Attributes:
        open: false when the file is over, or the process has gone.
    """

    def __init__(self, source: str, policy: str) -> None:
        """
        Args:
            source: "microphone", or a WAV file, which is heard at the pace of time from now on.
            policy: the name of the policy whose skills are the grammar.

        Raises:
            TaktError: the file cannot be read, there is no microphone, or nothing to recognise speech with is
                installed.
        """
        understands(find(policy))
        if source == MICROPHONE:
            _sounddevice()
        else:
            samples(Path(source))
        self.open = True
        context = multiprocessing.get_context("spawn")
        self._lines, out = context.Pipe(duplex=False)
        self._process = context.Process(target=_listen, args=(source, policy, out, os.getpid()), daemon=True)
        self._process.start()
        out.close()

    def poll(self) -> list[str]:
        """The lines that have been heard by now."""
        lines: list[str] = []
        try:
            while self.open and self._lines.poll():
                lines.append(self._lines.recv_bytes().decode())
        except (EOFError, OSError):
            self.open = False
        return [line for line in lines if line]

    def __enter__(self) -> Ears:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.join(2.0)
        self._lines.close()


def _listen(source: str, policy: str, out: Connection, parent: int) -> None:
    """The process that listens."""
    follow(parent)
    try:
        made = decoder(find(policy))
    except TaktError as error:  # a model that is none: nothing is heard, and the arm goes on
        print(error, file=sys.stderr)
        return
    frames = _microphone() if source == MICROPHONE else _played(samples(Path(source)))
    listen(frames, made, lambda line: out.send_bytes(line.encode()))


def _played(sound: np.ndarray) -> Iterator[np.ndarray]:
    """A file's frames at the pace of time, with silence before and after."""
    quiet = np.zeros(round(_TAIL * RATE), np.int16)
    whole, begun = np.concatenate([quiet[: RATE // 2], sound, quiet]), time.monotonic()
    for i in range(0, len(whole) - FRAME + 1, FRAME):
        time.sleep(max(0.0, begun + i / RATE - time.monotonic()))
        yield whole[i : i + FRAME]


def _microphone() -> Iterator[np.ndarray]:
    with _sounddevice().InputStream(samplerate=RATE, channels=1, dtype="int16", blocksize=FRAME) as stream:
        while True:
            yield stream.read(FRAME)[0][:, 0].copy()


def _sounddevice() -> Any:
    """The library of microphones, where there is one to hear.

    Raises:
        TaktError: it is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise TaktError("--voice microphone needs sounddevice: pip install 'takt-vla[voice]'") from None
    except OSError:
        raise TaktError(
            "--voice microphone needs PortAudio: apt install libportaudio2, or --voice FILE.wav"
        ) from None
    try:
        sounddevice.check_input_settings(channels=1, dtype="int16", samplerate=RATE)
    except (sounddevice.PortAudioError, ValueError) as error:
        why = " ".join(str(error).split())
        raise TaktError(f"no microphone can be heard ({why}); plug one in, or --voice FILE.wav") from None
    return sounddevice


def _sphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError:
        raise TaktError("--voice needs PocketSphinx: pip install 'takt-vla[voice]'") from None
    return pocketsphinx
