"""A client that sends more than is read and then dies takes no server with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LISTENER = """
import subprocess, sys, time, zmq
from runtime import server
from runtime.protocols import gr00t

socket = zmq.Context().socket(zmq.ROUTER)
for option, value in {"takt": server.OPTIONS, "gr00t": gr00t.OPTIONS, "beats": BEATS}[sys.argv[1]].items():
    socket.setsockopt(option, value)
socket.bind(sys.argv[2])
subprocess.run([sys.executable, "-c", sys.argv[3], sys.argv[2]], check=True)
time.sleep(1.0)  # it is busy; ten heartbeats would be due
socket.recv_multipart()
print("alive", flush=True)
""".replace("BEATS", "{**server.OPTIONS, zmq.HEARTBEAT_IVL: 100, zmq.HEARTBEAT_TIMEOUT: 2000}")
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
    done = listen(options, tmp_path)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_heartbeats_of_a_server_are_what_this_is_about(tmp_path: Path) -> None:
    """libzmq's own fault; where this fails, it has been mended, and servers may have heartbeats again."""
    done = listen("beats", tmp_path)
    assert done.returncode < 0 and "_io_error" in done.stderr


def listen(options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LISTENER, options, f"ipc://{folder}/socket", FLOOD]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
