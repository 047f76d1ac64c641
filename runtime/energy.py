"""Joules, where a machine can tell them; where it cannot, there is no meter, and nobody writes a 0.

    Rapl     Intel and AMD processors: counters below /sys/class/powercap that wrap around
    Nvml     NVIDIA cards, Volta and newer: a counter of the driver (nvidia-ml-py)
    Rails    Jetson boards: INA3221 sensors below /sys/class/hwmon tell volts and amperes, which are summed
             up over time

All count what the whole machine, or card, or board takes, whoever it is for. Since 2020 Linux lets only root
read RAPL: `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` until the next start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

SYS = Path("/sys")
# s between two readings of sensors that tell watts. The INA3221 on Jetson boards averages for some ms.
PERIOD = 0.01


class Meter(Protocol):
    """
    Attributes:
        name: what is read, for the report.
    """

    name: str

    def joules(self) -> float:
        """Counted since the meter was made, J; to be called at least once between two wraps of a counter."""


class Rapl:
    """Processor packages and, where it is counted apart, memory (Linux, Documentation/power/powercap).

    /sys/class/powercap/intel-rapl:0/name               package-0
                                    /energy_uj          wraps to 0 above max_energy_range_uj
                       /intel-rapl:0:1/name             dram; "core" and "uncore" are parts of a package
    """

    def __init__(self, sys: Path = SYS) -> None:
        """Raises OSError or ValueError where nothing can be read."""
        self._zones: list[tuple[Path, int]] = []
        names = []
        # intel-rapl-mmio:* are the same packages again; psys holds all of it, on some machines only.
        for zone in sorted((sys / "class/powercap").glob("intel-rapl:*")):
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                self._zones.append((zone / "energy_uj", _number(zone / "max_energy_range_uj")))
                names.append(name)
        if not names:
            raise FileNotFoundError(f"no RAPL below {sys}")
        self.name = f"rapl ({', '.join(names)})"
        self._last = [_number(file) for file, _ in self._zones]
        self._total = 0  # uJ

    def joules(self) -> float:
        for i, (file, span) in enumerate(self._zones):
            now = _number(file)
            passed = now - self._last[i]
            # The counter takes span + 1 values, 0 included.
            self._total += passed if passed >= 0 else passed + span + 1
            self._last[i] = now
        return self._total * 1e-6


class Nvml:
    """NVIDIA cards, all of them together."""

    def __init__(self) -> None:
        """Raises ImportError, OSError or pynvml.NVMLError where there is no card that counts."""
        import pynvml as nvml

        nvml.nvmlInit()
        self._nvml: Any = nvml
        self._cards = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        if not self._cards:
            raise FileNotFoundError("no NVIDIA card")
        self.name = f"nvml ({len(self._cards)} card{'s' * (len(self._cards) > 1)})"
        self._begun = self._read()

    def joules(self) -> float:
        return (self._read() - self._begun) * 1e-3

    def _read(self) -> int:
        """mJ since the driver was loaded; 64 bits, which do not wrap."""
        return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(card) for card in self._cards)


class Rails:
    """The supply of a Jetson module, by the ina3221 driver's files (mV and mA; Linux, Documentation/hwmon).

    /sys/class/hwmon/hwmon3/name                           ina3221
                           /in1_label in1_input curr1_input    VDD_GPU_SOC 4968 1280

    VDD_IN is the whole module where a board has it (Orin NX and Nano); else the rails are summed (AGX Orin).
    """

    def __init__(self, sys: Path = SYS, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError or ValueError where nothing can be read."""
        rails: dict[str, tuple[Path, Path]] = {}
        for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
            if (chip / "name").read_text().strip() != "ina3221":
                continue
            for i in (1, 2, 3):
                label = chip / f"in{i}_label"
                pair = chip / f"in{i}_input", chip / f"curr{i}_input"
                if label.is_file() and all(file.is_file() for file in pair):
                    rails[label.read_text().strip()] = pair
        rails = {name: pair for name, pair in rails.items() if name not in ("", "NC")}
        if "VDD_IN" in rails:
            rails = {"VDD_IN": rails["VDD_IN"]}
        if not rails:
            raise FileNotFoundError(f"no ina3221 below {sys}")
        self.name = f"ina3221 ({', '.join(rails)})"
        self._files, self._clock = list(rails.values()), clock
        self._lock = threading.Lock()  # the sampler's thread and whoever asks
        self._then, self._watts, self._total = clock(), self.watts(), 0.0

    def watts(self) -> float:
        """What is taken now, W."""
        return sum(_number(volts) * _number(amperes) for volts, amperes in self._files) * 1e-6

    def joules(self) -> float:
        """By the trapezoid between every two calls: `meters` calls often enough."""
        with self._lock:
            now, watts = self._clock(), self.watts()
            self._total += (now - self._then) * (watts + self._watts) / 2
            self._then, self._watts = now, watts
            return self._total


def find(sys: Path = SYS) -> list[Meter]:
    """The meters that this machine has and lets us read.

    On a Jetson the rails feed processor and graphics alike; elsewhere processor and cards are apart.
    """
    rails = _made(lambda: Rails(sys))
    found = [rails] if rails else [_made(lambda: Rapl(sys)), _made(Nvml)]
    return [meter for meter in found if meter is not None]


@contextmanager
def meters(sys: Path = SYS) -> Iterator[list[Meter]]:
    """`find`, with a thread that reads often what has to be read often; it ends with the block."""
    found = find(sys)
    watched = [meter for meter in found if isinstance(meter, Rails)]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PERIOD):
            for meter in watched:
                meter.joules()

    thread = threading.Thread(target=watch, daemon=True)
    if watched:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        if watched:
            thread.join()


def _made(make: Callable[[], Meter]) -> Meter | None:
    """A meter, None where it cannot be had: no such hardware, no right to read it, no library."""
    try:
        return make()
    except (OSError, ValueError, ImportError):
        return None
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "pynvml":  # NVMLError, without importing it
            return None
        raise


def _number(file: Path) -> int:
    return int(file.read_text())
