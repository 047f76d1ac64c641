"""What a console keeps, and what it takes from a page."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("websockets", reason="no page without the extra `console`")

from sim.console.commands import FASTEST, Pace, command
from sim.console.hub import SERIES, Hub


def test_rows_are_taken_once_whatever_is_repeated_or_lost() -> None:
    hub = Hub()
    hub.take({"state": "HOLD", "ticks": [[1, "a"], [2, "b"]]}, 0.0)
    hub.take({"state": "HOLD", "ticks": [[1, "a"], [2, "b"], [3, "c"]]}, 0.1)
    hub.take({"state": "RUNNING", "ticks": [[5, "e"], [6, "f"]]}, 0.3)
    news = hub.since({})
    assert [row[0] for row in news["ticks"]] == [1, 2, 3, 5, 6]
    assert news["state"] == "RUNNING"


def test_a_page_gets_what_is_new_and_a_new_page_everything() -> None:
    hub, cursor = Hub(), {}
    hub.take({"said": [[1, "one"]]}, 0.0)
    assert hub.since(cursor)["said"] == [[1, "one"]]
    assert hub.since(cursor)["said"] == []
    hub.take({"said": [[1, "one"], [2, "two"]]}, 0.1)
    assert hub.since(cursor)["said"] == [[2, "two"]]
    assert hub.since({})["said"] == [[1, "one"], [2, "two"]]


def test_it_does_not_grow() -> None:
    hub = Hub()
    for i in range(5000):
        hub.take({name: [[i, "x"]] for name in SERIES}, 0.0)
    news = hub.since({})
    assert {name: len(news[name]) for name in SERIES} == SERIES


@pytest.mark.parametrize(
    "wish",
    [
        {"do": "stop"},
        {"do": "say", "text": "put the red cube in the blue bowl"},
        {"do": "set", "name": "delay_ms", "value": 200},
        {"do": "set", "name": "join", "value": "naive"},
        {"do": "table", "seed": None},
        {"do": "table", "seed": 7},
        {"do": "record", "on": True},
        {"do": "talk", "on": False},
    ],
)
def test_commands_that_are_some(wish: dict[str, object]) -> None:
    assert command(json.dumps(wish)) == wish


@pytest.mark.parametrize(
    "data",
    [
        "", "null", "[]", "{}", "stop", b"\xff\xfe", "[" * 100_000, '{"do": "fly"}',
        '{"do": ["stop"]}',
        '{"do": "stop", "more": 1}', '{"do": "say"}', '{"do": "say", "text": 5}',
        '{"do": "say", "text": "  "}',
        json.dumps({"do": "say", "text": "x" * 401}), '{"do": "set", "name": "delay_ms", "value": NaN}',
        '{"do": "set", "name": "delay_ms", "value": 1e999}',
        '{"do": "set", "name": "delay_ms", "value": true}',
        '{"do": "set", "name": "delay_ms", "value": null}', '{"do": "table", "seed": 99999999999999999999}',
        '{"do": "table", "seed": 1.5}', '{"do": "record", "on": 1}', '{"do": "alive", "viewers": 9}',
        '{"do": "ready", "url": "http://evil.example"}',
    ],
)  # fmt: skip
def test_what_is_none_is_left_out(data: str | bytes) -> None:
    assert command(data) is None


def test_a_flood_is_thinned_to_a_pace() -> None:
    pace = Pace()
    passed = sum(pace(i / 1000.0) for i in range(5000))  # 1000 a second for five seconds
    assert FASTEST <= passed <= FASTEST * 6 + 1
    assert not pace(5.0) and pace(6.0)
