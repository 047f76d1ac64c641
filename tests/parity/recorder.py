"""A data set of LeRobot's own making. Run by the interpreter of .venv-parity (tools/parity.sh):

python recorder.py FOLDER
"""

from __future__ import annotations

import sys

import numpy as np
import torch

# torchvision is there for its plain operations; its compiled ones are not on a CPU build of torch.
for _name in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

JOINTS = ("shoulder_pan", "elbow_flex", "gripper")
LENGTHS = (7, 5)


def main(folder: str) -> None:
    names = [f"{joint}.pos" for joint in JOINTS]
    vector = {"dtype": "float32", "shape": (len(names),), "names": names}
    picture = {"dtype": "image", "shape": (24, 32, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector, "observation.images.front": picture}
    data = LeRobotDataset.create("somebody/pick", 30, features, folder, "so101_follower", use_videos=False)
    rng = np.random.default_rng(0)
    for episode, length in enumerate(LENGTHS):
        for _ in range(length):
            row = {name: rng.normal(size=len(names)).astype(np.float32) * 50 for name in features}
            row["observation.images.front"] = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            data.add_frame({**row, "task": f"pick up cube {episode}"})
        data.save_episode()
    data.finalize()


main(sys.argv[1])
