"""Pictures of a data set: PNG files in its tables, and H.264 files beside them."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
from PIL import Image

from vla.contract import TaktError
from vla.dataset_format import Feature, chunk_path, one_line

# --- PNG -------------------------------------------------------------------------------------------

# Every row carries filter 2 ("up", the difference from the row above): numpy takes it for a whole picture
# at once and undoes it for many, so that zlib is most of the work.
_UP = 2
# Pixels decoded together: few enough to stay in a core's cache.
_BATCH_BYTES = 2 << 20
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def _chunk(tag: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def _head(h: int, w: int) -> bytes:
    """Signature and header of an 8-bit RGB picture."""
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))


def encode_png(frame: np.ndarray) -> bytes:
    """Shape (h, w, 3), uint8 RGB -> a PNG file."""
    h, w, _ = frame.shape
    rows = np.empty((h, 1 + 3 * w), np.uint8)
    flat = frame.reshape(h, 3 * w)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    return _head(h, w) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)) + _END


def decode_pngs(files: Sequence[bytes], out: np.ndarray) -> None:
    """PNG files (or any Pillow opens) into `out`, shape (n, h, w, 3), uint8, C-contiguous.

    Raises:
        TaktError: not a picture, or one of another size.
    """
    n, h, w, _ = out.shape
    at_once = max(1, _BATCH_BYTES // (3 * h * w))
    for i in range(0, n, at_once):
        _decode_batch(files[i : i + at_once], out[i : i + at_once])


def _decode_batch(files: Sequence[bytes], out: np.ndarray) -> None:
    n, h, w, _ = out.shape
    head, rows, flat = _head(h, w), np.empty((n, h, 1 + 3 * w), np.uint8), out.reshape(n, h, 3 * w)
    own = [_inflate(data, head, rows[i]) for i, data in enumerate(files)]
    if any(own):
        flat[:, 0] = rows[:, 0, 1:]
        for y in range(1, h):
            np.add(flat[:, y - 1], rows[:, y, 1:], out=flat[:, y])
    for i in range(n):
        if not own[i]:
            _decode_any(files[i], out[i])


def _inflate(data: bytes, head: bytes, rows: np.ndarray) -> bool:
    """The rows, shape (h, 1 + 3 w), of a picture from `encode_png`; False if it has any other layout."""
    body = len(head) + 8
    end = body + int.from_bytes(data[body - 8 : body - 4], "big")
    if not data.startswith(head) or data[body - 4 : body] != b"IDAT" or data[end + 4 :] != _END:
        return False
    try:
        raw = np.frombuffer(zlib.decompress(data[body:end], bufsize=rows.size), np.uint8)
    except zlib.error:
        return False
    if raw.size != rows.size:
        return False
    rows[:] = raw.reshape(rows.shape)
    return bool((rows[:, 0] == _UP).all())


def _decode_any(data: bytes, out: np.ndarray) -> None:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise TaktError(f"not a readable picture: {one_line(error)}") from None
    if pixels.shape != out.shape:
        raise TaktError(f"a picture of shape {pixels.shape}, not {out.shape}")
    out[:] = pixels


# --- video -----------------------------------------------------------------------------------------


# A small frame is converted sooner by one thread than it is handed to several; PyAV 17 began to do so.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class VideoFiles:
    """One camera's episodes, one after another, in numbered H.264 files."""

    def __init__(self, folder: Path, feature: Feature, fps: int, crf: int, number: int, limit: int) -> None:
        """`number`: of the first file to write; `limit`: bytes after which the next file begins."""
        self.number = number
        self._folder, self._feature = folder, feature
        self._fps, self._crf, self._limit = fps, crf, limit
        self._container: Any = None
        self._convert = VideoReformatter()

    def write(self, frames: np.ndarray) -> tuple[int, float, float]:
        """Append an episode, shape (T, h, w, 3); returns (file number, from, to), times in that file in s."""
        if self._container is None:
            self._open()
        number, first = self.number, self._frames
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = self._convert.reformat(frame, format="yuv420p", **_ONE_THREAD)
            frame.pts, frame.time_base = self._frames, Fraction(1, self._fps)
            # A reader seeks to an episode's first frame, so it must not depend on the one before.
            frame.pict_type = PictureType.I if i == 0 else PictureType.NONE
            self._mux(frame)
            self._frames += 1
        if self._bytes >= self._limit:
            end = self._frames
            self.close()
            return number, first / self._fps, end / self._fps
        return number, first / self._fps, self._frames / self._fps

    def copy(self, path: Path) -> int:
        """Take over a whole file; returns its number here."""
        self.close()
        target = chunk_path(self._folder, self.number, ".mp4")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise TaktError(f"{path} cannot be copied: {one_line(error)}") from None
        self.number += 1
        return self.number - 1

    def _open(self) -> None:
        path = chunk_path(self._folder, self.number, ".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part, self._frames, self._bytes = path.with_name(path.name + ".part"), 0, 0
        self._container = av.open(str(self._part), "w", format="mp4")
        options = {"crf": str(self._crf), "g": "2", "bf": "0", "preset": "veryfast", "forced-idr": "1"}
        self._stream = self._container.add_stream("libx264", rate=self._fps, options=options)
        self._stream.height, self._stream.width, _ = self._feature.frame_shape
        self._stream.pix_fmt = "yuv420p"

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame (None: those still held back) and append what comes out."""
        packets = self._stream.encode(frame)
        self._bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)

    def close(self) -> None:
        """Complete the current file, if one is open; a later `write` begins the next."""
        if self._container is None:
            return
        self._mux(None)
        self._container.close()
        self._container = None
        os.replace(self._part, self._part.with_suffix(""))
        self.number += 1


def decode_video(path: Path, start: float, fps: float, out: np.ndarray) -> None:
    """The frames from `start` (s) on into `out`, shape (T, h, w, 3), uint8.

    Raises:
        TaktError: an unreadable file, frames of another size, or frames missing.
    """
    seen, convert = np.zeros(len(out), bool), VideoReformatter()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the cores are busy with other files already
            base = float(stream.time_base or 0)
            container.seek(int(start / base), stream=stream)
            for frame in container.decode(stream):
                at = round(((frame.pts or 0) * base - start) * fps)
                if at >= len(out):
                    break
                if at >= 0:
                    out[at] = convert.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()
                    seen[at] = True
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        size = f"{out.shape[2]}x{out.shape[1]}"
        raise TaktError(f"{path}: not a readable video of {size}: {one_line(error)}") from None
    if not seen.all():
        lost = len(out) - int(seen.sum())
        raise TaktError(f"{path}: {lost} of {len(out)} frames from {start:.3f} s on are missing")
