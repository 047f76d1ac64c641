"""The page (entry point `takt.consoles`): a server for browsers, beside the control process and fed by it.

    control  --state, frames-->  this process  --WebSocket-->  any number of pages
             <--commands, stop--              <--------------

What the sockets carry stands in `runtime/console.py`. Commands are numbered here, in the order in which they
came from whichever page; a stop passes all others.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import secrets
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import websockets.asyncio.server as ws
import zmq
import zmq.asyncio
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from runtime import jpeg
from runtime.bind import loopback
from runtime.console import BIND
from sim.console.commands import Pace, command
from sim.console.door import Door, Streams, cookie
from sim.console.hub import Cursor, Hub
from sim.console.scene import Scene
from sim.console.talk import Held, Talk
from vla.contract import TaktError

RATE = 15.0  # messages a second to a page
ALIVE = 0.5  # s between signs of life
QUALITY = 85  # of the cameras' JPEGs
VIEWERS = 16  # at the most
UTTERANCES = 3  # of a page that wait to be recognised
SCRIPTS = ("page.js", "charts.js", "talk.js", "microphone.js")
PAGES = {"/": "page.html", "/page.css": "page.css"} | {f"/{name}": name for name in SCRIPTS}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# What the page may load: what this server gives, and viser's client in a frame.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "font-src 'self' data:; connect-src 'self' data: blob: ws: wss:; worker-src 'self' blob: data:; "
    "script-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


class Page:
    """The server's state: the hub, the sockets to the control process, and who looks."""

    def __init__(self, folder: Path) -> None:
        context = zmq.asyncio.Context()
        self.hub, self.scene, self.talk = Hub(), Scene(folder), Talk()
        self.number = 0
        self.viewers: set[ws.ServerConnection] = set()
        self._tasks: set[asyncio.Future[None]] = set()  # a task that nobody holds may be collected
        self._state = _socket(context, zmq.SUB, folder, "state")
        self._frames = _socket(context, zmq.SUB, folder, "frames")
        self._commands = _socket(context, zmq.PUSH, folder, "commands", 64)
        self._stop = _socket(context, zmq.PUSH, folder, "stop", 8)

    # -- with the control process

    async def listen(self) -> None:
        """Take what it says, for ever."""
        while True:
            message = msgpack.unpackb(await self._state.recv())
            self.hub.take(message, time.monotonic())
            if (scene := message.get("scene")) is not None:
                self.scene.put(scene)

    async def look(self) -> None:
        """Take frames, for ever."""
        while True:
            rows = msgpack.unpackb(await self._frames.recv())["frames"]
            shaped = {n: np.frombuffer(d, np.uint8).reshape(h, w, 3) for n, (h, w, d) in rows.items()}
            self.hub.show({name: jpeg.encode(frame, QUALITY) for name, frame in shaped.items()})

    async def live(self) -> None:
        """Say twice a second that this process lives, and who looks."""
        while True:
            await self.tell({"do": "alive", "viewers": len(self.viewers)})
            await asyncio.sleep(ALIVE)

    async def tell(self, what: dict[str, Any], number: int | None = None) -> bool:
        """Send a command, by default numbered now; False when the control process does not keep up."""
        self.number += 1
        out = self._stop if what["do"] == "stop" else self._commands
        try:
            await out.send(
                msgpack.packb({"n": self.number if number is None else number, **what}), zmq.NOBLOCK
            )
        except zmq.Again:
            return False
        return True

    # -- with browsers

    async def __call__(self, viewer: ws.ServerConnection) -> None:
        """One page, to its end."""
        if len(self.viewers) >= VIEWERS:
            await viewer.close(1013, "too many pages look already")
            return
        self.viewers.add(viewer)
        wrong: list[str] = []
        sender = asyncio.ensure_future(self._send(viewer, wrong))
        try:
            await self._hear(viewer, wrong)
        except ConnectionClosed:
            pass
        finally:
            self.viewers.discard(viewer)
            sender.cancel()

    async def _hear(self, viewer: ws.ServerConnection, wrong: list[str]) -> None:
        """Hand on what a page wants; nothing is sent here, so one that does not read may yet stop the arm."""
        pace, held = Pace(), Held()
        async for data in viewer:
            if isinstance(data, bytes):
                if not held.take(data):
                    wrong[:] = ["sound, and nobody holds the button"]
                continue
            wish = command(data)
            if wish is None:
                wrong[:] = ["that was no command"]
            elif wish["do"] == "talk" and wish["on"]:
                self.number += 1
                held.begin(self.number)
            elif wish["do"] == "talk":
                if (sound := held.end()) and held.waiting < UTTERANCES:
                    # Not waited for: a stop from this page may come next.
                    task = asyncio.ensure_future(self._spoken(sound, held, held.number, wrong))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif sound:
                    wrong[:] = ["too much was said at once; some of it was left out"]
            elif wish["do"] != "stop" and not pace(time.monotonic()):
                wrong[:] = ["too fast: some of it was left out"]
            elif not await self.tell(wish):
                wrong[:] = ["the control process does not take commands now"]

    async def _spoken(self, sound: bytes, held: Held, number: int, wrong: list[str]) -> None:
        """Have it recognised, and hand it on as what was said when its button was pressed."""
        held.waiting += 1
        try:
            lines = await self.talk.words(sound, self._language())
            if not lines:
                wrong[:] = ["nothing that I know was heard"]
            for line in lines:
                if not await self.tell({"do": "say", "text": line}, number):
                    wrong[:] = ["the control process does not take commands now"]
        except TaktError as error:
            wrong[:] = [str(error)]
        finally:
            held.waiting -= 1

    def _language(self) -> str:
        """Whose words are spoken: the policy's name; "" before the first state."""
        return str(self.hub.state.get("about", {}).get("speaks", ""))

    async def _send(self, viewer: ws.ServerConnection, wrong: list[str]) -> None:
        """What is new for this page, as fast as it reads and never faster than `RATE`."""
        cursor: Cursor = {}
        shown: dict[str, int] = {}
        with suppress(ConnectionClosed):
            while True:
                silent = time.monotonic() - self.hub.heard
                news = self.hub.since(cursor) if self.hub.state else {}
                news |= {"viewers": len(self.viewers), "silent": round(min(silent, 1e6), 2)}
                news |= {"in_3d": self.scene.number, "error": wrong.pop() if wrong else ""}
                news |= {"ears": self.talk.understands(self._language())}
                await viewer.send(json.dumps(news))
                for name, (number, data) in list(self.hub.frames.items()):
                    if shown.get(name) != number:
                        shown[name] = number
                        await viewer.send(bytes([len(name.encode())]) + name.encode() + data)
                await asyncio.sleep(1.0 / RATE)


