"""Spoken words from files, by the real recogniser; a process that listens, and the loop it is heard in."""

from __future__ import annotations

import time
import wave
from pathlib import Path

import numpy as np
import pytest

from runtime import voice
from runtime.skills import Plain, Reading
from sim.tabletop.skills import SKILLS
from vla.contract import TaktError

pytest.importorskip("pocketsphinx")
DATA = Path(__file__).parents[1] / "data"


def test_what_is_spoken_is_recognised() -> None:
    made = voice.decoder(SKILLS)
    pause = np.zeros(voice.RATE, np.int16)
    sound = np.concatenate([voice.samples(DATA / "push.wav"), pause, voice.samples(DATA / "stop.wav")])
    lines = voice.transcribe(sound, made)
    assert lines == ["push the yellow cylinder to the left", "stop"]
    assert SKILLS.read(lines[0]).wishes[0].text == lines[0]


def test_silence_and_noise_say_nothing_that_moves_an_arm() -> None:
    made = voice.decoder(SKILLS)
    assert voice.transcribe(np.zeros(2 * voice.RATE, np.int16), made) == []
    noise = np.random.default_rng(0).normal(0, 300, 2 * voice.RATE).astype(np.int16)
    assert all(not SKILLS.read(line).wishes for line in voice.transcribe(noise, made))


def test_a_process_listens_and_is_gone_when_the_file_is_over() -> None:
    with voice.Ears(str(DATA / "stop.wav"), "nano") as ears:
        heard: list[str] = []
        end = time.monotonic() + 60.0
        while ears.open and time.monotonic() < end:
            heard += ears.poll()
            time.sleep(0.01)
    assert heard == ["stop"] and not ears.open


def test_other_rates_and_two_channels_are_read(tmp_path: Path) -> None:
    tone = (1000 * np.sin(np.arange(22050) / 5)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(np.repeat(tone, 2).tobytes())
    sound = voice.samples(tmp_path / "a.wav")
    assert sound.dtype == np.int16 and abs(len(sound) - voice.RATE) <= 1


def test_what_cannot_be_heard_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_bytes(b"RIFF of nothing")
    with pytest.raises(TaktError, match="no WAV file"):
        voice.Ears(str(tmp_path / "no.wav"), "nano")
    with pytest.raises(TaktError, match="no grammar of speech"):
        voice.grammar(Plain())


class Strange:
    """Skills with a word that no dictionary has."""

    speech = "<task> = qwertzuiop it;\n<change> = it;\n"

    def read(self, text: str, before: str = "") -> Reading:
        return Reading()

    correct = read

    def nearest(self, text: str, count: int = 3) -> list[str]:
        return []

    def known(self) -> list[str]:
        return []


def test_a_word_that_cannot_be_pronounced_is_named() -> None:
    with pytest.raises(TaktError, match="not in the dictionary: qwertzuiop"):
        voice.decoder(Strange())
