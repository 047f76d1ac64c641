"""Meters read files laid out as the kernel lays them out; what is not there is absent."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import energy
from runtime.energy import Nvml, Rails, Rapl, find

LAW = settings(deadline=None, max_examples=40, derandomize=True)
SPAN = 262143328850  # uJ, of a desktop processor


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def rapl(root: Path, package: int = 0, dram: int | None = 0) -> Path:
    """A machine with one package, in /sys/class/powercap."""
    base = root / "class/powercap"
    write(base / "intel-rapl", enabled=1)
    write(base / "intel-rapl:0", name="package-0", energy_uj=package, max_energy_range_uj=SPAN)
    write(base / "intel-rapl:0:0", name="core", energy_uj=7, max_energy_range_uj=SPAN)
    write(base / "intel-rapl-mmio:0", name="package-0", energy_uj=package, max_energy_range_uj=SPAN)
    if dram is not None:
        write(base / "intel-rapl:0:1", name="dram", energy_uj=dram, max_energy_range_uj=65712999613)
    return root


def jetson(root: Path, *rails: tuple[str, int, int]) -> Path:
    """A board with one INA3221 and up to three rails: name, mV, mA. The other chip is a thermal one."""
    base = root / "class/hwmon"
    write(base / "hwmon0", name="tj_thermal", temp1_input=45000)
    files: dict[str, object] = {"name": "ina3221", "in7_label": "sum of shunt voltages", "in7_input": 12}
    for i, (label, volts, amperes) in enumerate(rails, 1):
        files |= {f"in{i}_label": label, f"in{i}_input": volts, f"curr{i}_input": amperes}
    write(base / "hwmon3", **files)
    return root


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without nvidia-ml-py, wherever this runs."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


# -- RAPL


@LAW
@given(start=st.integers(0, SPAN), steps=st.lists(st.integers(0, SPAN), max_size=8))
def test_what_was_taken_is_counted_across_wraps(
    start: int, steps: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = rapl(tmp_path_factory.mktemp("sys"), start, None)
    meter, at, taken = Rapl(root), start, 0
    for step in steps:
        taken += step
        at = (at + step) % (SPAN + 1)
        rapl(root, at, None)
        assert meter.joules() == pytest.approx(taken * 1e-6, abs=1e-5)
    assert meter.joules() == pytest.approx(taken * 1e-6, abs=1e-5)


def test_packages_and_memory_count_once_and_their_parts_not_at_all(tmp_path: Path) -> None:
    meter = Rapl(rapl(tmp_path, 1_000_000, 500_000))
    assert meter.name == "rapl (package-0, dram)"
    rapl(tmp_path, 4_000_000, 700_000)
    assert meter.joules() == pytest.approx(3.2)


# -- INA3221


def test_the_rails_of_an_agx_are_summed_over_time(tmp_path: Path) -> None:
    now = [10.0]
    rails = [("VDD_GPU_SOC", 5000, 1000), ("VDD_CPU_CV", 5000, 600), ("NC", 9000, 9000)]
    meter = Rails(jetson(tmp_path, *rails), lambda: now[0])
    assert meter.name == "ina3221 (VDD_GPU_SOC, VDD_CPU_CV)"
    assert meter.watts() == pytest.approx(8.0)
    now[0] = 12.0
    assert meter.joules() == pytest.approx(16.0)
    jetson(tmp_path, ("VDD_GPU_SOC", 5000, 3000), ("VDD_CPU_CV", 5000, 600))
    now[0] = 12.5  # it rose from 8 to 18 W in between
    assert meter.joules() == pytest.approx(16.0 + 0.5 * 13.0)
    assert meter.joules() == pytest.approx(16.0 + 0.5 * 13.0)


def test_a_rail_of_the_whole_module_is_not_added_to_its_parts(tmp_path: Path) -> None:
    meter = Rails(jetson(tmp_path, ("VDD_IN", 5000, 2000), ("VDD_SOC", 5000, 500)))
    assert (meter.name, meter.watts()) == ("ina3221 (VDD_IN)", pytest.approx(10.0))


def test_rails_are_read_while_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "PERIOD", 0.001)
    seen: list[int] = []
    joules = Rails.joules
    monkeypatch.setattr(Rails, "joules", lambda self: (seen.append(1), joules(self))[1])
    with energy.meters(jetson(tmp_path, ("VDD_IN", 5000, 2000))) as (meter,):
        assert isinstance(meter, Rails)
        while len(seen) < 5:
            pass
    count = len(seen)
    assert meter.joules() > 0
    assert len(seen) == count + 1  # the thread has ended


# -- NVML


class Card(ModuleType):
    """pynvml of two cards, by the names of its functions."""

    def __init__(self, *millijoules: int) -> None:
        super().__init__("pynvml")
        self.counters = list(millijoules)

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.counters)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return SimpleNamespace(index=index)

    def nvmlDeviceGetTotalEnergyConsumption(self, card: Any) -> int:
        return self.counters[card.index]


def test_cards_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Card(5_000_000, 1_000)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = Nvml()
    nvml.counters = [5_004_000, 3_500]
    assert (meter.name, meter.joules()) == ("nvml (2 cards)", pytest.approx(6.5))


def test_a_driver_that_refuses_is_no_meter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusal = type("NVMLError_NotSupported", (Exception,), {"__module__": "pynvml"})
    nvml = Card(1)

    def refuse(card: Any) -> int:
        raise refusal

    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert find(tmp_path) == []


# -- which there are


def test_nothing_there_is_no_meter(tmp_path: Path) -> None:
    assert find(tmp_path) == []
    write(tmp_path / "class/hwmon/hwmon0", name="k10temp")
    (tmp_path / "class/powercap").mkdir()
    assert find(tmp_path) == []
    with energy.meters(tmp_path) as found:
        assert found == []


def test_a_counter_that_may_not_be_read_is_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(tmp_path)
    read = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert find(tmp_path) == []


def test_processor_and_cards_count_apart_and_a_boards_rails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Card(0))
    rapl(tmp_path)
    assert [meter.name.split()[0] for meter in find(tmp_path)] == ["rapl", "nvml"]
    jetson(tmp_path, ("VDD_IN", 5000, 2000))
    assert [meter.name.split()[0] for meter in find(tmp_path)] == ["ina3221"]
