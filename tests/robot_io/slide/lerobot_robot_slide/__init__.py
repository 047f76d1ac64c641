"""A plugin for LeRobot: two joints in degrees and a base at a velocity, made of numbers; its log is a file.

Imported by LeRobot in its own environment, so it knows nothing of Takt.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import torchvision  # noqa: F401 (before LeRobot)

# isort: split
from lerobot.robots import Robot, RobotConfig

NAMES = ("shoulder.pos", "elbow.pos", "x.vel")


@RobotConfig.register_subclass("slide")
@dataclass
class SlideConfig(RobotConfig):
    log: str
    trouble: str = "/nonexistent"


class Slide(Robot):
    config_class, name = SlideConfig, "slide"
    is_calibrated, is_connected = True, False
    action_features = dict.fromkeys(NAMES, float)
    observation_features = {**action_features, "top": (48, 64, 3)}

    def __init__(self, config):
        super().__init__(config)
        self.config, self.goal, self.noise = config, [10.0, -20.0, 0.0], np.random.default_rng(0)

    def note(self, *words):
        with open(self.config.log, "a") as log:
            print(time.monotonic(), *words, file=log)

    def connect(self, calibrate=True):
        self.is_connected = True
        self.note("connect", os.getpid())

    def calibrate(self):
        return

    def configure(self):
        return

    def get_observation(self):
        if Path(self.config.trouble).exists():
            raise ConnectionError("no status packet")
        image = self.noise.integers(0, 256, (48, 64, 3), np.uint8)
        return {**dict(zip(NAMES, self.goal)), "top": image}  # noqa: B905 (what it is told, at once)

    def send_action(self, action):
        self.goal = [action[name] for name in NAMES]
        self.note("action", *self.goal)
        return action

    def disconnect(self):
        self.is_connected = False
        self.note("disconnect")
