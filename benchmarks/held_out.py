"""How wrong a plain policy is on demonstrations that it was not trained on, by instruction.

Where things are (where a simulator told the data), in centimetres and in pixels of the first camera, and the
actions of the chunk's first half, in each dimension's own unit; medians of frames for places, means for
actions. What it says of places is the policy's own: nothing that the data tell is given to it.

    takt demos data/held --suite metaworld:plain --episodes 2 --size 192 --every 4 --seed 7000000
    python benchmarks/held_out.py checkpoints/mt50 data/held
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, cast

import numpy as np
import torch
import tyro
from _command import main
from rich.console import Console
from rich.table import Table

from runtime.machine import machine
from vla import atomic, dataset_body, plain, plain_data, plain_train, policy, train_data
from vla.contract import ActionSpace, TaktError
from vla.plain_data import Frames, Wanted

BATCH = 128
STEPS = 4  # of the sampler, as in a bundle


@dataclass
class Command:
    """Measure a plain checkpoint on a data set."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Of `takt train`."""
    data: Annotated[Path, tyro.conf.Positional]
    """A data set of the same body, which it has not seen."""
    every: int = 4
    """One frame in so many is looked at."""
    json: Path | None = None
    """Write the numbers there."""

    def run(self) -> int:
        if self.every < 1:
            raise TaktError("--every is at least 1")
        torch.set_num_threads(1)
        model = plain_train.load(self.checkpoint).eval()
        told = dataset_body.Told()
        sets, body = plain_data.bodies([self.data], told, model.config.cameras)
        if (body.state, body.actions.names) != (
            model.config.state,
            tuple(d.name for d in model.config.actions),
        ):
            raise TaktError(f"{self.data} is of another body than {self.checkpoint}")
        known = dataset_body.places(sets[0], body.cameras)
        places = known if known == model.config.taught else 0
        c = model.config
        wanted = Wanted(c.size, c.rows, max(1, round(c.dt * body.fps)), self.every, c.later)
        with tempfile.TemporaryDirectory() as cache:
            encoder = train_data.encoder_folder(None)
            frames = plain_data.read(sets, body, wanted, [1.0], encoder, Path(cache), places)
            frames.windows = c.windows
            errors = measured(model, frames, places)
        names = list(dict.fromkeys(sets[0].task_of()))
        rows: dict[str, Any] = {"all of them": summary(errors, np.ones(len(frames.said), bool))}
        rows |= {name: summary(errors, frames.said == i) for i, name in enumerate(names)}
        show(rows)
        if self.json:
            about = {"checkpoint": self.checkpoint.name, "data": self.data.name, "machine": machine()}
            shape = {"episodes": len(sets[0].episodes), "frames": len(frames.said)}
            atomic.write_json(self.json, {**about, **shape, "errors": rows}, indent=1)
        return 0


def measured(model: plain.Plain, frames: Frames, places: int) -> dict[str, np.ndarray]:
    """Errors of every frame: actions (N, A), and of places, m and pixels, (N, K), nan where there is none."""
    found: dict[str, list[np.ndarray]] = {"actions": [], "metres": [], "pixels": []}
    generator, c = torch.Generator().manual_seed(0), model.config
    for first in range(0, len(frames.said), BATCH):
        index = np.arange(first, min(first + BATCH, len(frames.said)))
        batch = frames.batch(index, np.random.default_rng(0), generator)
        # In training a share of the sentence's numbers is left out; here it is whole.
        said = frames.wordings[frames.said[index], 0]
        batch["sentence"] = frames.sentence[torch.from_numpy(said)]
        with torch.no_grad():
            known, maps = model.see(batch["frames"], batch["state"], batch["sentence"])
            actions = sampled(model, known, model.origin(batch["state"]), generator)
        count = batch["valid"][:, : c.rows // 2, None]
        error = ((actions - batch["chunk"]).abs()[:, : c.rows // 2] * count).sum(1) / count.sum(1).clamp(
            min=1
        )
        found["actions"].append(error.numpy())
        if places:
            at = model.things(known) * model.place_std + model.place_mean
            metres = (at - batch["places"][..., :3]).norm(dim=-1)
            grid = cast(plain.Eye, model.eyes[0]).grid
            uv = maps[0][:, :places].softmax(-1) @ grid
            pixels = (uv - batch["points"][:, 0, :, :2]).norm(dim=-1) * c.size / 2
            there, seen = batch["places"][..., 3] > 0.5, batch["points"][:, 0, :, 2] > 0.5
            found["metres"].append(metres.masked_fill(~there, torch.nan).numpy())
            found["pixels"].append(pixels.masked_fill(~seen, torch.nan).numpy())
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def sampled(
    model: plain.Plain, known: torch.Tensor, origin: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """A chunk of each, (B, H, A), physical and within the actions' limits, from noise of `generator`."""
    c = model.config
    shape = (len(known), c.rows, len(c.actions))
    x, nothing = torch.randn(shape, generator=generator), (torch.zeros(shape), torch.zeros(shape[:2]))
    actions, _ = policy.sampled(
        lambda memory, *rest: model.step(*memory, *rest), (known, origin), x, STEPS, nothing, None, monotonic
    )
    space = ActionSpace(c.actions)
    low, high = (torch.from_numpy(limit).to(actions.dtype) for limit in (space.lower, space.upper))
    return actions.clamp(low, high)


def summary(errors: dict[str, np.ndarray], of: np.ndarray) -> dict[str, Any]:
    """Medians of places and means of actions over the frames `of`; None for what is never there."""
    row: dict[str, Any] = {
        "frames": int(of.sum()),
        "actions": errors["actions"][of].mean(0).round(4).tolist(),
    }
    for name, unit in (("metres", 4), ("pixels", 2)):
        if name in errors:
            each = [column[~np.isnan(column)] for column in errors[name][of].T]
            row[name] = [round(float(np.median(e)), unit) if len(e) else None for e in each]
    return row


def show(rows: dict[str, Any]) -> None:
    table = Table("instruction", "frames", "actions, mean", "places, cm", "pixels", box=None)
    for name, row in rows.items():
        centimetres = [None if m is None else round(100 * m, 1) for m in row.get("metres", [])]
        parts = (row["actions"], centimetres, row.get("pixels", []))
        told = [" ".join("-" if v is None else f"{v:g}" for v in part) for part in parts]
        table.add_row(name, str(row["frames"]), *told)
    Console(width=150).print(table)


if __name__ == "__main__":
    sys.exit(main(Command))
