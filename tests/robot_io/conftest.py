"""An emulated arm for each test, and the bus to it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from robot_io.bus import Bus
from robot_io.emulator import Emulator
from robot_io.port import Port

PATIENCE = 0.25  # s; a busy machine may keep the emulator from answering for that long


@pytest.fixture
def arm() -> Iterator[Emulator]:
    with (
        tempfile.TemporaryDirectory(prefix="takt-test-") as folder,
        Emulator(Path(folder), seed=3) as emulator,
    ):
        yield emulator


@pytest.fixture
def bus(arm: Emulator) -> Iterator[Bus]:
    port = Port(arm.port)
    try:
        yield Bus(port, PATIENCE)
    finally:
        port.close()
