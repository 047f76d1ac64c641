"""Laws of LeRobotDataset v3.0 written and read: what goes in comes out, and broken folders are refused."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vla.contract import TaktError
from vla.dataset import Dataset, Feature, Writer, merge
from vla.dataset_format import INDEX_FEATURES
from vla.dataset_media import decode_pngs, encode_png
from vla.dataset_stats import QUANTILES, STATISTICS, array_stats, combine_stats

STATE, CHUNK = "observation.state", "target"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
FEATURES = {
    STATE: Feature("float32", (3,), ["a", "b", "c"]),
    CHUNK: Feature("float32", (16, 6)),
    "count": Feature("int64", (1,)),
    "done": Feature("bool", (1,)),
    "note": Feature("string", (1,)),
}
PICTURES = {FRONT: Feature("image", (8, 10, 3)), WRIST: Feature("video", (32, 48, 3))}

Episode = tuple[str, dict[str, np.ndarray]]


def make_episode(seed: int, frames: int, task: str = "push") -> Episode:
    """An episode of FEATURES and PICTURES; the video's brightness tells the episode and the frame."""
    rng = np.random.default_rng(seed)
    level = (30 + 50 * (seed % 4) + 4 * np.arange(frames)).astype(np.uint8)
    columns: dict[str, np.ndarray] = {
        STATE: rng.normal(size=(frames, 3)).astype(np.float32),
        CHUNK: rng.normal(size=(frames, 16, 6)).astype(np.float32),
        "count": rng.integers(-5, 5, (frames, 1)),
        "done": rng.random((frames, 1)) < 0.5,
        "note": np.array([[f"n{seed}-{i}"] for i in range(frames)], dtype=object),
        FRONT: rng.integers(0, 256, (frames, 8, 10, 3), dtype=np.uint8),
        WRIST: np.broadcast_to(level[:, None, None, None], (frames, 32, 48, 3)).copy(),
    }
    return task, columns


def write(root: Path, episodes: list[Episode], features: dict[str, Feature], **options: Any) -> Dataset:
    with Writer(root, 10, features, "so101", **options) as out:
        for i, (task, columns) in enumerate(episodes):
            kept = {name: columns[name] for name in features}
            out.add_episode(task, kept, {"success": i % 2 == 0, "seed": i})
    return Dataset(root)


def joined(episodes: list[Episode], name: str) -> np.ndarray:
    return np.concatenate([columns[name] for _, columns in episodes])


EPISODES = [make_episode(0, 5), make_episode(1, 1, "lift"), make_episode(2, 9), make_episode(3, 4, "stack")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("data") / "set", EPISODES, FEATURES | PICTURES)


FLOATS = st.floats(-1e6, 1e6, width=32)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def small_episode(draw: st.DrawFn) -> Episode:
    frames = draw(st.integers(1, 5))
    columns = {
        STATE: draw(hnp.arrays(np.float32, (frames, 3), elements=FLOATS)),
        CHUNK: draw(hnp.arrays(np.float32, (frames, 16, 6), elements=FLOATS)),
        "count": draw(hnp.arrays(np.int64, (frames, 1))),
        "done": draw(hnp.arrays(np.bool_, (frames, 1))),
        "note": draw(hnp.arrays(object, (frames, 1), elements=STRINGS)),
        FRONT: draw(hnp.arrays(np.uint8, (frames, 8, 10, 3))),
    }
    return draw(STRINGS), columns


