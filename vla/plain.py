"""Plain: a small policy for demonstrations that hold frames, states, actions and words, and nothing else.

    prefix   cameras, a sentence, the state -> memory
    step     memory, x, tau -> next x

A sentence is the mean of its token states (minilm.py). Each camera, or a square of its frame, has a small
residual network from scratch that the sentence steers by FiLM (Perez et al. 2018, arXiv 1709.07871). What it
saw is read in two ways: keypoints, the soft-argmax of maps (Levine et al. 2016, arXiv 1504.00702) with what
is there, for where things are, and the coarse map as it lies, for all else. Where a simulator tells where
things are, the first keypoints are taught to be there (`taught`); mostly nobody does. What stands in for such
a teacher is in every recording: where the state will be later in the episode, at its end too, is predicted
from what the prefix knows (`later`), and an arm goes to things.
The head is nano's: a denoiser of whole chunks in its clean-action form, which continues committed rows. The
state and where things are reach it as they are, too: how far it is from here to there is their difference.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contract import ActionSpace, CameraSpec, Dimension, PolicySpec, TaktError
from vla.nano import Layer, advance

VERSION = 2  # of the architecture; a checkpoint of another one has other weights
CELL = 4  # pixels of a frame across a cell of the keypoints' maps
GROUPS = 8  # of channels that a norm is taken over
# What was understood (B, known), and where actions that are predicted from the state start (B, A).
Memory = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes, and the body: names, rates and limits go with the weights.

    `fine` and `coarse` are the channels at a quarter and an eighth of the frames' side `size`; `later` has
    the rows ahead at which the state is predicted, to which the episode's end is added; `committed` is the
    most rows of a clean prefix that training shows; of the keypoints the first `taught` are told where to be.
    `windows` is the square of each camera's frame that is looked at: left, top, side, in pixels; none: all.
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
    windows: tuple[tuple[int, int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Config:
        """
        Raises:
            TaktError: the sizes are of another version's architecture, or a window is none.
        """
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        if fields.pop("version", 0) != VERSION:
            raise TaktError("it was made by another version of Takt: export it with Takt of that version")
        fields["actions"] = tuple(Dimension(**row) for row in fields["actions"])
        fields["windows"] = tuple(tuple(window) for window in fields["windows"])
        config = Config(**fields)
        for left, top, side in config.windows:
            if not (
                side >= 16 and side % 8 == 0 and 0 <= min(left, top) <= max(left, top) + side <= config.size
            ):
                raise TaktError(f"windows: {left}, {top}, {side} is no square of {config.size} pixels")
        if config.windows and len(config.windows) != len(config.cameras):
            raise TaktError(f"windows: {len(config.windows)} for {len(config.cameras)} cameras")
        return config

    @property
    def known(self) -> int:
        """Numbers that the head is told: `Plain.see`."""
        return self.cond + len(self.state) + 3 * self.taught

    def window(self, camera: int) -> tuple[int, int, int]:
        """Left, top and side of what is looked at of a camera's frame, pixels."""
        return self.windows[camera] if self.windows else (0, 0, self.size)

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


