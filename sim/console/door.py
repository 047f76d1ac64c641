"""The one port of a page: who may come in, and which server behind it answers.

A connection's first request is read here; what follows passes unread. So one port, one token and one check
of the origin stand before the page, its WebSocket and viser's server, which knows none of them.

    GET /            -> the page's own server          GET /3d/...  -> viser's, as /...
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from runtime.bind import loopback

HEAD = 16384  # bytes of a request's head, at the most
PATIENCE = 10.0  # s for it to come
PIECE = 65536  # bytes
SCENE = "/3d/"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[], Awaitable[Streams]]


class Refused(Exception):
    """An HTTP status and a line of text."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


class Door:
    """Lets in who may, and connects them.

    Attributes:
        refused: connections that were turned away.
    """

    def __init__(self, page: Open, scene: Open, token: str | None) -> None:
        """
        Args:
            page, scene: connect to the servers behind.
            token: what everyone has to show, in the address (?token=...) or later in the cookie it is kept
                in; None for a port that only this machine reaches.
        """
        self._page, self._scene, self._token = page, scene, token
        self.refused = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            there, head = await self._admit(head)
        except Refused as no:
            self.refused += 1
            await _answer(writer, no.status, str(no))
            return
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            self.refused += 1
            writer.close()
            return
        there[1].write(head)
        await _join((reader, writer), there)

    async def _admit(self, head: bytes) -> tuple[Streams, bytes]:
        """The server that answers, and the head as it gets it."""
        line, _, rest = head.partition(b"\r\n")
        try:
            method, target, version = line.decode("ascii").split(" ")
            lines = [one.partition(":") for one in rest.decode("latin-1").split("\r\n") if one]
        except ValueError:
            raise Refused("400 Bad Request", "no HTTP") from None
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        if method != "GET":
            raise Refused("405 Method Not Allowed", "GET alone")
        url = urlsplit(target)
        self._check(headers, parse_qs(url.query).get("token", [""])[0])
        if not f"{url.path}/".startswith(SCENE):
            return await self._page(), head
        bare = "/" + target[len(SCENE) :]  # its WebSocket is asked for without the last stroke
        try:
            return await self._scene(), f"{method} {bare} {version}\r\n".encode() + rest
        except OSError:
            raise Refused("503 Service Unavailable", "there is no scene yet") from None

    def _check(self, headers: dict[str, str], shown: str) -> None:
        """
        Raises:
            Refused: no token or a wrong one; or another site's page asks, in a browser of somebody who may.
        """
        host = headers.get("host", "")
        if self._token is None:
            # A name that is made to lead here (DNS rebinding) would make another site's page one of ours.
            if not loopback(_name(host)):
                raise Refused("403 Forbidden", "ask for 127.0.0.1 or localhost")
        elif not any(hmac.compare_digest(t.encode(), self._token.encode()) for t in (shown, kept(headers))):
            raise Refused("403 Forbidden", "the address lacks its token: take the one that takt printed")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refused("403 Forbidden", "another site's page may not come in")


def _name(host: str) -> str:
    """A Host header without its port."""
    try:
        ipaddress.ip_address(host)
        return host
    except ValueError:
        return host.rpartition(":")[0] if ":" in host else host


def cookie(host: str) -> str:
    """The name of the cookie that keeps the token; ports of one machine share their cookies."""
    return f"takt_{host.rpartition(':')[2] if ':' in host else '80'}"


def kept(headers: dict[str, str]) -> str:
    """The token in the cookie; "" without one."""
    with suppress(CookieError):
        found = SimpleCookie(headers.get("cookie", "")).get(cookie(headers.get("host", "")))
        return found.value if found else ""
    return ""


async def _answer(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    with suppress(OSError):
        await writer.drain()
    writer.close()


async def _join(one: Streams, other: Streams) -> None:
    """Pass bytes both ways until either side ends."""
    ways = [asyncio.ensure_future(_pass(one[0], other[1])), asyncio.ensure_future(_pass(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        for _, writer in (one, other):
            with suppress(OSError):
                writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
        await writer.drain()
