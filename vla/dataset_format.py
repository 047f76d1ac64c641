"""The layout of LeRobotDataset v3.0: features, the tables and the JSON of meta/, paths, Parquet files.

`vla.dataset_reader` and `vla.dataset_writer` compose them. What the files hold is in `vla.dataset_arrow`
(columns), `vla.dataset_media` (PNG, H.264) and `vla.dataset_stats`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vla.contract import TaktError
from vla.dataset_stats import STATISTICS, Stats

VERSION = "v3.0"
FILES_A_CHUNK = 1000
NUMERIC = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")


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


def user_features(features: Mapping[str, Feature]) -> dict[str, Feature]:
    """The features to write, checked."""
    taken = sorted(set(features) & set(INDEX_FEATURES))
    if taken or not features:
        raise TaktError(
            f"the writer makes {taken} itself: leave them out" if taken else "name at least one feature"
        )
    for name, feature in features.items():
        feature.check(name)
        if feature.visual and feature.shape != feature.frame_shape:
            raise TaktError(
                f"feature {name!r}: pictures are written as (height, width, 3), not {feature.shape}"
            )
    return dict(features)


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


def stats_row(name: str, stats: Stats) -> dict[str, Any]:
    return {f"stats/{name}/{key}": value.tolist() for key, value in stats.items()}


# --- files -----------------------------------------------------------------------------------------


def place(number: int) -> tuple[int, int]:
    """(chunk index, file index) of the number-th file of a kind."""
    return divmod(number, FILES_A_CHUNK)


def chunk_path(folder: Path, number: int, suffix: str) -> Path:
    """Where the number-th file of a kind is."""
    chunk, file = place(number)
    return folder / f"chunk-{chunk:03d}/file-{file:03d}{suffix}"


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


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
