"""A person's hands on an emulated arm: shafts that are moved while nobody drives them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from robot_io import calibration
from robot_io.calibration import Joint
from robot_io.emulator import REST, Emulator

BEAT = 0.015  # s between two pushes


def place(arm: Emulator, pose: np.ndarray) -> None:
    """Bring its shafts to a pose, shape (6,), rad."""
    steps = {}
    motors = calibration.read(arm.calibration, arm.body)
    for (joint, motor), angle in zip(motors.items(), pose, strict=True):
        said, offset = Joint.of(joint, motor, arm.body).steps(angle), motor.homing_offset
        steps[motor.id] = said + offset if not arm.body.family.turns else said - offset
        if motor.drive_mode and arm.body.family.turns:
            steps[motor.id] *= -1
    arm.hand(steps)


def swing(seconds: float) -> np.ndarray:
    """Where a hand that waves has the arm after so long, shape (6,), rad; within every limit of metal."""
    wave = 0.25 * np.sin(1.2 * seconds + np.arange(6)) * np.array([1, 1, 1, 1, 1, 0.5])
    return np.array(REST) + np.array([0, 0.15, -0.15, 0, 0, 0.4]) + wave


@contextmanager
def leading(arm: Emulator, where: Callable[[float], np.ndarray] = swing) -> Iterator[None]:
    """A hand that moves an arm for as long as this lasts."""
    over = threading.Event()

    def lead() -> None:
        begun = time.monotonic()
        while not over.wait(BEAT):
            place(arm, where(time.monotonic() - begun))

    place(arm, where(0.0))
    hand = threading.Thread(target=lead)
    hand.start()
    try:
        yield
    finally:
        over.set()
        hand.join()
