"""Where to listen: which addresses are safe and which are taken; and whether there is something to read."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any, cast

import zmq

from vla.contract import TaktError

# No socket of ours has ZeroMQ's heartbeats: libzmq (to 4.3.5) aborts its whole process when one is to be sent
# or answered to a peer that went while its queue was full (stream_engine_base.cpp, `!_io_error`), as a server
# meets it that was suspended for half a second. Dead machines and cut cables are found by TCP instead: ms
# that what was sent may be unacknowledged, and probes for who is silent.
SPEAKING = {zmq.TCP_MAXRT: 1000}
LISTENING = {
    zmq.TCP_MAXRT: 5000,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 2,  # s
    zmq.TCP_KEEPALIVE_INTVL: 1,  # s
    zmq.TCP_KEEPALIVE_CNT: 3,
}


def readable(sock: zmq.Socket[Any]) -> bool:
    """Whether a message is there. Asking is cheap; an exception for every time there is none is not."""
    return bool(cast(int, sock.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def check_bind(bind: str, trusted: bool = False) -> None:
    """Refuse what is no address, and addresses that other machines could reach.

    Args:
        trusted: whoever can reach it may speak: peers show keys, or the operator vouches for the network.

    Raises:
        TaktError: one line.
    """
    scheme, _, rest = bind.partition("://")
    if scheme == "ipc" and rest:
        return
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not (port == "*" or (port.isdecimal() and int(port) < 65536)):
        raise TaktError(f"cannot bind {bind!r}: give tcp://127.0.0.1:PORT or ipc://PATH")
    if not trusted and not loopback(host):
        raise TaktError(
            f"refusing to bind {bind}: other machines could reach it; make keys with takt keys DIR and give "
            "--keys DIR, or say --trust-network"
        )


def loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, or a network interface's
        return False


def refuse_live(bind: str) -> None:
    """ZeroMQ takes over an ipc path from a server that still lives; we do not.

    Raises:
        TaktError: one listens there, or the path is something else.
    """
    if not bind.startswith("ipc://") or bind.startswith(("ipc://@", "ipc://*")):
        return
    path = Path(bind.removeprefix("ipc://"))
    if path.exists() and not path.is_socket():
        raise TaktError(f"{path} is there and is no socket: choose another --bind")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise TaktError(f"{bind} is in use: stop the other server or choose another --bind")
