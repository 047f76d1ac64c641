"""Who comes in: tokens, cookies, origins, names that were made to lead here. A real console process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("websockets", reason="no page without the extra `console`")

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runtime import console


@pytest.fixture(scope="module")
def near() -> Iterator[int]:
    """The port of a page that only this machine reaches."""
    with console.opened("127.0.0.1:0") as (_, url, _):
        yield urlsplit(url).port or 0


@pytest.fixture(scope="module")
def far() -> Iterator[tuple[int, str]]:
    """The port and the token of a page that other machines reach."""
    with console.opened("0.0.0.0:0", token=True) as (_, url, _):
        yield urlsplit(url).port or 0, parse_qs(urlsplit(url).query)["token"][0]


def ask(port: int, request: str) -> str:
    """What comes back for a request, as it stands."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(request.encode())
        peer.settimeout(20)
        got = b""
        while piece := peer.recv(65536):
            got += piece
    return got.decode(errors="replace")


def get(port: int, path: str = "/", host: str = "127.0.0.1", **headers: str) -> str:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return ask(port, f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}\r\n")


def status(answer: str) -> int:
    return int(answer.split(" ", 2)[1])


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/charts.js", "/?anything=1"])
def test_the_page_is_served_to_this_machine(near: int, path: str) -> None:
    answer = get(near, path, Origin=f"http://127.0.0.1:{near}")
    assert status(answer) == 200
    assert "content-security-policy: default-src 'self'" in answer.lower()


@pytest.mark.parametrize(
    "path", ["/nothing", "/../sim/console/serve.py", "/%2e%2e/pyproject.toml", "//etc/passwd"]
)
def test_nothing_else_is(near: int, path: str) -> None:
    assert status(get(near, path)) in (400, 404)


def test_there_is_no_scene_before_there_is_a_world(near: int) -> None:
    assert status(get(near, "/3d/")) == 503


def test_a_name_that_was_made_to_lead_here_is_refused(near: int) -> None:
    assert status(get(near, host="evil.example")) == 403
    assert status(get(near, host="localhost")) == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null"])
def test_another_sites_page_may_not_command_this_one(near: int, origin: str) -> None:
    assert status(get(near, Origin=origin)) == 403
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{near}/ws", additional_headers={"Origin": origin})
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    "request_", ["POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "nonsense\r\n\r\n", "GET /\r\n\r\n"]
)
def test_what_is_no_request_is_refused(near: int, request_: str) -> None:
    assert status(ask(near, request_)) in (400, 405)


def test_a_head_without_an_end_is_refused_and_others_are_served(near: int) -> None:
    with socket.create_connection(("127.0.0.1", near), timeout=20) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 40_000)
        assert status(get(near)) == 200


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%ff", "?Token={}", "?token={}x"])
@pytest.mark.parametrize("path", ["/", "/ws", "/3d/", "/page.js"])
def test_without_the_token_nobody_comes_in(far: tuple[int, str], path: str, query: str) -> None:
    port, token = far
    assert status(get(port, path + query.format(token))) == 403


def test_the_token_lets_in_and_is_kept_in_a_cookie(far: tuple[int, str]) -> None:
    port, token = far
    answer = get(port, f"/?token={token}")
    assert status(answer) == 200
    (cookie,) = [line for line in answer.splitlines() if line.lower().startswith("set-cookie: ")]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    kept = cookie.partition(": ")[2].partition(";")[0]
    assert status(get(port, "/page.js", Cookie=kept)) == 200
    assert status(get(port, "/page.js", Cookie=kept[:-1])) == 403
    assert "set-cookie" not in get(port, "/", Cookie=kept).lower()
    with connect(f"ws://127.0.0.1:{port}/ws", additional_headers={"Cookie": kept}) as viewer:
        assert "viewers" in viewer.recv(timeout=20)
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{port}/ws")


def test_a_token_is_long_and_new_each_time(far: tuple[int, str]) -> None:
    with console.opened("0.0.0.0:0", token=True) as (_, url, _):
        other = parse_qs(urlsplit(url).query)["token"][0]
    assert len(other) >= 20 and other != far[1]
