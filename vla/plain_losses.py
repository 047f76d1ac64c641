"""What the plain policy (plain.py) is taught.

flow     the clean chunk that was driven, from a noisy one
later    where the state went
points   the taught keypoints against where a camera sees things: the soft-argmax
where    the same keypoints' maps against a spot there
places   where things are
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vla.nano_losses import mean, spotted
from vla.plain import CELL, Eye, Plain

WEIGHTS = {"flow": 1.0, "later": 0.5, "points": 0.5, "where": 0.1, "places": 0.2}


def loss(
    model: Plain, batch: dict[str, Any], draws: int, generator: torch.Generator, share: float
) -> dict[str, Tensor]:
    """Losses of one batch by name; what is minimised is under "total".

    Args:
        batch: frames, each a camera's window, state (B, S), sentence (B, words), chunk (B, H, A) and later
            (B, F, S), physical, valid (B, H), 0 where a row lies behind the episode's end; where things are
            taught also points (B, cameras, K, 3): u, v, and 1 where a thing is in the window, and places
            (B, K, 4): x, y, z [m], and 1 where there is one.
        draws: how many (noise, tau) draws share one look at the frames.
        share: of the draws that get a committed prefix of the chunk's own.
    """
    state = batch["state"]
    known, maps = model.see(batch["frames"], state, batch["sentence"])
    target = model.normalise(batch["chunk"], model.origin(state))
    flow = flow_loss(model, known, target, batch["valid"], draws, generator, share)
    # From where it is now, each time ahead by its own measure.
    truth = (batch["later"] - state[:, None]) / model.later_std
    later = F.smooth_l1_loss(model.ahead(known), truth, beta=0.1)
    losses = {"flow": flow, "later": later}
    if "places" in batch:
        losses |= taught(model, known, maps, batch["points"], batch["places"])
    losses["total"] = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
    return losses


def taught(
    model: Plain, known: Tensor, maps: list[Tensor], points: Tensor, places: Tensor
) -> dict[str, Tensor]:
    """What the simulator alone tells, see `loss`; `maps` and `known` are of `Plain.see`."""
    near, where = [], []
    cell = 2 * CELL / model.config.size  # a window's are as wide as the whole frame's
    for k, (eye, each) in enumerate(zip(model.eyes, maps, strict=True)):
        uv, inside, grid = points[:, k, :, :2], points[:, k, :, 2], cast(Eye, eye).grid
        mine = each[:, : model.config.taught]
        near.append(mean((mine.softmax(-1) @ grid - uv).abs().sum(-1), inside))
        where.append(mean(spotted(mine, grid, uv, cell), inside))
    truth = (places[..., :3] - model.place_mean) / model.place_std
    error = F.smooth_l1_loss(model.things(known), truth, beta=0.03, reduction="none").mean(-1)
    return {
        "points": torch.stack(near).mean(),
        "where": torch.stack(where).mean(),
        "places": mean(error, places[..., 3]),
    }


def flow_loss(
    model: Plain,
    known: Tensor,
    target: Tensor,
    valid: Tensor,
    draws: int,
    generator: torch.Generator,
    share: float,
) -> Tensor:
    """The clean chunk from a noisy one, on rows that are neither committed nor behind the episode's end.

    Args:
        known: (B, known). target: (B, H, A), normalised. valid: (B, H).
    """
    target, known, valid = target.repeat(draws, 1, 1), known.repeat(draws, 1), valid.repeat(draws, 1)
    n, rows = target.shape[:2]
    # More draws near noise, where the choice is made; the last tau seen is below 1.
    t = torch.rand(n, 1, generator=generator) ** 1.5 * 0.98
    noise = torch.randn(target.shape, generator=generator)
    # Some draws have a clean prefix of 1 to `committed` rows (arXiv 2512.05964).
    length = torch.randint(1, max(model.config.committed, 1) + 1, (n, 1), generator=generator)
    length = length * (torch.rand(n, 1, generator=generator) < share) * (model.config.committed > 0)
    kept = (torch.arange(rows)[None] < length).float()
    held = kept[:, :, None]
    x = held * target + (1 - held) * (t[:, :, None] * target + (1 - t[:, :, None]) * noise)
    clean = model.predict(known, x, t + kept * (1 - t))
    counts = (valid * (1 - kept))[:, :, None]
    error = F.smooth_l1_loss(clean, target, beta=0.2, reduction="none") * counts
    return error.sum() / (counts.sum() * target.shape[2]).clamp(min=1)


def augmented(
    frames: Tensor,
    strength: float,
    generator: torch.Generator,
    window: tuple[int, int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Windows of frames (B, size, size, 3), uint8, each moved by a few pixels, and its light and colours
    changed; and by how much it was moved, (B, 2), rightwards and downwards, where the frame's side is 2.

    Args:
        strength: 1 moves by up to 3 % of the side, and scales by up to a fifth; 0 changes nothing.
        window: left, top and side of the square, pixels; all by default.
    """
    count, size = frames.shape[:2]
    left, top, side = window or (0, 0, size)
    if strength <= 0:
        return frames[:, top : top + side, left : left + side], torch.zeros(count, 2)
    reach = round(0.03 * strength * size)
    moved = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(top, top + side) + moved[0]).clamp(0, size - 1)
    columns = (torch.arange(left, left + side) + moved[1]).clamp(0, size - 1)
    out = frames[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].float()
    spread = min(0.2 * strength, 0.9)
    gain = 1 + spread * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    tint = 1 + 0.25 * spread * (2 * torch.rand(count, 1, 1, 3, generator=generator) - 1)
    lift = 255 * 0.25 * spread * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    shift = -moved[:, :, 0].flip(0).T * (2 / size)
    return out.mul_(gain * tint).add_(lift).round_().clamp_(0, 255).to(torch.uint8), shift
