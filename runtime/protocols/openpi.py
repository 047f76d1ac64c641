"""openpi's protocol: WebSocket, so that a robot with openpi-client asks a policy of ours, unchanged.

    client -> server   GET / with Upgrade           GET /healthz answers "OK\\n"
    server -> client   binary   a map that describes the policy, once
    client -> server   binary   an observation
    server -> client   binary   {"actions": (H, D), "server_timing": {..}, "policy_timing": {..}}
    server -> client   text     what was wrong, in one line; then it closes with 1011

Source: src/openpi/serving/websocket_policy_server.py and packages/openpi-client of openpi. What differs:
errors are no tracebacks, an API key is asked for where one is set, and what websocket.py says.

A session's noise is fixed by the mapping's seed and the number of its answers.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from runtime.fields import WireError
from runtime.protocols import codec, front, websocket
from vla.contract import ActionChunk, Request

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.datastructures import Headers


class Front(websocket.Front):
    """openpi's front; the token is asked for as `Authorization: Api-Key TOKEN`."""

    name = "openpi"
    health = ("/healthz", "OK\n")

    def _given(self, headers: Headers) -> str | None:
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        return key if scheme == "Api-Key" else None

    async def _talk(self, connection: ServerConnection) -> None:
        """Answer until the client goes or does what it may not."""
        peer = self._peer()
        await connection.send(codec.openpi_pack(self._metadata()))
        timing: dict[str, float] = {}
        for call in itertools.count():
            data = await connection.recv()
            start = time.monotonic()
            if isinstance(data, str):
                raise WireError("a text frame; observations are binary")
            seen = front.observation(codec.unpack(data, codec.openpi_array), self._mapping, start)
            request = Request(seen, deadline=self._mapping.deadline, seed=self._mapping.seed, call=call)
            chunk = await self._ask(peer, request)
            answer: dict[str, Any] = dict(self._mapping.answer(chunk.actions))
            answer["server_timing"] = {"infer_ms": 1e3 * (time.monotonic() - start)} | timing
            answer["policy_timing"] = _policy_timing(chunk)
            self.answered += 1
            await connection.send(codec.openpi_pack(answer))
            timing = {"prev_total_ms": 1e3 * (time.monotonic() - start)}

    def _metadata(self) -> dict[str, Any]:
        spec = self._desk.spec
        return {
            "policy": spec.name,
            "action_horizon": spec.chunk_length,
            "action_names": list(spec.actions.names),
            "dt": spec.dt,
        }


def _policy_timing(chunk: ActionChunk) -> dict[str, float]:
    """ms of the stages, and of all but the wait as "infer_ms", which openpi's own policies give."""
    stages = {f"{name}_ms": 1e3 * seconds for name, seconds in chunk.stages.items()}
    return {"infer_ms": sum(ms for name, ms in stages.items() if name != "queue_ms"), **stages}
