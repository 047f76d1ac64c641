"""Chooses the off-screen GL platform. Import it before mujoco: MuJoCo reads MUJOCO_GL once, on import."""

from __future__ import annotations

import ctypes.util
import os
import sys

if sys.platform.startswith("linux") and "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"
