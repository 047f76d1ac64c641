"""One variant of `smolvla_cpu.py` in a process of its own: a chunk for each line on stdin, then its times.

Run by the interpreter that has what it needs: LeRobot's for "lerobot", ours for the rest.
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
import torch
from safetensors.torch import load_file

PARITY = Path(__file__).resolve().parent.parent / "tests" / "parity"
# Variant -> the bundle it plays and the engine that plays it.
BUNDLES = {
    "onnx fp32": ("fp32", "onnx"),
    "onnx int8": ("int8", "onnx"),
    "onnx int8, whole": ("int8, whole", "onnx"),
    "openvino fp32": ("fp32", "openvino"),
    "openvino bf16": ("fp32", "openvino:bf16"),
    "openvino int8": ("int8, static", "openvino"),
    "openvino int8, bf16": ("int8, static", "openvino:bf16"),
}
Chunk = Callable[[], torch.Tensor]


class Watch:
    """Seconds spent in named functions since the last `clear`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def clear(self) -> None:
        self.seconds = {}

    def over(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            out = function(*args, **kwargs)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun
            return out

        return timed


def lerobot(folder: Path, given: dict[str, torch.Tensor], watch: Watch) -> Chunk:
    sys.path.insert(0, str(PARITY))
    import oracle  # noqa: F401  (torchvision on a CPU)
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    policy = SmolVLAPolicy.from_pretrained(folder).eval()
    inner = policy.model
    inner.vlm_with_expert.embed_image = watch.over("vision", inner.vlm_with_expert.embed_image)
    inner.denoise_step = watch.over("steps", inner.denoise_step)
    stats = load_file(folder / "policy_preprocessor_step_5_normalizer_processor.safetensors")
    mean, std = (stats[f"observation.state.{name}"] for name in ("mean", "std"))
    back = (stats["action.std"], stats["action.mean"])

    def chunk() -> torch.Tensor:
        batch = {
            f"observation.images.camera{i}": given[f"camera{i}"].permute(2, 0, 1)[None].float() / 255
            for i in range(2)
        }
        batch["observation.state"] = ((given["state"] - mean) / (std + 1e-8))[None]
        batch["observation.language.tokens"] = given["ids"]
        batch["observation.language.attention_mask"] = given["mask"].bool()
        return policy.predict_action_chunk(batch, noise=given["noise"]) * back[0] + back[1]

    return chunk


def ours(variant: str, folder: Path, given: dict[str, torch.Tensor], watch: Watch) -> Chunk:
    from vla import fold, smolvla_folder
    from vla import folder as folders

    dtype = torch.bfloat16 if "bf16" in variant else torch.float32
    read = folders.read(folder)
    steps = int(read.config["num_steps"])
    model: Any = smolvla_folder.made(read, dtype)
    c = model.config
    if "folded" in variant:
        model = fold.folded(model, steps)
    if "compiled" in variant:
        import torch._inductor.config as inductor

        inductor.freezing = True
        for name in ("look", "remember", "velocity"):
            setattr(model, name, torch.compile(getattr(model, name)))
    model.look, model.velocity = watch.over("vision", model.look), watch.over("steps", model.velocity)
    ids, mask = torch.zeros(2, 1, c.words, dtype=torch.int64)
    ids[:, : given["ids"].shape[1]], mask[:, : given["ids"].shape[1]] = given["ids"], given["mask"]
    frames, present = [given[f"camera{i}"][None] for i in range(2)], torch.ones(1, 2, dtype=torch.bool)

    def chunk() -> torch.Tensor:
        memory, x = model.prefix(frames, present, given["state"][None], ids, mask), given["noise"]
        free = (torch.zeros(1, c.rows, c.actions), torch.zeros(1, c.rows))
        for i in range(steps):
            x, actions = model.step(memory, x, torch.tensor([i / steps]), torch.tensor([1 / steps]), *free)
        return actions

    return chunk


def graphs(variant: str, folder: Path, given: dict[str, torch.Tensor], watch: Watch, threads: int) -> Chunk:
    """A bundle, run by an engine."""
    from runtime import bundle, engines

    name, engine = BUNDLES[variant]
    loaded = bundle.load(folder.parent / f"bundle {name}")
    opened = engines.open_graphs(loaded, engine, threads)
    prefix, step = opened["prefix"], watch.over("steps", opened["step"])
    length, steps = loaded.words_length, loaded.steps
    words = {name: np.zeros((1, length), np.int64) for name in ("ids", "mask")}
    for name, row in words.items():
        row[0, : given[name].shape[1]] = given[name].numpy()
    feeds = {f"frames_camera{i}": given[f"camera{i}"][None].numpy() for i in range(2)}
    feeds |= {"state": given["state"][None].numpy(), **words}
    rows, actions = loaded.spec.chunk_length, loaded.spec.actions.size
    free = {
        "kept": np.zeros((1, rows, actions), np.float32),
        "kept_mask": np.zeros((1, rows), np.float32),
        "dt": np.array([1 / steps], np.float32),
    }

    def chunk() -> torch.Tensor:
        memory, out = prefix(feeds), {"x_next": given["noise"].numpy()}
        for i in range(steps):
            t = np.array([i / steps], np.float32)
            out = step({**memory, **free, "x": out["x_next"], "t": t})
        return torch.from_numpy(out["actions"])

    return chunk


def floor(folder: Path) -> dict[str, Any]:
    """What the machine can do at best, and what a chunk asks of it."""
    from torch.utils.flop_counter import FlopCounterMode

    from vla import folder as folders
    from vla import smolvla_folder

    model = smolvla_folder.made(folders.read(folder), torch.float32)
    c = model.config
    a = torch.randn(2048, 2048)
    peak = 2 * 2048**3 / best(lambda: a @ a) / 1e9
    block = torch.zeros(64_000_000)
    bandwidth = 4 * 64e6 / best(lambda: block.sum()) / 1e9
    frames = [torch.zeros(1, c.vision.pixels, c.vision.pixels, 3, dtype=torch.uint8)] * 2
    ids = torch.ones(1, c.words, dtype=torch.int64)
    there = torch.ones(1, 2, dtype=torch.bool)
    counts, made = {}, {}

    def count(name: str, work: Callable[[], Any]) -> None:
        with FlopCounterMode(display=False) as counter:
            made[name] = work()
        counts[name] = counter.get_total_flops()

    count("vision", lambda: model.views(frames))
    count("prefix", lambda: model.prefix(frames, there, torch.zeros(1, c.state), ids, ids))
    count(
        "step",
        lambda: model.velocity(made["prefix"], torch.zeros(1, c.rows, c.padded_actions), torch.zeros(1)),
    )
    work = {
        "vision": counts["vision"],
        "language": counts["prefix"] - counts["vision"],
        "a step": counts["step"],
    }
    parts = {
        "vision": (model.vision, model.connector),
        "language": (model.language,),
        "a step": (model.expert,),
    }
    stages = {}
    for name, flop in work.items():
        read = sum(4 * p.numel() for part in parts[name] for p in part.parameters())
        stages[name] = {
            "gflop": flop / 1e9,
            "gbytes": read / 1e9,
            "compute_ms": flop / peak / 1e6,
            "memory_ms": read / bandwidth / 1e6,
        }
    return {"peak_gflops": peak, "bandwidth_gbs": bandwidth, "stages": stages}


def best(work: Callable[[], Any], times: int = 9) -> float:
    """The shortest of several runs, s."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return min(took)


def main(variant: str, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    given = {k[2:]: v for k, v in load_file(folder / "answers.safetensors").items() if k.startswith("0.")}
    watch = Watch()
    with torch.inference_mode():
        if variant == "floor":
            say({"ready": True, **floor(folder)})
            return
        if variant == "lerobot":
            chunk = lerobot(folder, given, watch)
        elif variant in BUNDLES:
            chunk = graphs(variant, folder, given, watch, threads)
        else:
            chunk = ours(variant, folder, given, watch)
        actions = chunk()  # what is compiled is compiled here
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say({"ready": True, "peak_rss_mb": peak, "actions": actions[0].float().tolist()})
        for _ in sys.stdin:
            watch.clear()
            begun = time.perf_counter()
            chunk()
            total = time.perf_counter() - begun
            rest = total - sum(watch.seconds.values())
            say(
                {
                    **watch.seconds,
                    "language": rest,
                    "total": total,
                }
            )


def say(data: dict[str, Any]) -> None:
    print("=" + json.dumps(data), flush=True)  # other lines are the libraries' own talk


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
