"""LeRobot's own data sets, in LeRobot's interpreter: what it reads in a folder, and a folder that it writes.

python lerobot_data.py read FOLDER OUT.npz      every column as its LeRobotDataset hands it out, and the
                                                frames where it can decode films (torchcodec)
python lerobot_data.py write FOLDER             two episodes of two joints and a camera
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

# torchvision asks for these at import; the ones that LeRobot's policies need are not among them.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

STEPS, FPS, SIZE = 12, 10, 64


def read(folder: Path, out: Path) -> None:
    data = LeRobotDataset("local/recorded", root=folder)
    cameras = list(data.meta.camera_keys)
    found: dict[str, object] = {"episodes": data.meta.total_episodes, "fps": data.fps}
    columns = [name for name in data.features if name not in cameras]
    table = data.hf_dataset.with_format("numpy")
    for name in columns:
        found[f"column/{name}"] = np.asarray(table[name][:])
    found["stats"] = json.dumps({k: np.asarray(v["mean"]).tolist() for k, v in data.meta.stats.items()})
    found["tasks"] = json.dumps([data.meta.tasks.iloc[int(i)].name for i in table["task_index"][:]])
    try:
        import torchcodec  # noqa: F401

        for camera in cameras:
            pictures = [data[i][camera].numpy() for i in range(len(data))]
            found[f"frames/{camera}"] = np.stack(pictures).transpose(0, 2, 3, 1)
    except (ImportError, RuntimeError, OSError) as error:
        found["why"] = f"LeRobot cannot decode films here: {type(error).__name__}"
    np.savez(out, **found)


def write(folder: Path) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["pan", "lift"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["pan", "lift"]},
        "observation.images.front": {
            "dtype": "video",
            "shape": (SIZE, SIZE, 3),
            "names": ["height", "width", "channels"],
        },
    }
    data = LeRobotDataset.create("local/theirs", FPS, features, root=folder, robot_type="two")
    for episode in range(2):
        for i in range(STEPS):
            frame = np.full((SIZE, SIZE, 3), 20 * i + episode, np.uint8)
            state = np.array([i, episode], np.float32)
            data.add_frame(
                {
                    "observation.state": state,
                    "action": state + 0.5,
                    "observation.images.front": frame,
                    "task": f"task {episode}",
                }
            )
        data.save_episode()
    data.finalize()


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    {"read": read, "write": write}[what](*map(Path, paths))
