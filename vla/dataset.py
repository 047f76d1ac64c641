"""LeRobotDataset v3.0, written and read: demonstrations as a folder of Parquet and video files.

    features = {"observation.state": Feature("float32", (6,)), "observation.images.front": ...}
    with Writer(root, fps=20, features=features, robot_type="so101") as out:
        out.add_episode("put the red cube in the blue bowl", {"observation.state": states, ...})
    data = Dataset(root)
    states = data.columns(["observation.state"])["observation.state"]    # (frames, 6)
    frames = data.images("observation.images.front")                     # (frames, h, w, 3)

The `timestamp` column is frame_index / fps, as the format wants it; keep measured times as a feature of
your own. The files' building blocks are in `vla.dataset_format`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla import dataset_format as form
from vla.contract import TaktError
from vla.dataset_format import INDEX_FEATURES, STATISTICS, Feature

__all__ = ["Dataset", "Feature", "Writer", "merge"]

VERSION = "v3.0"
Extra = Mapping[str, float | int | bool | str]

# Frames of a video decoded by one thread in one go.
_RUN_FRAMES = 1000
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
        self.root, self.fps, self.features = Path(root), int(fps), _user_features(features)
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
        schema = form.data_schema(self.features | INDEX_FEATURES)
        self._data = form.ParquetFiles(self.root / "data", schema, first.pop("data"), data_file_mb << 20)
        self._videos = {
            name: form.VideoFiles(
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
                stats = form.picture_stats(arrays[name]) if f.visual else form.array_stats(arrays[name])
                row |= _stats_row(name, stats)
        stored = {n: form.to_arrow(a, self.features[n]) for n, a in arrays.items() if n not in self._videos}
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
                    row |= _stats_row(name, _episode_picture_stats(source, name, i, old))
                elif f.dtype != "string":
                    array = form.from_arrow(frames[name], name, f, source.root)
                    row |= _stats_row(name, form.array_stats(array))
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
        form.write_json(self.root / "meta/stats.json", _global_stats(Dataset(self.root, info)))
        form.write_json(self.root / "meta/info.json", info)

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
        arrays = {
            name: form.as_feature(name, f, np.asarray(columns[name])) for name, f in self.features.items()
        }
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
        frames, schema = len(tasks), form.data_schema(self.features | INDEX_FEATURES)
        for task in tasks:
            self._tasks.setdefault(task, len(self._tasks))
        index = self._index_columns([self._tasks[task] for task in tasks])
        arrow = dict(stored) | {name: form.to_arrow(a, INDEX_FEATURES[name]) for name, a in index.items()}
        file = self._data.write(pa.table([arrow[name] for name in schema.names], schema=schema))
        for name, array in index.items():
            row |= _stats_row(name, form.array_stats(array))
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
            "codebase_version": VERSION,
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


@dataclass(frozen=True)
class _Piece:
    """Rows [first, first + rows) of a data file's row group are rows [at, at + rows) of the answer."""

    path: Path
    group: int
    first: int
    rows: int
    at: int


