"""Words that every robot understands at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.spoken import Say, kind, plain


@pytest.mark.parametrize(
    ("text", "what", "rest"),
    [
        ("Stop!", Say.STOP, ""),
        ("please don't move", Say.STOP, ""),
        ("no no, stop it", Say.STOP, ""),
        ("halt", Say.STOP, ""),
        ("停", Say.STOP, ""),
        ("wait a second", Say.WAIT, ""),
        ("Hold on, please", Say.WAIT, ""),
        ("go on", Say.GO_ON, ""),
        ("weiter", Say.GO_ON, ""),
        ("a bit faster", Say.FASTER, ""),
        ("slow down", Say.SLOWER, ""),
        ("normal speed", Say.NORMAL, ""),
        ("undo that", Say.UNDO, ""),
        ("next", Say.DONE, ""),
        ("no, the blue one", Say.CORRECTION, "the blue one"),
        ("No! Not that one, the blue one.", Say.CORRECTION, "the blue one"),
        ("nein, den blauen", Say.CORRECTION, "den blauen"),
        ("no, wait", Say.WAIT, ""),
        ("then touch the ball", Say.NEXT, "touch the ball"),
        ("nudge the red cube", Say.TASK, "nudge the red cube"),
        ("Put the red cube in the bowl", Say.TASK, "Put the red cube in the bowl"),
        ("  ", Say.NOTHING, ""),
    ],
)
def test_what_kind_of_thing_was_said(text: str, what: Say, rest: str) -> None:
    assert kind(text) == (what, rest)


@given(st.text(max_size=200))
def test_whatever_is_typed_is_some_kind_of_thing(text: str) -> None:
    what, rest = kind(text)
    assert isinstance(what, Say) and isinstance(rest, str) and plain(text) == plain(plain(text))


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_sentence_that_holds_stop_stops(before: str, after: str) -> None:
    assert kind(f"{before} stop {after}")[0] is Say.STOP
