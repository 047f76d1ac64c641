"""Nano: a small vision-language-action policy that two CPU cores can train and run.

    prefix   two cameras, words, joint state -> memory       (vision once a chunk)
    step     memory, x, tau -> next x                        (a few small layers, N times)

Words are token states of a sentence encoder (minilm.py). Two queries, one for the thing and one
for the place, read them by attention; each query is matched against the feature maps and the
soft-argmax of the match is a keypoint (Levine et al. 2016, arXiv 1504.00702, section 5), taught
by the true pixel from the simulator (a privileged auxiliary loss). FiLM (Perez et al. 2018,
arXiv 1709.07871) lets the words shape the maps, from which free keypoints are read as well.
The head is a flow-matching denoiser over action chunks (Lipman et al. 2022, arXiv 2210.02747) in
its clean-action form: it predicts the chunk a, and the velocity is (a - x) / (1 - tau).
Committed rows can be given as a clean prefix (training-time real-time chunking, arXiv 2512.05964), or
pull at the rows while they are denoised (real-time chunking, arXiv 2506.07339).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Sizes. `pools` shrinks a camera's frames by whole factors: the wrist sees things from close by.

    `committed` is no size: the most rows of a clean prefix that training has shown.
    """

    cameras: tuple[str, ...] = ("front", "wrist")
    pools: tuple[int, ...] = (1, 2)
    size: int = 96
    state: int = 6
    actions: int = 6
    rows: int = 12
    words: int = 384
    text: int = 96
    stem: int = 24
    channels: int = 48
    keypoints: int = 16
    cond: int = 256
    hidden: int = 384
    blocks: int = 3
    committed: int = 4

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Config:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return Config(**fields)


def tiny() -> Config:
    """For tests: the same shapes of everything that is exported, very thin inside."""
    return Config(text=16, stem=4, channels=8, keypoints=4, cond=16, hidden=32, blocks=1)


