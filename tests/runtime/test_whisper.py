"""Speech by a Whisper model: real faster-whisper on a model made here, a real process that listens."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime import voice, whisper
from runtime.run import Command as Run
from runtime.skills import Plain
from sim.demo import Command as Demo
from sim.tabletop.skills import SKILLS
from vla.contract import TaktError

pytest.importorskip("faster_whisper")
pytest.importorskip("pocketsphinx")
DATA = Path(__file__).parents[1] / "data"
SENTENCE = "fetch me the green cube over there"  # no grammar has it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.runtime.whispers import saying

    return saying(SENTENCE, tmp_path_factory.mktemp("model"))


@pytest.fixture
def chosen(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(voice.MODEL, str(model))
    return model


@pytest.mark.parametrize("skills", [SKILLS, Plain()], ids=["grammar", "no grammar"])
def test_sentences_are_the_models_and_a_stop_the_grammars(chosen: Path, skills: Any) -> None:
    made = voice.decoder(skills)
    sentence, stop = voice.samples(DATA / "push.wav"), voice.samples(DATA / "stop.wav")
    assert voice.transcribe(sentence, made) == [SENTENCE]
    assert voice.transcribe(stop, made) == ["stop"]
    assert voice.transcribe(np.zeros(voice.RATE, np.int16), made) == []


def test_a_stop_waits_for_no_sentence_and_voids_what_is_not_told_yet(chosen: Path) -> None:
    made, go, lines = voice.decoder(SKILLS), threading.Event(), list[str]()
    assert isinstance(made, whisper.Whisper)
    real = made._model.transcribe

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert go.wait(60.0)
        return real(*args, **kwargs)

    made._model.transcribe = slow  # type: ignore[method-assign]
    for name in ("push", "stop"):
        made.begin()
        made.take(voice.samples(DATA / f"{name}.wav").tobytes())
        made.end(lines.append)
    assert lines == ["stop"]
    go.set()
    made.finish()
    assert lines == ["stop"]
    made.begin()
    made.take(voice.samples(DATA / "push.wav").tobytes())
    made.end(lines.append)
    made.finish()
    assert lines == ["stop", SENTENCE]


@pytest.mark.parametrize(
    ("silent", "likelihood", "kept"),
    [(0.1, -0.2, True), (0.9, -0.2, True), (0.1, -2, True), (0.9, -2, False)],
)
def test_what_the_model_doubts_is_left_out(
    chosen: Path, silent: float, likelihood: float, kept: bool
) -> None:
    made, lines = voice.decoder(SKILLS), list[str]()
    assert isinstance(made, whisper.Whisper)
    piece = SimpleNamespace(text=" thank you", no_speech_prob=silent, avg_logprob=likelihood)
    made._model.transcribe = lambda *a, **k: ([piece], None)  # type: ignore[method-assign,assignment,return-value]
    made.begin()
    made.take(bytes(2 * voice.RATE))
    made.end(lines.append)
    made.finish()
    assert lines == (["thank you"] if kept else [])


def test_a_failure_of_the_model_is_told_and_the_next_sentence_heard(
    chosen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, lines = voice.decoder(SKILLS), list[str]()
    assert isinstance(made, whisper.Whisper)
    real = made._model.transcribe

    def fail(*args: Any, **kwargs: Any) -> Any:
        made._model.transcribe = real  # type: ignore[method-assign]
        raise RuntimeError("no memory")

    made._model.transcribe = fail  # type: ignore[method-assign]
    for _ in range(2):
        made.begin()
        made.take(voice.samples(DATA / "push.wav").tobytes())
        made.end(lines.append)
    made.finish()
    assert lines == [SENTENCE] and "no memory" in capsys.readouterr().err


def test_a_process_listens_by_the_model_for_a_policy_without_a_grammar(chosen: Path) -> None:
    lines: list[str] = []
    with voice.Ears(str(DATA / "push.wav"), "a policy of somebody's") as ears:
        end = time.monotonic() + 60.0
        while ears.open and time.monotonic() < end:
            lines += ears.poll()
            time.sleep(0.01)
    assert lines == [SENTENCE]


def test_what_cannot_be_used_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(voice.MODEL, raising=False)
    with pytest.raises(TaktError, match=r"model\.bin, config\.json, tokenizer\.json missing"):
        voice.choose(tmp_path)
    for name in whisper.FILES:
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(TaktError, match="not a model that faster-whisper reads"):
        whisper.Whisper(tmp_path, None)
    with pytest.raises(TaktError, match="--voice-model is for what is spoken"):
        Run("touch the red cube", robot="dry", policy="nano", voice_model=model).run()
    with pytest.raises(TaktError, match="--voice-model is for what is spoken"):
        Demo(headless=True, voice_model=model).run()
    assert voice.MODEL not in os.environ


def test_ears_whose_model_is_none_say_so_in_a_line_and_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in whisper.FILES:
        (tmp_path / name).write_bytes(b"nothing")
    monkeypatch.setenv(voice.MODEL, str(tmp_path))
    with voice.Ears(str(DATA / "push.wav"), "nano") as ears:
        end = time.monotonic() + 60.0
        while ears.open and time.monotonic() < end:
            assert ears.poll() == []
            time.sleep(0.01)
    assert not ears.open
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "not a model that faster-whisper reads" in line