class Dataset:
    """A data set on disk. Opening it reads the metadata; frames are read when asked for.

    Attributes:
        info: meta/info.json.
        fps: frames a second.
        features: every feature, the index columns included.
        tasks: the instructions; `task_index` counts in this list.
        episodes: one dict an episode: episode_index, length, tasks, ..., and the extra columns.
    """

    def __init__(self, root: Path, info: dict[str, Any] | None = None) -> None:
        """
        Args:
            info: what meta/info.json will say, for a folder whose writer has not written it yet.

        Raises:
            TaktError: the folder is not a complete LeRobotDataset v3.x, or a file in it cannot be read.
        """
        self.root = Path(root)
        self.info = form.read_info(self.root) if info is None else info
        try:
            self.fps: int = self.info["fps"]
            self.robot_type: str = self.info["robot_type"] or ""
            self.features = {n: Feature.from_json(f).check(n) for n, f in self.info["features"].items()}
            count, frames = int(self.info["total_episodes"]), int(self.info["total_frames"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            path = self.root / "meta/info.json"
            raise TaktError(f"{path}: missing or wrong entry: {form.one_line(error)}") from None
        self.tasks = form.read_tasks(self.root / "meta/tasks.parquet")
        self.episodes = self._read_episodes(count)
        found = sum(e["length"] for e in self.episodes)
        if (len(self.episodes), found) != (count, frames):
            raise TaktError(
                f"{self.root / 'meta/episodes'} lists {len(self.episodes)} episodes of {found} frames, "
                f"meta/info.json says {count} of {frames}"
            )
        self._bounds: dict[Path, tuple[Any, np.ndarray]] = {}
        self._starts: dict[Path, int] = {}
        for e in self.episodes:
            self._starts.setdefault(self._data_file(e), e["dataset_from_index"])

    def __len__(self) -> int:
        return int(self.info["total_frames"])

    def columns(self, names: Sequence[str], episodes: Iterable[int] | None = None) -> dict[str, np.ndarray]:
        """Features as arrays of shape (N, *feature.shape), so (N, 1) for a scalar; strings as objects.

        Args:
            episodes: their indices, in the order wanted; None for all of them.

        Raises:
            TaktError: an unknown name, a picture, or a file that does not hold what the metadata promises.
        """
        features = {name: self._feature(name) for name in names}
        if any(f.visual for f in features.values()):
            raise TaktError(
                f"{[n for n, f in features.items() if f.visual]} are pictures: read them with images()"
            )
        pieces = self._pieces(self._chosen(episodes))
        total = sum(p.rows for p in pieces)
        kinds = {name: object if f.dtype == "string" else f.dtype for name, f in features.items()}
        out = {name: np.empty((total, *f.shape), kinds[name]) for name, f in features.items()}

        def fill(piece: _Piece) -> None:
            table = self._read(piece, list(names))
            for name, f in features.items():
                out[name][piece.at : piece.at + piece.rows] = form.from_arrow(
                    table[name], name, f, piece.path
                )

        _each(fill, pieces)
        return out

    def images(
        self, name: str, episodes: Iterable[int] | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Every frame of a camera, shape (N, h, w, 3), uint8 RGB, decoded by all cores.

        Args:
            episodes: their indices, in the order wanted; None for all of them.
            out: where to put the frames (a memory map, say), of that shape; None for a new array.

        Raises:
            TaktError: `name` is no picture, `out` does not fit, or a frame is missing or cannot be decoded.
        """
        feature = self._feature(name)
        if not feature.visual:
            raise TaktError(f"{name!r} is {feature.dtype}, not pictures: read it with columns()")
        chosen = self._chosen(episodes)
        shape = (sum(self.episodes[i]["length"] for i in chosen), *feature.frame_shape)
        out = np.empty(shape, np.uint8) if out is None else out
        if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise TaktError(
                f"{name!r} needs a contiguous uint8 array of shape {shape}, got {out.dtype} {out.shape}"
            )
        if feature.dtype == "video":
            _each(lambda run: form.decode_video(*run), self._video_runs(name, chosen, out))
        else:
            _each(lambda piece: self._decode(piece, name, out), self._pieces(chosen))
        return out

    def task_of(self, episodes: Iterable[int] | None = None) -> list[str]:
        """The instruction of every frame, N of them."""
        index = self.columns(["task_index"], episodes)["task_index"][:, 0]
        if len(index) and not 0 <= index.min() <= index.max() < len(self.tasks):
            raise TaktError(
                f"{self.root}: task_index runs to {index.max()}, meta/tasks.parquet has {len(self.tasks)}"
            )
        return [self.tasks[i] for i in index]

    def episode_table(self, want: Callable[[str], bool] = lambda name: True) -> pa.Table:
        """meta/episodes: every column (the episodes' statistics too), or those whose name passes `want`."""
        folder = self.root / "meta/episodes"
        tables = [form.read_table(path, want) for path in sorted(folder.glob("*/*.parquet"))]
        try:
            return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
        except pa.ArrowException as error:
            raise TaktError(f"{folder}: files with different columns: {form.one_line(error)}") from None

    def video_file(self, name: str, episode: dict[str, Any]) -> Path:
        """Where the episode's frames of a "video" feature are."""
        chunk, file = episode[f"videos/{name}/chunk_index"], episode[f"videos/{name}/file_index"]
        template: str = self.info["video_path"]
        return self.root / template.format(video_key=name, chunk_index=chunk, file_index=file)

    def read_episode(self, index: int, names: Sequence[str]) -> pa.Table:
        """Columns of one episode as they are stored (pictures stay PNG)."""
        return pa.concat_tables([self._read(piece, names) for piece in self._pieces([index])])

    def _read_episodes(self, count: int) -> list[dict[str, Any]]:
        """The first `count` rows of meta/episodes without the statistics."""
        table = self.episode_table(lambda name: not name.startswith("stats/")).slice(0, count)
        videos = [name for name, f in self.features.items() if f.dtype == "video"]
        needed = {*form.EPISODE_COLUMNS, *(f"videos/{v}/{key}" for v in videos for key in form.VIDEO_COLUMNS)}
        missing = sorted(needed - set(table.schema.names))
        if missing and table.num_columns:
            raise TaktError(f"{self.root / 'meta/episodes'} lacks the columns {missing}")
        rows: list[dict[str, Any]] = table.to_pylist() if table.num_columns else []
        return rows

    def _data_file(self, episode: dict[str, Any]) -> Path:
        chunk, file = episode["data/chunk_index"], episode["data/file_index"]
        template: str = self.info["data_path"]
        return self.root / template.format(chunk_index=chunk, file_index=file)

    def _feature(self, name: str) -> Feature:
        if name not in self.features:
            raise TaktError(f"{self.root} has no feature {name!r}; it has {sorted(self.features)}")
        return self.features[name]

    def _chosen(self, episodes: Iterable[int] | None) -> list[int]:
        chosen = list(range(len(self.episodes)) if episodes is None else map(int, episodes))
        unknown = [i for i in chosen if not 0 <= i < len(self.episodes)]
        if unknown:
            raise TaktError(
                f"{self.root} has episodes 0 to {len(self.episodes) - 1}, asked for {unknown[:5]}"
            )
        return chosen

    def _pieces(self, episodes: Sequence[int]) -> list[_Piece]:
        """Where the episodes' rows are; neighbours in one row group become one piece."""
        pieces: list[_Piece] = []
        at = 0
        for e in (self.episodes[i] for i in episodes):
            path = self._data_file(e)
            _, bounds = self._open(path)
            row = e["dataset_from_index"] - self._starts[path]
            end = row + e["length"]
            if row < 0 or end > bounds[-1]:
                raise TaktError(f"{path} has {bounds[-1]} rows, episode {e['episode_index']} needs {end}")
            while row < end:
                group = int(np.searchsorted(bounds, row, "right")) - 1
                rows = int(min(end, bounds[group + 1])) - row
                first = row - int(bounds[group])
                last = pieces[-1] if pieces else None
                if last and (last.path, last.group, last.first + last.rows) == (path, group, first):
                    pieces[-1] = _Piece(path, group, last.first, last.rows + rows, last.at)
                else:
                    pieces.append(_Piece(path, group, first, rows, at))
                row, at = row + rows, at + rows
        return pieces

    def _open(self, path: Path) -> tuple[Any, np.ndarray]:
        """A data file's metadata and the row at which each row group begins, and the end."""
        if path not in self._bounds:
            meta = form.open_parquet(path).metadata
            sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            self._bounds[path] = meta, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        return self._bounds[path]

    def _read(self, piece: _Piece, names: Sequence[str]) -> pa.Table:
        file = form.open_parquet(piece.path, self._open(piece.path)[0])
        missing = sorted(set(names) - set(file.schema_arrow.names))
        if missing:
            raise TaktError(f"{piece.path} lacks the columns {missing}")
        try:
            table = file.read_row_group(piece.group, columns=list(names), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise TaktError(
                f"{piece.path}: row group {piece.group} is unreadable: {form.one_line(error)}"
            ) from None
        return table.slice(piece.first, piece.rows)

    def _decode(self, piece: _Piece, name: str, out: np.ndarray) -> None:
        column = self._read(piece, [name])[name].combine_chunks()
        if not pa.types.is_struct(column.type):
            raise TaktError(f"{piece.path}: {name!r} has type {column.type}, not pictures")
        files = [data or b"" for data in column.field("bytes").to_pylist()]
        try:
            form.decode_pngs(files, out[piece.at : piece.at + piece.rows])
        except TaktError as error:
            raise TaktError(f"{piece.path}: {name!r}, row group {piece.group}: {error}") from None

    def _video_runs(
        self, name: str, episodes: Sequence[int], out: np.ndarray
    ) -> list[tuple[Path, float, float, np.ndarray]]:
        """Arguments of `decode_video`; episodes that follow one another in a file share a run."""
        # file, first time in it [s], first and last row in `out`
        runs: list[tuple[Path, float, int, int]] = []
        at = 0
        for e in (self.episodes[i] for i in episodes):
            path, start, end = self.video_file(name, e), e[f"videos/{name}/from_timestamp"], at + e["length"]
            same = bool(runs) and runs[-1][0] == path and runs[-1][3] - runs[-1][2] < _RUN_FRAMES
            if same and abs(runs[-1][1] + (at - runs[-1][2]) / self.fps - start) < 0.25 / self.fps:
                runs[-1] = (path, runs[-1][1], runs[-1][2], end)
            else:
                runs.append((path, start, at, end))
            at = end
        return [(path, start, self.fps, out[first:last]) for path, start, first, last in runs]


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


def _episode_tasks(data: Dataset) -> Iterator[list[str]]:
    """Each episode's instructions, one a frame."""
    tasks = data.task_of()
    for e in data.episodes:
        yield tasks[e["dataset_from_index"] : e["dataset_to_index"]]


def _stats_row(name: str, stats: form.Stats) -> dict[str, Any]:
    return {f"stats/{name}/{key}": value.tolist() for key, value in stats.items()}


def _episode_picture_stats(data: Dataset, name: str, episode: int, row: Mapping[str, Any]) -> form.Stats:
    """From the episode's row, or, where another writer left some out, from the pictures."""
    values = {key: row.get(f"stats/{name}/{key}") for key in STATISTICS}
    if any(value is None for value in values.values()):
        return form.picture_stats(data.images(name, [episode]))
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
            stats = form.combine_stats(
                [_episode_picture_stats(data, name, row["episode_index"], row) for row in rows]
            )
        elif feature.dtype != "string":
            stats = form.array_stats(data.columns([name])[name])
        else:
            continue
        result[name] = {key: value.tolist() for key, value in stats.items()}
    return result


def _each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Do the work for every item, on all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(work, items):
            pass


def _user_features(features: Mapping[str, Feature]) -> dict[str, Feature]:
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