class Reader(nn.Module):
    """Token states -> one vector for the thing and one for the place, shape (B, 2, text)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.project = nn.Linear(c.words, c.text)
        self.norm = nn.LayerNorm(c.text)
        self.mix_q, self.mix_k, self.mix_v = (nn.Linear(c.text, c.text) for _ in range(3))
        self.queries = nn.Parameter(torch.randn(2, c.text) * 0.5)
        self.key, self.value = nn.Linear(c.text, c.text), nn.Linear(c.text, c.text)
        self.out = nn.Sequential(nn.Linear(c.text, c.text), nn.ReLU(), nn.Linear(c.text, c.text))
        self.scale = c.text**-0.5

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        bias = (1.0 - mask[:, None, :].to(tokens.dtype)) * -1e4
        x = self.norm(self.project(tokens))
        mixed = (self.mix_q(x) @ self.mix_k(x).transpose(1, 2) * self.scale + bias).softmax(-1)
        x = x + mixed @ self.mix_v(x)
        weights = (self.queries @ self.key(x).transpose(1, 2) * self.scale + bias).softmax(-1)
        return self.out(weights @ self.value(x))


class Eye(nn.Module):
    """One camera: uint8 (B, h, w, 3) and words (B, 2, text) -> what was seen, as vectors."""

    grid: Tensor

    def __init__(self, c: Config, pool: int) -> None:
        super().__init__()
        self.pool, side = pool, c.size // pool // 4
        self.conv1 = nn.Conv2d(3, c.stem, 5, 2, 2)
        self.conv2 = nn.Conv2d(c.stem, c.channels, 3, 2, 1)
        self.conv3 = nn.Conv2d(c.channels, c.channels, 3, 1, 1)
        self.conv4 = nn.Conv2d(c.channels, c.channels, 3, 1, 1)
        self.film = nn.Linear(2 * c.text, 4 * c.channels)
        self.match = nn.Linear(c.text, c.channels + 1)
        self.points = nn.Conv2d(c.channels, c.keypoints, 1)
        # Coordinates of the cells' centres, -1 .. 1 from the left and from the top.
        line = (torch.arange(side) + 0.5) * 2 / side - 1
        grid = torch.stack([line.repeat(side), line.repeat_interleave(side)], 1)
        self.register_buffer("grid", grid, persistent=False)

    def maps(self, frames: Tensor, words: Tensor) -> Tensor:
        """Feature maps, shape (B, channels, cells)."""
        x = frames.permute(0, 3, 1, 2).float() * (1 / 255) - 0.5
        if self.pool > 1:
            x = F.avg_pool2d(x, self.pool)
        gain1, shift1, gain2, shift2 = self.film(words.flatten(1))[:, :, None, None].chunk(4, 1)
        x = self.conv2(F.relu(self.conv1(x)))
        x = F.relu(x * (1 + gain1) + shift1)
        x = x + F.relu(self.conv3(x))
        x = x + F.relu(self.conv4(x) * (1 + gain2) + shift2)
        return x.flatten(2)

    def forward(self, frames: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """seen (B, F); matches (B, 2, cells) before the softmax; named keypoints (B, 2, 2)."""
        maps = self.maps(frames, words)
        query = self.match(words)
        matches = query[..., :-1] @ maps * (maps.shape[1] ** -0.5) * 4
        weights = matches.softmax(-1)
        named = weights @ self.grid
        # How sure the match is: the mass of the best cell, against a learned threshold.
        sure = torch.sigmoid(matches.amax(-1) + query[..., -1])
        looked = weights @ maps.transpose(1, 2)
        free = self.points(maps[..., None])[..., 0].softmax(-1) @ self.grid
        seen = torch.cat([named.flatten(1), sure, looked.flatten(1), free.flatten(1)], 1)
        return seen, matches, named

    @property
    def width(self) -> int:
        channels, points = self.conv2.out_channels, self.points.out_channels
        return 4 + 2 + 2 * channels + 2 * points


class Nano(nn.Module):
    state_mean: Tensor
    state_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    relative: Tensor
    position_mean: Tensor
    position_std: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.reader = Reader(c)
        self.eyes = nn.ModuleList(Eye(c, pool) for pool in c.pools)
        seen = sum(eye.width for eye in self.each_eye())
        self.locate = nn.Sequential(nn.Linear(seen + c.state, 128), nn.ReLU(), nn.Linear(128, 6))
        self.trunk = nn.Sequential(
            nn.Linear(seen + c.state + 6 + 2 * c.text, 512), nn.ReLU(), nn.Linear(512, c.cond), nn.ReLU()
        )
        self.inlet = nn.Linear(c.rows * c.actions + c.rows + c.cond, c.hidden)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.blocks))
        self.outlet = nn.Linear(c.hidden, c.rows * c.actions)
        nn.init.zeros_(self.outlet.weight)
        # Normalisation, measured on the data set; saved with the weights.
        self.register_buffer("state_mean", torch.zeros(c.state))
        self.register_buffer("state_std", torch.ones(c.state))
        self.register_buffer("action_mean", torch.zeros(c.rows, c.actions))
        self.register_buffer("action_std", torch.ones(c.rows, c.actions))
        # 1 where actions are predicted relative to the measured joint, 0 where they are absolute.
        self.register_buffer("relative", torch.tensor([1.0] * (c.actions - 1) + [0.0]))
        self.register_buffer("position_mean", torch.zeros(6))
        self.register_buffer("position_std", torch.ones(6))

    def each_eye(self) -> list[Eye]:
        """One a camera, in the order of `config.cameras`."""
        return cast(list[Eye], list(self.eyes))

    def head(self) -> list[nn.Parameter]:
        """The parameters of the denoiser, all that `predict` uses."""
        parts = (self.inlet, self.blocks, self.outlet)
        return [parameter for part in parts for parameter in part.parameters()]

    def see(self, frames: list[Tensor], state: Tensor, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """Everything the prefix knows, with what the auxiliary losses need.

        Args:
            frames: one (B, size, size, 3) uint8 tensor a camera.
            state: (B, S), rad. tokens: (B, L, words). mask: (B, L).
        """
        words = self.reader(tokens, mask)
        eyes = [eye(image, words) for eye, image in zip(self.each_eye(), frames, strict=True)]
        seen = torch.cat([e[0] for e in eyes] + [(state - self.state_mean) / self.state_std], 1)
        positions = self.locate(seen)
        cond = self.trunk(torch.cat([seen, positions, words.flatten(1)], 1))
        return {"cond": cond, "positions": positions, "eyes": eyes}

    def prefix(
        self, frames: list[Tensor], state: Tensor, tokens: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """memory: what was understood (B, cond), and the joints it is relative to (B, S)."""
        return self.see(frames, state, tokens, mask)["cond"], state

    def predict(self, cond: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The clean chunk, normalised, (B, H, A), from x (B, H, A) at per-row flow times t (B, H)."""
        h = self.inlet(torch.cat([x.flatten(1), t, cond], 1))
        for block in self.blocks:
            h = block(h, t)
        return self.outlet(h).reshape(x.shape)

    def normalise(self, actions: Tensor, state: Tensor) -> Tensor:
        """Physical (B, H, A) -> normalised."""
        return (actions - state[:, None] * self.relative - self.action_mean) / self.action_std

    def physical(self, x: Tensor, state: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return x * self.action_std + self.action_mean + state[:, None] * self.relative

    def step(
        self, cond: Tensor, state: Tensor, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, kept_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One Euler step of the flow; next x (B, H, A) and it in physical units.

        Args:
            t, dt: (1,), flow time and its step. kept: (B, H, A), physical. kept_mask: (B, H), 1 = committed.
        """
        held = kept_mask[:, :, None]
        x = held * self.normalise(kept, state) + (1 - held) * x
        times = t + kept_mask * (1 - t)
        clean = self.predict(cond, x, times)
        x = x + (1 - held) * (clean - x) * advance(t, dt)
        return x, self.physical(x, state)

    def step_guided(
        self,
        cond: Tensor,
        state: Tensor,
        x: Tensor,
        t: Tensor,
        dt: Tensor,
        kept: Tensor,
        weights: Tensor,
        beta: float = 5.0,
    ) -> tuple[Tensor, Tensor]:
        """As `step`, for a policy that was not trained with a prefix: the known rows pull instead.

        The error of the clean estimate, weights * (kept - estimate), is added to the velocity in the
        normalised space (arXiv 2506.07339, equation 2, with the identity in place of the denoiser's
        Jacobian: no backward pass, so that it can be exported).

        Args:
            weights: (B, H), 0 .. 1. beta: bound of the guidance.
        """
        clean = self.predict(cond, x, t.expand(x.shape[:2]))
        error = weights[:, :, None] * (self.normalise(kept, state) - clean)
        x = x + (clean - x) * advance(t, dt) + error * pull(t, dt, beta)
        return x, self.physical(x, state)


def advance(t: Tensor, dt: Tensor) -> Tensor:
    """How much of the way to the clean chunk a step goes, dt / (1 - t); finite at t = 1."""
    return dt / (1 - t).clamp(min=1e-6)


def pull(t: Tensor, dt: Tensor, beta: float) -> Tensor:
    """How much of the error a guided step takes back: dt times `flow.guidance`, at most all of it.

    Without that bound a step of dt > 1 / beta, such as the last one of a sampler that ends early, would
    shoot past the known rows.
    """
    spread = (t * t + (1 - t) * (1 - t)) / (t * (1 - t)).clamp(min=1e-6)
    return (dt * spread.clamp(max=beta)).clamp(max=1.0)


class Block(nn.Module):
    """A residual layer whose scale and shift come from the rows' flow times."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.hidden)
        self.time = nn.Linear(c.rows, 2 * c.hidden)
        self.up, self.down = nn.Linear(c.hidden, c.hidden), nn.Linear(c.hidden, c.hidden)

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        gain, shift = self.time(t).chunk(2, 1)
        return h + self.down(F.silu(self.up(self.norm(h) * (1 + gain) + shift)))


def loss(
    model: Nano, batch: dict[str, Any], draws: int, generator: torch.Generator, share: float = 0.3
) -> dict[str, Tensor]:
    """Flow loss and auxiliary losses of one batch; the sum is under "total".

    Args:
        batch: frames, state, tokens, mask, chunk (B, H, A) rad, pixels (B, cameras, 2, 3), positions (B, 6),
            committed (B,): how many of a chunk's rows are a running plan's.
        draws: how many (noise, tau) draws share one look at the frames.
        share: of the draws without such rows that get a committed prefix of the chunk's own.
    """
    out = model.see(batch["frames"], batch["state"], batch["tokens"], batch["mask"])
    target = model.normalise(batch["chunk"], batch["state"])
    losses = {"flow": flow_loss(model, out["cond"], target, batch["committed"], draws, generator, share)}
    losses |= _auxiliary(model, out, batch)
    losses["total"] = (
        losses["flow"] + 0.5 * losses["pixels"] + 0.1 * losses["where"] + 0.2 * losses["positions"]
    )
    return losses


def flow_loss(
    model: Nano,
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


def _auxiliary(model: Nano, out: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
    """Named keypoints and matches against the true pixels; positions against the true ones."""
    pixels, where = [], []
    for k, (_, matches, named) in enumerate(out["eyes"]):
        uv, inside = batch["pixels"][:, k, :, :2], batch["pixels"][:, k, :, 2]
        pixels.append(((named - uv).abs().sum(-1) * inside).sum() / inside.sum().clamp(min=1))
        grid = model.each_eye()[k].grid
        cell = 2 / grid.shape[0] ** 0.5
        spot = torch.exp(-((uv[:, :, None] - grid) ** 2).sum(-1) / (2 * cell**2)) + 1e-9
        spot = spot / spot.sum(-1, keepdim=True)
        entropy = -(spot * matches.log_softmax(-1)).sum(-1)
        where.append((entropy * inside).sum() / inside.sum().clamp(min=1))
    truth = (batch["positions"] - model.position_mean) / model.position_std
    return {
        "pixels": sum(pixels) / len(pixels),
        "where": sum(where) / len(where),
        "positions": F.smooth_l1_loss(out["positions"], truth, beta=0.1),
    }
