"""Camera frames as JPEG, for links that cannot carry them raw. Needs the extra `jpeg`."""

from __future__ import annotations

import numpy as np

from runtime.fields import WireError
from vla.contract import TaktError

try:
    import simplejpeg
except ModuleNotFoundError:  # raw frames need none of this
    simplejpeg = None

_BASELINE = (0xC0, 0xC1)  # start of frame, sequential; a progressive one may ask for any number of passes
_MOST = 1 << 26  # pixels of a picture
_BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def check_installed() -> None:
    """Raises TaktError where JPEG cannot be made here."""
    if simplejpeg is None:
        raise TaktError("frames as JPEG need simplejpeg: pip install 'takt-vla[jpeg]'")


def encode(frame: np.ndarray, quality: int) -> bytes:
    """A frame, shape (h, w, 3), uint8 RGB, as a JPEG of `quality` 1 to 100."""
    check_installed()
    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality, "RGB", "420", fastdct=True)


def decode(data: bytes | memoryview, shape: tuple[int, ...]) -> np.ndarray:
    """The frame in a JPEG, shape (h, w, 3), uint8 RGB; its header is compared with `shape` before it is made.

    Raises:
        WireError: it is no JPEG of that shape, it is damaged, or no decoder is installed here.
    """
    if simplejpeg is None:
        raise WireError("no JPEG is read here: send raw frames, or install 'takt-vla[jpeg]' at the server")
    if not _sequential(data):
        raise WireError("wanted a baseline JPEG")
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (height, width, 3) != shape:
            raise WireError(f"a JPEG of {height} by {width} that was declared as {shape}")
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True)
    except (ValueError, TypeError, MemoryError):
        raise WireError("a damaged JPEG") from None


def read(data: bytes) -> np.ndarray:
    """The picture of a camera or a file, of whatever size, shape (h, w, 3), uint8 RGB.

    Raises:
        WireError: it is damaged or too large, or no decoder is installed here.
    """
    if simplejpeg is None:
        raise WireError("no JPEG is read here: install 'takt-vla[jpeg]'")
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if height * width > _MOST:
            raise WireError(f"a JPEG of {height} by {width}")
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True)
    except (ValueError, TypeError, MemoryError):
        raise WireError("a damaged JPEG") from None


def _sequential(data: bytes | memoryview) -> bool:
    """Whether the first frame header is a sequential one."""
    if bytes(data[:2]) != b"\xff\xd8":
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _BASELINE:
            return True
        if 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return False
        at += 2 if marker in _BARE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
