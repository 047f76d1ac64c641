"""What a console knows: the newest state, and the past that a page which is opened now wants to see."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

# What the control process sends several of, each with a rising number first -> how many are kept. It repeats
# the last ones, because the newest message replaces those before it.
SERIES = {"chunks": 240, "ticks": 900, "said": 200, "changes": 60}
Cursor = dict[str, int]


class Hub:
    """Rows are taken once, by their number, whatever is repeated or left out.

    Attributes:
        state: the newest message without its series; empty before the first.
        heard: when it came, s.
        frames: camera -> (number, JPEG) of the newest frames.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.heard = float("-inf")
        self.frames: dict[str, tuple[int, bytes]] = {}
        self._rows: dict[str, deque[list[Any]]] = {name: deque(maxlen=n) for name, n in SERIES.items()}
        self._shown = 0

    def take(self, message: dict[str, Any], now: float) -> None:
        """A message of the control process, at `now` s."""
        self.heard = now
        for name, rows in self._rows.items():
            last = rows[-1][0] if rows else -1
            rows.extend(row for row in message.get(name, ()) if row[0] > last)
        self.state = {key: value for key, value in message.items() if key not in SERIES and key != "scene"}

    def show(self, frames: dict[str, bytes]) -> None:
        """New frames: camera -> JPEG."""
        self._shown += 1
        self.frames.update({name: (self._shown, data) for name, data in frames.items()})

    def since(self, cursor: Cursor) -> dict[str, Any]:
        """The state, and the rows that a viewer has not got; its cursor is moved on."""
        news: dict[str, Any] = dict(self.state)
        for name, rows in self._rows.items():
            news[name] = list(_after(rows, cursor.get(name, -1)))
            if news[name]:
                cursor[name] = news[name][-1][0]
        return news


def _after(rows: deque[list[Any]], number: int) -> Iterable[list[Any]]:
    """The rows with greater numbers; they are in order, and few."""
    new: list[list[Any]] = []
    for row in reversed(rows):
        if row[0] <= number:
            break
        new.append(row)
    return reversed(new)
