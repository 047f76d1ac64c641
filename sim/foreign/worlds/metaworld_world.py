"""Meta-World's environments for host.py, in the Python that has them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

KEPT = 4  # simulators at a time; each has 67 thousand faces
CAMERA = "corner2"
PLACE = (0.75, 0.075, 0.7)  # where the published protocol puts it [m]


class World:
    """One task at a time; see host.py."""

    packages = ("metaworld", "mujoco", "gymnasium", "numpy")

    def __init__(self, plain: bool = False) -> None:
        """`plain`: no multisampling, no shadows, no reflections."""
        import metaworld.env_dict
        import metaworld.policies
        import mujoco

        self._mujoco = mujoco
        self._classes = metaworld.env_dict.ALL_V3_ENVIRONMENTS
        self._experts = metaworld.policies.ENV_POLICY_MAP
        self._plain = plain
        self._made: OrderedDict[str, Any] = OrderedDict()
        self._renderer: tuple[Any, ...] = ()

    def reset(self, request: dict) -> tuple:
        name, seed = f"{request['task']}-v3", int(request["seed"])
        self._env = env = self._env_of(name)
        # Some tasks draw from numpy's global generator.
        np.random.seed(seed % 2**32)
        env.seed(seed)
        self._seen, _ = env.reset()
        self._expert = self._experts[name]()
        return {}, self._seen[:4]

    def step(self, action: Any) -> tuple:
        self._seen, _, _, truncated, info = self._env.step(np.asarray(action, np.float32))
        return self._seen[:4], bool(info["success"]), truncated

    def places(self) -> tuple:
        """The task's first thing, its second and its goal, as the simulator knows them; see host.py."""
        found = np.stack([self._seen[4:7], self._seen[11:14], self._seen[36:39]])
        known = np.any(found, axis=1, keepdims=True)
        return np.hstack([found, known]), {CAMERA: np.hstack([self._project(found), known])}

    def expert(self) -> Any:
        # A copy: some of the package's policies move the things in what they are shown.
        return np.clip(self._expert.get_action(self._seen.copy()), -1.0, 1.0)

    def frames(self, sizes: dict) -> dict:
        return {name: self._frame(name, *size) for name, size in sizes.items()}

    def close(self) -> None:
        self._drop_renderer()

    def _env_of(self, name: str) -> Any:
        env = self._made.pop(name, None)
        if env is None:
            env = self._classes[name]()
            env.model.cam_pos[env.model.camera(CAMERA).id] = PLACE
            if self._plain:
                env.model.vis.quality.offsamples = 0
                env.model.vis.quality.shadowsize = 0
            # The goal is seen by the expert alone. Once observed it must not be clipped to the space that was
            # cached while it was hidden.
            env._partially_observable = False
            env.__dict__.pop("sawyer_observation_space", None)
            env._freeze_rand_vec, env.seeded_rand_vec = False, True
            env._set_task_called = True
        self._made[name] = env
        while len(self._made) > KEPT:
            _, old = self._made.popitem(last=False)
            old.close()
        return env

    def _project(self, points: Any) -> Any:
        """(K, 3) [m] -> (K, 2): right and down across a square frame, each -1 .. 1 where it is inside."""
        model, data = self._env.model, self._env.data
        number = model.camera(CAMERA).id
        # The camera looks along its -z; its x is right and its y up, and the frame is turned by half a turn.
        x, y, z = ((points - data.cam_xpos[number]) @ data.cam_xmat[number].reshape(3, 3)).T
        scale = np.tan(np.radians(model.cam_fovy[number]) / 2)
        ahead = np.maximum(-z, 1e-3) * scale
        return np.where(z[:, None] < -1e-3, np.stack([-x / ahead, y / ahead], 1), 2.0)

    def _frame(self, name: str, height: int, width: int) -> Any:
        if name != CAMERA:
            raise KeyError(f"no camera {name!r}; valid: {CAMERA}")
        key = (self._env, height, width)
        if self._renderer[:3] != key:
            self._drop_renderer()
            visual = self._env.model.vis.global_
            visual.offheight, visual.offwidth = max(height, 480), max(width, 480)
            self._renderer = (*key, self._mujoco.Renderer(self._env.model, height, width))
        renderer = self._renderer[3]
        renderer.update_scene(self._env.data, CAMERA)
        if self._plain:
            for flag in (self._mujoco.mjtRndFlag.mjRND_SHADOW, self._mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = 0
        # The camera hangs upside down: both axes are turned, as in the published data.
        return renderer.render()[::-1, ::-1]

    def _drop_renderer(self) -> None:
        if self._renderer:
            self._renderer[3].close()
        self._renderer = ()
