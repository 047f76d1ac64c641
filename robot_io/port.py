"""A serial line as a file descriptor: raw bytes, deadlines on the monotonic clock, no other owner."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import termios
import time

from vla.contract import TaktError

_PIECE = 4096  # bytes a read takes at most
_GONE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADF)


class PortGone(TaktError):
    """The line was unplugged, or its other end has ended."""


class Port:
    """One serial line, opened for this process alone: 8 bits, no parity, one stop bit, nothing translated."""

    def __init__(self, path: str, baud: int = 1_000_000) -> None:
        """
        Raises:
            TaktError: it is not there, not ours to open, not a serial line, or in use.
        """
        self.path = path
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise TaktError(f"{baud} is no rate that this system's serial lines know")
        self._fd = _open(path)
        try:
            # Two locks: the kernel's keeps other programs out, the file's also those of the superuser.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.ioctl(self._fd, termios.TIOCEXCL)
            _make_raw(self._fd, speed)
        except (OSError, termios.error) as error:
            os.close(self._fd)
            if isinstance(error, BlockingIOError):
                raise _busy(path) from None
            raise TaktError(f"{path} is not a serial line: {error.args[-1]}") from None
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def send(self, line: bytes, deadline: float) -> None:
        """Write all of `line`, what has come in before is thrown away: it answers nothing that is asked now.

        Raises:
            PortGone: the line is gone, or took nothing more until the deadline.
        """
        try:
            # Input alone: a flush of output, as vendors' code has it, leaves late replies there.
            termios.tcflush(self._fd, termios.TCIFLUSH)
            while line:
                try:
                    line = line[os.write(self._fd, line) :]
                except BlockingIOError:
                    rest = deadline - time.monotonic()
                    if rest <= 0 or not select.select([], [self._fd], [], rest)[1]:
                        raise PortGone(f"{self.path} takes no more bytes: is it stuck?") from None
        except (OSError, termios.error) as error:
            raise _gone(self.path, error) from None

    def receive(self, deadline: float) -> bytes:
        """What has come in, waiting for the first of it; b"" at the deadline.

        Args:
            deadline: s, on the monotonic clock.

        Raises:
            PortGone: the line is gone.
        """
        rest = deadline - time.monotonic()
        if rest <= 0 and not self._poll.poll(0):
            return b""
        if rest > 0 and not _wait(self._fd, rest):
            return b""
        try:
            piece = os.read(self._fd, _PIECE)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise _gone(self.path, error) from None
        if not piece:
            raise PortGone(f"{self.path} is gone: was it unplugged?")
        return piece

    def close(self) -> None:
        """Give the line back; it never raises."""
        for tidy in (lambda: fcntl.ioctl(self._fd, termios.TIOCNXCL), lambda: os.close(self._fd)):
            with contextlib.suppress(OSError):
                tidy()


def _wait(fd: int, seconds: float) -> bool:
    """Whether something came; select has microseconds where poll has milliseconds."""
    if fd < 1024:
        return bool(select.select([fd], [], [], seconds)[0])
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(1, seconds * 1000.0)))


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TaktError(f"there is no {path}: is the adapter plugged in? (ls /dev/serial/by-id)") from None
    except PermissionError:
        raise TaktError(
            f"{path} may not be opened: join its group (sudo usermod -aG dialout $USER) and log in anew"
        ) from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(path) from None
        raise TaktError(f"{path} cannot be opened: {error.strerror}") from None


def _busy(path: str) -> TaktError:
    return TaktError(f"{path} is in use by another program: end that first")


def _gone(path: str, error: Exception) -> PortGone:
    number, *said = error.args or (None,)
    if number in _GONE:
        return PortGone(f"{path} is gone: was it unplugged?")
    return PortGone(f"{path} fails: {said[0] if said else error}")


def _make_raw(fd: int, speed: int) -> None:
    """What cfmakeraw does, and reads that return at once."""
    cflag = termios.CS8 | termios.CREAD | termios.CLOCAL
    controls = termios.tcgetattr(fd)[6]
    controls[termios.VMIN], controls[termios.VTIME] = 1, 0  # so that an empty read means a hang-up
    termios.tcsetattr(fd, termios.TCSANOW, [0, 0, cflag, 0, speed, speed, controls])
