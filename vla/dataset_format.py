"""The pieces of LeRobotDataset v3.0 files: features, Arrow columns, PNG, video and statistics.

`vla.dataset` composes them; nothing here knows what an episode table or a data folder looks like.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
from PIL import Image

from vla.contract import TaktError

FILES_A_CHUNK = 1000
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)
NUMERIC = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")

Stats = dict[str, np.ndarray]


@dataclass(frozen=True)
class Feature:
    """One named quantity of every frame.

    Attributes:
        dtype: a numpy name ("float32", "int64", "bool", ...), "string", "image" or "video".
        shape: of one frame's value; (1,) for a scalar, (height, width, 3) for pictures.
        names: of the components, or None.
    """

    dtype: str
    shape: tuple[int, ...]
    names: list[str] | None = None

    @property
    def visual(self) -> bool:
        return self.dtype in ("image", "video")

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Shape (h, w, 3) of a decoded picture, also where a writer listed the channels first."""
        channels_first = self.shape[0] == 3 and self.shape[2] != 3
        h, w = self.shape[1:] if channels_first else self.shape[:2]
        return h, w, 3

    def check(self, name: str) -> Feature:
        """This feature, if it can be stored.

        Raises:
            TaktError: an unknown dtype, or a shape the format has no place for.
        """
        if "/" in name:
            raise TaktError(f"feature {name!r}: '/' is not allowed in a name, use '.'")
        if self.dtype not in (*NUMERIC, "string", "image", "video"):
            raise TaktError(f"feature {name!r}: dtype {self.dtype!r} is not one of {', '.join(NUMERIC)}, "
                            "string, image, video")  # fmt: skip
        if not 1 <= len(self.shape) <= 5 or min(self.shape) < 1:
            raise TaktError(f"feature {name!r}: shape {self.shape} needs 1 to 5 sizes; a scalar is (1,)")
        if self.dtype == "string" and self.shape != (1,):
            raise TaktError(f"feature {name!r}: a string has shape (1,), not {self.shape}")
        if self.visual and (len(self.shape) != 3 or 3 not in (self.shape[0], self.shape[2])):
            raise TaktError(f"feature {name!r}: a picture has shape (height, width, 3), not {self.shape}")
        if self.dtype == "video" and (self.frame_shape[0] % 2 or self.frame_shape[1] % 2):
            raise TaktError(f"feature {name!r}: video needs an even height and width, not {self.shape}")
        return self

    def to_json(self, fps: int) -> dict[str, Any]:
        names = ["height", "width", "channels"] if self.visual and self.names is None else self.names
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": names}
        if self.dtype == "video":
            h, w, _ = self.frame_shape
            entry["info"] = {
                "video.height": h, "video.width": w, "video.channels": 3, "video.fps": fps,
                "video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False,
                "has_audio": False,
            }  # fmt: skip
        return entry

    @staticmethod
    def from_json(entry: dict[str, Any]) -> Feature:
        names = entry.get("names")
        if isinstance(names, dict):  # older writers group the names: {"motors": [...]}
            names = [n for group in names.values() for n in (group if isinstance(group, list) else [group])]
        return Feature(entry["dtype"], tuple(entry["shape"]), names)


# Columns that every data set has and that the writer makes itself.
INDEX_FEATURES = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}


# --- meta/info.json, meta/tasks.parquet, meta/episodes ----------------------------------------------

EPISODE_COLUMNS = {
    "episode_index": pa.int64(),
    "tasks": pa.list_(pa.string()),
    "length": pa.int64(),
    "data/chunk_index": pa.int64(),
    "data/file_index": pa.int64(),
    "dataset_from_index": pa.int64(),
    "dataset_to_index": pa.int64(),
    "meta/episodes/chunk_index": pa.int64(),
    "meta/episodes/file_index": pa.int64(),
}
VIDEO_COLUMNS = {
    "chunk_index": pa.int64(),
    "file_index": pa.int64(),
    "from_timestamp": pa.float64(),
    "to_timestamp": pa.float64(),
}


