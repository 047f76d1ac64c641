"""vla-evaluation-harness's protocol: its benchmarks ask a policy of ours as they ask their model servers.

    client -> server   hello           server -> client   hello, with what the benchmark is to show
    client -> server   episode_start   a task; nobody answers
    client -> server   observation     server -> client   action: one row, shape (D,), for one step
    client -> server   episode_end     nobody answers
                                       server -> client   error: one line; the session goes on

Every message is {"type", "payload", "seq", "timestamp"}; an answer has the seq of what it answers. A chunk
serves `execute` steps of an episode, `rate` of them a second, before the next one is asked for; what is seen
between is not looked at. The noise of an episode depends on its task, its number in it and the mapping's
seed, so that shards of a run, in whatever order, give what one process gives.

Source: vla_eval 0.7.0 (allenai/vla-evaluation-harness), protocol 1: protocol/, connection.py,
model_servers/serve.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.fields import WireError
from runtime.protocols import codec, front, websocket
from vla.contract import ActionChunk, Observation, Request, TaktError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.datastructures import Headers

VERSION = 1
ENTRIES = 1 << 16  # of a list: benchmarks may send what nobody reads


class Front(websocket.Front):
    """The harness's front; a token is asked for as the password of ws://NAME:TOKEN@HOST:PORT."""

    name = "vla-eval"
    health = ("/health", '{"status": "ok"}\n')
    connections = 256  # its shards
    needs = ("websockets", "PIL")
    pings = None  # a simulator that resets answers nothing for as long as that takes

    def _given(self, headers: Headers) -> str | None:
        scheme, _, pair = headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        with suppress(ValueError):
            return base64.b64decode(pair, validate=True).decode().partition(":")[2]
        return None

    async def _talk(self, connection: ServerConnection) -> None:
        """Answer until the client goes."""
        peer, episode = self._peer(), Episode(self._mapping.seed)
        while True:
            data, seq = await connection.recv(), 0
            try:
                kind, payload, seq = await asyncio.to_thread(_message, data)
                if kind == "hello":
                    answer = "hello", self._hello()
                elif kind == "observation":
                    answer = "action", await self._act(peer, episode, payload)
                    self.answered += 1
                elif kind == "episode_start":
                    episode = Episode(self._mapping.seed, payload.get("task"))
                    continue
                elif kind in ("episode_end", "error"):
                    episode.rows.clear()
                    continue
                else:
                    raise WireError(f"no message {str(kind)[:60]!r}")
            except TaktError as error:
                self.refused += 1
                answer = "error", {"error": front.said(error)}
            fields = {"type": answer[0], "payload": answer[1], "seq": seq, "timestamp": time.monotonic()}
            await connection.send(codec.harness_pack(fields))

    def _hello(self) -> dict[str, Any]:
        return {
            "harness_version": "",
            "protocol_version": VERSION,
            "model_server": f"takt {self._desk.spec.name}",
            "capabilities": {},
            **self._mapping.hello,
        }

    async def _act(self, peer: object, episode: Episode, payload: dict[str, Any]) -> dict[str, Any]:
        if not episode.rows:
            seen = await asyncio.to_thread(self._seen, payload)
            request = Request(
                seen, deadline=self._mapping.deadline, seed=episode.seed, call=episode.next_call()
            )  # fmt: skip
            episode.rows.extend(self._steps(await self._ask(peer, request)))
        return {"actions": np.asarray(episode.rows.popleft(), np.float32)}

    def _steps(self, chunk: ActionChunk) -> np.ndarray:
        """What a chunk brings to the steps that it serves, theirs, shape (execute, D)."""
        absolute = self._desk.spec.actions.absolute
        times = [chunk.time + k / self._mapping.rate for k in range(self._mapping.execute)]
        rows = [row for time in times if (row := chunk.at(time, absolute)) is not None]
        return self._mapping.answer(np.array(rows))["actions"]

    def _seen(self, payload: dict[str, Any]) -> Observation:
        return front.observation(payload, self._mapping, time.monotonic(), _decoded)


class Episode:
    """What is known of the episode of a session.

    Attributes:
        rows: actions that are still to be handed out, each shape (D,).
        seed: of its noise.
    """

    def __init__(self, seed: int, task: Any = None) -> None:
        """`task`: what identifies the episode; two of the same have the same noise."""
        try:
            said = json.dumps(task, sort_keys=True, default=str)
        except (TypeError, ValueError):  # keys that JSON does not know
            said = repr(task)
        self.seed = (seed + zlib.crc32(said.encode())) % (1 << 63)
        self.rows: deque[np.ndarray] = deque()
        self._call = 0

    def next_call(self) -> int:
        """The number of the next chunk."""
        self._call += 1
        return self._call - 1


def _message(data: bytes | str) -> tuple[Any, dict[str, Any], int]:
    """Type, payload and seq; what is not taken in the payload is `Refused`, until somebody reads it.

    Raises:
        WireError: it is no message.
    """
    if isinstance(data, str):
        raise WireError("a text frame; messages are binary")
    value = codec.unpack(data, codec.harness_array, ENTRIES)
    if not isinstance(value, dict) or not isinstance(value.get("payload"), dict):
        raise WireError("no message of vla-evaluation-harness: it wants type, payload, seq and timestamp")
    seq = value.get("seq")
    if type(seq) is not int or not 0 <= seq < 1 << 63:
        raise WireError("seq is an integer from 0")
    return value.get("type"), value["payload"], seq


def _decoded(found: Any) -> Any:
    return found.decode() if isinstance(found, codec.Picture) else found
