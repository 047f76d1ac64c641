"""`takt doctor`: each check answers on a machine that lacks what it looks for."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from runtime import doctor, doctor_engines
from runtime.doctor import Row


def test_every_check_answers_and_none_needs_torch(tmp_path: Path) -> None:
    code = "import sys; from vla.__main__ import main; main(); sys.exit('torch' in sys.modules)"
    report = tmp_path / "doctor.json"
    done = subprocess.run([sys.executable, "-c", code, "doctor", "--json", str(report)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    rows = [Row(**row) for row in json.loads(report.read_text())["checks"]]
    assert {row.status for row in rows} <= {"ok", "warn", "fail"}
    assert all(row.name and row.detail for row in rows)
    assert len({row.name for row in rows}) == len(rows)


def test_the_embedded_graph_is_run_by_the_cpu() -> None:
    pytest.importorskip("onnxruntime")
    (cpu,) = [row for row in doctor.onnx_runtime() if row.name.endswith("CPU")]
    assert (cpu.status, cpu.detail) == ("ok", "ran a graph")


@pytest.mark.parametrize(
    ("check", "module"),
    [(doctor.openvino, "openvino"), (doctor.tensorrt, "tensorrt"), (doctor.tensorrt_rtx, "tensorrt_rtx")],
)
def test_engines_run_a_graph_or_say_why_not(check: Callable[[], list[Row]], module: str) -> None:
    pytest.importorskip(module)
    (row,) = check()
    assert row.status in ("ok", "warn")
    assert re.search(r"ran a graph|built an engine and ran it|builds an engine; no NVIDIA GPU", row.detail)


def test_the_shipped_bundle_is_run_by_what_is_installed() -> None:
    rows = {row.name: row for row in doctor.chunks()}
    assert rows["engine onnx"].status == "ok"
    assert "ms for a chunk" in rows["engine onnx"].detail
    if importlib.util.find_spec("openvino"):
        assert rows["engine openvino"].status == "ok"


def test_the_board_is_what_its_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("board", "NVIDIA Jetson AGX Orin", False), ("power mode", "0, 15W", True)]
    monkeypatch.setattr(doctor_engines, "read_board", lambda: rows)
    assert doctor.board() == [Row("board", "ok", rows[0][1]), Row("power mode", "warn", rows[1][1])]


def test_a_provider_that_falls_back_to_the_cpu_is_told() -> None:
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    ort = SimpleNamespace(
        __version__="1", SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: session
    )
    row = doctor.run_provider(ort, "CUDAExecutionProvider")
    assert row.status == "warn"
    assert "does not start" in row.detail


@pytest.mark.parametrize(
    ("check", "module", "status", "extra"),
    [
        (doctor.onnx_runtime, "onnxruntime", "fail", "[cpu]"),
        (doctor.tensorrt, "tensorrt", "warn", "[tensorrt]"),
    ],
)
def test_a_missing_engine_names_its_extra(
    check: object, module: str, status: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (row,) = check()  # type: ignore[operator]
    assert row.status == status
    assert extra in row.detail


def test_without_mujoco_the_simulation_is_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.rendering() == [Row("MuJoCo", "fail", "not installed: pip install 'takt-vla[sim]'")]


@pytest.mark.parametrize(("working", "status"), [(("osmesa",), "ok"), ((), "fail")])
def test_one_gl_platform_is_enough(
    working: tuple[str, ...], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(
        doctor,
        "in_child",
        lambda code, environment: (0, "1.0") if environment["MUJOCO_GL"] in working else (1, "no driver"),
    )
    rows = doctor.rendering()
    assert {row.status for row in rows} == {status}
    assert len(rows) == (len(working) or 2)


def test_a_child_that_dies_is_reported_and_not_followed() -> None:
    status, said = doctor.in_child("import os; os.abort()")
    assert status < 0
    assert said == "killed by signal 6"
    assert doctor.in_child("raise ValueError('no')") == (1, "ValueError: no")
    assert doctor.in_child("print(3)") == (0, "3")


def test_an_altered_bundle_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "files", lambda package: tmp_path)
    assert "missing" in doctor.shipped_bundle()[0].detail
    nano = tmp_path / "bundles" / "nano"
    nano.mkdir(parents=True)
    (nano / "manifest.json").write_text('{"sha256": {"policy.json": "00"}}')
    (nano / "policy.json").write_text("{}")
    (row,) = doctor.shipped_bundle()
    assert row.status == "fail"
    assert "policy.json" in row.detail


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_a_failure_changes_the_exit_status(
    status: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [Row("one", status, "detail")],))
    monkeypatch.setattr(doctor, "bodies", lambda cameras: [])
    report = tmp_path / "doctor.json"
    assert doctor.Command(json=report).run() == code
    assert json.loads(report.read_text()) == {
        "ok": code == 0,
        "checks": [{"name": "one", "status": status, "detail": "detail"}],
    }


def test_an_extra_in_brackets_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=200).print(doctor.table([Row("one", "warn", "pip install 'takt-vla[cpu]'")]))
    assert "takt-vla[cpu]" in capsys.readouterr().out
