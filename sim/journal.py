"""Results of an evaluation on disk as they come, so that a run that was killed goes on where it was.

One line of JSON for what was asked, then one a seed. A line is whole or it is not there: what a kill left
half written at the end is cut off. Floats come back bit for bit, so a resumed run has the report of one that
was never broken.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from vla.contract import TaktError

SHARD = "shard"  # what may differ between journals that are merged


class Journal:
    """
    Attributes:
        results: what is in the file, by seed.
    """

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        """Begin the file at `path`, or go on with it.

        Args:
            asked: all that decides what the results are.

        Raises:
            TaktError: it is no journal, one of another run, or it cannot be written.
        """
        self.path = path
        self.results: dict[int, dict[str, Any]] = {}
        self._file: BinaryIO
        try:
            if path.is_file() and path.stat().st_size:
                before, self.results, end = read(path)
                differs(path, before, asked)
                self._file = path.open("r+b")
                self._file.truncate(end)
                self._file.seek(end)
            else:
                self._file = path.open("wb")
                self._put({"asked": asked})
        except OSError as error:
            raise TaktError(f"--journal {path}: {error.strerror}") from None

    def put(self, seed: int, result: dict[str, Any]) -> None:
        """Add a seed's result; when this returns it is on disk."""
        self.results[seed] = result
        self._put({"seed": seed, "result": result})

    def close(self) -> None:
        self._file.close()

    def _put(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read(path: Path) -> tuple[dict[str, Any], dict[int, dict[str, Any]], int]:
    """What was asked, the results by seed, and where the last whole line ends.

    Raises:
        TaktError: it is no journal, or a line in the middle of it is broken.
    """
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    lines = data[:end].splitlines()
    try:
        first, *rest = [json.loads(line) for line in lines]
        asked = first["asked"]
        results = {int(line["seed"]): line["result"] for line in rest}
    except (ValueError, KeyError, TypeError):
        raise TaktError(f"{path} is no journal of takt eval, or is broken: choose another file") from None
    if not isinstance(asked, dict):
        raise TaktError(f"{path} is no journal of takt eval: choose another file")
    return asked, results, end


def differs(path: Path, before: dict[str, Any], asked: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    """
    Args:
        but: keys that may differ.

    Raises:
        TaktError: another key does.
    """
    now = json.loads(json.dumps(asked))  # tuples are lists in the file
    for key in sorted({*before, *now} - set(but)):
        if before.get(key) != now.get(key):
            raise TaktError(
                f"{path} is of another run: its {key} is {before.get(key)!r}, this one's {now.get(key)!r}"
            )


def merged(paths: list[Path]) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """What was asked and all results of the journals of a run's shards.

    Raises:
        TaktError: they are of different runs, a seed has two different results, or one is missing.
    """
    asked: dict[str, Any] = {}
    results: dict[int, dict[str, Any]] = {}
    for path in paths:
        if not path.is_file():
            raise TaktError(f"{path} is not there")
        these, found, _ = read(path)
        asked = asked or these
        differs(path, these, asked, (SHARD,))
        for seed, result in found.items():
            if seed in results and results[seed]["episodes"] != result["episodes"]:
                raise TaktError(f"{path} has another result for seed {seed} than a journal before it")
            results[seed] = result
    first, count = asked["seed"], asked["episodes"]
    missing = [seed for seed in range(first, first + count) if seed not in results]
    if missing:
        raise TaktError(
            f"{len(missing)} of {count} seeds are in none of the journals, the first is {missing[0]}: "
            "run their shard to its end"
        )
    return {key: value for key, value in asked.items() if key != SHARD}, results
