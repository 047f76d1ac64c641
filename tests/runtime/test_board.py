"""A Jetson is told by its files: mode and clocks, and whether they are below what the board can do.

No board was at hand: the files are written here as those of an Orin with Jetson Linux 36.4 look.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import board

CONF = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_1 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}")


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    gpu, cpu = "sys/class/devfreq/17000000.gpu", "sys/devices/system/cpu/cpufreq/policy0"
    write(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic",
            "etc/nvpmodel.conf": CONF,
            "var/lib/nvpmodel/status": "pmode:0002",
            f"{gpu}/cur_freq": 1020000000,
            f"{gpu}/min_freq": 1020000000,
            f"{gpu}/max_freq": 1020000000,
            f"{gpu}/available_frequencies": "306000000 612000000 1020000000",
            f"{cpu}/scaling_cur_freq": 1728000,
            f"{cpu}/scaling_min_freq": 1728000,
            f"{cpu}/scaling_max_freq": 1728000,
            f"{cpu}/cpuinfo_max_freq": 1728000,
            "sys/class/devfreq/3210000.emc/cur_freq": 1,
        },
    )
    return tmp_path


def test_this_machine_is_told_as_it_is() -> None:
    rows = board.read()
    assert bool(rows) == Path("/etc/nv_tegra_release").exists()


def test_at_full_speed_nothing_is_below(jetson: Path) -> None:
    rows = {name: (said, below) for name, said, below in board.read(jetson)}
    assert set(rows) == {"board", "power mode", "clock of 17000000.gpu", "clock of CPU 0"}
    assert rows["board"][0].endswith("Developer Kit Super, Jetson Linux 36.4.4")
    assert rows["power mode"] == ("2, MAXN_SUPER", False)
    assert rows["clock of 17000000.gpu"] == ("1020 MHz, from 1020 to 1020 of 1020", False)
    assert not any(below for _, below in rows.values())


@pytest.mark.parametrize(("status", "said"), [("pmode:0000", "0, 15W"), ("pmode:0001 fmode:cool", "1, 25W")])
def test_a_lower_mode_names_the_fastest(status: str, said: str, jetson: Path) -> None:
    write(jetson, {"var/lib/nvpmodel/status": status})
    (row,) = (row for row in board.read(jetson) if row[0] == "power mode")
    assert row == ("power mode", f"{said}; the fastest is MAXN_SUPER (nvpmodel -m 2)", True)


def test_a_clock_that_may_fall_or_is_held_down_is_told(jetson: Path) -> None:
    gpu = "sys/class/devfreq/17000000.gpu"
    write(jetson, {f"{gpu}/min_freq": 306000000, f"{gpu}/cur_freq": 306000000})
    falls = next(row for row in board.read(jetson) if row[0] == "clock of 17000000.gpu")
    assert falls[2]
    assert "306 MHz" in falls[1]
    assert "jetson_clocks" in falls[1]
    write(jetson, {f"{gpu}/min_freq": 612000000, f"{gpu}/max_freq": 612000000})
    held = next(row for row in board.read(jetson) if row[0] == "clock of 17000000.gpu")
    assert held[2]
    assert held[1].endswith("of 1020")


@pytest.mark.parametrize("text", ["", "nonsense", "pmode:", "\xff"])
def test_files_that_say_nothing_are_no_error(text: str, jetson: Path) -> None:
    for file in [f for f in jetson.rglob("*") if f.is_file() and "device-tree" not in str(f)]:
        file.write_text(text)
    rows = board.read(jetson)
    assert rows[0][1].endswith("Developer Kit Super")
    assert all(isinstance(said, str) and said and "\n" not in said for _, said, _ in rows)


def test_elsewhere_there_is_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5\0"})
    assert board.read(tmp_path) == []