@settings(max_examples=15, deadline=None)
@given(st.lists(small_episode(), max_size=4), st.sampled_from([0, 100]), st.data())
def test_what_is_written_is_read(episodes: list[Episode], file_mb: int, data: st.DataObject) -> None:
    features = FEATURES | {FRONT: PICTURES[FRONT]}
    chosen = data.draw(st.lists(st.integers(0, len(episodes) - 1), min_size=1)) if episodes else []
    with tempfile.TemporaryDirectory() as folder:
        read = write(Path(folder) / "set", episodes, features, data_file_mb=file_mb)
        columns, pictures = read.columns(list(FEATURES), chosen), read.images(FRONT, chosen)
        tasks = read.task_of(chosen)
    assert len(read) == sum(len(columns[STATE]) for _, columns in episodes)
    if not chosen:
        return
    picked = [episodes[i] for i in chosen]
    for name in FEATURES:
        want = joined(picked, name)
        assert columns[name].dtype == want.dtype
        np.testing.assert_array_equal(columns[name], want)
    np.testing.assert_array_equal(pictures, joined(picked, FRONT))
    assert tasks == [task for task, columns in picked for _ in columns[STATE]]


def test_index_columns(written: Dataset) -> None:
    got = {n: a[:, 0] for n, a in written.columns(list(INDEX_FEATURES)).items()}
    lengths = [len(c[STATE]) for _, c in EPISODES]
    frame = np.concatenate([np.arange(n) for n in lengths])
    np.testing.assert_array_equal(got["index"], np.arange(sum(lengths)))
    np.testing.assert_array_equal(got["episode_index"], np.repeat(np.arange(4), lengths))
    np.testing.assert_array_equal(got["frame_index"], frame)
    np.testing.assert_array_equal(got["timestamp"], (frame / 10).astype(np.float32))
    assert [written.tasks[i] for i in got["task_index"]] == written.task_of()


def test_info_and_episode_table_agree(written: Dataset) -> None:
    info, ends = written.info, np.cumsum([len(c[STATE]) for _, c in EPISODES]).tolist()
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, ends[-1], 3)
    assert (info["codebase_version"], info["splits"], info["fps"]) == ("v3.0", {"train": "0:4"}, 10)
    assert [e["dataset_to_index"] for e in written.episodes] == ends
    assert [e["dataset_from_index"] for e in written.episodes] == [0, *ends[:-1]]
    assert [e["tasks"] for e in written.episodes] == [[task] for task, _ in EPISODES]
    assert [e["success"] for e in written.episodes] == [True, False, True, False]
    assert written.features == FEATURES | {n: Feature(f.dtype, f.shape, ["height", "width", "channels"])
                                           for n, f in PICTURES.items()} | INDEX_FEATURES  # fmt: skip


def test_files_carry_what_other_readers_look_for(written: Dataset) -> None:
    data = pq.ParquetFile(written.root / "data/chunk-000/file-000.parquet")
    hub = json.loads(data.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert data.num_row_groups == 4
    assert list(hub) == data.schema_arrow.names
    assert hub[CHUNK] == {"shape": [16, 6], "dtype": "float32", "_type": "Array2D"}
    assert hub[FRONT] == {"_type": "Image"}
    assert WRIST not in hub
    tasks = pq.read_schema(written.root / "meta/tasks.parquet")
    assert json.loads(tasks.metadata[b"pandas"])["index_columns"] == ["task"]
    assert not list(written.root.rglob("*.part"))


def test_a_frame_may_have_its_own_task(tmp_path: Path) -> None:
    state = {STATE: np.zeros((3, 3), np.float32)}
    with Writer(tmp_path, 10, {STATE: FEATURES[STATE]}, "so101") as out:
        out.add_episode(["b", "a", "b"], state)
        with pytest.raises(TaktError, match="one a frame"):
            out.add_episode(["b", "a"], state)
    read = Dataset(tmp_path)
    assert read.task_of() == ["b", "a", "b"]
    assert read.episodes[0]["tasks"] == ["b", "a"]


def test_video_keeps_frames_and_episode_boundaries(written: Dataset) -> None:
    for chosen in ([0, 1, 2, 3], [2], [3, 0], [1, 1]):
        frames = written.images(WRIST, chosen)
        want = joined([EPISODES[i] for i in chosen], WRIST)
        assert frames.shape == want.shape
        # A neighbouring frame differs by 4, an episode by 50.
        assert np.abs(frames.astype(int) - want).max() <= 3


def test_video_files_are_rolled_by_size(tmp_path: Path) -> None:
    read = write(tmp_path / "set", EPISODES, FEATURES | PICTURES, video_file_mb=0)
    assert [e[f"videos/{WRIST}/file_index"] for e in read.episodes] == [0, 1, 2, 3]
    assert np.abs(read.images(WRIST).astype(int) - joined(EPISODES, WRIST)).max() <= 3


def test_pictures_go_where_the_caller_says(written: Dataset) -> None:
    out = np.zeros((len(written), 8, 10, 3), np.uint8)
    assert written.images(FRONT, out=out) is out
    np.testing.assert_array_equal(out, joined(EPISODES, FRONT))
    with pytest.raises(TaktError, match=r"contiguous uint8 array of shape \(19, 8, 10, 3\)"):
        written.images(FRONT, out=out[:-1])


@settings(deadline=None, derandomize=True)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))), st.integers(0, 9))
def test_png_is_exact_for_us_and_for_others(frame: np.ndarray, level: int) -> None:
    ours = encode_png(frame)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(ours))), frame)
    other = io.BytesIO()
    Image.fromarray(frame).save(other, "PNG", compress_level=level)
    out = np.zeros((3, *frame.shape), np.uint8)
    decode_pngs([ours, other.getvalue(), ours], out)
    np.testing.assert_array_equal(out, np.stack([frame] * 3))


