"""`takt keys`: who may speak with a policy server over a network (CURVE, Curve25519 for both ends).

DIR/server.key                 the server's private key          stays on the server
DIR/server.pub                 what clients know it by
DIR/authorized_clients/*.pub   the clients that it lets in
DIR/client.key, client.pub     a first client's
DIR/NAME/                      --client NAME: client.key, client.pub, server.pub, to carry to that robot
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import tyro
import zmq
from zmq.utils import z85

from vla import atomic
from vla.contract import TaktError

_PUBLIC, _SECRET = "takt-public-key", "takt-secret-key"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLIENTS = "authorized_clients"


@dataclass(frozen=True)
class Pair:
    """A CURVE key pair in Z85, 40 characters each."""

    public: bytes
    secret: bytes


def server_pair(folder: Path) -> Pair:
    """The server's own keys.

    Raises:
        TaktError: they are missing, damaged, or others can read the private one.
    """
    return _pair(folder / "server.key")


def client_pair(folder: Path) -> tuple[Pair, bytes]:
    """A client's own keys, and the public key of the server it trusts.

    Raises:
        TaktError: as for `server_pair`.
    """
    return _pair(folder / "client.key"), _public(folder / "server.pub")


class Authorized:
    """The clients in a folder's authorized_clients; a change there holds for the next connection."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            TaktError: the folder is missing, or a key in it is damaged.
        """
        self._folder = folder / _CLIENTS
        if not self._folder.is_dir():
            raise TaktError(f"{self._folder} is missing: make it with takt keys {folder}")
        self._names = {_public(file): file.stem for file in self._files()}
        self._stamp = self._seen()

    def name(self, key: bytes) -> str | None:
        """The name of the client with this public key (Z85); None for one who is not let in."""
        if self._stamp != (stamp := self._seen()):
            self._stamp, self._names = stamp, {}
            for file in self._files():
                try:
                    self._names[_public(file)] = file.stem
                except (TaktError, OSError):  # half written, or not to be read: it lets nobody in
                    continue
        return self._names.get(key)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.pub"))

    def _seen(self) -> list[tuple[str, int, int]]:
        found = []
        for file in self._files():
            try:
                stat = file.stat()
            except FileNotFoundError:
                continue
            found.append((file.name, stat.st_mtime_ns, stat.st_size))
        return found


def make(folder: Path) -> list[Path]:
    """Keys for a server and a first client; the files made.

    Raises:
        TaktError: the folder has keys.
    """
    if (folder / "server.key").exists():
        raise TaktError(f"{folder} has keys already: add a client with takt keys {folder} --client NAME")
    _check_curve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CLIENTS).mkdir(exist_ok=True)
    files = _write(folder, "server")
    return files + _client(folder, folder, "client")


def add_client(folder: Path, name: str) -> list[Path]:
    """Keys for one more client, in a folder to carry to it; the files made.

    Raises:
        TaktError: the name cannot be a file's, is taken, or `folder` has no server's keys.
    """
    if not _NAME.fullmatch(name) or name in (_CLIENTS, "client", "server"):
        raise TaktError(f"{name!r} cannot name a client: use letters, digits, '.', '_' and '-'")
    server = _public(folder / "server.pub")
    _check_curve()
    target = folder / name
    if target.exists() or (folder / _CLIENTS / f"{name}.pub").exists():
        raise TaktError(f"{folder} has a client {name!r} already: choose another name")
    target.mkdir(mode=0o700)
    files = _client(folder, target, name)
    return [*files, _new(target / "server.pub", f"{_PUBLIC} {server.decode()}\n", 0o644)]


def _client(folder: Path, target: Path, name: str) -> list[Path]:
    files = _write(target, "client")
    line = (target / "client.pub").read_text()
    (folder / _CLIENTS).mkdir(exist_ok=True)
    return [*files, _new(folder / _CLIENTS / f"{name}.pub", line, 0o644)]


def _write(folder: Path, stem: str) -> list[Path]:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    text = f"{_PUBLIC} {public}\n"
    private = _new(folder / f"{stem}.key", f"{text}{_SECRET} {secret}\n", 0o600)
    return [private, _new(folder / f"{stem}.pub", text, 0o644)]


def _new(path: Path, text: str, mode: int) -> Path:
    """Write a file that must not be there; its mode holds from its first byte on."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise TaktError(f"{path} is there already and is not overwritten: move it away") from None
    with open(number, "w", encoding="ascii") as file:
        file.write(text)
    return path


def _pair(path: Path) -> Pair:
    keys = _keys(path)
    if path.stat().st_mode & 0o077:
        raise TaktError(f"{path} can be read by others: chmod 600 it, and make new keys if they may have")
    if set(keys) != {_PUBLIC, _SECRET} or zmq.curve_public(keys[_SECRET]) != keys[_PUBLIC]:
        raise TaktError(f"{path} is not a private key of takt keys: make new ones")
    return Pair(keys[_PUBLIC], keys[_SECRET])


def _public(path: Path) -> bytes:
    keys = _keys(path)
    if set(keys) != {_PUBLIC}:
        raise TaktError(f"{path} is not a public key of takt keys: make new ones")
    return keys[_PUBLIC]


def _keys(path: Path) -> dict[str, bytes]:
    """The lines "WORD KEY" of a small file; a damaged one gives no keys."""
    _check_curve()
    try:
        with open(path, "rb") as file:
            lines = file.read(1024).splitlines()
    except FileNotFoundError:
        raise TaktError(f"{path} is missing: make keys with takt keys {path.parent}") from None
    keys = {}
    for line in lines:
        word, _, key = line.partition(b" ")
        if not _is_key(key):
            return {}
        keys[word.decode("ascii", "replace")] = key
    return keys


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == 40 and len(z85.decode(key)) == 32
    except (KeyError, struct.error):
        return False


def _check_curve() -> None:
    if not zmq.has("curve"):
        raise TaktError("this pyzmq was built without CURVE: pip install --force-reinstall pyzmq")


@dataclass
class Command:
    """Make keys, so that a policy server can be reached over a network by those who have one."""

    folder: tyro.conf.Positional[Path]
    """Where the keys are, or are to be."""
    client: str | None = None
    """Add a client of this name to those that are let in."""
    json: Path | None = None
    """Where to write the names of the files that were made."""

    def run(self) -> int:
        files = make(self.folder) if self.client is None else add_client(self.folder, self.client)
        for file in files:
            print(file)
        if self.json is not None:
            atomic.write_json(self.json, {"files": [str(file) for file in files]}, indent=2)
        return 0
