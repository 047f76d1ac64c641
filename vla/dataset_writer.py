"""The writer of LeRobotDataset v3.0: `Writer`, episode by episode, and `merge`, of what several wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla import atomic
from vla import dataset_format as form
from vla.contract import TaktError
from vla.dataset_arrow import as_feature, data_schema, from_arrow, to_arrow
from vla.dataset_format import INDEX_FEATURES, Feature
from vla.dataset_media import VideoFiles
from vla.dataset_reader import Dataset
from vla.dataset_stats import STATISTICS, Stats, array_stats, combine_stats, picture_stats

BODY = Path("meta/takt.json")  # what the actions are (vla/dataset_body.py)
Extra = Mapping[str, float | int | bool | str]

# Rows of the episode table kept in memory before they are written.
_EPISODES_A_FLUSH = 100
_EXTRA_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


class Writer:
    """Writes episodes one at a time; nothing but the current one is kept in memory.

    A context manager. `meta/info.json` is written last, by `close`: a folder that has it is complete, and
    leaving the `with` block by an exception keeps the episodes added so far.
    """

    def __init__(
        self,
        root: Path,
        fps: int,
        features: Mapping[str, Feature],
        robot_type: str,
        video_crf: int = 18,
        append: bool = False,
        data_file_mb: int = 100,
        video_file_mb: int = 200,
    ) -> None:
        """
        Args:
            fps: frames a second, the same for every feature.
            video_crf: H.264 quality of "video" features; 18 is visually lossless, higher is smaller.
            append: continue the data set at `root`, if there is one, in new files.
            data_file_mb, video_file_mb: a file that has grown past this is closed and the next one begun.

        Raises:
            TaktError: a folder that is not empty (or, to append, differs), or a feature with no place.
        """
        self.root, self.fps, self.features = Path(root), int(fps), form.user_features(features)
        self.robot_type = robot_type
        self._limits = (data_file_mb, video_file_mb)
        self._tasks: dict[str, int] = {}
        self._episodes = self._frames = 0
        self._rows: list[dict[str, Any]] = []
        self._extra: dict[str, pa.DataType] | None = None
        self._table: form.ParquetFiles | None = None
        first = {"data": 0, "episodes": 0, **dict.fromkeys(self._video_names(), 0)}
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            if not append:
                raise TaktError(f"{self.root} exists and is not empty: name a new folder, or append to it")
            first = self._resume()
        self._first_table = first.pop("episodes")
        schema = data_schema(self.features | INDEX_FEATURES)
        self._data = form.ParquetFiles(self.root / "data", schema, first.pop("data"), data_file_mb << 20)
        self._videos = {
            name: VideoFiles(
                self.root / f"videos/{name}",
                self.features[name],
                self.fps,
                video_crf,
                number,
                video_file_mb << 20,
            )
            for name, number in first.items()
        }
        (self.root / "meta").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def add_episode(
        self, task: str | Sequence[str], columns: Mapping[str, np.ndarray], extra: Extra | None = None
    ) -> None:
        """Append one episode of T frames.

        Args:
            task: the instruction, or T of them, one a frame.
            columns: an array of shape (T, *feature.shape) for every feature ((T,) will do for shape (1,));
                pictures are uint8 RGB (T, h, w, 3).
            extra: further columns of the episode table (success, seed, ...), the same ones every time.

        Raises:
            TaktError: a column missing, unknown, of another shape or kind, or not finite; nothing is written.
        """
        arrays = self._checked(columns)
        frames = len(next(iter(arrays.values())))
        tasks = [task] * frames if isinstance(task, str) else list(task)
        if len(tasks) != frames or not frames:
            raise TaktError(f"{frames} frames came with {len(tasks)} instructions: give one a frame")
        row: dict[str, Any] = {
            n: v.item() if isinstance(v, np.generic) else v for n, v in (extra or {}).items()
        }
        self._check_extra(row)
        for name, video in self._videos.items():
            row |= form.video_row(name, *video.write(arrays[name]))
        for name, f in self.features.items():
            if f.dtype != "string":
                stats = picture_stats(arrays[name]) if f.visual else array_stats(arrays[name])
                row |= form.stats_row(name, stats)
        stored = {n: to_arrow(a, self.features[n]) for n, a in arrays.items() if n not in self._videos}
        self._commit(stored, tasks, row)

    def copy(self, source: Dataset) -> None:
        """Append every episode of a data set with the same features, pictures and videos as they are.

        Raises:
            TaktError: other features, another rate or robot, or other extra columns.
        """
        _check_same(source, self.fps, self.features, self.robot_type)
        stored = [name for name in self.features if name not in self._videos]
        table, moved = source.episode_table(), dict[Path, int]()
        for i, tasks in enumerate(_episode_tasks(source)):
            old = table.slice(i, 1).to_pylist()[0]
            row = {name: old[name] for name in form.extra_types(table.schema)}
            self._check_extra(row)
            for name, video in self._videos.items():
                path = source.video_file(name, old)
                if path not in moved:
                    moved[path] = video.copy(path)
                times = (old[f"videos/{name}/{end}_timestamp"] for end in ("from", "to"))
                row |= form.video_row(name, moved[path], *times)
            frames = source.read_episode(i, stored)
            for name, f in self.features.items():
                if f.visual:
                    row |= form.stats_row(name, _episode_picture_stats(source, name, i, old))
                elif f.dtype != "string":
                    array = from_arrow(frames[name], name, f, source.root)
                    row |= form.stats_row(name, array_stats(array))
            self._commit({name: frames[name] for name in stored}, tasks, row)

    def close(self) -> None:
        """Complete every file; the data set is readable afterwards. A second call does nothing."""
        if self._first_table < 0:
            return
        self._flush()
        self._data.close()
        for video in self._videos.values():
            video.close()
        if self._table:
            self._table.close()
        self._first_table = -1
        pq.write_table(form.tasks_table(self._tasks), self.root / "meta/tasks.parquet")
        info = self._info()
        atomic.write_json(self.root / "meta/stats.json", _global_stats(Dataset(self.root, info)), indent=4)
        atomic.write_json(self.root / "meta/info.json", info, indent=4)

    def _video_names(self) -> list[str]:
        return [name for name, f in self.features.items() if f.dtype == "video"]

    def _resume(self) -> dict[str, int]:
        """Take over what `root` holds; returns the number of the next file of each kind."""
        old = Dataset(self.root)
        _check_same(old, self.fps, self.features, self.robot_type)
        self._tasks = {task: i for i, task in enumerate(old.tasks)}
        self._episodes, self._frames = len(old.episodes), len(old)
        if old.episodes:
            self._extra = form.extra_types(old.episode_table().schema)

        def next_file(prefix: str) -> int:
            used = [
                e[f"{prefix}chunk_index"] * form.FILES_A_CHUNK + e[f"{prefix}file_index"]
                for e in old.episodes
            ]
            return 1 + max(used, default=-1)

        first = {"data": next_file("data/"), "episodes": next_file("meta/episodes/")}
        return first | {name: next_file(f"videos/{name}/") for name in self._video_names()}

    def _checked(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The columns in the features' order, dtype and shape (T, *shape)."""
        if set(columns) != set(self.features):
            raise TaktError(f"an episode needs the columns {sorted(self.features)}, got {sorted(columns)}")
        arrays = {name: as_feature(name, f, np.asarray(columns[name])) for name, f in self.features.items()}
        if len({len(a) for a in arrays.values()}) > 1:
            lengths = {name: len(array) for name, array in arrays.items()}
            raise TaktError(f"an episode's columns differ in length: {lengths}")
        return arrays

    def _check_extra(self, extra: Extra) -> None:
        types = {name: _EXTRA_TYPES.get(type(value)) for name, value in extra.items()}
        for name, value in extra.items():
            if types[name] is None or "/" in name or name in form.EPISODE_COLUMNS:
                raise TaktError(
                    f"extra episode column {name!r} = {value!r} needs to be a float, int, bool or str, "
                    "and to have a name that is not the format's own"
                )
        if self._extra is None:
            self._extra = types
        if types != self._extra:
            raise TaktError(f"extra episode columns are {_words(self._extra)}, got {_words(types)}")

    def _commit(self, stored: Mapping[str, Any], tasks: Sequence[str], row: dict[str, Any]) -> None:
        """Append an episode: its columns, already Arrow, the index columns, its row of the episode table."""
        frames, schema = len(tasks), data_schema(self.features | INDEX_FEATURES)
        for task in tasks:
            self._tasks.setdefault(task, len(self._tasks))
        index = self._index_columns([self._tasks[task] for task in tasks])
        arrow = dict(stored) | {name: to_arrow(a, INDEX_FEATURES[name]) for name, a in index.items()}
        file = self._data.write(pa.table([arrow[name] for name in schema.names], schema=schema))
        for name, array in index.items():
            row |= form.stats_row(name, array_stats(array))
        row |= dict(zip(("data/chunk_index", "data/file_index"), form.place(file), strict=True))
        row |= {"episode_index": self._episodes, "tasks": list(dict.fromkeys(tasks)), "length": frames}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + frames}
        self._rows.append(row)
        self._episodes, self._frames = self._episodes + 1, self._frames + frames
        if len(self._rows) >= _EPISODES_A_FLUSH:
            self._flush()

    def _index_columns(self, tasks: Sequence[int]) -> dict[str, np.ndarray]:
        """The columns of INDEX_FEATURES for the next episode, each of shape (T, 1)."""
        frames = np.arange(len(tasks))
        columns: dict[str, np.ndarray] = {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(len(tasks), self._episodes),
            "index": self._frames + frames,
            "task_index": np.array(tasks),
        }
        return {name: column[:, None] for name, column in columns.items()}

    def _flush(self) -> None:
        """Write the collected rows of the episode table."""
        if not self._rows:
            return
        if self._table is None:
            schema = form.episode_schema(self.features | INDEX_FEATURES, self._extra or {})
            limit = self._limits[0] << 20
            self._table = form.ParquetFiles(self.root / "meta/episodes", schema, self._first_table, limit)
        at = dict(zip(("chunk_index", "file_index"), form.place(self._table.number), strict=True))
        rows = [row | {f"meta/episodes/{name}": i for name, i in at.items()} for row in self._rows]
        self._table.write(pa.Table.from_pylist(rows, schema=self._table.schema))
        self._rows = []

    def _info(self) -> dict[str, Any]:
        video_path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        return {
            "codebase_version": form.VERSION,
            "robot_type": self.robot_type,
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": form.FILES_A_CHUNK,
            "data_files_size_in_mb": self._limits[0],
            "video_files_size_in_mb": self._limits[1],
            "fps": self.fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": video_path if self._videos else None,
            "features": {n: f.to_json(self.fps) for n, f in (self.features | INDEX_FEATURES).items()},
        }


