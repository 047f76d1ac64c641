"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


def write(path: Path, data: str | bytes, synced: bool = False) -> None:
    """Replace `path` in one step: who reads it finds the old one or the new one, never a half.

    A pipe or a device, as /dev/stdout, is written to and stays one; a link stays one, to what is replaced.

    Args:
        synced: return when it is on the disk, so that a power cut takes nothing back.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    raw = data.encode() if isinstance(data, str) else data
    if path.exists() and not path.is_file():
        path.write_bytes(raw)
        return
    path = path.resolve()
    # Each process and thread writes beside it under a name of its own: the last to finish wins.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "wb") as file:
            file.write(raw)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


def write_json(path: Path, data: Any, indent: int = 1) -> None:
    """As `write`; a command's report, which scripts may wait for."""
    write(path, json.dumps(data, indent=indent) + "\n")


def sync(path: Path) -> None:
    """On the disk, whoever wrote it: what is in a file, the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