def read_info(root: Path) -> dict[str, Any]:
    path = root / "meta/info.json"
    try:
        info: dict[str, Any] = json.loads(path.read_text())
        version = str(info["codebase_version"])
    except FileNotFoundError:
        raise TaktError(f"{path} is missing: {root} is not a complete LeRobotDataset") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaktError(f"{path} is not a LeRobotDataset's: {one_line(error)}") from None
    if not version.startswith("v3."):
        raise TaktError(
            f"{path}: version {version!r}, this reads v3.0; convert the data set with LeRobot first"
        )
    return info


def read_tasks(path: Path) -> list[str]:
    """The instructions in the order of their task_index, whatever the pandas index is called."""
    table = read_table(path)
    words = [name for name in table.schema.names if name != "task_index"]
    if "task_index" not in table.schema.names or len(words) != 1:
        raise TaktError(f"{path} has the columns {table.schema.names}, not task_index and the instruction")
    pairs = sorted(zip(table["task_index"].to_pylist(), table[words[0]].to_pylist(), strict=True))
    if [i for i, _ in pairs] != list(range(len(pairs))):
        raise TaktError(f"{path}: task_index does not count from 0 to {len(pairs) - 1}")
    return [task for _, task in pairs]


def tasks_table(tasks: Mapping[str, int]) -> pa.Table:
    """task_index, with the instruction as a pandas index: LeRobot looks tasks up by it."""

    def column(name: str | None, kind: str, numpy: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [column(None, "unicode", "object") | {"metadata": {"encoding": "UTF-8"}}],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], {"pandas": json.dumps(pandas)})
    return pa.table([list(tasks.values()), list(tasks)], schema=schema)


def episode_schema(features: Mapping[str, Feature], extra: Mapping[str, pa.DataType]) -> pa.Schema:
    """Columns of meta/episodes: where the episode is, its statistics, and what the user added."""
    columns = dict(EPISODE_COLUMNS)
    for name, feature in features.items():
        if feature.dtype == "video":
            columns |= {f"videos/{name}/{key}": kind for key, kind in VIDEO_COLUMNS.items()}
    for name, feature in features.items():
        if feature.dtype != "string":
            nested = pa.float64()
            for _ in feature.shape:
                nested = pa.list_(nested)
            columns |= {f"stats/{name}/{key}": nested for key in STATISTICS}
            columns[f"stats/{name}/count"] = pa.list_(pa.int64())
    return pa.schema(list((columns | dict(extra)).items()))


