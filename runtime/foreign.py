"""A process in another Python environment, in which Takt is not installed: a script, a socket to it, its log.

    PYTHON -u SCRIPT FD PARENT ARGUMENTS...

FD is its end of the socket (runtime/messages.py says what passes), PARENT the process that started it. What
it prints goes to a log, whose last line tells why it ended.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.child import stop
from vla.contract import TaktError

GRACE = 5.0  # s that a process has to end once its socket is closed


class Foreign:
    """The process, and our end of the socket.

    Attributes:
        link: the socket.
        pid: of the process.
    """

    def __init__(
        self, python: str | Path, script: Path, arguments: Sequence[str], settings: Mapping[str, str]
    ) -> None:
        """Start it.

        Args:
            settings: environment variables for it, where nobody has set them.

        Raises:
            TaktError: there is no such interpreter.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        self.link, theirs = socket.socketpair()
        command = [str(python), "-u", str(script), str(theirs.fileno()), str(os.getpid()), *arguments]
        try:
            # A session of its own: Ctrl-C in the terminal reaches whoever started it, and ends it in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                pass_fds=[theirs.fileno()], env={**settings, **os.environ}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self.link.close()
            self._log.close()
            raise TaktError(f"cannot run {python}: {error.strerror}") from None
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self, grace: float = GRACE) -> str:
        """How it ended, in words that follow its name; `grace`: s to wait until it has.

        A crash names the last line of its log.
        """
        try:
            status = self._process.wait(grace)
        except subprocess.TimeoutExpired:
            return "closed its socket"
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"died ({how}): {line(lines[-1]) if lines else 'no word'}"

    def gone(self, within: float) -> bool:
        """Whether it ends by itself within so many seconds."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End the process and reap it; a second call does nothing."""
        self.link.close()
        stop(self._process)
        self._log.close()


def line(text: str) -> str:
    """Words of a foreign program as one line."""
    return " ".join(text.split())[:300]
