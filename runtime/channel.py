"""A client's socket: frames out, frames in, and whether anybody is at the other end."""

from __future__ import annotations

from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from runtime import keys as key_files
from runtime import wire
from runtime.bind import SPEAKING, readable
from vla.contract import TaktError

_LARGE = 512 << 10  # bytes from which a message is written in place
_SPARE = 2  # large messages whose memory is kept
_REFUSED = zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
_REFUSED |= zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
_WATCHED = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED | _REFUSED


class Channel:
    """A connection to an address, made anew by ZeroMQ's own thread whenever it breaks.

    Attributes:
        up: whether the transport is connected, as of the last `watch`.
        losses: times it was lost.
        refused: whether the last handshake failed, as it does without the right keys.
    """

    def __init__(self, address: str, keys: Path | None = None) -> None:
        """
        Raises:
            TaktError: the address is malformed, or the keys cannot be used.
        """
        self.up = self.refused = False
        self.losses = 0
        # Memory is mapped and cleared page by page: for a few megabytes that takes as long as to send them.
        self._spare: list[zmq.Frame] = []
        self._flying: list[zmq.Frame] = []
        self._context = zmq.Context()
        try:
            self._socket = self._connect(address, keys)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def close(self, linger: int = 0) -> None:
        """Close; `linger` ms at most for what was sent last."""
        self._context.destroy(linger=linger)

    def send(self, parts: list[bytes | memoryview]) -> bool:
        """Hand over one frame, given in parts; False when there is nobody to send it to, or no room."""
        size = sum(map(len, parts))
        try:
            if size < _LARGE:
                self._socket.send(b"".join(parts), zmq.NOBLOCK)
            else:
                self._send_large(parts, size)
        except zmq.Again:
            return False
        return True

    def settle(self) -> None:
        """Everything that was sent has been answered, and so arrived: its memory can be written again."""
        self._spare = (self._spare + self._flying)[-_SPARE:]
        self._flying = []

    def _send_large(self, parts: list[bytes | memoryview], size: int) -> None:
        """Write the parts into ZeroMQ's own memory, where the network thread reads them: one copy."""
        frame = next((frame for frame in self._spare if len(frame.buffer) == size), None)
        if frame is None:
            frame = zmq.Frame(bytes(size), copy=True)
            self._spare = [*self._spare, frame][-_SPARE:]
        room, at = frame.buffer, 0
        for part in parts:
            room[at : at + len(part)] = part
            at += len(part)
        self._socket.send(frame, zmq.NOBLOCK, copy=False)
        self._spare = [other for other in self._spare if other is not frame]
        self._flying = [*self._flying, frame][-_SPARE:]

    def receive(self) -> bytes | None:
        """A frame that is there, or None; b"", which is no message, for one of several parts."""
        if not readable(self._socket):
            return None
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        return frames[0] if len(frames) == 1 else b""

    def wait(self, event: int, ms: int) -> bool:
        """Until the socket is ready for `event` (zmq.POLLIN or POLLOUT), at most `ms`."""
        return bool(self._socket.poll(ms, event) & event)

    def watch(self) -> None:
        """Take note of what the transport did."""
        while readable(self._monitor):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event & _REFUSED:
                self.refused = True
            elif event == zmq.Event.DISCONNECTED:
                self.losses += self.up
                self.up = False
            else:
                self.up, self.refused = True, False

    def _connect(self, address: str, keys: Path | None) -> zmq.Socket[bytes]:
        sock = self._context.socket(zmq.DEALER)
        # IMMEDIATE: a request to a dead server fails now and is not delivered, stale, to the next one.
        # No heartbeats, as `bind.SPEAKING` says: a silent server is found by the pings of the protocol.
        options = {**SPEAKING, zmq.LINGER: 0, zmq.IMMEDIATE: 1, zmq.SNDHWM: 2, zmq.RCVHWM: 8, zmq.IPV6: 1}
        options |= {zmq.MAXMSGSIZE: wire.MAX_ANSWER, zmq.RECONNECT_IVL: 20, zmq.RECONNECT_IVL_MAX: 500}
        for option, value in options.items():
            sock.setsockopt(option, value)
        if keys is not None:
            pair, server = key_files.client_pair(keys)
            sock.curve_publickey, sock.curve_secretkey, sock.curve_serverkey = (
                pair.public,
                pair.secret,
                server,
            )
        self._monitor = sock.get_monitor_socket(int(_WATCHED))
        try:
            sock.connect(address)
        except zmq.ZMQError:
            raise TaktError(f"{address!r} is no address: give tcp://HOST:PORT or ipc://PATH") from None
        return sock
