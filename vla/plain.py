"""Plain: a small policy for demonstrations that hold frames, states, actions and words, and nothing else.

    prefix   cameras, a sentence, the state -> memory
    step     memory, x, tau -> next x

A sentence is the mean of its token states (minilm.py). Each camera has a small residual network from
scratch that the sentence steers by FiLM (Perez et al. 2018, arXiv 1709.07871). What it saw is read in two
ways: keypoints, the soft-argmax of maps (Levine et al. 2016, arXiv 1504.00702) with what is there, for
where things are, and the coarse map as it lies, for all else. Where a simulator tells where things are, the
first keypoints are taught to be there (`taught`); mostly nobody does. What stands in for such a teacher is in
every recording: where the state will be later in the episode, at its end too, is predicted from what the
prefix knows (`later`), and an arm goes to things.
The head is nano's: a denoiser of whole chunks in its clean-action form, which continues committed rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contract import ActionSpace, CameraSpec, Dimension, PolicySpec, TaktError
from vla.nano import Layer, advance

VERSION = 1  # of the architecture; a checkpoint of another one has other weights
GROUPS = 8  # of channels that a norm is taken over
# What was understood (B, cond), and where actions that are predicted from the state start (B, A).
Memory = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes, and the body: names, rates and limits go with the weights.

    `fine` and `coarse` are the channels at a quarter and an eighth of the frames' side `size`; `later` has
    the rows ahead at which the state is predicted, to which the episode's end is added; `committed` is the
    most rows of a clean prefix that training shows; of the keypoints the first `taught` are told where to be.
    """

    cameras: tuple[str, ...]
    state: tuple[str, ...]
    actions: tuple[Dimension, ...]
    rows: int
    dt: float
    name: str = "plain"
    size: int = 128
    stem: int = 16
    fine: int = 32
    coarse: int = 64
    blocks: int = 2
    keypoints: int = 32
    flat: int = 128
    words: int = 384
    text: int = 64
    trunk: int = 512
    cond: int = 256
    hidden: int = 512
    layers: int = 3
    committed: int = 0
    later: tuple[int, ...] = ()
    encoder: str = "minilm"
    taught: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Config:
        """
        Raises:
            TaktError: the sizes are of another version's architecture.
        """
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        if fields.pop("version", 0) != VERSION:
            raise TaktError("it was made by another version of Takt: export it with Takt of that version")
        fields["actions"] = tuple(Dimension(**row) for row in fields["actions"])
        return Config(**fields)

    def spec(self, replan: float, joining: str) -> PolicySpec:
        """The contract of such a policy."""
        committed = {"prefix": self.committed, "guided": self.rows // 2, "none": 0}[joining]
        cameras = tuple(CameraSpec(name, self.size, self.size) for name in self.cameras)
        space = ActionSpace(self.actions)
        return PolicySpec(
            self.name, self.state, space, cameras, self.rows, self.dt, replan, joining, committed
        )  # fmt: skip


def tiny(config: Config) -> Config:
    """For tests: the same shapes of everything that is exported, very thin inside."""
    return replace(
        config, size=32, stem=8, fine=8, coarse=8, blocks=1, keypoints=4, flat=8, text=8, trunk=16, cond=16,
        hidden=16, layers=1,
    )  # fmt: skip


class Steered(nn.Module):
    """A residual convolution whose scale and shift come from the sentence."""

    def __init__(self, channels: int, text: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.film = nn.Linear(text, 2 * channels)
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        gain, shift = self.film(text)[:, :, None, None].chunk(2, 1)
        return x + self.conv(F.relu(self.norm(x) * (1 + gain) + shift))


class Eye(nn.Module):
    """One camera: uint8 (B, size, size, 3) and a sentence (B, text) -> what was seen (B, width), and the
    keypoints' maps (B, keypoints, cells), logits.
    """

    grid: Tensor

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, c.stem, 5, 2, 2), nn.Conv2d(c.stem, c.fine, 3, 2, 1)
        self.near = Steered(c.fine, c.text)
        self.down = nn.Conv2d(c.fine, c.coarse, 3, 2, 1)
        self.wide = nn.ModuleList(Steered(c.coarse, c.text) for _ in range(c.blocks))
        self.up = nn.Conv2d(c.coarse, c.fine, 1)
        self.points = nn.Conv2d(c.fine, c.keypoints, 1)
        self.pool = nn.Conv2d(c.coarse, c.coarse // 2, 3, 2, 1)
        side, coarse = c.size // 4, -(-(c.size // 8) // 2)
        self.flat = nn.Linear(c.coarse // 2 * coarse**2, c.flat)
        # Coordinates of the cells' centres, -1 .. 1 from the left and from the top.
        line = (torch.arange(side) + 0.5) * 2 / side - 1
        grid = torch.stack([line.repeat(side), line.repeat_interleave(side)], 1)
        self.register_buffer("grid", grid, persistent=False)
        self.width = c.keypoints * (2 + c.fine) + c.flat

    def forward(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        # A permuted NHWC tensor is channels-last, the layout in which convolutions are fastest.
        x = frames.permute(0, 3, 1, 2).float() * (1 / 255) - 0.5
        x = self.near(self.conv2(F.relu(self.conv1(x))), text)
        far = self.down(F.relu(x))
        for block in self.wide:
            far = block(far, text)
        x = F.relu(x + F.interpolate(self.up(far), scale_factor=2.0, mode="nearest"))
        maps = (self.points(x) * 2).flatten(2)
        weights = maps.softmax(-1)
        there = weights @ x.flatten(2).transpose(1, 2)
        flat = F.relu(self.flat(F.relu(self.pool(F.relu(far))).flatten(1)))
        return torch.cat([(weights @ self.grid).flatten(1), there.flatten(1), flat], 1), maps


class Block(nn.Module):
    """A residual layer whose scale and shift come from the rows' flow times."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.norm, self.time = nn.LayerNorm(c.hidden), nn.Linear(c.rows, 2 * c.hidden)
        self.up, self.down = nn.Linear(c.hidden, c.hidden), nn.Linear(c.hidden, c.hidden)

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        gain, shift = self.time(t).chunk(2, 1)
        return h + self.down(F.silu(self.up(self.norm(h) * (1 + gain) + shift)))


class Plain(nn.Module):
    state_mean: Tensor
    state_std: Tensor
    later_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    place_mean: Tensor
    place_std: Tensor
    start: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        states, actions = len(c.state), len(c.actions)
        self.reader = nn.Sequential(
            nn.LayerNorm(c.words), nn.Linear(c.words, c.text), nn.SiLU(), nn.Linear(c.text, c.text)
        )
        self.eyes = nn.ModuleList(Eye(c) for _ in c.cameras)
        self.body = nn.Sequential(nn.Linear(states, c.text), nn.SiLU(), nn.Linear(c.text, c.text))
        seen = sum(cast(Eye, eye).width for eye in self.eyes)
        self.trunk = nn.Sequential(
            nn.Linear(seen + 2 * c.text, c.trunk), nn.ReLU(), Layer(c.trunk), Layer(c.trunk),
            nn.Linear(c.trunk, c.cond), nn.ReLU(),
        )  # fmt: skip
        self.later = nn.Linear(c.cond, (len(c.later) + 1) * states)
        if c.taught:
            self.places = nn.Linear(c.cond, c.taught * 3)
            self.register_buffer("place_mean", torch.zeros(c.taught, 3))
            self.register_buffer("place_std", torch.ones(c.taught, 3))
        self.inlet = nn.Linear(c.rows * actions + c.rows + c.cond, c.hidden)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.outlet = nn.Linear(c.hidden, c.rows * actions)
        nn.init.zeros_(self.outlet.weight)
        # Normalisation, measured on the data; saved with the weights.
        self.register_buffer("state_mean", torch.zeros(states))
        self.register_buffer("state_std", torch.ones(states))
        self.register_buffer("later_std", torch.ones(len(c.later) + 1, states))
        self.register_buffer("action_mean", torch.zeros(c.rows, actions))
        self.register_buffer("action_std", torch.ones(c.rows, actions))
        # Which of the state's numbers a target is predicted from: the one of its name.
        start = [[float(d.absolute and d.name == name) for d in c.actions] for name in c.state]
        self.register_buffer("start", torch.tensor(start).reshape(states, actions), persistent=False)

    def sentence(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The mean of token states (B, L, words) where mask (B, L) is 1, shape (B, words)."""
        kept = mask[:, :, None].to(tokens.dtype)
        return (tokens * kept).sum(1) / kept.sum(1).clamp(min=1)

    def see(self, frames: list[Tensor], state: Tensor, sentence: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the prefix knows, shape (B, cond), and each camera's maps of keypoints, logits.

        Args:
            frames: one (B, size, size, 3) uint8 tensor a camera. state: (B, S), physical.
            sentence: (B, words).
        """
        text = self.reader(sentence)
        looked = [eye(image, text) for eye, image in zip(self.eyes, frames, strict=True)]
        body = self.body((state - self.state_mean) / self.state_std)
        return self.trunk(torch.cat([*(seen for seen, _ in looked), body, text], 1)), [m for _, m in looked]

    def prefix(self, frames: list[Tensor], state: Tensor, tokens: Tensor, mask: Tensor) -> Memory:
        """What `step` remembers of an observation."""
        return self.see(frames, state, self.sentence(tokens, mask))[0], self.origin(state)

    def origin(self, state: Tensor) -> Tensor:
        """Where the actions that are predicted from the state (B, S) start, (B, A); 0 for the others."""
        return state @ self.start

    def predict(self, cond: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The clean chunk, normalised, (B, H, A), from x (B, H, A) at per-row flow times t (B, H)."""
        h = self.inlet(torch.cat([x.flatten(1), t, cond], 1))
        for block in self.blocks:
            h = block(h, t)
        return self.outlet(h).reshape(x.shape)

    def normalise(self, actions: Tensor, origin: Tensor) -> Tensor:
        """Physical (B, H, A) -> normalised."""
        return (actions - origin[:, None] - self.action_mean) / self.action_std

    def physical(self, x: Tensor, origin: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return x * self.action_std + self.action_mean + origin[:, None]

    def step(
        self, cond: Tensor, origin: Tensor, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, kept_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One Euler step of the flow; next x (B, H, A) and it in physical units.

        Args:
            cond, origin: of `prefix`. t, dt: (1,), flow time and its step.
            kept: (B, H, A), physical. kept_mask: (B, H), 1 = committed.
        """
        held = kept_mask[:, :, None]
        x = held * self.normalise(kept, origin) + (1 - held) * x
        clean = self.predict(cond, x, t + kept_mask * (1 - t))
        x = x + (1 - held) * (clean - x) * advance(t, dt)
        return x, self.physical(x, origin)
