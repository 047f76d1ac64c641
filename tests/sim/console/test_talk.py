"""What is spoken into a page: bounded, whole samples, and nothing where nobody holds the button."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import voice
from runtime.console import Feed
from sim.console.serve import Page
from sim.console.talk import LONGEST, Held, Talk
from vla.contract import TaktError

DATA = Path(__file__).parents[2] / "data"
MOST = round(LONGEST * voice.RATE) * 2


@given(st.lists(st.binary(max_size=4096), max_size=200))
def test_sound_is_kept_as_it_came_up_to_a_bound(pieces: list[bytes]) -> None:
    held, whole = Held(), b"".join(pieces)[:MOST]
    held.begin(1)
    assert all(held.take(piece) for piece in pieces)
    assert held.end() == whole[: len(whole) // 2 * 2]
    assert held.end() == b"" and not held.take(b"more")


def test_what_is_held_for_ever_does_not_grow() -> None:
    held = Held()
    held.begin(1)
    for _ in range(400):
        held.take(bytes(4096))
    assert len(held.end()) == MOST


class Browser:
    """A page's messages, one after the other."""

    def __init__(self, messages: list[str | bytes]) -> None:
        self._messages = messages

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        for message in self._messages:
            yield message


def talked(feed: Feed, folder: Path, *more: str) -> list[str]:
    """What is said in the end to an arm to which somebody speaks, and the page then sends `more`."""
    on, off = (json.dumps({"do": "talk", "on": on}) for on in (True, False))
    sound = voice.samples(DATA / "push.wav").tobytes()
    pieces = [sound[i : i + 4000] for i in range(0, len(sound), 4000)]

    async def page() -> None:
        made = Page(folder)
        made.hub.state = {"about": {"speaks": "nano"}}
        wrong: list[str] = []
        await made._hear(cast(Any, Browser([on, *pieces, off, *more])), wrong)
        await asyncio.gather(*made._tasks)
        assert not wrong
        await made.tell({"do": "say", "text": "the end"})
        await asyncio.sleep(0.2)

    asyncio.run(page())
    heard: list[str] = []
    end = time.monotonic() + 20.0
    while "the end" not in heard and time.monotonic() < end:
        heard += [command["text"] for command in feed.poll()[1] if command["do"] == "say"]
        time.sleep(0.01)
    return heard


@pytest.fixture
def feed() -> Iterator[tuple[Feed, Path]]:
    with tempfile.TemporaryDirectory(prefix="takt-") as folder:  # short enough for a socket's path
        made = Feed(Path(folder))
        yield made, Path(folder)
        made.close()


def test_what_is_spoken_is_said(feed: tuple[Feed, Path]) -> None:
    pytest.importorskip("pocketsphinx")
    assert talked(*feed) == ["push the yellow cylinder to the left", "the end"]


def test_a_stop_voids_what_was_spoken_before_it_and_is_recognised_after_it(feed: tuple[Feed, Path]) -> None:
    pytest.importorskip("pocketsphinx")
    assert talked(*feed, json.dumps({"do": "stop"})) == ["the end"]
    assert feed[0].void == 1


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
