"""One variant of `act_cpu.py` in a process of its own: a chunk for each line on stdin, then its time.

Run by the interpreter that has what it needs: LeRobot's for "lerobot", ours for "PLACE=ENGINE".
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _smolvla_worker import PARITY, say


def seen(views: int, state: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Smooth frames, as of a camera, and a state."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (views, 48, 64, 3), dtype=np.uint8)
    frames = {f"camera{i}": np.kron(coarse[i], np.ones((10, 10, 1), np.uint8)) for i in range(views)}
    return frames, rng.normal(size=state).astype(np.float32)


def lerobot(folder: Path, frames: dict[str, np.ndarray], state: np.ndarray) -> Callable[[], Any]:
    sys.path.insert(0, str(PARITY))
    import oracle  # noqa: F401  (torchvision on a CPU)
    import torch
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    policy = ACTPolicy.from_pretrained(folder).eval()
    pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))

    def chunk() -> Any:
        observation = {
            f"observation.images.{name}": torch.from_numpy(frame).permute(2, 0, 1).float() / 255
            for name, frame in frames.items()
        }
        observation["observation.state"] = torch.from_numpy(state)
        with torch.inference_mode():
            return post(policy.predict_action_chunk(pre({**observation, "task": ""})))[0].numpy()

    return chunk


def ours(
    place: str, engine: str, threads: int, frames: dict[str, np.ndarray], state: np.ndarray
) -> Callable[[], Any]:
    from runtime.policies import open_policy
    from vla.contract import Observation

    policy = open_policy(place, threads, "onnx" if engine == "torch" else engine)
    observation = Observation(0.0, state, frames, "")
    return lambda: policy.infer(observation).actions


def main(variant: str, folder: Path, threads: int) -> None:
    config = json.loads((folder / "config.json").read_text())["input_features"]
    views = sum(feature["type"] == "VISUAL" for feature in config.values())
    frames, state = seen(views, config["observation.state"]["shape"][0])
    place, _, engine = variant.rpartition("=")
    if variant == "lerobot":
        import torch

        torch.set_num_threads(threads)
        chunk = lerobot(folder, frames, state)
    else:
        chunk = ours(place, engine, threads, frames, state)
    actions = chunk()
    chunk()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say({"ready": True, "peak_rss_mb": peak, "actions": np.asarray(actions).tolist()})
    for _ in sys.stdin:
        begun = time.perf_counter()
        chunk()
        say({"total": time.perf_counter() - begun})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
