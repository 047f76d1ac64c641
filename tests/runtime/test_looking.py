"""What a policy's answers to probes tell about what is there."""

from __future__ import annotations

import pytest

from runtime.looking import Look
from runtime.skills import Wish

PROBES = ("touch the cube", "lift the cube", "put the cube in the bowl")
WISH = Wish(PROBES[-1], probes=(PROBES,), names=("the cube", "the bowl"))


def asked(wish: Wish, begins: dict[str, bool]) -> Look:
    """All probes answered; `begins` says what the policy would begin."""
    look = Look(wish)
    while look.probe:
        look.take(not begins[look.probe])
    return look


@pytest.mark.parametrize(
    ("begins", "missing"),
    [
        ((True, True, True), ""),
        ((False, True, True), ""),
        ((False, False, True), "the cube"),
        ((True, True, False), "the bowl"),
        ((False, True, False), "the bowl"),
        ((False, False, False), "the cube"),
    ],
)
def test_what_is_missing_is_named(begins: tuple[bool, ...], missing: str) -> None:
    look = asked(WISH, dict(zip(PROBES, begins, strict=True)))
    assert look.missing == missing
    assert bool(look.found) == (not missing)


def test_what_is_done_already_is_not_called_missing_alone() -> None:
    for begins, done, fulfilled in (
        ((False, False, False), True, True),
        ((True, True, False), True, True),
        ((True, True, False), False, False),
        ((True, True, True), True, False),
    ):
        look, answers = Look(WISH), dict(zip(PROBES, begins, strict=True))
        while look.probe:
            look.take(not answers[look.probe], done)
        assert look.fulfilled == fulfilled


def test_what_cannot_be_told_is_not() -> None:
    assert asked(Wish("x", probes=(("x",),), names=("the cube", "the bowl")), {"x": False}).missing == ""
    assert asked(Wish("x", probes=(("x",),), names=("the cube", "")), {"x": False}).missing == "the cube"
    assert asked(Wish("x", probes=(("x",),)), {"x": False}).missing == ""
    assert asked(Wish("all", ("a", "b"), ("", ""), (("a",), ("b",))), {"a": False, "b": False}).missing == ""
