"""What `takt doctor` found: one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        status: "ok"; "warn", something is missing that the demo does without; "fail", it cannot run.
        detail: what was measured, or what is wrong and what to do.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
