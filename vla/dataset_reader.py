"""The reader of LeRobotDataset v3.0: `Dataset`, a folder whose frames are read when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vla import dataset_format as form
from vla.contract import TaktError
from vla.dataset_arrow import from_arrow
from vla.dataset_format import Feature
from vla.dataset_media import decode_pngs, decode_video

# Frames of a video decoded by one thread in one go.
_RUN_FRAMES = 1000


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
                out[name][piece.at : piece.at + piece.rows] = from_arrow(table[name], name, f, piece.path)

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
            _each(lambda run: decode_video(*run), self._video_runs(name, chosen, out))
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
            decode_pngs(files, out[piece.at : piece.at + piece.rows])
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


def _each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Do the work for every item, on all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(work, items):
            pass
