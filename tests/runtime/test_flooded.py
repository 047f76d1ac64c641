"""A client that sends more than is read, or a server that is suspended for a while: nobody's process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.channel import Channel
from tests.runtime.peers import free_port, until

# Reads nothing for a while, then all there is; what it is told last ends it.
LISTENER = """
import sys, time, zmq
from runtime import server
from runtime.protocols import gr00t

socket = zmq.Context().socket(zmq.ROUTER)
for option, value in {"takt": server.OPTIONS, "gr00t": gr00t.OPTIONS}[sys.argv[1]].items():
    socket.setsockopt(option, value)
socket.bind(sys.argv[2])
print("up", flush=True)
sys.stdin.readline()
while (message := socket.recv_multipart()[1]) != b"over":
    pass
print("alive", flush=True)
"""
# Sends for half a second and dies with its queues full.
FLOOD = """
import sys, time, zmq
from contextlib import suppress

socket = zmq.Context().socket(zmq.DEALER)
socket.setsockopt(zmq.LINGER, 0)
socket.connect(sys.argv[1])
end = time.monotonic() + 0.5
while time.monotonic() < end:
    with suppress(zmq.Again):
        socket.send(bytes(1000), zmq.NOBLOCK)
"""


@pytest.mark.parametrize("options", ["takt", "gr00t"])
def test_a_flood_that_ends_by_death_leaves_the_server_alive(options: str, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/socket"
    with listener(options, address) as server:
        subprocess.run([sys.executable, "-c", FLOOD, address], check=True)
        time.sleep(0.5)  # heartbeats would be due
        over(server, address)


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_server_that_was_suspended_goes_on(transport: str, tmp_path: Path) -> None:
    """Its client goes on sending, thirty times a second, as a control loop does."""
    address = f"ipc://{tmp_path}/socket" if transport == "ipc" else f"tcp://127.0.0.1:{free_port()}"
    with listener("takt", address) as server:
        go_on(server)
        channel = Channel(address)
        for _ in range(4):
            os.kill(server.pid, signal.SIGSTOP)
            speak(channel, 0.5)
            os.kill(server.pid, signal.SIGCONT)
            speak(channel, 0.4)
            assert server.poll() is None, server.communicate()[1]
        channel.close()
        over(server, address)


def speak(channel: Channel, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        channel.watch()
        channel.send([bytes(60)])
        time.sleep(1 / 30)


def listener(options: str, address: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", LISTENER, options, address]
    made = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert made.stdout is not None and made.stdout.readline() == "up\n"
    return made


def go_on(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    if not server.stdin.closed:
        server.stdin.write("\n")
        server.stdin.flush()


def over(server: subprocess.Popen[str], address: str) -> None:
    """It has read all, and ends when it is told to."""
    go_on(server)
    channel = Channel(address)
    until(lambda: channel.watch() or channel.send([b"over"]), "it cannot be spoken to")
    assert server.wait(30) == 0, server.stderr and server.stderr.read()
    channel.close(200)