def _socket(
    context: zmq.asyncio.Context, kind: int, folder: Path, what: str, queue: int = 1
) -> zmq.asyncio.Socket:
    made = context.socket(kind)
    if kind == zmq.SUB:
        made.setsockopt(zmq.CONFLATE, 1)
        made.setsockopt(zmq.SUBSCRIBE, b"")
    made.setsockopt(zmq.SNDHWM, queue)
    made.setsockopt(zmq.LINGER, 0)
    made.connect(f"ipc://{folder / what}")
    return made


class Files:
    """Answers requests for the page; None lets a WebSocket's through."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        here = Path(__file__).parent
        self._bodies = {path: (here / name).read_bytes() for path, name in PAGES.items()}

    def __call__(self, connection: ws.ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        if path == "/ws":
            return None
        if path not in self._bodies:
            return connection.respond(HTTPStatus.NOT_FOUND, "there is no such page\n")
        body = self._bodies[path]
        headers = Headers()
        headers["Content-Type"] = f"{TYPES[PAGES[path].rpartition('.')[2]]}; charset=utf-8"
        headers["Content-Length"] = str(len(body))
        headers["Content-Security-Policy"] = POLICY
        headers["Cache-Control"] = "no-store"
        headers["Referrer-Policy"] = "no-referrer"
        headers["X-Content-Type-Options"] = "nosniff"
        if self._token is not None and "token=" in query:
            name = cookie(request.headers.get("Host", ""))
            headers["Set-Cookie"] = f"{name}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        return Response(200, "OK", headers, body)


def serve(folder: Path, bind: str, token: bool) -> None:
    """Be the console until this process is ended. `bind` is HOST or HOST:PORT; see `runtime.console`."""
    jpeg.check_installed()
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    asyncio.run(_serve(folder, bind, secrets.token_urlsafe(16) if token else None))


async def _serve(folder: Path, bind: str, token: str | None) -> None:
    page = Page(folder)
    inner = str(folder / "page")

    async def own() -> Streams:
        return await asyncio.open_unix_connection(inner)

    async def scene() -> Streams:
        if page.scene.port is None:
            raise OSError
        return await asyncio.open_connection("127.0.0.1", page.scene.port)

    async with ws.serve(
        page,
        unix=True,
        path=inner,
        process_request=Files(token),
        max_size=4096,
        max_queue=16,
        write_limit=2**18,
        compression=None,
        server_header=None,
    ):
        door = await _open(Door(own, scene, token), bind)
        host, port = door.sockets[0].getsockname()[:2]
        await page.tell({"do": "ready", "url": url(host, port, token)})
        async with door:
            await asyncio.gather(page.listen(), page.look(), page.live(), page.scene.keep())


async def _open(door: Door, bind: str) -> asyncio.Server:
    host, _, port = bind.rpartition(":") if ":" in bind else (bind, "", "0")
    try:
        return await asyncio.start_server(door, host.strip("[]"), int(port))
    except OSError as error:
        if bind == BIND and error.errno == errno.EADDRINUSE:
            return await _open(door, host)  # another arm's page, perhaps; nobody asked for this port
        raise TaktError(f"cannot serve a page at {bind}: {error.strerror}; choose another --bind") from None


def url(host: str, port: int, token: str | None) -> str:
    """The address for people; for all interfaces, the one by which others most likely reach this machine."""
    if host in ("0.0.0.0", "::"):
        host = _outward()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token is not None else "")


def _outward() -> str:
    """This machine's address on the network it would ask others through; nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found: str = probe.getsockname()[0]
        if not loopback(found):
            return found
    return socket.gethostname()