def merge(sources: Sequence[Path], out: Path) -> None:
    """Concatenate data sets, as shards that several workers wrote, into a new one at `out`.

    Episodes, frames and tasks are numbered anew; pictures and videos are copied, never encoded again.

    Raises:
        TaktError: the sources differ in features, rate or robot, or `out` is not empty.
    """
    shards = [Dataset(path) for path in sources]
    if not shards:
        raise TaktError("nothing to merge: name at least one data set")
    first = shards[0]
    features = {
        name: Feature(f.dtype, f.frame_shape) if f.visual else f
        for name, f in first.features.items()
        if name not in INDEX_FEATURES
    }
    for shard in shards:
        _check_same(shard, first.fps, features, first.robot_type)
    with Writer(out, first.fps, features, first.robot_type) as writer:
        for shard in shards:
            writer.copy(shard)
    said = {(shard.root / BODY).read_text() for shard in shards if (shard.root / BODY).is_file()}
    if len(said) == 1:
        (out / BODY).write_text(said.pop())


def _episode_tasks(data: Dataset) -> Iterator[list[str]]:
    """Each episode's instructions, one a frame."""
    tasks = data.task_of()
    for e in data.episodes:
        yield tasks[e["dataset_from_index"] : e["dataset_to_index"]]


def _episode_picture_stats(data: Dataset, name: str, episode: int, row: Mapping[str, Any]) -> Stats:
    """From the episode's row, or, where another writer left some out, from the pictures."""
    values = {key: row.get(f"stats/{name}/{key}") for key in STATISTICS}
    if any(value is None for value in values.values()):
        return picture_stats(data.images(name, [episode]))
    return {key: np.array(value) for key, value in values.items()}


