"""`takt serve`: one policy, one desk, and a front end for each protocol that is asked for."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import tyro

from runtime import engines
from runtime.bind import check_bind
from runtime.child import follow
from runtime.desk import Desk
from runtime.policies import open_policy
from runtime.protocols import front, gr00t, mapping, openpi, vla_eval
from runtime.server import Server
from runtime.think import served
from vla import atomic
from vla.contract import Policy, TaktError

FOREIGN: Mapping[str, Callable[..., AbstractContextManager[Any]]] = {
    "gr00t": gr00t.Front,
    "openpi": openpi.Front,
    "vla-eval": vla_eval.Front,
}
PROTOCOLS = ("takt", *FOREIGN)
_PLACES = {
    "takt": "tcp://127.0.0.1:5555",
    "gr00t": "tcp://127.0.0.1:5555",
    "openpi": "ws://127.0.0.1:8000",
    "vla-eval": "ws://127.0.0.1:8000",
}
# Where the second listens of two that expect the same place.
_BESIDE = {("takt", "gr00t"): "tcp://127.0.0.1:5556", ("openpi", "vla-eval"): "ws://127.0.0.1:8001"}
_SCHEMES = {"gr00t": "tcp", "openpi": "ws", "vla-eval": "ws"}
_LOOK = 0.5  # s between looks at whether the native front still serves


def places(protocols: list[str], binds: list[str]) -> dict[str, str]:
    """Protocol -> where it listens.

    Raises:
        TaktError: an unknown protocol, the valid ones; or not one address for each.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise TaktError(f"no protocol {name!r}; valid: {', '.join(PROTOCOLS)}")
    if len(set(protocols)) != len(protocols) or not protocols:
        raise TaktError(f"--protocol takes one or several of {', '.join(PROTOCOLS)}, each once")
    if not binds:
        taken = {second: place for (first, second), place in _BESIDE.items() if first in protocols}
        return {name: taken.get(name, _PLACES[name]) for name in protocols}
    if len(binds) != len(protocols):
        wanted = " ".join(protocols)
        raise TaktError(f"--bind takes one address for each protocol, in their order ({wanted}), or none")
    return dict(zip(protocols, binds, strict=True))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@dataclass
class Command:
    """Answer robots over the network with a policy."""

    policy: tyro.conf.Positional[str]
    """A bundle (a folder with policy.json); a checkpoint's folder, or hub:OWNER/NAME@COMMIT; or NAME or
    NAME:ARGUMENT of an installed policy."""
    protocol: list[str] = field(default_factory=lambda: ["takt"])
    """One or several of takt, gr00t, openpi, vla-eval: what the robots, or the benchmarks, speak."""
    bind: list[str] = field(default_factory=list)
    """Where to listen, one for each protocol: tcp://127.0.0.1:PORT, ipc://PATH, for openpi and vla-eval
    ws://..."""
    mapping: list[Path] = field(default_factory=list)
    """For the others than takt: a file that says which of their keys is which of the policy's, one each."""
    keys: Path | None = None
    """Let in only those takt clients whose keys are in this folder (takt keys)."""
    token_file: Path | None = None
    """A file with the token that clients of the others than takt have to show."""
    trust_network: bool = False
    """Whoever reaches an address that is open to other machines may speak."""
    batch: int = 8
    """Requests that may be answered together, where the policy can."""
    threads: int = 1
    """Threads of the engine."""
    engine: str = engines.DEFAULT
    """What runs a bundle: onnx, cuda, ort-tensorrt, openvino, tensorrt, tensorrt-rtx; NAME:PRECISION."""
    think: str | None = None
    """Chunks drawn at each request and who takes one: N or N:JUDGE, coherence or critic."""
    json: Path | None = None
    """Where to write the addresses and the spec once it listens."""
    parent: int | None = None
    """Number of the process that started this one, to end with it even when it is killed."""

    def run(self) -> int:
        if self.parent is not None:
            follow(self.parent)
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell had it ignored
        try:
            self._serve()
        except KeyboardInterrupt:
            return 0

    def _serve(self) -> NoReturn:
        where, files, token = self._checked()
        with ExitStack() as stack:
            desk = stack.enter_context(Desk(self._policy(), self.batch))
            fronts: dict[str, Any] = {}
            for name, bind in where.items():
                if name == "takt":
                    made: Any = Server(desk, bind, self.keys, self.trust_network)
                else:
                    keys = mapping.load(files.get(name), name, desk.spec)
                    made = FOREIGN[name](desk, bind, keys, token, self.trust_network)
                fronts[name] = stack.enter_context(made)
            self._ready(desk, {name: made.address for name, made in fronts.items()})
            while all(getattr(made, "alive", True) for made in fronts.values()):
                time.sleep(_LOOK)
            raise TaktError("the thread that serves has ended, see above: please report it")

    def _policy(self) -> Policy:
        return open_policy(self.policy, self.threads, self.engine, served(self.think))

    def _checked(self) -> tuple[dict[str, str], dict[str, Path], str | None]:
        """Addresses and mappings by protocol, and the token; nonsense is refused before a policy loads."""
        where = places(self.protocol, self.bind)
        foreign = [name for name in where if name in FOREIGN]
        if self.mapping and len(self.mapping) != len(foreign):
            raise TaktError(f"--mapping takes one file for each of {', '.join(foreign or FOREIGN)}")
        served(self.think)
        if self.batch < 1 or self.threads < 1:
            raise TaktError("--batch and --threads are at least 1")
        token = None
        if self.token_file is not None:
            try:
                token = self.token_file.read_text().strip()
            except UnicodeDecodeError:
                raise TaktError(f"{self.token_file} is no text: write the token into it") from None
            if not token:
                raise TaktError(f"{self.token_file} is empty: write the token into it")
        for name, bind in where.items():
            if name == "takt":
                check_bind(bind, trusted=self.trust_network or self.keys is not None)
            else:
                front.endpoint(bind, _SCHEMES[name], guarded=self.trust_network or token is not None)
        return where, dict(zip(foreign, self.mapping, strict=False)), token

    def _ready(self, desk: Desk, addresses: dict[str, str]) -> None:
        for name, address in addresses.items():
            print(f"serving {self.policy} at {address} ({name})", flush=True)
        if self.json is not None:
            report = {"address": next(iter(addresses.values())), "addresses": addresses}
            # Scripts wait for this file to know where to connect.
            atomic.write_json(self.json, {**report, "spec": desk.spec.to_json()}, indent=2)
