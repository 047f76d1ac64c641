"""What every script here ends with: flags in, an exit status out, a user's mistake in one line."""

from __future__ import annotations

import sys
from typing import Any

import tyro

from vla.contract import TaktError


def main(command: Any) -> int:
    """Fill a `Command` dataclass from the command line and run it; the exit status."""
    try:
        return tyro.cli(command).run()
    except TaktError as error:
        print(f"takt: {error}", file=sys.stderr)
        return 1
