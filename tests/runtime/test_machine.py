"""What numbers were measured on: one name may stand for several processors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime import machine as machines

INTEL = """processor\t: 0
model name\t: A Name
flags\t\t: fpu avx2 avx512_vnni amx_int8 avx2x

processor\t: 1
flags\t\t: avx512f
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(INTEL, ["avx2", "avx512_vnni", "amx_int8"]), (ARM, ["asimd", "asimddp", "i8mm"]), ("", [])],
)
def test_instructions_are_those_the_first_processor_lists(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machines, "CPUINFO", tmp_path / "cpuinfo")
    assert machines.instructions() == expected


def test_a_machine_without_that_file_still_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "CPUINFO", tmp_path / "none")
    found = machines.machine()
    assert found["processor"] and found["instructions"] == []
    assert json.loads(json.dumps(found)) == found