def extra_types(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The user's own columns of an episode table."""
    return {f.name: f.type for f in schema if "/" not in f.name and f.name not in EPISODE_COLUMNS}


def video_row(name: str, file: int, start: float, end: float) -> dict[str, Any]:
    values = (*place(file), start, end)
    return {f"videos/{name}/{key}": value for key, value in zip(VIDEO_COLUMNS, values, strict=True)}


# --- files -----------------------------------------------------------------------------------------


def place(number: int) -> tuple[int, int]:
    """(chunk index, file index) of the number-th file of a kind."""
    return divmod(number, FILES_A_CHUNK)


def chunk_path(folder: Path, number: int, suffix: str) -> Path:
    """Where the number-th file of a kind is."""
    chunk, file = place(number)
    return folder / f"chunk-{chunk:03d}/file-{file:03d}{suffix}"


def write_json(path: Path, data: Any) -> None:
    """Replace `path` in one step, so that a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=4, ensure_ascii=False))
    os.replace(part, path)


def open_parquet(path: Path, metadata: Any = None) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, metadata=metadata)
    except FileNotFoundError:
        raise TaktError(f"{path} is missing: the data set is not complete") from None
    except (OSError, pa.ArrowException) as error:
        raise TaktError(f"{path} is not readable as Parquet: {one_line(error)}") from None


def read_table(path: Path, want: Callable[[str], bool] = lambda name: True) -> pa.Table:
    """The columns of a Parquet file whose name passes `want`."""
    file = open_parquet(path)
    try:
        return file.read([name for name in file.schema_arrow.names if want(name)])
    except (OSError, pa.ArrowException) as error:
        raise TaktError(f"{path} is not readable as Parquet: {one_line(error)}") from None


class ParquetFiles:
    """Tables appended to numbered Parquet files, one row group each; a file gets its name when complete."""

    def __init__(self, folder: Path, schema: pa.Schema, number: int, limit: int) -> None:
        """`number`: of the first file to write; `limit`: bytes after which the next file begins."""
        self.number = number
        self.schema = schema
        self._folder, self._limit = folder, limit
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> int:
        """Append one row group; returns the number of the file it went to."""
        if self._writer is None:
            path = chunk_path(self._folder, self.number, ".parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pa.OSFile(str(path) + ".part", "wb")
            self._writer = pq.ParquetWriter(self._file, self.schema, use_dictionary=False)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        number = self.number
        if self._file.tell() >= self._limit:
            self.close()
        return number

    def close(self) -> None:
        """Complete the current file, if one is open; a later `write` begins the next."""
        if self._writer is None:
            return
        self._writer.close()
        self._file.close()
        self._writer = None
        path = chunk_path(self._folder, self.number, ".parquet")
        os.replace(str(path) + ".part", path)
        self.number += 1


# --- Arrow -----------------------------------------------------------------------------------------


def arrow_type(feature: Feature) -> pa.DataType:
    """A scalar, a fixed-size list, nested lists, or LeRobot's struct of PNG bytes and a path."""
    if feature.dtype == "image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    if feature.dtype == "string":
        return pa.string()
    kind = pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.shape[0])
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def _hub_type(feature: Feature) -> dict[str, Any]:
    """What the `datasets` library calls the column."""
    if feature.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": f"Array{len(feature.shape)}D"}


def data_schema(features: dict[str, Feature]) -> pa.Schema:
    """The schema of data files: every feature but the videos, with the metadata `datasets` looks for."""
    stored = {name: f for name, f in features.items() if f.dtype != "video"}
    hub = {"info": {"features": {name: _hub_type(f) for name, f in stored.items()}}}
    fields = [(name, arrow_type(f)) for name, f in stored.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps(hub)})


def to_arrow(array: np.ndarray, feature: Feature) -> pa.Array:
    """Shape (T, *feature.shape) -> an Arrow column of T rows; pictures become PNG."""
    if feature.dtype == "image":
        return _png_column(array)
    if feature.dtype == "string":
        return pa.array(array.reshape(-1).tolist(), pa.string())
    values = pa.array(array.reshape(-1))
    if len(feature.shape) == 1:
        size = feature.shape[0]
        return values if size == 1 else pa.FixedSizeListArray.from_arrays(values, size)
    for size in reversed(feature.shape):
        values = pa.ListArray.from_arrays(np.arange(0, len(values) + 1, size, dtype=np.int32), values)
    return values


def from_arrow(column: pa.ChunkedArray, name: str, feature: Feature, path: Path) -> np.ndarray:
    """An Arrow column of N rows -> shape (N, *feature.shape), the feature's dtype; strings as objects.

    Raises:
        TaktError: rows of another shape, or missing values.
    """
    values, rows = column.combine_chunks(), len(column)
    if feature.dtype == "string":
        return np.array(values.to_pylist(), dtype=object).reshape(rows, 1)
    shape: list[int] = []
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        sizes = pc.min_max(pc.list_value_length(values)).as_py()
        if values.null_count or (rows and sizes["min"] != sizes["max"]):
            raise TaktError(f"{path}: {name!r} has rows of different shapes or missing values")
        shape.append(sizes["max"] if rows else 0)
        values = values.flatten()
    if rows and (tuple(shape) or (1,)) != feature.shape:
        raise TaktError(
            f"{path}: {name!r} has shape {tuple(shape) or (1,)}, meta/info.json says {feature.shape}"
        )
    if values.null_count or not (pa.types.is_primitive(values.type) or pa.types.is_boolean(values.type)):
        raise TaktError(f"{path}: {name!r} has missing values or type {values.type}, not {feature.dtype}")
    array: np.ndarray = values.to_numpy(zero_copy_only=False)
    return array.reshape(rows, *feature.shape).astype(feature.dtype, copy=False)