def _global_stats(data: Dataset) -> dict[str, dict[str, Any]]:
    """meta/stats.json: exact for numbers, which are read back a column at a time; combined for pictures."""
    if not data.episodes:
        return {}
    result = {}
    for name, feature in data.features.items():
        if feature.visual:
            wanted = {"episode_index", *(f"stats/{name}/{key}" for key in STATISTICS)}
            rows = data.episode_table(wanted.__contains__).to_pylist()
            stats = combine_stats(
                [_episode_picture_stats(data, name, row["episode_index"], row) for row in rows]
            )
        elif feature.dtype != "string":
            stats = array_stats(data.columns([name])[name])
        else:
            continue
        result[name] = {key: value.tolist() for key, value in stats.items()}
    return result


def _check_same(data: Dataset, fps: int, features: Mapping[str, Feature], robot_type: str) -> None:
    """Refuse to mix data sets of different rates, robots or features."""
    theirs, ours = (
        {
            name: (f.dtype, f.frame_shape) if f.visual else (f.dtype, f.shape, f.names)
            for name, f in each.items()
            if name not in INDEX_FEATURES
        }
        for each in (data.features, features)
    )
    for what, a, b in (
        ("fps", data.fps, fps),
        ("robot_type", data.robot_type, robot_type),
        ("features", theirs, ours),
    ):
        if a != b:
            raise TaktError(f"{data.root} differs in {what}: {a}, not {b}")


def _words(types: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in types.items()) or "none"
