"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Any

# Where a file can be written to and nothing put beside it, or not moved over it.
IN_PLACE = (errno.EACCES, errno.EROFS, errno.EBUSY)


def write(path: Path, data: str | bytes, synced: bool = False, private: bool = False) -> None:
    """Replace `path` in one step: who reads it finds the old one or the new one, never a half.

    Pipes and devices, /dev/stdout too, are written to and stay what they are; a link stays one, to what is
    replaced. A file that may be written to in a folder that may not is written in place, unless `synced`.

    Args:
        synced: return when it is on the disk, so that a power cut takes nothing back.
        private: nobody else may read or write it, whatever the umask.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    raw = data.encode() if isinstance(data, str) else data
    if _stream(path, raw):
        return
    place = path.resolve()
    try:
        _replace(place, raw, synced, 0o600 if private else 0o666)
    except OSError as error:
        if synced or error.errno not in IN_PLACE or not place.is_file():
            raise
        place.write_bytes(raw)


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


def _stream(path: Path, raw: bytes) -> bool:
    """Whether it is none to replace: then it has been written to."""
    name = os.path.abspath(path)
    open_already = {"/dev/stdout": sys.stdout, "/dev/stderr": sys.stderr}.get(name)
    if open_already is not None:  # it may be a file that others write to as well
        open_already.write(raw.decode())
        open_already.flush()
        return True
    try:
        plain = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
    # What is open already has a name there; /dev/shm has files as any folder.
    if plain and not name.startswith(("/dev/fd/", "/proc/")):
        return False
    path.write_bytes(raw)
    return True


def _replace(place: Path, raw: bytes, synced: bool, mode: int) -> None:
    """By way of a file beside it, of a name that nobody else has."""
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(handle, "wb") as file:
            file.write(raw)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if synced:
        sync(place.parent)
