"""Who is let in: the authentication of ZeroMQ connections (ZAP, https://rfc.zeromq.org/spec/27)."""

from __future__ import annotations

from pathlib import Path

import zmq
from zmq.utils import z85

from runtime import keys
from runtime.bind import readable


class Gate:
    """Answers, when its owner turns it, whether a CURVE client may connect; every other is refused.

    It has no thread: handshakes are decided by the thread that serves, between messages.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path) -> None:
        """
        Args:
            folder: of `takt keys`: server.key and authorized_clients.

        Raises:
            TaktError: keys are missing or damaged.
        """
        self._pair = keys.server_pair(folder)
        self._authorized = keys.Authorized(folder)
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind("inproc://zeromq.zap.01")

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket, not yet bound, speak CURVE only."""
        socket.curve_secretkey = self._pair.secret
        socket.curve_publickey = self._pair.public
        socket.curve_server = True
        socket.zap_domain = b"takt"

    def turn(self) -> list[str]:
        """Decide what waits; one line for each client that was not let in."""
        refused = []
        while readable(self.socket):
            frames = self.socket.recv_multipart()
            _, number, _, address, _, mechanism, *credentials = frames
            name = None
            if mechanism == b"CURVE" and len(credentials) == 1:
                name = self._authorized.name(z85.encode(credentials[0]))
            if name is None:
                refused.append(f"a client at {address.decode(errors='replace')} has no key that is known")
            status = [b"400", b"unknown key", b""] if name is None else [b"200", b"", name.encode()]
            self.socket.send_multipart([b"1.0", number, *status, b""])
        return refused
