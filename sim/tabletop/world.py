"""The tabletop's physics and cameras: one compiled model, reset to a layout, advanced in ticks."""

from __future__ import annotations

import numpy as np

from sim.gl import mujoco, renderer
from sim.tabletop import scene, tasks
from sim.tabletop.arm import JOINTS
from sim.tabletop.tasks import Layout

PEOPLE = "view"  # the camera for people; the others are the policy's
CAMERAS = ("front", "wrist")  # the policy's, in the order of its inputs
SIZE = 96  # pixels, the policy's frames
TICK_STEPS = 8  # physics steps a tick, at 30 Hz
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class World:
    """Owns the model, its data and its renderers. Not shared between threads or forks."""

    def __init__(self) -> None:
        self.model = scene.compile_model()
        self.data = mujoco.MjData(self.model)
        self._kept = mujoco.MjData(self.model)
        self.layout: Layout | None = None
        self._renderers: dict[str, mujoco.Renderer] = {}
        self._arm = np.array([self.model.joint(name).qposadr[0] for name in JOINTS])
        self._tool = self.model.site("tool").id
        self._things = [f"cube{i}" for i in range(scene.CUBES)] + [f"bowl{i}" for i in range(scene.BOWLS)]
        self._bodies = np.array([self.model.body(name).id for name in self._things])
        self._qpos = np.array([self.model.joint(name).qposadr[0] for name in self._things])
        self._geoms = [np.flatnonzero(self.model.geom_bodyid == b) for b in self._bodies]
        self._contype = self.model.geom_contype.copy()
        self._conaffinity = self.model.geom_conaffinity.copy()
        self._pads = {self.model.geom(n).id for n in ("fixed_pad", "moving_pad", "fixed_jaw", "moving_jaw")}

    def reset(self, layout: Layout) -> None:
        """Lay the table; everything rests when this returns."""
        self.layout = layout
        # Before the data: what does not move (lights) is worked out when the data is reset.
        self._paint(layout)
        mujoco.mj_resetData(self.model, self.data)
        self._place(layout)
        self.data.qpos[self._arm] = layout.arm
        self.data.ctrl[:] = layout.arm
        mujoco.mj_forward(self.model, self.data)
        self.advance(24)
        self._start = self.things().copy()

    def _place(self, layout: Layout) -> None:
        model, data = self.model, self.data
        poses = {f"cube{i}": (*xy, scene.CUBE_HALF) for i, xy in enumerate(layout.cube_xy)}
        poses |= {f"bowl{i}": (*xy, 0.0) for i, xy in enumerate(layout.bowl_xy)}
        for k, name in enumerate(self._things):
            at, geoms, here = self._qpos[k], self._geoms[k], name in poses
            data.qpos[at : at + 3] = poses.get(name, (3.0 + k, 0.0, 0.5))
            yaw = layout.cube_yaw[k] if here and name.startswith("cube") else 0.0
            data.qpos[at + 3 : at + 7] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
            model.geom_contype[geoms] = self._contype[geoms] * here
            model.geom_conaffinity[geoms] = self._conaffinity[geoms] * here
            model.body_gravcomp[self._bodies[k]] = 0.0 if here else 1.0

    def _paint(self, layout: Layout) -> None:
        model = self.model
        colours = dict(zip((f"cube{i}" for i in range(scene.CUBES)), layout.cubes, strict=False))
        colours |= dict(zip((f"bowl{i}" for i in range(scene.BOWLS)), layout.bowls, strict=False))
        for k, name in enumerate(self._things):
            if name in colours:
                rgb = np.clip(np.array(scene.COLOURS[colours[name]]) * layout.tint[k], 0, 1)
                model.geom_rgba[self._geoms[k], :3] = rgb
        model.mat_rgba[model.mat("table").id, :3] = np.clip(layout.table, 0, 1)
        key = model.light("key").id
        model.light_diffuse[key] = layout.light
        model.light_pos[key] = layout.light_at
        model.light_dir[key] = np.array([0.2, 0.0, 0.0]) - layout.light_at

    # -- what can be measured

    def joints(self) -> np.ndarray:
        """Joint angles, shape (6,), float32 [rad]."""
        return self.data.qpos[self._arm].astype(np.float32)

    def tool(self) -> np.ndarray:
        """The point between the jaws, shape (3,) [m]."""
        return self.data.site_xpos[self._tool].copy()

    def things(self) -> np.ndarray:
        """Positions of all cubes, then all bowls, on the table or not; shape (CUBES + BOWLS, 3) [m]."""
        return self.data.xpos[self._bodies].copy()

    def named(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the named cube and the named bowl, each shape (3,) [m]."""
        assert self.layout is not None
        at = self.things()
        return at[self.layout.cube], at[scene.CUBES + self.layout.bowl]

    def touched(self) -> bool:
        """Whether a jaw touches the named cube."""
        assert self.layout is not None
        geom = self.model.geom(f"cube{self.layout.cube}").id
        pairs = self.data.contact.geom[: self.data.ncon]
        return any(
            geom in pair and (pair[0] in self._pads or pair[1] in self._pads) for pair in pairs.tolist()
        )

    def success(self) -> bool:
        """The named cube lies in the named bowl and has been let go."""
        cube, bowl = self.named()
        return tasks.in_bowl(cube, bowl) and not self.touched()

    def others_moved(self) -> bool:
        """Whether a thing that was not named has moved by more than `tasks.MOVED`."""
        assert self.layout is not None
        shift = np.linalg.norm(self.things() - self._start, axis=1)
        here = [i < len(self.layout.cubes) for i in range(scene.CUBES)]
        here += [i < len(self.layout.bowls) for i in range(scene.BOWLS)]
        here[self.layout.cube] = False
        here[scene.CUBES + self.layout.bowl] = False
        return bool((shift[np.array(here)] > tasks.MOVED).any())

    def project(self, camera: str, point: np.ndarray) -> np.ndarray:
        """Where a camera sees a point: (u, v, inside), shape (3,).

        u runs right and v down, both -1 .. 1 across the (square) frame; inside is 1 where the point
        lies in the frame and before the camera. Things in between are not looked for.
        """
        cam = self.data.camera(camera)
        x, y, z = cam.xmat.reshape(3, 3).T @ (point - cam.xpos)
        scale = np.tan(np.radians(self.model.camera(camera).fovy[0]) / 2)
        if z > -1e-3:
            return np.array([0.0, 0.0, 0.0])
        u, v = x / (-z * scale), -y / (-z * scale)
        inside = float(abs(u) <= 1 and abs(v) <= 1)
        return np.array([np.clip(u, -1.5, 1.5), np.clip(v, -1.5, 1.5), inside])

    # -- what can be done

    def command(self, target: np.ndarray) -> None:
        """Joint targets, shape (6,) [rad], kept until the next call."""
        self.data.ctrl[:] = target

    def advance(self, steps: int) -> None:
        mujoco.mj_step(self.model, self.data, steps)

    def keep(self) -> None:
        """Remember everything, for `put_back`; exact, with which bodies sleep and what the solver knows."""
        mujoco.mj_copyData(self._kept, self.model, self.data)

    def put_back(self) -> None:
        """Return to what `keep` remembered; the same commands then lead to the same states, bit for bit."""
        mujoco.mj_copyData(self.data, self.model, self._kept)

    def save(self) -> np.ndarray:
        """The physics state as a vector, for pictures and records. It does not say which bodies sleep."""
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return state

    def restore(self, state: np.ndarray) -> None:
        mujoco.mj_setState(self.model, self.data, state, _STATE)
        mujoco.mj_forward(self.model, self.data)

    # -- what can be seen

    def frame(self, camera: str, height: int = SIZE, width: int = SIZE) -> np.ndarray:
        """Shape (height, width, 3), uint8. Shadows only for people: they cost ten times more."""
        key = f"{camera} {height}x{width}"
        pretty = camera == PEOPLE
        if key not in self._renderers:
            self._renderers[key] = renderer(self.model, height, width)
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self._renderers[key].scene.flags[flag] = pretty
        self._renderers[key].update_scene(self.data, camera)
        return self._renderers[key].render().copy()

    def close(self) -> None:
        for each in self._renderers.values():
            each.close()
        self._renderers.clear()