class Sight(nn.Module):
    """The convolutions: uint8 (B, side, side, 3) and a sentence (B, text) -> a map at a quarter of the side,
    (B, fine, side / 4, side / 4), and one at an eighth, (B, coarse, side / 8, side / 8).
    """

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, c.stem, 5, 2, 2), nn.Conv2d(c.stem, c.fine, 3, 2, 1)
        self.near = Steered(c.fine, c.text)
        self.down = nn.Conv2d(c.fine, c.coarse, 3, 2, 1)
        self.wide = nn.ModuleList(Steered(c.coarse, c.text) for _ in range(c.blocks))
        self.up = nn.Conv2d(c.coarse, c.fine, 1)

    def forward(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        # A permuted NHWC tensor is channels-last, the layout in which convolutions are fastest.
        x = frames.permute(0, 3, 1, 2).float() * (1 / 255) - 0.5
        x = self.near(self.conv2(F.relu(self.conv1(x))), text)
        far = self.down(F.relu(x))
        for block in self.wide:
            far = block(far, text)
        return F.relu(x + F.interpolate(self.up(far), scale_factor=2.0, mode="nearest")), F.relu(far)


class Eye(nn.Module):
    """One camera's window, and a sentence (B, text) -> where keypoints are (B, 2 keypoints), across the whole
    frame, what else was seen (B, width - 2 keypoints), and the keypoints' maps (B, keypoints, cells), logits.
    """

    grid: Tensor

    def __init__(self, c: Config, window: tuple[int, int, int]) -> None:
        super().__init__()
        left, top, side = window
        self.sight = Sight(c)
        self.points = nn.Conv2d(c.fine, c.keypoints, 1)
        self.pool = nn.Conv2d(c.coarse, c.coarse // 2, 3, 2, 1)
        cells, coarse = side // CELL, -(-(side // 8) // 2)
        self.flat = nn.Linear(c.coarse // 2 * coarse**2, c.flat)
        # Coordinates of the cells' centres, -1 .. 1 from the left and from the top of the whole frame.
        line = (torch.arange(cells) + 0.5) * CELL
        u, v = ((line + start) * 2 / c.size - 1 for start in (left, top))
        grid = torch.stack([u.repeat(cells), v.repeat_interleave(cells)], 1)
        self.register_buffer("grid", grid, persistent=False)
        self.width = c.keypoints * (2 + c.fine) + c.flat

    def forward(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, far = (each.float() for each in self.sight(frames, text))
        maps = (self.points(x) * 2).flatten(2)
        weights = maps.softmax(-1)
        there = weights @ x.flatten(2).transpose(1, 2)
        flat = F.relu(self.flat(F.relu(self.pool(far)).flatten(1)))
        return (weights @ self.grid).flatten(1), torch.cat([there.flatten(1), flat], 1), maps


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
        self.eyes = nn.ModuleList(Eye(c, c.window(i)) for i in range(len(c.cameras)))
        self.body = nn.Sequential(nn.Linear(states, c.text), nn.SiLU(), nn.Linear(c.text, c.text))
        seen = sum(cast(Eye, eye).width for eye in self.eyes)
        self.trunk = nn.Sequential(
            nn.Linear(seen + 2 * c.text, c.trunk), nn.ReLU(), Layer(c.trunk), Layer(c.trunk),
            nn.Linear(c.trunk, c.cond), nn.ReLU(),
        )  # fmt: skip
        self.later = nn.Linear(c.cond, (len(c.later) + 1) * states)
        if c.taught:
            self.places = nn.Linear(c.cond + 2 * c.taught * len(c.cameras), c.taught * 3)
            self.register_buffer("place_mean", torch.zeros(c.taught, 3))
            self.register_buffer("place_std", torch.ones(c.taught, 3))
        self.inlet = nn.Linear(c.rows * actions + c.rows + c.known, c.hidden)
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

    def cut(self, frames: list[Tensor]) -> list[Tensor]:
        """The windows that are looked at, of whole frames (B, size, size, 3)."""
        if not self.config.windows:
            return frames
        return [
            image[:, top : top + side, left : left + side]
            for image, (left, top, side) in zip(frames, self.config.windows, strict=True)
        ]

    def see(self, frames: list[Tensor], state: Tensor, sentence: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the prefix knows, (B, known): what it made of all, the state, and where the taught things are,
        both normalised; and each camera's maps of keypoints, logits.

        Args:
            frames: one (B, side, side, 3) uint8 tensor a camera: its window. state: (B, S), physical.
            sentence: (B, words).
        """
        c = self.config
        text = self.reader(sentence)
        looked = [eye(image, text) for eye, image in zip(self.eyes, frames, strict=True)]
        here = (state - self.state_mean) / self.state_std
        seen = [part for uv, rest, _ in looked for part in (uv, rest)]
        cond = self.trunk(torch.cat([*seen, self.body(here), text], 1))
        known = [cond, here]
        if c.taught:
            known.append(self.places(torch.cat([cond, *(uv[:, : 2 * c.taught] for uv, _, _ in looked)], 1)))
        return torch.cat(known, 1), [maps for _, _, maps in looked]

    def ahead(self, known: Tensor) -> Tensor:
        """Where the state will be from here, each time by its own measure, (B, F, S); known: of `see`."""
        c = self.config
        return self.later(known[:, : c.cond]).reshape(-1, len(c.later) + 1, len(c.state))

    def things(self, known: Tensor) -> Tensor:
        """Where the taught things are, normalised, (B, taught, 3)."""
        return known[:, self.config.known - 3 * self.config.taught :].reshape(-1, self.config.taught, 3)

    def prefix(self, frames: list[Tensor], state: Tensor, tokens: Tensor, mask: Tensor) -> Memory:
        """What `step` remembers of an observation; whole frames."""
        known, _ = self.see(self.cut(frames), state, self.sentence(tokens, mask))
        return known, self.origin(state)

    def origin(self, state: Tensor) -> Tensor:
        """Where the actions that are predicted from the state (B, S) start, (B, A); 0 for the others."""
        return state @ self.start

    def predict(self, known: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The clean chunk, normalised, (B, H, A), from x (B, H, A) at per-row flow times t (B, H)."""
        h = self.inlet(torch.cat([x.flatten(1), t, known], 1))
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
