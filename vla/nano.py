"""Nano: a small vision-language-action policy that two CPU cores can train and run.

    reader   words -> what is asked for                      (once an instruction)
    prefix   two cameras, that, joint state -> memory        (vision once a chunk)
    step     memory, x, tau -> next x                        (a few small layers, N times)

Words are token states of a sentence encoder (minilm.py). Four queries read them by attention: for the
thing, the place, the landmark of a spatial word, and the verb. Maps are made of the frames alone, without
the words, so that what a colour or a shape looks like is learned once for all sentences. The first three
vectors are matched against the maps, and the soft-argmax of a match is a keypoint (Levine et al. 2016,
arXiv 1504.00702, section 5), taught by the true pixel from the simulator (a privileged auxiliary loss,
nano_losses.py). Spatial words add terms of where a cell is, on its own and from the landmark. FiLM (Perez
et al. 2018, arXiv 1709.07871) lets the verb choose what free keypoints, read beside them, look for.
The head is a flow-matching denoiser over action chunks (Lipman et al. 2022, arXiv 2210.02747) in
its clean-action form: it predicts the chunk a, and the velocity is (a - x) / (1 - tau).
Committed rows can be given as a clean prefix (training-time real-time chunking, arXiv 2512.05964), or
pull at the rows while they are denoised (real-time chunking, arXiv 2506.07339).
Small heads judge: whether the task is done, whether a chunk would get it done (the critic), and whether
what is named is there (possible.py); where something is not, a chunk holds the arm still.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contract import TaktError
from vla.layers import pull
from vla.possible import Possible, given, hold

VERSION = 5  # of the architecture; a checkpoint of another one has other weights
ROLES = ("thing", "place", "landmark")  # what is looked for in the frames
QUERIES = (*ROLES, "verb")
VERB = QUERIES.index("verb")
# What was understood (B, cond), the joints that it is relative to (B, S), and 1 where the arm is held still,
# since something that is named is not there (B, 1).
Memory = tuple[Tensor, Tensor, Tensor]
# What was read of an instruction, see `Nano.read`: the same for every look at the frames.
Said = dict[str, Tensor]
NEAR = 2  # tokens on each side that a token is bound with
ASKED = ("query", "film", "alone", "beside")  # what `Eye.ask` returns
CELL = 4  # pixels a side of a cell of a map
NAMED = ((1, 2), (3, 4), (7, 8))  # the meaning's rows that name each of ROLES: its colour, its kind
# Which rows of the meaning (`Config.classes`) each query has to tell, by their places in it.
TELLS = {"thing": (1, 2), "place": (3, 4), "landmark": (6, 7, 8), "verb": (0, 5, 6)}


@dataclass(frozen=True)
class Config:
    """Sizes. `pools` shrinks a camera's frames by whole factors: the wrist sees things from close by.

    `committed`, `hold_below` and `clear_above` are no sizes: the most rows of a clean prefix that training
    has shown; how likely it must be that everything named is there for the arm to be moved; how surely a
    thing's colour and kind must have been read for it to be called missing; where the first joints are, and
    within what [rad], while the arm has not begun: what it has begun it ends. `classes` has the number
    of classes, "none" included, of what a sentence means: verb, thing's colour and kind, place's colour and
    kind, side, relation, landmark's colour and kind. `encoder` names what makes token states (minilm.py).
    """

    cameras: tuple[str, ...] = ("front", "wrist")
    pools: tuple[int, ...] = (1, 2)
    size: int = 96
    state: int = 6
    actions: int = 6
    rows: int = 12
    words: int = 384
    text: int = 96
    heads: int = 4
    stem: int = 24
    channels: int = 48
    keypoints: int = 16
    locate: int = 256
    trunk: int = 512
    cond: int = 256
    hidden: int = 384
    blocks: int = 3
    committed: int = 8
    hold_below: float = 0.3
    clear_above: float = 0.99
    home: tuple[float, ...] = (0.0, -0.55, 0.75, 0.95, 0.0)
    home_within: tuple[float, ...] = (0.3, 0.15, 0.15, 0.15, 0.1)
    classes: tuple[int, ...] = (6, 7, 4, 7, 6, 3, 10, 7, 6)
    encoder: str = "minilm"

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Config:
        """
        Raises:
            TaktError: the sizes are of another version's architecture.
        """
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        version = fields.pop("version", 1)
        if version != VERSION:
            age = "an older" if version in range(VERSION) else "a newer"
            raise TaktError(f"it was made by {age} version of Takt: export it with Takt of that version")
        return Config(**fields)


def tiny() -> Config:
    """For tests: the same shapes of everything that is exported, very thin inside."""
    return Config(text=16, stem=4, channels=8, keypoints=4, locate=16, trunk=32, cond=16, hidden=32, blocks=1)


class Reader(nn.Module):
    """Token states -> one vector for each of QUERIES, shape (B, 4, text)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(c.words, c.text), nn.LayerNorm(c.text)
        # A noun follows its colour, a place its "in": neighbours are bound before anything looks far.
        self.near = nn.Conv1d(c.text, c.text, 2 * NEAR + 1, padding=NEAR)
        self.mix_norm, self.mix = nn.LayerNorm(c.text), nn.Linear(c.text, 3 * c.text)
        self.mixed = nn.Linear(c.text, c.text)
        self.wide = nn.Sequential(
            nn.LayerNorm(c.text), nn.Linear(c.text, 2 * c.text), nn.ReLU(), nn.Linear(2 * c.text, c.text)
        )
        self.queries = nn.Parameter(torch.randn(len(QUERIES), c.text) * 0.5)
        self.key, self.value = nn.Linear(c.text, c.text), nn.Linear(c.text, c.text)
        self.out = nn.Sequential(nn.Linear(c.text, c.text), nn.ReLU(), nn.Linear(c.text, c.text))
        self.heads = c.heads

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        bias = (1.0 - mask[:, None, None, :].to(tokens.dtype)) * -1e4
        x = self.norm(self.project(tokens))
        x = x + self.near((x * mask[..., None].to(x.dtype)).transpose(1, 2)).transpose(1, 2)
        q, k, v = self.mix(self.mix_norm(x)).chunk(3, -1)
        x = x + self.mixed(self._attend(q, k, v, bias))
        x = x + self.wide(x)
        return self.out(self._attend(self.queries[None], self.key(x), self.value(x), bias))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Attention in heads: q (1 or B, n, text), k and v (B, L, text) -> (B, n, text)."""
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + bias).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class Eye(nn.Module):
    """One camera: uint8 (B, h, w, 3) and what words ask for -> what was seen, as vectors."""

    grid: Tensor
    here: Tensor

    def __init__(self, c: Config, pool: int) -> None:
        super().__init__()
        self.pool, side, roles = pool, c.size // CELL, len(ROLES)
        self.conv1 = nn.Conv2d(3, c.stem, 5, 2, 2)
        # Cells are CELL pixels of the frame, shrunk or not: what shrinks takes from the strides, and the
        # last layers look as far by dilation (Yu and Koltun 2016, arXiv 1511.07122).
        self.conv2 = nn.Conv2d(c.stem, c.channels, 3, CELL // 2 // pool, 1)
        self.conv3 = nn.Conv2d(c.channels, c.channels, 3, 1, pool, pool)
        self.conv4 = nn.Conv2d(c.channels, c.channels, 3, 1, pool, pool)
        self.match = nn.ModuleList(nn.Linear(c.text, c.channels + 1) for _ in range(roles))
        self.film = nn.Linear(c.text, 2 * c.channels)
        self.points = nn.Conv1d(c.channels, c.keypoints, 1)
        # Coordinates of the cells' centres, -1 .. 1 from the left and from the top.
        line = (torch.arange(side) + 0.5) * 2 / side - 1
        grid = torch.stack([line.repeat(side), line.repeat_interleave(side)], 1)
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("here", place_features(grid), persistent=False)
        # From the thing's, the landmark's and the verb's words: how much each feature of a place counts.
        self.spatial = nn.Sequential(
            nn.Linear(3 * c.text, 32), nn.ReLU(), nn.Linear(32, 2 * self.here.shape[1], bias=False)
        )

    def maps(self, frames: Tensor) -> Tensor:
        """Feature maps, shape (B, channels, cells); the words have no part in them."""
        # A permuted NHWC tensor is channels-last, the layout in which convolutions are fastest.
        x = frames.permute(0, 3, 1, 2).float() * (1 / 255) - 0.5
        if self.pool > 1:
            x = F.avg_pool2d(x, self.pool)
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = x + F.relu(self.conv3(x))
        x = x + F.relu(self.conv4(x))
        return x.flatten(2)

    def forward(self, frames: Tensor, asked: Said) -> dict[str, Tensor]:
        """What `find` returns, of frames (B, h, w, 3), uint8."""
        return self.find(self.maps(frames), asked)

    def ask(self, words: Tensor) -> Said:
        """What to look for, from words (B, 4, text).

        query (B, 3, channels + 1): what each of ROLES is like, and a threshold; film (B, channels, 2), a
        factor and a shift of the maps; alone (B, cells) and beside (B, 7): how much it counts where a cell
        is, and where it is from the landmark.
        """
        query = torch.stack([match(words[:, i]) for i, match in enumerate(self.match)], 1)
        gain, shift = self.film(words[:, VERB]).chunk(2, 1)
        counts = self.spatial(torch.cat([words[:, 0], words[:, 2], words[:, VERB]], 1))
        alone, beside = counts.chunk(2, 1)
        film = torch.stack([1 + gain, shift], 2)
        return {"query": query, "film": film, "alone": alone @ self.here.T, "beside": beside}

    def find(self, maps: Tensor, asked: Said) -> dict[str, Tensor]:
        """What of `ask` is where in `maps` (B, channels, cells).

        Returns:
            seen (B, F); matches (B, 3, cells) before the softmax; named keypoints (B, 3, 2); looked
            (B, 3, channels), the map there; peak (B, 3), the most of a match at one cell; sure (B, 3),
            logits. The three are ROLES.
        """
        query, film = asked["query"], asked["film"]
        matches = query[..., :-1] @ maps * (maps.shape[1] ** -0.5) * 4
        # How sure the match is: the likeness of the best cell, against a learned threshold.
        sure = matches.amax(-1) + query[..., -1]
        where = asked["alone"] + self.where(matches[:, 2], asked["beside"])
        matches = torch.cat([matches[:, :1] + where[:, None], matches[:, 1:]], 1)
        weights = matches.softmax(-1)
        named = weights @ self.grid
        looked = weights @ maps.transpose(1, 2)
        free = self.points(F.relu(maps * film[..., :1] + film[..., 1:])).softmax(-1) @ self.grid
        seen = torch.cat([named.flatten(1), torch.sigmoid(sure), looked.flatten(1), free.flatten(1)], 1)
        found = {"named": named, "looked": looked, "sure": sure, "peak": weights.amax(-1)}
        return {"seen": seen, "matches": matches, **found}

    def where(self, landmark: Tensor, beside: Tensor) -> Tensor:
        """What words as "left of the bowl" add to the thing's match, shape (B, cells).

        It is of where a cell is from the landmark; "the leftmost", of where it is alone, is in `ask`.

        Args:
            landmark: its match, (B, cells). It is taken as it stands: the thing's error teaches it nothing.
            beside: (B, 7), how much each feature of a place counts.
        """
        at = landmark.detach().softmax(-1) @ self.grid
        there = place_features(self.grid - at[:, None])
        return (there @ beside[:, :, None])[..., 0]

    @property
    def width(self) -> int:
        channels, points = self.conv2.out_channels, self.points.out_channels
        return len(ROLES) * (2 + 1 + channels) + 2 * points


def place_features(xy: Tensor) -> Tensor:
    """Fixed features of a place or of a difference of places, shape (..., 7), from (..., 2).

    Linear ones order cells; bounded ones tell the sides apart however far; squares and the distance make
    a ring or a spot.
    """
    x, y = xy[..., :1], xy[..., 1:]
    square = x * x + y * y
    sides = torch.tanh(4 * xy)
    return torch.cat([xy, sides, x * x, square, (square + 1e-4).sqrt()], -1)


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
        # From pixels and joints to metres is geometry: the camera is on the wrist, and a wide single layer
        # is off by 6 mm even where the true pixels are given, two residual ones by 2.
        self.locate = nn.Sequential(
            nn.Linear(seen + c.state, c.locate), nn.SiLU(), Layer(c.locate), Layer(c.locate),
            nn.Linear(c.locate, 6),
        )  # fmt: skip
        # Of the words the verb alone: which thing is meant must come by way of the eyes, so that nothing
        # can be learned of one combination of thing and place that does not hold for another.
        self.trunk = nn.Sequential(
            nn.Linear(seen + c.state + 6 + c.text, c.trunk), nn.ReLU(), Layer(c.trunk), Layer(c.trunk),
            nn.Linear(c.trunk, c.cond), nn.ReLU(),
        )  # fmt: skip
        # What each query has to know of the sentence's meaning: for losses, and for `clear`.
        self.tell = nn.ModuleDict(
            {query: nn.Linear(c.text, sum(c.classes[i] for i in rows)) for query, rows in TELLS.items()}
        )
        self.done = nn.Sequential(nn.Linear(c.cond, 64), nn.ReLU(), nn.Linear(64, 1))
        self.critic = Critic(c)
        self.possible = Possible(len(ROLES), len(c.cameras), c.text, c.channels, c.state)
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
        return self.look(frames, state, self.read(tokens, mask))

    def read(self, tokens: Tensor, mask: Tensor) -> Said:
        """Everything that words (B, L, words) alone decide, however often the frames are looked at then.

        Returns:
            words (B, 4, text); clear (B, 3), 1 where a role was read clearly enough to be called missing; and
            for each camera what its `Eye.ask` returns, "query_front" for one.
        """
        words = self.reader(tokens, mask)
        said = {"words": words, "clear": (self.clear(words) > self.config.clear_above).to(words.dtype)}
        for name, eye in zip(self.config.cameras, self.each_eye(), strict=True):
            said |= {f"{part}_{name}": value for part, value in eye.ask(words).items()}
        return said

    def look(self, frames: list[Tensor], state: Tensor, said: Said) -> dict[str, Any]:
        """As `see`, of words that were read."""
        words, joints = said["words"], self.joints(state)
        eyes = []
        for name, eye, image in zip(self.config.cameras, self.each_eye(), frames, strict=True):
            eyes.append(eye(image, {part: said[f"{part}_{name}"] for part in ASKED}))
        seen = torch.cat([e["seen"] for e in eyes] + [joints], 1)
        positions = self.locate(seen)
        cond = self.trunk(torch.cat([seen, positions, words[:, VERB]], 1))
        asked = given(words, joints, eyes)
        found = {"cond": cond, "positions": positions, "eyes": eyes, "words": words}
        return found | {"asked": asked, "clear": said["clear"]}

    def prefix(self, frames: list[Tensor], state: Tensor, tokens: Tensor, mask: Tensor) -> Memory:
        """What `step` remembers of an observation."""
        return self.prefix_of(frames, state, self.read(tokens, mask))

    def prefix_of(self, frames: list[Tensor], state: Tensor, said: Said) -> Memory:
        """As `prefix`, of words that were read."""
        out = self.look(frames, state, said)
        still = (self.likely(out) < self.config.hold_below).to(state.dtype)
        return out["cond"], state, still * self.resting(state)

    def resting(self, state: Tensor) -> Tensor:
        """1 where the arm has not begun, else 0, shape (B, 1): at work it hides things from its cameras."""
        home, within = (state.new_tensor(row) for row in (self.config.home, self.config.home_within))
        away = ((state[:, : len(self.config.home)] - home).abs() / within).amax(1, keepdim=True)
        return (away < 1).to(state.dtype)

    def likely(self, out: dict[str, Any]) -> Tensor:
        """The probability that everything named is there, shape (B, 1), from what `see` returns.

        Where a word was never heard, what it names may well be there: no role counts that is not clear.
        """
        return 1 - (torch.sigmoid(self.possible(out["asked"])) * out["clear"]).amax(1, keepdim=True)

    def clear(self, words: Tensor) -> Tensor:
        """How surely the colour and the kind of each of ROLES were read, 0 .. 1, shape (B, 3)."""
        least = []
        for i, role in enumerate(ROLES):
            told = self.tell[role](words[:, i]).split([self.config.classes[row] for row in TELLS[role]], 1)
            colour, kind = (logits.softmax(1).amax(1) for logits in told[-2:])
            least.append(torch.minimum(colour, kind))
        return torch.stack(least, 1)

    def joints(self, state: Tensor) -> Tensor:
        """Measured joints (B, S), rad, normalised."""
        return (state - self.state_mean) / self.state_std

    def finished(self, cond: Tensor) -> Tensor:
        """The probability that the task is done as of the observation, shape (B,)."""
        return torch.sigmoid(self.done(cond)[:, 0])

    def score(self, cond: Tensor, state: Tensor, actions: Tensor) -> Tensor:
        """How well a chunk (B, H, A), physical, would do, 0 .. 1, shape (B,): see `nano_losses.loss`."""
        return torch.sigmoid(self.critic(cond, self.normalise(actions, state)))

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
        self,
        cond: Tensor,
        state: Tensor,
        still: Tensor,
        x: Tensor,
        t: Tensor,
        dt: Tensor,
        kept: Tensor,
        kept_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One Euler step of the flow; next x (B, H, A) and it in physical units, held still where it must be.

        Args:
            cond, state, still: of `prefix`.
            t, dt: (1,), flow time and its step. kept: (B, H, A), physical. kept_mask: (B, H), 1 = committed.
        """
        held = kept_mask[:, :, None]
        x = held * self.normalise(kept, state) + (1 - held) * x
        times = t + kept_mask * (1 - t)
        clean = self.predict(cond, x, times)
        x = x + (1 - held) * (clean - x) * advance(t, dt)
        return x, hold(self.physical(x, state), state, kept, kept_mask, still)

    def step_guided(
        self,
        cond: Tensor,
        state: Tensor,
        still: Tensor,
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
        return x, hold(self.physical(x, state), state, kept, weights, still)


def advance(t: Tensor, dt: Tensor) -> Tensor:
    """How much of the way to the clean chunk a step goes, dt / (1 - t); finite at t = 1."""
    return dt / (1 - t).clamp(min=1e-6)


class Layer(nn.Module):
    """x (B, width) and what a hidden layer adds to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.norm(x))))


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


class Critic(nn.Module):
    """What the prefix knows (B, cond) and a normalised chunk (B, H, A) -> a logit of success (B,)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(c.cond + c.rows * c.actions, c.cond), nn.ReLU(),
            nn.Linear(c.cond, c.cond), nn.ReLU(),
            nn.Linear(c.cond, 1),
        )  # fmt: skip

    def forward(self, cond: Tensor, chunk: Tensor) -> Tensor:
        return self.layers(torch.cat([cond, chunk.flatten(1)], 1))[:, 0]
