"""Lines typed at a terminal while the loop runs: a real pseudo-terminal and real pipes."""

from __future__ import annotations

import io
import os
import pty

from runtime.instruct import Words
from runtime.skills import Plain
from runtime.typed import Conversation, Typed


def test_lines_come_when_they_are_complete_and_nothing_waits() -> None:
    read, write = os.pipe()
    with os.fdopen(read) as source:
        typed = Typed(source)
        assert typed.poll() == []
        os.write(write, b"no, the bl")
        assert typed.poll() == []
        os.write(write, "ue one\n\n  größer \nrest".encode())
        assert typed.poll() == ["no, the blue one", "größer"]
        os.close(write)
        assert typed.poll() == ["rest"]
        assert not typed.open and typed.poll() == []


def test_a_terminal_of_ours_is_read_and_what_is_no_file_is_closed() -> None:
    assert not Typed(io.StringIO("stop\n")).open
    master, slave = pty.openpty()
    with os.fdopen(slave) as source:
        typed = Typed(source)
        os.write(master, b"stop\n")
        assert typed.poll() == ["stop"]
        os.write(master, b"go o")
        assert typed.poll() == []  # the line is not ended
    os.close(master)


def test_what_is_typed_is_heard_answered_and_keeps_the_run_alive() -> None:
    said: list[str] = []
    lines = [["slower"], [], ["stop"], []]
    words = Words(Plain(), "open the drawer")
    talk = Conversation(words, 5.0, 0.0, (lambda: lines.pop(0) if lines else [],), show=said.append)
    assert not talk(0.0)
    assert not talk(4.9)
    assert talk(6.0)  # stopped: nothing is left to do
    assert [line.strip() for line in said] == [
        "open the drawer", "at 0.5 times the usual pace", "stopped; dropped: open the drawer",
    ]  # fmt: skip


def test_a_run_is_over_so_long_after_the_last_words() -> None:
    heard = [[], [], ["faster"]]
    talk = Conversation(
        Words(Plain(), "open it"), 5.0, 0.0, (lambda: heard.pop(0) if heard else [],), show=lambda line: None
    )
    assert [talk(now) for now in (0.0, 4.0, 4.5, 9.4, 9.5)] == [False, False, False, False, True]


def test_who_stays_is_there_for_more() -> None:
    words = Words(Plain())
    assert Conversation(words, 5.0, 0.0, show=lambda line: None)(0.0)
    assert not Conversation(words, 5.0, 0.0, stays=lambda: True, show=lambda line: None)(0.0)
