"""What a page may want, checked before it goes to the control process."""

from __future__ import annotations

import json
from typing import Any

TEXT = 400  # characters
FASTEST = 20.0  # commands a second and page, besides stops
KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "stop": {},
    "say": {"text": str},
    "set": {"name": str, "value": (str, int, float)},
    "table": {"seed": (int, type(None))},
    "record": {"on": bool},
    "talk": {"on": bool},
}


def command(data: str | bytes) -> dict[str, Any] | None:
    """The command in a page's message; None where it is none."""
    try:
        wish = json.loads(data)
    except (ValueError, RecursionError):
        return None
    keys = KEYS.get(str(wish.get("do"))) if isinstance(wish, dict) else None
    if keys is None or set(wish) != {"do", *keys}:
        return None
    for key, kind in keys.items():
        value = wish[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return None
        if isinstance(value, str) and not 0 < len(value.strip()) <= TEXT:
            return None
        # msgpack knows 64 bits, and JSON knows NaN and numbers without end.
        if isinstance(value, int | float) and not abs(value) < 2**53:
            return None
    return wish


class Pace:
    """A bucket of commands that fills with time; empty, it says no."""

    def __init__(self, fastest: float = FASTEST) -> None:
        self._fastest = self._left = fastest
        self._at: float | None = None

    def __call__(self, now: float) -> bool:
        """Whether one more may pass at `now`, s."""
        if self._at is not None:
            self._left = min(self._fastest, self._left + (now - self._at) * self._fastest)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
