"""The tabletop's physics and cameras: one compiled model, reset to a layout, advanced in ticks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sim.gl import mujoco, renderer
from sim.tabletop import places, rules, scene
from sim.tabletop.arm import JOINTS
from sim.tabletop.meaning import COLOURS, Task
from sim.tabletop.scene import SLOTS
from sim.tabletop.tasks import Layout

PEOPLE = "view"  # the camera for people; the others are the policy's
CAMERAS = ("front", "wrist")  # the policy's, in the order of its inputs
SIZE = 96  # pixels, the policy's frames
TICK_STEPS = 8  # physics steps a tick, at 30 Hz
ROLES = ("thing", "place", "landmark")  # what a task may name
_ASKED = ("task", "start", "highest", "push_goal", "_roles")
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class World:
    """Owns the model, its data and its renderers. Not shared between threads or forks.

    Attributes:
        layout: the table as it was laid.
        task: what is asked.
        start: positions of the things (`scene.SLOTS`) when it was asked, shape (slots, 3) [m].
        push_goal: where a push to a side was to end, shape (2,) [m].
        highest: how far the task's thing has been lifted since, at the most [m].
    """

    def __init__(self) -> None:
        self.model = scene.compile_model()
        self.data = mujoco.MjData(self.model)
        self._kept = mujoco.MjData(self.model)
        self._kept_highest = 0.0
        self.layout: Layout | None = None
        self.task: Task | None = None
        self.highest = 0.0
        self.push_goal = np.zeros(2)
        self._roles: dict[str, int | None] = {}
        self._renderers: dict[str, mujoco.Renderer] = {}
        model = self.model
        self._arm = np.array([model.joint(name).qposadr[0] for name in JOINTS])
        self._tool, self._tip = model.site("tool").id, model.site("tip").id
        self._bodies = np.array([model.body(name).id for name in SLOTS])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in SLOTS])
        self._geoms = [np.flatnonzero(model.geom_bodyid == b) for b in self._bodies]
        self._zones = [model.body(f"zone{i}").id for i in range(scene.ZONES)]
        self._zone_geoms = [model.geom(f"zone{i}").id for i in range(scene.ZONES)]
        self._contype = model.geom_contype.copy()
        self._conaffinity = model.geom_conaffinity.copy()
        self._cameras = [model.camera(name).id for name in CAMERAS]
        self._cam_pos, self._cam_quat = model.cam_pos.copy(), model.cam_quat.copy()
        jaws = (("fixed_pad", "fixed_jaw"), ("moving_pad", "moving_jaw"))
        self._jaw_of = {model.geom(name).id: i for i, names in enumerate(jaws) for name in names}
        self._slot_of = {int(g): slot for slot, geoms in enumerate(self._geoms) for g in geoms}

    def reset(self, layout: Layout, task: Task) -> None:
        """Lay the table and ask; everything rests when this returns."""
        self.layout = layout
        # Before the data: what does not move (lights, zones) is worked out when the data is reset.
        self._paint(layout)
        self._aim(layout)
        mujoco.mj_resetData(self.model, self.data)
        self._place(layout)
        self.data.qpos[self._arm] = layout.arm
        self.data.ctrl[:] = layout.arm
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_step(self.model, self.data, 24)
        self.ask(task)

    def ask(self, task: Task) -> None:
        """Ask for something on the table as it is now."""
        assert self.layout is not None
        layout, self.task = self.layout, task
        self.start, self.highest = self.things().copy(), 0.0
        xy = self.start[list(layout.slots), :2]
        found = {"thing": places.resolve(layout.things, xy, task)}
        for role, named in (("place", task.place), ("landmark", task.landmark)):
            found[role] = layout.things.index(named) if named in layout.things else None
        self._roles = {role: None if i is None else layout.slots[i] for role, i in found.items()}
        thing = found["thing"]
        if task.side and thing is not None:
            self.push_goal = places.side_goal(xy[thing], task.side)

    def asked(self) -> dict[str, Any]:
        """All that belongs to what is asked, for `ask_again`."""
        return {name: getattr(self, name) for name in _ASKED}

    def ask_again(self, asked: dict[str, Any]) -> None:
        """Return to what was asked when `asked` was called; the things stay where they are."""
        for name, value in asked.items():
            setattr(self, name, value)

    def _place(self, layout: Layout) -> None:
        model, data = self.model, self.data
        here = dict(zip(layout.slots, range(len(layout.things)), strict=True))
        for slot, name in enumerate(SLOTS):
            at, geoms, i = self._qpos[slot], self._geoms[slot], here.get(slot)
            height = scene.HALF[name[:-1]]
            data.qpos[at : at + 3] = (3.0 + slot, 0.0, 0.5) if i is None else (*layout.xy[i], height)
            yaw = 0.0 if i is None or name.startswith("bowl") else layout.yaw[i]
            data.qpos[at + 3 : at + 7] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
            model.geom_contype[geoms] = self._contype[geoms] * (i is not None)
            model.geom_conaffinity[geoms] = self._conaffinity[geoms] * (i is not None)
            model.body_gravcomp[self._bodies[slot]] = 1.0 if i is None else 0.0

    def _paint(self, layout: Layout) -> None:
        model = self.model
        for slot, thing, tint in zip(layout.slots, layout.things, layout.tint, strict=True):
            model.geom_rgba[self._geoms[slot], :3] = np.clip(np.array(COLOURS[thing.colour]) * tint, 0, 1)
        for i, (body, geom) in enumerate(zip(self._zones, self._zone_geoms, strict=True)):
            used = i < len(layout.zones)
            model.body_pos[body] = (*layout.zone_xy[i], 0.0003) if used else (2.0 + i, 5.0, 0.0)
            if used:
                model.geom_rgba[geom, :3] = COLOURS[layout.zones[i]]
        model.mat_rgba[model.mat("table").id, :3] = np.clip(layout.table, 0, 1)
        key = model.light("key").id
        model.light_diffuse[key] = layout.light
        model.light_pos[key] = layout.light_at
        model.light_dir[key] = np.array([0.2, 0.0, 0.0]) - layout.light_at

    def _aim(self, layout: Layout) -> None:
        """Cameras stand a little off their places."""
        for camera, off in zip(self._cameras, layout.cameras, strict=True):
            self.model.cam_pos[camera] = self._cam_pos[camera] + off[:3]
            turn = np.empty(4)
            angle = float(np.linalg.norm(off[3:]))
            mujoco.mju_axisAngle2Quat(turn, off[3:] / max(angle, 1e-9), angle)
            mujoco.mju_mulQuat(self.model.cam_quat[camera], self._cam_quat[camera], turn)

    # -- what can be measured

    def joints(self) -> np.ndarray:
        """Joint angles, shape (6,), float32 [rad]."""
        return self.data.qpos[self._arm].astype(np.float32)

    def tool(self) -> np.ndarray:
        """The point between the jaws, shape (3,) [m]."""
        return self.data.site_xpos[self._tool].copy()

    def tip(self) -> np.ndarray:
        """The finger tip of the shut gripper, shape (3,) [m]."""
        return self.data.site_xpos[self._tip].copy()

    def things(self) -> np.ndarray:
        """Positions of all slots, on the table or not; shape (slots, 3) [m]."""
        return self.data.xpos[self._bodies].copy()

    def now(self) -> Layout:
        """The table with its things where they are by now."""
        assert self.layout is not None
        return replace(self.layout, xy=self.things()[list(self.layout.slots), :2])

    def slot(self, role: str) -> int | None:
        """Which slot a role of ROLES is; None where the task has no such role, it is absent, or a zone."""
        return self._roles[role]

    def named(self, role: str) -> np.ndarray | None:
        """Position of what plays a role, shape (3,) [m]; None where nothing on the table does."""
        assert self.layout is not None and self.task is not None
        slot, place, zones = self._roles[role], self.task.place, self.layout.zones
        if slot is not None:
            return self.data.xpos[self._bodies[slot]].copy()
        if role != "place" or place is None or place.kind != "zone":
            return None
        if place.colour in zones:
            return np.array([*self.layout.zone_xy[zones.index(place.colour)], 0.0])
        return None

    def touching(self, slot: int) -> tuple[bool, bool]:
        """Whether the fixed and the moving jaw touch a thing."""
        fixed, moving = self._touched()
        return slot in fixed, slot in moving

    def held(self) -> int | None:
        """The thing between the jaws, touched by both; None for none."""
        assert self.layout is not None
        fixed, moving = self._touched()
        both = fixed & moving
        return next((s for s in self.layout.slots if s in both and not SLOTS[s].startswith("bowl")), None)

    def _touched(self) -> tuple[set[int], set[int]]:
        """The slots that the fixed and the moving jaw touch."""
        touched: tuple[set[int], set[int]] = set(), set()
        for a, b in self.data.contact.geom[: self.data.ncon].tolist():
            for jaw, thing in ((a, b), (b, a)):
                if jaw in self._jaw_of and thing in self._slot_of:
                    touched[self._jaw_of[jaw]].add(self._slot_of[thing])
        return touched

    def possible(self) -> bool:
        """Whether everything that the task names is on the table."""
        assert self.task is not None
        wanted = {"thing": self.task.thing, "place": self.task.place, "landmark": self.task.landmark}
        return all(self.named(role) is not None for role, what in wanted.items() if what is not None)

    def success(self) -> bool:
        """Whether the task is done (rules.py)."""
        return rules.done(self)

    def moved(self, limit: float, others: bool = False) -> bool:
        """Whether a thing on the table has moved by more than `limit` m since the task was asked.

        Args:
            others: leave out what the task names.
        """
        assert self.layout is not None
        named = {self._roles["thing"], self._roles["place"]} if others else set()
        slots = [slot for slot in self.layout.slots if slot not in named]
        shift = np.linalg.norm(self.things()[slots] - self.start[slots], axis=1)
        return bool((shift > limit).any())

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
        slot = self._roles.get("thing")
        if slot is not None:
            self.highest = max(
                self.highest, float(self.data.xpos[self._bodies[slot]][2] - self.start[slot][2])
            )

    def keep(self) -> None:
        """Remember everything, for `put_back`; exact, with which bodies sleep and what the solver knows."""
        mujoco.mj_copyData(self._kept, self.model, self.data)
        self._kept_highest = self.highest

    def put_back(self) -> None:
        """Return to what `keep` remembered; the same commands then lead to the same states, bit for bit."""
        mujoco.mj_copyData(self.data, self.model, self._kept)
        self.highest = self._kept_highest

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
