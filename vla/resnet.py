"""ResNet (He et al. 2015, arXiv 1512.03385) without its head and with frozen batch norms: pictures -> a map.

Names of parameters are torchvision's, whose weights ACT policies are trained from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class Config:
    """`blocks` of each of four stages; `deep` blocks have three convolutions, the last four times as wide."""

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    deep: bool = False
    widths: tuple[int, ...] = WIDTHS

    @property
    def channels(self) -> int:
        """Of the map."""
        return self.widths[-1] * (4 if self.deep else 1)


NAMED = {
    "resnet18": Config(),
    "resnet34": Config((3, 4, 6, 3)),
    "resnet50": Config((3, 4, 6, 3), True),
    "resnet101": Config((3, 4, 23, 3), True),
    "resnet152": Config((3, 8, 36, 3), True),
}


class FrozenNorm(nn.Module):
    """A batch norm whose statistics no longer change: a scale and a shift a channel."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def line(self) -> tuple[Tensor, Tensor]:
        """What each channel is multiplied by, and what is then added."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.line()
        return x * scale[:, None, None] + shift[:, None, None]


def conv(inside: int, outside: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """Two convolutions, or three around a narrow waist, and what came in."""

    def __init__(self, inside: int, width: int, stride: int, deep: bool) -> None:
        super().__init__()
        outside = width * 4 if deep else width
        sizes = [(inside, width, 1, 1), (width, width, 3, stride), (width, outside, 1, 1)]
        if not deep:
            sizes = [(inside, width, 3, stride), (width, width, 3, 1)]
        for i, size in enumerate(sizes, 1):
            setattr(self, f"conv{i}", conv(*size))
            setattr(self, f"bn{i}", FrozenNorm(size[1]))
        self.count = len(sizes)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(conv(inside, outside, 1, stride), FrozenNorm(outside))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.count + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = F.relu(x + skip if i == self.count else x)
        return x


class ResNet(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        inside = config.widths[0]
        self.conv1, self.bn1 = nn.Conv2d(3, inside, 7, 2, 3, bias=False), FrozenNorm(inside)
        for stage, (blocks, width) in enumerate(zip(config.blocks, config.widths, strict=True)):
            made = []
            for i in range(blocks):
                made.append(Block(inside, width, 2 if stage and i == 0 else 1, config.deep))
                inside = width * 4 if config.deep else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, channels, h / 32, w / 32), rounded up."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(len(self.config.blocks)):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x
