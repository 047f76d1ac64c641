"""MuJoCo with an off-screen GL platform: `from sim.gl import mujoco` wherever it is needed.

MuJoCo reads MUJOCO_GL once, while it is imported; without a screen its default finds nothing.
"""

from __future__ import annotations

import ctypes.util
import logging
import os
import sys

from vla.contract import TaktError

if sys.platform.startswith("linux") and not os.environ.get("MUJOCO_GL"):
    os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"
_PLATFORM = os.environ.get("MUJOCO_GL", "")
# It tells whoever has set up logging that its accelerator is not installed, which nobody needs.
logging.getLogger("OpenGL").setLevel(logging.WARNING)
_REMEDY = "install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri and leave MUJOCO_GL unset, or run tools/gl.sh"

try:
    import mujoco
except ModuleNotFoundError:
    raise
except Exception as error:
    # Whatever a missing GL library raises while MuJoCo loads it, down to AttributeError.
    raise TaktError(f"MuJoCo does not load with MUJOCO_GL={_PLATFORM} ({error}); {_REMEDY}") from None

__all__ = ["mujoco", "renderer"]


def renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """An off-screen renderer.

    Raises:
        TaktError: this machine has no working GL platform.
    """
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise TaktError(f"cannot render with MUJOCO_GL={_PLATFORM} ({reason}); {_REMEDY}") from None
