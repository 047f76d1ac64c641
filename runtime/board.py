"""A Jetson's power mode and clocks, read from files that anybody may read: no sudo, no tool of NVIDIA's.

    /proc/device-tree/model                     NVIDIA Jetson AGX Orin Developer Kit
    /etc/nv_tegra_release                       # R36 (release), REVISION: 4.4, ...
    /var/lib/nvpmodel/status                    pmode:0002              what `nvpmodel -q` shows
    /etc/nvpmodel.conf                          < POWER_MODEL ID=2 NAME=MAXN_SUPER >, and each mode's limits
    /sys/class/devfreq/17000000.gpu/            cur_freq, min_freq, max_freq, available_frequencies, Hz
    /sys/devices/system/cpu/cpufreq/policy0/    the same in kHz, as scaling_... and cpuinfo_max_freq

`jetson_clocks` raises the lowest frequency to the highest: that is how it is seen here.
"""

from __future__ import annotations

import re
from pathlib import Path

# Where GPUs stand in /sys/class/devfreq: Orin, Xavier, Thor.
_GPUS = re.compile(r"gpu|gv11b|ga10b|gpc")


def read(root: Path = Path("/")) -> list[tuple[str, str, bool]]:
    """(name, what is so, whether it is below what the board can do) of each; empty if it is no Jetson."""
    model = _text(root / "proc/device-tree/model").strip("\0 \n")
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    if "Jetson" not in model and release is None:
        return []
    linux = f", Jetson Linux {release[1]}.{release[2]}" if release else ""
    rows = [("board", (model or "a Jetson") + linux, False)]
    return [*rows, *_mode(root), *_gpus(root), *_processors(root)]


def _mode(root: Path) -> list[tuple[str, str, bool]]:
    found = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    names = dict(re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _text(root / "etc/nvpmodel.conf")))
    if found is None:
        hint = "not told by /var/lib/nvpmodel/status; ask nvpmodel -q"
        return [("power mode", hint, False)]
    number = str(int(found[1]))
    name = names.get(number, "of no name in /etc/nvpmodel.conf")
    most = [f"{other} (nvpmodel -m {i})" for i, other in names.items() if other.startswith("MAXN")]
    if name.startswith("MAXN") or not most:
        return [("power mode", f"{number}, {name}", False)]
    return [("power mode", f"{number}, {name}; the fastest is {' or '.join(most)}", True)]


def _gpus(root: Path) -> list[tuple[str, str, bool]]:
    rows = []
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if not _GPUS.search(folder.name):
            continue
        steps = [int(word) for word in _text(folder / "available_frequencies").split() if word.isdigit()]
        now, low, high = (_number(folder / f"{name}_freq") for name in ("cur", "min", "max"))
        rows.append(_clock(f"clock of {folder.name}", now, low, high, max(steps, default=high), 1e6))
    return rows


def _processors(root: Path) -> list[tuple[str, str, bool]]:
    rows = []
    for folder in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        names = ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
        now, low, high, most = (_number(folder / name) for name in names)
        rows.append(_clock(f"clock of CPU {folder.name.removeprefix('policy')}", now, low, high, most, 1e3))
    return rows


def _clock(name: str, now: int, low: int, high: int, most: int, unit: float) -> tuple[str, str, bool]:
    """`unit`: how many of the file's units are 1 MHz."""
    if not high:
        return (name, "not told", False)
    said = f"{now / unit:.0f} MHz, from {low / unit:.0f} to {high / unit:.0f} of {most / unit:.0f}"
    if low < high:
        return (name, f"{said}: it falls when idle, and the first chunk pays; jetson_clocks holds it", True)
    return (name, said, high < most)


def _number(file: Path) -> int:
    text = _text(file).strip()
    return int(text) if text.isdigit() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
