"""A GR00T client to the letter of its protocol, and both front ends in a process of their own."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from runtime.desk import Desk
from runtime.protocols import mapping
from tests import fakes
from vla.contract import TaktError

ROOT = Path(__file__).parents[3]


class Setting:
    """A front over a desk and a scripted policy, in this process."""

    def __init__(
        self, front: Callable[..., Any], protocol: str, policy: fakes.ScriptedPolicy, keys: dict[str, Any],
        bind: str, **options: Any,
    ) -> None:  # fmt: skip
        self.policy = policy
        keymap = mapping.parse(keys, protocol, policy.spec)
        self.desk = Desk(policy)
        try:
            self.front = front(self.desk, bind, keymap, **options)
        except TaktError:
            self.desk.close()
            raise

    def __enter__(self) -> Setting:
        return self

    def __exit__(self, *exc: object) -> None:
        self.front.__exit__()
        self.desk.close()


@contextmanager
def served(bundle: Path) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """(GR00T's address, openpi's, process) of `takt serve` with both protocols."""
    command = [sys.executable, "-m", "vla", "serve", str(bundle), "--protocol", "gr00t", "openpi"]
    command += ["--bind", "tcp://127.0.0.1:*", "ws://127.0.0.1:*"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            # serving BUNDLE at ADDRESS (PROTOCOL)
            first, second = (child.stdout.readline().split()[-2] for _ in range(2))
            yield first, second, child
            child.terminate()
            assert child.wait(20) == 0
        finally:
            child.kill()


def refusal(call: Callable[[], object]) -> str:
    """What a call is refused with; nothing when it is not, and whatever is no TaktError comes through."""
    try:
        call()
    except TaktError as error:
        return str(error)
    return ""


def to_bytes(value: Any) -> bytes:
    """As GR00T's MsgSerializer writes."""

    def pack(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            stream = io.BytesIO()
            np.save(stream, value, allow_pickle=False)
            return {"__ndarray_class__": True, "as_npy": stream.getvalue()}
        return value

    return msgpack.packb(value, default=pack)


def from_bytes(data: bytes) -> Any:
    """As GR00T's MsgSerializer reads, with a modality's config left as a map."""

    def unpack(value: dict[str, Any]) -> Any:
        if "__ndarray_class__" in value:
            return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
        return value

    return msgpack.unpackb(data, object_hook=unpack)


class Gr00tClient:
    """A REQ socket and its calls, as PolicyClient makes them; but it gives up after 20 s."""

    def __init__(self, address: str, api_token: str | None = None) -> None:
        self._token = api_token
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.REQ)
        self.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.socket.connect(address)

    def __enter__(self) -> Gr00tClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.destroy(linger=0)

    def call(self, endpoint: str, data: Any = None, requires_input: bool = True) -> Any:
        request: dict[str, Any] = {"endpoint": endpoint}
        if requires_input:
            request["data"] = data
        if self._token:
            request["api_token"] = self._token
        return self.raw(to_bytes(request))

    def raw(self, message: bytes) -> Any:
        self.socket.send(message)
        response = from_bytes(self.socket.recv())
        if isinstance(response, dict) and "error" in response:
            raise RuntimeError(response["error"])
        return response

    def get_action(self, observation: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """N1.6's and N1.7's."""
        action, info = self.call("get_action", {"observation": observation, "options": None})
        return action, info
