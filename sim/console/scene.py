"""The simulated world to walk around in: the model and the states that the control process sends, by viser.

FOLDER/scene-VERSION.mjb   the model, written before the first state of its version is sent
{"version": ..., "time": s, "state": float64 bytes, mjSTATE_INTEGRATION}
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

RATE = 20.0  # pictures a second
EYE, AT, FOVY = (0.64, -0.46, 0.44), (0.2, 0.0, 0.04), 0.72  # [m], [rad]: near the camera for people


class Scene:
    """Viser's server on a port of this machine, once there is something to show.

    Attributes:
        port: where it listens; None while nothing is shown.
        number: rises when another model is shown; 0 before the first.
    """

    def __init__(self, folder: Path) -> None:
        self.port: int | None = None
        self.number = 0
        self._folder = folder
        self._newest: dict[str, Any] | None = None
        self._version: int | None = None
        self._server: Any = None
        self._shown: Any = None
        self._data: Any = None

    def put(self, scene: dict[str, Any]) -> None:
        """The newest state; it is shown when there is time."""
        self._newest = scene

    async def keep(self) -> None:
        """Show what comes, for ever. Without viser or MuJoCo here there is no scene, and the rest goes on."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as aside:  # a model takes a moment to build, and the page must not wait
            while True:
                await asyncio.sleep(1.0 / RATE)
                scene, self._newest = self._newest, None
                if scene is None:
                    continue
                try:
                    await loop.run_in_executor(aside, self._show, scene)
                except ModuleNotFoundError as error:
                    logging.warning("no scene in 3D: %s is not installed", error.name)
                    return

    def _show(self, scene: dict[str, Any]) -> None:
        from sim.gl import mujoco

        if scene["version"] != self._version:
            self._build(scene["version"])
        elif not self._server.get_clients():
            return
        model = self._shown.mj_model
        state = np.frombuffer(scene["state"], np.float64)
        mujoco.mj_setState(model, self._data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_kinematics(model, self._data)
        self._shown.update_from_mjdata(self._data)

    def _build(self, version: int) -> None:
        import viser
        from mjviser.scene import ViserMujocoScene

        from sim.gl import mujoco

        model = mujoco.MjModel.from_binary_path(str(self._folder / f"scene-{version}.mjb"))
        self._data = mujoco.MjData(model)
        if self._server is None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
            self._server.gui.configure_theme(show_logo=False, show_share_button=False)
        self._server.scene.reset()
        self._server.scene.set_up_direction("+z")
        camera = self._server.initial_camera
        camera.position, camera.look_at, camera.fov = EYE, AT, FOVY
        shown = ViserMujocoScene(self._server, model, num_envs=1)
        shown.camera_tracking_enabled = False
        shown.site_groups_visible = [False] * len(shown.site_groups_visible)
        shown._sync_visibilities()
        self._shown, self._version = shown, version
        self.port, self.number = self._server.get_port(), self.number + 1
