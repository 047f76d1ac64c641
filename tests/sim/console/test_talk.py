"""What is spoken into a page: bounded, whole samples, and nothing where nobody holds the button."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import voice
from sim.console.talk import LONGEST, Held, Talk
from vla.contract import TaktError

DATA = Path(__file__).parents[2] / "data"
MOST = round(LONGEST * voice.RATE) * 2


@given(st.lists(st.binary(max_size=4096), max_size=200))
def test_sound_is_kept_as_it_came_up_to_a_bound(pieces: list[bytes]) -> None:
    held, whole = Held(), b"".join(pieces)[:MOST]
    held.begin()
    assert all(held.take(piece) for piece in pieces)
    assert held.end() == whole[: len(whole) // 2 * 2]
    assert held.end() == b"" and not held.take(b"more")


def test_what_is_held_for_ever_does_not_grow() -> None:
    held = Held()
    held.begin()
    for _ in range(400):
        held.take(bytes(4096))
    assert len(held.end()) == MOST


def test_words_of_a_sound_and_a_recogniser_that_is_killed() -> None:
    pytest.importorskip("pocketsphinx")

    async def until_it_is_noticed(talk: Talk, sound: bytes) -> None:
        for _ in range(50):
            await talk.words(sound, "nano")

    async def speak() -> None:
        talk = Talk()
        sound = voice.samples(DATA / "stop.wav").tobytes()
        assert talk.understands("nano") and not talk.understands("nobody's")
        assert await talk.words(sound, "nano") == ["stop"]
        assert await talk.words(bytes(2 * voice.RATE), "nano") == []
        assert talk._pool is not None and talk._pool._processes is not None
        for process in list(talk._pool._processes):
            os.kill(process, signal.SIGKILL)
        with pytest.raises(TaktError, match="say it again"):
            await until_it_is_noticed(talk, sound)
        assert await talk.words(sound, "nano") == ["stop"]

    asyncio.run(speak())