def assert_stats(stats: dict[str, Any], values: np.ndarray) -> None:
    """`stats` are numpy's over the first axis of `values`."""
    values = values.astype(np.float64)
    want = {n: getattr(np, n)(values, axis=0) for n in ("min", "max", "mean", "std")}
    want |= {n: np.quantile(values, q, axis=0) for n, q in QUANTILES.items()}
    assert stats["count"] == [len(values)]
    for name, value in want.items():
        np.testing.assert_allclose(np.array(stats[name]), value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_stats_are_numpys(written: Dataset) -> None:
    stats = json.loads((written.root / "meta/stats.json").read_text())
    episodes = written.episode_table().to_pylist()
    for name in (STATE, CHUNK, "count", "done"):
        assert_stats(stats[name], joined(EPISODES, name))
        for row, (_, columns) in zip(episodes, EPISODES, strict=True):
            assert_stats({key: row[f"stats/{name}/{key}"] for key in STATISTICS}, columns[name])
    assert "note" not in stats


def test_stats_of_pictures_are_of_each_channel_from_0_to_1(written: Dataset) -> None:
    stats = json.loads((written.root / "meta/stats.json").read_text())[FRONT]
    pixels = joined(EPISODES, FRONT).reshape(-1, 3) / 255
    for name in ("min", "max", "mean", "std"):  # no episode is long enough to be thinned, so these are exact
        want = getattr(np, name)(pixels, axis=0).reshape(3, 1, 1)
        np.testing.assert_allclose(np.array(stats[name]), want, atol=1e-9)
    for name, q in QUANTILES.items():
        np.testing.assert_allclose(np.ravel(stats[name]), np.quantile(pixels, q, axis=0), atol=0.05)
    assert stats["count"] == [19]


@settings(max_examples=50, deadline=None)
@given(st.lists(hnp.arrays(float, st.tuples(st.integers(1, 6), st.just(2)), elements=FLOATS), min_size=1))
def test_stats_combine(parts: list[np.ndarray]) -> None:
    both = combine_stats([array_stats(p) for p in parts])
    whole = array_stats(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(both[name], whole[name], rtol=1e-6, atol=1e-1)


def assert_same(got: Dataset, want: Dataset) -> None:
    """The same frames, episodes and statistics; files and the order of tasks may differ."""
    assert got.task_of() == want.task_of()
    assert sorted(got.tasks) == sorted(want.tasks)
    names = [n for n, f in want.features.items() if not f.visual and n != "task_index"]
    a, b = got.columns(names), want.columns(names)
    for name in names:
        np.testing.assert_array_equal(a[name], b[name])
    for name in PICTURES:
        np.testing.assert_array_equal(got.images(name), want.images(name))
    keys = ("length", "tasks", "success", "dataset_from_index", "dataset_to_index")
    assert [[e[k] for k in keys] for e in got.episodes] == [[e[k] for k in keys] for e in want.episodes]
    assert {k: v for k, v in got.info.items() if k != "features"} == {
        k: v for k, v in want.info.items() if k != "features"
    }
    one, two = (json.loads((d.root / "meta/stats.json").read_text()) for d in (got, want))
    for name in one:
        for key in STATISTICS:
            np.testing.assert_allclose(one[name][key], two[name][key], atol=1e-9)


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (1, 0, 3)])
def test_merged_is_the_concatenation(written: Dataset, tmp_path: Path, sizes: tuple[int, ...]) -> None:
    ends = np.cumsum(sizes)
    for i, (end, n) in enumerate(zip(ends, sizes, strict=True)):
        with Writer(tmp_path / str(i), 10, FEATURES | PICTURES, "so101") as out:
            for j in range(end - n, end):
                out.add_episode(*EPISODES[j], {"success": j % 2 == 0, "seed": j})
    merge([tmp_path / str(i) for i in range(len(sizes))], tmp_path / "all")
    assert_same(Dataset(tmp_path / "all"), written)


