"""A TCP proxy that does to a connection what networks do: delay, jitter, throttle, part, heal."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator

_PIECE = 4096  # bytes read at once
_MOST = 1 << 16  # bytes that wait in one direction before it is read no more
_LOOK = 0.002  # s


class Pipe:
    """One direction of a connection: what came, and when each piece may leave."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.due = 0.0


class Proxy:
    """Between a client and a server; it may be damaged at any time, from any thread.

    Attributes:
        address: where it listens, for ZeroMQ.
        delay, jitter: s that everything takes, and at most as much again by chance; never out of order.
        rate: bytes per second and direction; 0 for unlimited.
        parted: nothing passes and nothing is closed; what was sent meanwhile passes when it is over, as
            TCP sends again what was lost.
    """

    def __init__(self, target: str, seed: int = 0) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay = self.jitter = self.rate = 0.0
        self.parted = self.over = False
        self._random = random.Random(seed)
        self._pipes: list[Pipe] = []

    def damage(
        self, delay: float = 0.0, jitter: float = 0.0, rate: float = 0.0, parted: bool = False
    ) -> None:
        """What passes from now on."""
        self.delay, self.jitter, self.rate, self.parted = delay, jitter, rate, parted

    def heal(self) -> None:
        """As it was at first."""
        self.damage()

    def run(self) -> None:
        with self._listener, selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ)
            while not self.over:
                events = ready.select(_LOOK)
                if self.parted:
                    time.sleep(_LOOK)
                    continue
                for key, _ in events:
                    if key.fileobj is self._listener:
                        self._accept(ready)
                    elif key.data.size < _MOST:
                        self._take(ready, key.data)
                for pipe in list(self._pipes):
                    self._give(ready, pipe)
            for pipe in list(self._pipes):
                self._drop(ready, pipe)

    def _accept(self, ready: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target)
        except OSError:  # nobody listens there, so nobody listens here
            client.close()
            return
        for source, sink in ((client, server), (server, client)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pipe = Pipe(source, sink)
            self._pipes.append(pipe)
            ready.register(source, selectors.EVENT_READ, pipe)

    def _take(self, ready: selectors.BaseSelector, pipe: Pipe) -> None:
        try:
            data = pipe.source.recv(_PIECE)
        except OSError:
            data = b""
        if not data:
            self._drop(ready, pipe)
            return
        spent = len(data) / self.rate if self.rate else 0.0
        late = self.delay + self.jitter * self._random.random()
        pipe.due = max(pipe.due + spent, time.monotonic() + max(late, spent))
        pipe.waiting.append((pipe.due, data))
        pipe.size += len(data)

    def _give(self, ready: selectors.BaseSelector, pipe: Pipe) -> None:
        while pipe.waiting and pipe.waiting[0][0] <= time.monotonic():
            data = pipe.waiting.popleft()[1]
            pipe.size -= len(data)
            try:
                pipe.sink.sendall(data)
            except OSError:
                self._drop(ready, pipe)
                return

    def _drop(self, ready: selectors.BaseSelector, pipe: Pipe) -> None:
        """Both directions of its connection."""
        for other in [p for p in self._pipes if p.source in (pipe.source, pipe.sink)]:
            self._pipes.remove(other)
            ready.unregister(other.source)
            other.source.close()


@contextlib.contextmanager
def proxy(target: str, seed: int = 0) -> Iterator[Proxy]:
    """A proxy in a thread, in front of the server at `target`, tcp://HOST:PORT."""
    made = Proxy(target, seed)
    thread = threading.Thread(target=made.run, name="proxy")
    thread.start()
    try:
        yield made
    finally:
        made.over = True
        thread.join()