def as_feature(name: str, feature: Feature, array: np.ndarray) -> np.ndarray:
    """The array as (T, *feature.shape) of the feature's dtype.

    Raises:
        TaktError: another shape, a kind that would lose its meaning (float to int), or values not finite.
    """
    shape = array.shape[1:] or (1,)
    if array.ndim == 0 or shape != feature.shape:
        raise TaktError(f"{name!r} has shape {array.shape}, needs (T, {', '.join(map(str, feature.shape))})")
    array = array.reshape(len(array), *shape)
    if feature.dtype == "string":
        return array.astype(object)
    dtype = np.dtype("uint8" if feature.visual else feature.dtype)
    if not np.can_cast(array.dtype, dtype, "same_kind") or (feature.visual and array.dtype != dtype):
        raise TaktError(f"{name!r} is {array.dtype}, needs {dtype}")
    cast = np.ascontiguousarray(array, dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise TaktError(f"{name!r} has values that are not finite in {dtype}")
    return cast


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


def _png_column(frames: np.ndarray) -> pa.Array:
    files = [encode_png(f) for f in frames]
    if sum(map(len, files)) >= 1 << 31:
        raise TaktError(
            f"{len(frames)} pictures of an episode take over 2 GiB as PNG: make the feature a video"
        )
    pictures = pa.array(files, pa.binary())
    paths = pa.array([f"frame-{i:06d}.png" for i in range(len(frames))], pa.string())
    return pa.StructArray.from_arrays([pictures, paths], ["bytes", "path"])


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


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# --- statistics ------------------------------------------------------------------------------------


def array_stats(array: np.ndarray) -> Stats:
    """Statistics over the first axis of shape (N, *shape); each has `shape`, float64; count is (1,)."""
    values = array.astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def picture_stats(frames: np.ndarray, most: int = 32, pixels: int = 150) -> Stats:
    """Statistics of each channel over at most `most` frames of (T, h, w, 3); each is (3, 1, 1), in [0, 1].

    The count is of sampled frames; frames wider or higher than twice `pixels` are thinned.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    step = max(1, max(frames.shape[1:3]) // pixels)
    sample = np.ascontiguousarray(frames[chosen, ::step, ::step].reshape(-1, 3).T)
    counts = np.stack([np.bincount(channel, minlength=256) for channel in sample])
    share, level = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    below = np.cumsum(share, axis=1)
    mean = share @ level
    stats = {
        "min": level[(counts > 0).argmax(axis=1)],
        "max": level[255 - (counts[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt((share * (level - mean[:, None]) ** 2).sum(axis=1)),
        **{name: level[(below >= q - 1e-12).argmax(axis=1)] for name, q in QUANTILES.items()},
    }
    shaped = {name: value.reshape(3, 1, 1) for name, value in stats.items()}
    return shaped | {"count": np.array([len(chosen)])}


def combine_stats(parts: Sequence[Stats]) -> Stats:
    """Statistics of a union: exact but for the quantiles, which are means weighted by count."""
    count = np.array([float(p["count"][0]) for p in parts])
    weight = count / count.sum()

    def average(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.tensordot(weight, np.stack(values), axes=1)

    mean = average([p["mean"] for p in parts])
    return {
        "min": np.min([p["min"] for p in parts], axis=0),
        "max": np.max([p["max"] for p in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(average([p["std"] ** 2 + (p["mean"] - mean) ** 2 for p in parts])),
        "count": np.array([int(count.sum())]),
        **{name: average([p[name] for p in parts]) for name in QUANTILES},
    }
