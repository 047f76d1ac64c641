"""LIBERO's environments for host.py, in the Python that has hf-libero.

hf-libero asks questions on the terminal when it is first imported, reads its fixed initial states by
unpickling them, and takes torch for that. None of it is needed: its settings are written before the import,
the list of tasks is a table in one of its files, and the states are found in theirs without running anything.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import os
import pickletools
import tempfile
import zipfile
from typing import Any

import numpy as np

WARM_UP = 10  # control steps of doing nothing, until what was laid has settled
NOTHING = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)  # the gripper stays open
CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
# The one form that all of hf-libero's files of initial states have: torch.save of one numpy array.
FORM = (
    "PROTO GLOBAL BINPUT GLOBAL BINPUT BININT1 TUPLE1 BINPUT GLOBAL BINPUT BINUNICODE BINPUT "
    "BINUNICODE BINPUT TUPLE2 BINPUT REDUCE BINPUT TUPLE3 BINPUT REDUCE BINPUT MARK BININT1 BININT1 "
    "BININT1 TUPLE2 BINPUT GLOBAL BINPUT BINUNICODE BINPUT NEWFALSE NEWTRUE TUPLE3 BINPUT REDUCE "
    "BINPUT MARK BININT1 BINUNICODE BINPUT NONE NONE NONE BININT BININT BININT1 TUPLE BINPUT BUILD "
    "NEWFALSE BINGET BINUNICODE BINPUT BINGET TUPLE2 BINPUT REDUCE BINPUT TUPLE BINPUT BUILD STOP"
)


def initial_states(path: str) -> Any:
    """The fixed initial states in a file of hf-libero, shape (N, S), float64; nothing in it is executed.

    Raises:
        ValueError: it has another form.
    """
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        data = archive.read(name)
    said = [(op.name, value) for op, value, _ in pickletools.genops(data)]
    form = " ".join(name for name, _ in said)
    texts = [str(value) for name, value in said if name == "BINUNICODE"]
    if form.replace("LONG_BINPUT", "BINPUT") != FORM or texts[2:4] != ["f8", "<"]:
        raise ValueError(f"{path} has another form than the initial states of hf-libero 0.1.4")
    # Two small numbers of the form, then the shape.
    shape = [int(value) for name, value in said if name == "BININT1" and value is not None][2:4]
    return np.frombuffer(texts[4].encode("latin1"), "<f8").reshape(shape)


def words(task: str) -> str:
    """What the policy is told: LIBERO names its tasks by their sentence, after the scene where it has one."""
    if task[0].isupper():
        task = task.partition("SCENE")[2].partition("_")[2]
    return task.replace("_", " ")


def axis_angle(quaternion: Any) -> Any:
    """x, y, z, w -> the axis times the angle, shape (3,) [rad]."""
    x, y, z, w = (float(v) for v in quaternion)
    w = min(max(w, -1.0), 1.0)
    norm = math.sqrt(1.0 - w * w)
    if norm < 1e-9:
        return np.zeros(3)
    return np.array([x, y, z]) * 2.0 * math.acos(w) / norm


class World:
    """One task at a time; see host.py."""

    packages = ("hf-libero", "robosuite", "bddl", "mujoco", "numpy")

    def __init__(self) -> None:
        self._settings = tempfile.TemporaryDirectory()
        spec = importlib.util.find_spec("libero")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("hf-libero is not installed there")
        self._place = place = os.path.join(next(iter(spec.submodule_search_locations)), "libero")
        folders = {"bddl_files": "bddl_files", "init_states": "init_files", "assets": "assets"}
        lines = [f"{key}: {os.path.join(place, folder)}" for key, folder in folders.items()]
        lines += [f"benchmark_root: {place}", f"datasets: {self._settings.name}"]
        with open(os.path.join(self._settings.name, "config.yaml"), "w") as file:
            file.write("\n".join(lines) + "\n")
        os.environ["LIBERO_CONFIG_PATH"] = self._settings.name
        from libero.libero import get_assets_path  # downloads them where it can

        assets = get_assets_path()
        if not os.path.isdir(assets):
            raise FileNotFoundError(f"LIBERO's assets are not in {assets}, and could not be downloaded")
        from libero.libero.envs import OffScreenRenderEnv

        self._make = OffScreenRenderEnv
        self._tasks = tasks(place)
        self._env: Any = None
        self._laid = ("", -1)

    def reset(self, request: dict) -> tuple:
        benchmark, number, state = request["benchmark"], int(request["task"]), int(request["state"])
        name = self._tasks[benchmark][number]
        if self._laid != (benchmark, number):
            self.close()
            path = os.path.join(self._place, "bddl_files", benchmark, f"{name}.bddl")
            self._env = self._make(
                bddl_file_name=path, use_camera_obs=False, camera_heights=256, camera_widths=256
            )
            self._laid = (benchmark, number)
            file = os.path.join(self._place, "init_files", benchmark, f"{name}.pruned_init")
            self._states = initial_states(file)
        # What is not part of a state (where fixtures stand) is drawn from the seed: always the same one.
        self._env.seed(0)
        self._env.reset()
        self._env.set_init_state(self._states[state % len(self._states)])
        for _ in range(WARM_UP):
            self._seen, _, _, _ = self._env.step(np.array(NOTHING))
        return {"instruction": words(name)}, self._state()

    def step(self, action: Any) -> tuple:
        self._seen, _, _, _ = self._env.step(np.asarray(action, float))
        return self._state(), bool(self._env.check_success()), False

    def expert(self) -> Any:
        raise ValueError("LIBERO has no scripted expert")

    def frames(self, sizes: dict) -> dict:
        found = {}
        for name, (height, width) in sizes.items():
            frame = self._env.sim.render(camera_name=CAMERAS[name], height=height, width=width)
            # Published data are turned by half a turn against what robosuite's observations hold.
            found[name] = np.asarray(frame)[::-1, ::-1]
        return found

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env = None

    def _state(self) -> Any:
        seen = self._seen
        rotation = axis_angle(seen["robot0_eef_quat"])
        return np.concatenate([seen["robot0_eef_pos"], rotation, seen["robot0_gripper_qpos"]])


def tasks(place: str) -> dict:
    """benchmark -> its tasks' names, in order: the table in hf-libero's own file, read and not run."""
    path = os.path.join(place, "benchmark", "libero_suite_task_map.py")
    with open(path) as file:
        (table,) = [n.value for n in ast.parse(file.read()).body if isinstance(n, ast.Assign)]
    return ast.literal_eval(table)
