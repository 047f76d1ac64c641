"""MuJoCo with an off-screen GL platform: `from sim.gl import mujoco` wherever it is needed.

MuJoCo reads MUJOCO_GL once, while it is imported; without a screen its default finds nothing.
"""

from __future__ import annotations

import ctypes.util
import os
import sys

if sys.platform.startswith("linux") and "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"

import mujoco

__all__ = ["mujoco"]
