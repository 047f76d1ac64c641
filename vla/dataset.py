"""LeRobotDataset v3.0, written and read: demonstrations as a folder of Parquet and video files.

    features = {"observation.state": Feature("float32", (6,)), "observation.images.front": ...}
    with Writer(root, fps=20, features=features, robot_type="so101") as out:
        out.add_episode("put the red cube in the blue bowl", {"observation.state": states, ...})
    data = Dataset(root)
    states = data.columns(["observation.state"])["observation.state"]    # (frames, 6)
    frames = data.images("observation.images.front")                     # (frames, h, w, 3)

The `timestamp` column is frame_index / fps, as the format wants it; keep measured times as a feature of
your own. This is the front: `vla.dataset_reader` and `vla.dataset_writer` do it.
"""

from vla.dataset_format import Feature
from vla.dataset_reader import Dataset
from vla.dataset_writer import Writer, merge

__all__ = ["Dataset", "Feature", "Writer", "merge"]
