"""The transports that benchmarks/transport.py compares: each a server and a client of the same questions.

A server is a function that binds a free port, calls `ready(port)` and answers for ever; a client is a context
manager that yields `ask(views, state, words) -> actions`. Peers are used as their own projects use them.
"""

from __future__ import annotations

import asyncio
import pickle  # LeRobot's wire format; here it only ever reads what this benchmark wrote
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.client import RemotePolicy
from runtime.desk import Desk
from runtime.server import Server
from vla.contract import (
    ActionChunk,
    ActionSpace,
    CameraSpec,
    Dimension,
    Observation,
    PolicySpec,
    Prefix,
)

VIEWS = {name: (480, 640, 3) for name in ("front", "left", "wrist")}
STATE, ROWS, ACTIONS = 14, 50, 32
HOST = "127.0.0.1"
Views = Mapping[str, np.ndarray]
Ask = Callable[[Views, np.ndarray, str], np.ndarray]
ANSWER = np.random.default_rng(1).standard_normal((ROWS, ACTIONS)).astype(np.float32)


def views(seed: int = 0) -> dict[str, np.ndarray]:
    """Frames as cameras make them: smooth with a little noise, uint8 RGB."""
    rng, frames = np.random.default_rng(seed), {}
    for name, (height, width, _) in VIEWS.items():
        coarse = rng.integers(0, 256, (height // 40, width // 40, 3))
        smooth = np.kron(coarse, np.ones((40, 40, 1))) + rng.normal(0, 3, (height, width, 3))
        frames[name] = smooth.clip(0, 255).astype(np.uint8)
    return frames


# ---- ours ----


class Instant:
    """A policy that answers at once."""

    def __init__(self) -> None:
        joints = tuple(Dimension(f"a{i}", "rad", -3.0, 3.0) for i in range(ACTIONS))
        cameras = tuple(CameraSpec(name, height, width) for name, (height, width, _) in VIEWS.items())
        names = tuple(f"s{i}" for i in range(STATE))
        self.spec = PolicySpec("instant", names, ActionSpace(joints), cameras, ROWS, 0.02, 0.5)

    def reset(self, seed: int, calls: int = 0) -> None:
        pass

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        return ActionChunk(observation.time, self.spec.dt, ANSWER)


def serve_takt(ready: Callable[[int], None], keys: Path | None = None) -> None:
    with Desk(Instant()) as desk, Server(desk, f"tcp://{HOST}:*", keys) as server:
        ready(int(server.address.rpartition(":")[2]))
        threading.Event().wait()


@contextmanager
def ask_takt(port: int, frames: str = "raw", keys: Path | None = None) -> Iterator[Ask]:
    with RemotePolicy(f"tcp://{HOST}:{port}", frames=frames, keys=keys) as policy:
        yield lambda v, state, words: policy.infer(Observation(time.monotonic(), state, v, words)).actions


# ---- openpi: WebSocket, its own msgpack of arrays (scripts/serve_policy.py, websocket_policy_server.py) ----


def serve_openpi(ready: Callable[[int], None]) -> None:
    from openpi_client import msgpack_numpy
    from websockets.asyncio.server import serve

    async def handle(connection: Any) -> None:
        packer = msgpack_numpy.Packer()
        await connection.send(packer.pack({}))
        before = None
        while True:
            started = time.monotonic()
            msgpack_numpy.unpackb(await connection.recv())
            answer: dict[str, Any] = {"actions": ANSWER, "server_timing": {"infer_ms": 0.0}}
            if before is not None:
                answer["server_timing"]["prev_total_ms"] = before * 1000
            await connection.send(packer.pack(answer))
            before = time.monotonic() - started

    async def run() -> None:
        async with serve(handle, HOST, 0, compression=None, max_size=None) as server:
            ready(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    asyncio.run(run())


@contextmanager
def ask_openpi(port: int) -> Iterator[Ask]:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    policy = WebsocketClientPolicy(HOST, port)

    def ask(v: Views, state: np.ndarray, words: str) -> np.ndarray:
        named = {f"observation/{name}": frame for name, frame in v.items()}
        return policy.infer({**named, "observation/state": state, "prompt": words})["actions"]

    yield ask


# ---- LeRobot: gRPC, pickle, in pieces of 2 MB (async_inference/robot_client.py, policy_server.py) ----


@dataclass
class TimedObservation:
    """As async_inference/helpers.py has it."""

    timestamp: float
    timestep: int
    observation: dict[str, Any]
    must_go: bool = True


@dataclass
class TimedAction:
    """As async_inference/helpers.py has it."""

    timestamp: float
    timestep: int
    action: Any


def serve_lerobot(ready: Callable[[int], None]) -> None:
    import grpc
    import torch
    from lerobot.transport import services_pb2, services_pb2_grpc
    from lerobot.transport.utils import receive_bytes_in_chunks

    torch.set_num_threads(1)
    actions = torch.from_numpy(ANSWER)
    waiting: queue.Queue[Any] = queue.Queue(maxsize=1)
    stop = threading.Event()

    class Servicer(services_pb2_grpc.AsyncInferenceServicer):
        def Ready(self, request: Any, context: Any) -> Any:
            return services_pb2.Empty()

        def SendObservations(self, request_iterator: Any, context: Any) -> Any:
            waiting.put(pickle.loads(receive_bytes_in_chunks(request_iterator, None, stop, "")))
            return services_pb2.Empty()

        def GetActions(self, request: Any, context: Any) -> Any:
            seen = waiting.get()
            timed = [
                TimedAction(seen.timestamp + i * 0.02, seen.timestep + i, action)
                for i, action in enumerate(actions)
            ]
            return services_pb2.Actions(data=pickle.dumps(timed))

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    ready(port)
    server.wait_for_termination()


@contextmanager
def ask_lerobot(port: int) -> Iterator[Ask]:
    import grpc
    import torch
    from lerobot.transport import services_pb2, services_pb2_grpc
    from lerobot.transport.utils import grpc_channel_options, send_bytes_in_chunks

    torch.set_num_threads(1)
    with grpc.insecure_channel(f"{HOST}:{port}", grpc_channel_options()) as channel:
        stub = services_pb2_grpc.AsyncInferenceStub(channel)
        stub.Ready(services_pb2.Empty())
        step = 0

        def ask(v: Views, state: np.ndarray, words: str) -> np.ndarray:
            nonlocal step
            step += ROWS
            # Its second thread has asked for actions before the first sends the observation.
            answer = stub.GetActions.future(services_pb2.Empty())
            joints = {f"joint_{i}.pos": float(value) for i, value in enumerate(state)}
            seen = TimedObservation(time.monotonic(), step, {**joints, **v, "task": words})
            pieces = send_bytes_in_chunks(pickle.dumps(seen), services_pb2.Observation, silent=True)
            stub.SendObservations(pieces)
            timed = pickle.loads(answer.result().data)
            return torch.stack([item.action for item in timed]).numpy()

        yield ask


# ---- floors ----


def serve_tcp(ready: Callable[[int], None]) -> None:
    """The same bytes over a bare socket, and an answer of the answer's size: no checks, no framing."""
    size = sum(int(np.prod(shape)) for shape in VIEWS.values()) + 4 * STATE
    buffer, answer = memoryview(bytearray(size)), ANSWER.tobytes()
    with socket.create_server((HOST, 0)) as listener:
        ready(listener.getsockname()[1])
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            got = 0
            while got < size:
                got += connection.recv_into(buffer[got:])
            connection.sendall(answer)


@contextmanager
def ask_tcp(port: int) -> Iterator[Ask]:
    with socket.create_connection((HOST, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = memoryview(bytearray(ANSWER.nbytes))

        def ask(v: Views, state: np.ndarray, words: str) -> np.ndarray:
            for part in (*v.values(), state):
                connection.sendall(part.reshape(-1).view(np.uint8).data)
            got = 0
            while got < len(answer):
                got += connection.recv_into(answer[got:])
            return np.frombuffer(answer, np.float32).reshape(ROWS, ACTIONS)

        yield ask


@contextmanager
def ask_memory(port: int) -> Iterator[Ask]:
    """One copy of the same bytes within this process."""
    rooms = {name: np.empty(shape, np.uint8) for name, shape in VIEWS.items()}

    def ask(v: Views, state: np.ndarray, words: str) -> np.ndarray:
        for name, frame in v.items():
            np.copyto(rooms[name], frame)
        return ANSWER.copy()

    yield ask
