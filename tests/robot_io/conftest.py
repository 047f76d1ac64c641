"""An emulated arm for each test, and the bus to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from robot_io.bodies import BODIES
from robot_io.bus import Bus
from robot_io.emulator import Emulator
from robot_io.port import Port

PATIENCE = 0.25  # s; a busy machine may keep the emulator from answering for that long


class Shared:
    """One process for many tests; a new one after a test that ended it."""

    def __init__(self, robot: str) -> None:
        self._robot, self._stack = robot, ExitStack()
        self._emulator: Emulator | None = None

    def get(self) -> Emulator:
        """As at the beginning."""
        if self._emulator is None:
            self._emulator = self._stack.enter_context(Emulator(seed=3, robot=self._robot))
        self._emulator.order(renew=True)
        return self._emulator

    def put_back(self) -> None:
        if self._emulator is not None and self._emulator.unplugged:
            self.close()

    def close(self) -> None:
        self._stack.close()
        self._emulator = None


@pytest.fixture(scope="session")
def shared() -> Iterator[dict[str, Shared]]:
    made = {name: Shared(name) for name in BODIES}
    yield made
    for each in made.values():
        each.close()


@pytest.fixture
def robot() -> str:
    """Which arm it is; files whose tests are of every arm have a fixture of their own with this name."""
    return "so101"


@pytest.fixture
def arm(shared: dict[str, Shared], robot: str) -> Iterator[Emulator]:
    yield shared[robot].get()
    shared[robot].put_back()


@pytest.fixture
def bus(arm: Emulator) -> Iterator[Bus]:
    port = Port(arm.port)
    try:
        yield Bus(port, PATIENCE, arm.body.family)
    finally:
        port.close()
