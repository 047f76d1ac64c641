"""What the nano policy (nano.py) is taught: the flow, and beside it what the simulator alone can tell.

flow        the clean chunk from a noisy one
pixels      keypoints of the thing, the place and the landmark against their true pixels
where       their matches against a spot at the true pixel
sure        whether each of them is in the picture
positions   where thing and place are, from the robot
meaning     what the sentence means, from the words' vectors
done        whether the task is done
possible    which of what is named is not on the table
critic      how the episode ended, from what the prefix knows and what was then executed
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vla import nano
from vla.possible import missing

WEIGHTS = {
    "flow": 1.0, "pixels": 0.5, "where": 0.1, "sure": 0.1, "positions": 0.2, "meaning": 0.1, "done": 0.1,
    "possible": 0.1, "critic": 0.1,
}  # fmt: skip
# Of the frames; only a simulator knows them.
PRIVILEGED = ("pixels", "where", "sure", "positions", "possible")

HIDDEN = 0.2  # share of what tells the possible that training leaves out


def loss(
    model: nano.Nano,
    batch: dict[str, Any],
    draws: int,
    generator: torch.Generator,
    share: float = 0.3,
    privileged: bool = True,
) -> dict[str, Tensor]:
    """Every loss of one batch by name; the sum by WEIGHTS is under "total".

    The critic, and what tells the possible, learn from a copy of what the prefix knows: they judge the
    policy and do not shape it.

    Args:
        batch: frames, state, tokens, mask, chunk (B, H, A) rad, committed (B,): how many of a chunk's rows
            are a running plan's, pixels (B, cameras, 3, 3): u, v, inside of each role, positions (B, 6) m,
            present (B, 3), meaning (B, 9) class numbers, done (B,), driver (B, H, A) rad and outcome (B,)
            0 .. 1: what was executed, and how it ended.
        draws: how many (noise, tau) draws share one look at the frames.
        share: of the draws without committed rows that get a committed prefix of the chunk's own.
        privileged: whether the losses of PRIVILEGED count.
    """
    out = model.see(batch["frames"], batch["state"], batch["tokens"], batch["mask"])
    cond, state = out["cond"], batch["state"]
    target, driven = (model.normalise(batch[name], state) for name in ("chunk", "driver"))
    losses = {"flow": flow_loss(model, cond, target, batch["committed"], draws, generator, share)}
    if privileged:
        losses |= seen(model, out, batch)
        truth = missing(batch["meaning"], batch["present"], nano.NAMED)
        losses["possible"] = possible(model, out["asked"], truth, generator)
    losses["meaning"] = meaning(model, out["words"], batch["meaning"])
    losses["done"] = F.binary_cross_entropy_with_logits(model.done(cond)[:, 0], batch["done"])
    judged = model.critic(cond.detach(), driven)
    losses["critic"] = F.binary_cross_entropy_with_logits(judged, batch["outcome"])
    losses["total"] = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
    return losses


def flow_loss(
    model: nano.Nano,
    cond: Tensor,
    target: Tensor,
    committed: Tensor,
    draws: int,
    generator: torch.Generator,
    share: float = 0.3,
) -> Tensor:
    """What the head is taught: the clean chunk from a noisy one, on the rows that are not committed.

    Smooth L1 where flow matching has a squared error: a label that jumps between two phases of the task
    then pulls the prediction less.

    Args:
        cond: (B, cond), what the prefix understood. target: (B, H, A), normalised.
        committed: (B,), int; the rows that the target begins with whatever the policy answers. What follows
            them is right after these rows alone, so they are always given as a prefix.
    """
    target, cond = target.repeat(draws, 1, 1), cond.repeat(draws, 1)
    n, rows = target.shape[0], target.shape[1]
    # More draws near noise, where the choice is made; the last tau seen is below 1.
    t = torch.rand(n, 1, generator=generator) ** 1.5 * 0.98
    noise = torch.randn(target.shape, generator=generator)
    # Some draws have a clean prefix of 1 to `committed` rows (arXiv 2512.05964).
    length = torch.randint(1, model.config.committed + 1, (n, 1), generator=generator)
    length = length * (torch.rand(n, 1, generator=generator) < share)
    given = committed.repeat(draws)[:, None].clamp(max=model.config.committed)
    length = torch.where(given > 0, given, length)
    kept = (torch.arange(rows)[None] < length).float()
    held = kept[:, :, None]
    x = held * target + (1 - held) * (t[:, :, None] * target + (1 - t[:, :, None]) * noise)
    clean = model.predict(cond, x, t + kept * (1 - t))
    error = F.smooth_l1_loss(clean, target, beta=0.2, reduction="none") * (1 - held)
    return error.sum() / ((1 - held).sum() * target.shape[2])


def seen(model: nano.Nano, out: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
    """Keypoints and matches against the true pixels, where those are inside; positions, where present."""
    parts: dict[str, list[Tensor]] = {"pixels": [], "where": [], "sure": []}
    for k, (eye, saw) in enumerate(zip(model.each_eye(), out["eyes"], strict=True)):
        uv, inside = batch["pixels"][:, k, :, :2], batch["pixels"][:, k, :, 2]
        parts["pixels"].append(mean((saw["named"] - uv).abs().sum(-1), inside))
        parts["where"].append(mean(spotted(saw["matches"], eye.grid, uv), inside))
        parts["sure"].append(F.binary_cross_entropy_with_logits(saw["sure"], inside))
    truth = (batch["positions"] - model.position_mean) / model.position_std
    error = F.smooth_l1_loss(out["positions"], truth, beta=0.03, reduction="none")
    known = batch["present"][:, :2].repeat_interleave(3, 1)
    averaged = {name: torch.stack(values).mean() for name, values in parts.items()}
    return averaged | {"positions": mean(error, known)}


def spotted(maps: Tensor, grid: Tensor, uv: Tensor, cell: float | None = None) -> Tensor:
    """Cross-entropy of maps against a spot of a cell's width, shape (B, K).

    Args:
        maps: (B, K, cells), logits. grid: (cells, 2), their centres. uv: (B, K, 2), where the spot is.
        cell: its width; that of one of a square grid from -1 to 1 by default.
    """
    cell = cell or 2 / grid.shape[0] ** 0.5
    spot = torch.exp(-((uv[:, :, None] - grid) ** 2).sum(-1) / (2 * cell**2)) + 1e-9
    spot = spot / spot.sum(-1, keepdim=True)
    return -(spot * maps.log_softmax(-1)).sum(-1)


def possible(model: nano.Nano, asked: Tensor, truth: Tensor, generator: torch.Generator) -> Tensor:
    """What is missing (B, 3) against the truth, from what `nano.Nano.see` calls asked.

    A share of it is left out, so that no table is learned by heart.
    """
    kept = (torch.rand(asked.shape, generator=generator) >= HIDDEN).to(asked.dtype) / (1 - HIDDEN)
    return F.binary_cross_entropy_with_logits(model.possible(asked * kept), truth)


def meaning(model: nano.Nano, words: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of the classes that each query has to tell, their mean.

    Args:
        words: (B, 4, text). truth: (B, 9), class numbers.
    """
    errors = []
    for i, query in enumerate(nano.QUERIES):
        rows = nano.TELLS[query]
        logits = model.tell[query](words[:, i]).split([model.config.classes[row] for row in rows], 1)
        errors += [F.cross_entropy(told, truth[:, row]) for told, row in zip(logits, rows, strict=True)]
    return torch.stack(errors).mean()


def mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of the values that count; 0 where none does."""
    return (values * counts).sum() / counts.sum().clamp(min=1)