def test_appended_is_the_concatenation(written: Dataset, tmp_path: Path) -> None:
    for half in (EPISODES[:2], EPISODES[2:]):  # both begin with a success, as the whole does
        write(tmp_path / "set", half, FEATURES | PICTURES, append=True)
    assert_same(Dataset(tmp_path / "set"), written)


def test_an_exception_keeps_the_episodes_before_it(tmp_path: Path) -> None:
    def fail() -> None:
        with Writer(tmp_path, 10, FEATURES | PICTURES, "so101") as out:
            out.add_episode(*EPISODES[0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    np.testing.assert_array_equal(Dataset(tmp_path).images(FRONT), EPISODES[0][1][FRONT])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({STATE: None}, "needs the columns"),
        ({"extra": np.zeros(5)}, "needs the columns"),
        ({STATE: np.zeros((5, 4))}, r"'observation.state' has shape \(5, 4\), needs \(T, 3\)"),
        ({STATE: np.zeros((4, 3))}, "differ in length"),
        ({STATE: np.full((5, 3), np.nan)}, "not finite"),
        ({STATE: np.full((5, 3), 1e300)}, "not finite"),
        ({"count": np.zeros((5, 1))}, "'count' is float64, needs int64"),
        ({FRONT: np.zeros((5, 8, 10, 3))}, "is float64, needs uint8"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_wrong_episode_is_refused_whole(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    wrong = {name: a for name, a in (EPISODES[0][1] | change).items() if a is not None}
    with Writer(tmp_path, 10, FEATURES | PICTURES, "so101") as out:
        with pytest.raises(TaktError, match=says):
            out.add_episode("push", wrong)
        out.add_episode(*EPISODES[0])
    read = Dataset(tmp_path)
    assert len(read) == 5
    assert np.abs(read.images(WRIST).astype(int) - EPISODES[0][1][WRIST]).max() <= 3


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ({}, "at least one feature"),
        ({"index": Feature("int64", (1,))}, "makes .* itself"),
        ({"a/b": Feature("int64", (1,))}, "'/'"),
        ({"a": Feature("complex64", (1,))}, "not one of float32"),
        ({"a": Feature("float32", ())}, r"a scalar is \(1,\)"),
        ({"a": Feature("string", (2,))}, "a string has shape"),
        ({"a": Feature("image", (8, 8))}, r"\(height, width, 3\)"),
        ({"a": Feature("image", (3, 8, 8))}, r"\(height, width, 3\)"),
        ({"a": Feature("video", (9, 8, 3))}, "even height and width"),
    ],
)
def test_features_without_a_place_are_refused(
    tmp_path: Path, features: dict[str, Feature], says: str
) -> None:
    with pytest.raises(TaktError, match=says):
        Writer(tmp_path, 10, features, "so101")


def test_extra_columns_stay_the_same(tmp_path: Path) -> None:
    with Writer(tmp_path, 10, FEATURES | PICTURES, "so101") as out:
        out.add_episode(*EPISODES[0], {"seed": np.int64(3)})  # type: ignore[dict-item]
        for extra in ({}, {"seed": 1.0}, {"seed": 1, "more": 2}, {"seed": [1]}, {"seed": 1, "length": 2}):
            with pytest.raises(TaktError, match="extra episode column"):
                out.add_episode(*EPISODES[0], extra)  # type: ignore[arg-type]
    assert [e["seed"] for e in Dataset(tmp_path).episodes] == [3]


def test_what_differs_is_not_mixed(written: Dataset, tmp_path: Path) -> None:
    other = {STATE: FEATURES[STATE]}
    write(tmp_path / "other", EPISODES[:1], other)
    with pytest.raises(TaktError, match="differs in features"):
        merge([written.root, tmp_path / "other"], tmp_path / "all")
    with pytest.raises(TaktError, match="differs in fps"):
        Writer(tmp_path / "other", 20, other, "so101", append=True)
    renamed = {STATE: Feature("float32", (3,), ["c", "b", "a"])}
    with pytest.raises(TaktError, match="differs in features"):
        Writer(tmp_path / "other", 10, renamed, "so101", append=True)
    with pytest.raises(TaktError, match="differs in robot_type"):
        Writer(tmp_path / "other", 10, other, "so100", append=True)
    with pytest.raises(TaktError, match="not empty"):
        Writer(tmp_path / "other", 10, other, "so101")
    with pytest.raises(TaktError, match="nothing to merge"):
        merge([], tmp_path / "none")


def _edit_info(**entries: Any) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        path = root / "meta/info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return edit


def _edit_features(root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][STATE]["shape"] = [4]
    (root / "meta/info.json").write_text(json.dumps(info))


def _drop_column(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns([STATE]), path)


def replaced(table: pa.Table, pictures: list[dict[str, Any]]) -> pa.Table:
    field = table.schema.field(FRONT)
    return table.set_column(table.schema.names.index(FRONT), field, pa.array(pictures, field.type))


def _spoil_picture(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    rows = [row | {"bytes": row["bytes"][:60]} for row in table[FRONT].to_pylist()]
    pq.write_table(replaced(table, rows), path)


def _drop_episode_column(root: Path) -> None:
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns([f"videos/{WRIST}/from_timestamp"]), path)


def _spoil(name: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        (root / name).write_bytes(b"not what it was")

    return spoil


def _remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def read_all(root: Path) -> None:
    read = Dataset(root)
    read.columns(list(FEATURES))
    read.task_of()
    for name in PICTURES:
        read.images(name)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_remove("meta/info.json"), "info.json is missing"),
        (_spoil("meta/info.json"), "info.json is not a LeRobotDataset's"),
        (_edit_info(codebase_version="v2.1"), "info.json: version 'v2.1'"),
        (_edit_info(features={"a": {}}), "info.json: missing or wrong entry"),
        (_edit_info(total_frames=3), "meta/info.json says 1 of 3"),
        (_remove("meta/tasks.parquet"), "tasks.parquet is missing"),
        (_spoil("meta/tasks.parquet"), "tasks.parquet is not readable"),
        (_remove("meta/episodes/chunk-000/file-000.parquet"), "meta/episodes lists 0 episodes"),
        (
            _drop_episode_column,
            "episodes lacks the columns .'videos/observation.images.wrist/from_timestamp'",
        ),
        (_spoil("meta/episodes/chunk-000/file-000.parquet"), "episodes.*file-000.parquet is not readable"),
        (_remove("data/chunk-000/file-000.parquet"), "data.*file-000.parquet is missing"),
        (_spoil("data/chunk-000/file-000.parquet"), "data.*file-000.parquet is not readable"),
        (_edit_features, r"'observation.state' has shape \(3,\), meta/info.json says \(4,\)"),
        (_drop_column, "file-000.parquet lacks the columns"),
        (_spoil_picture, "file-000.parquet: 'observation.images.front'.*not a readable picture"),
        (_remove(f"videos/{WRIST}/chunk-000/file-000.mp4"), "file-000.mp4: not a readable video"),
        (_spoil(f"videos/{WRIST}/chunk-000/file-000.mp4"), "file-000.mp4: not a readable video"),
    ],
)
def test_broken_folders_are_refused_in_one_line(
    tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    write(tmp_path / "set", EPISODES[:1], FEATURES | PICTURES)
    read_all(tmp_path / "set")
    harm(tmp_path / "set")
    with pytest.raises(TaktError, match=says) as refusal:
        read_all(tmp_path / "set")
    assert "\n" not in str(refusal.value)


def test_questions_it_cannot_answer_are_refused(written: Dataset) -> None:
    for question, says in (
        (lambda: written.columns(["nothing"]), "no feature 'nothing'; it has"),
        (lambda: written.columns([FRONT]), "are pictures"),
        (lambda: written.images(STATE), "not pictures"),
        (lambda: written.columns([STATE], [4]), r"episodes 0 to 3, asked for \[4\]"),
        (lambda: written.images(WRIST, [-1]), r"asked for \[-1\]"),
    ):
        with pytest.raises(TaktError, match=says):
            question()


def test_other_writers_data_is_read(written: Dataset, tmp_path: Path) -> None:
    """Row groups across episodes, an unnamed pandas index, grouped names, Pillow's PNG, no quantiles."""
    source = written.root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(source)

    def again(row: dict[str, Any]) -> dict[str, Any]:
        file = io.BytesIO()
        Image.open(io.BytesIO(row["bytes"])).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": "x.png"}

    table = replaced(table, [again(row) for row in table[FRONT].to_pylist()])
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    pq.write_table(table, tmp_path / "data/chunk-000/file-000.parquet", row_group_size=7)
    (tmp_path / "meta/episodes/chunk-000").mkdir(parents=True)
    episodes = written.episode_table().drop_columns([f"stats/{FRONT}/q50", f"stats/{CHUNK}/min"])
    pq.write_table(episodes, tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    tasks = pq.read_table(written.root / "meta/tasks.parquet")
    tasks = tasks.rename_columns(["task_index", "__index_level_0__"])
    pq.write_table(tasks, tmp_path / "meta/tasks.parquet")
    info = json.loads((written.root / "meta/info.json").read_text())
    info["features"][STATE]["names"] = {"motors": ["a", "b", "c"]}
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    read = Dataset(tmp_path)
    assert read.features[STATE] == FEATURES[STATE]
    assert read.task_of() == written.task_of()
    for chosen in (None, [2], [3, 1]):
        for name in FEATURES:
            got, want = (d.columns([name], chosen)[name] for d in (read, written))
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(read.images(FRONT, chosen), written.images(FRONT, chosen))
    shutil.copytree(written.root / "videos", tmp_path / "videos")
    merge([tmp_path], tmp_path / "merged")
    assert_same(Dataset(tmp_path / "merged"), written)


def test_channels_may_be_listed_first(written: Dataset, tmp_path: Path) -> None:
    shutil.copytree(written.root, tmp_path / "set")
    info = json.loads((written.root / "meta/info.json").read_text())
    info["features"][FRONT] |= {"shape": [3, 8, 10], "names": ["channels", "height", "width"]}
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    np.testing.assert_array_equal(Dataset(tmp_path / "set").images(FRONT), written.images(FRONT))
    merge([tmp_path / "set", written.root], tmp_path / "merged")
    assert Dataset(tmp_path / "merged").features == written.features
