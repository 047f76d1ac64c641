"""How a policy's numbers become physical ones: the forms in which LeRobot folders carry it.

All of them are lines: normalised = (physical - shift) * gain + offset, and back by a line of its own, because
LeRobot's inverses are not exact ones (it divides by std + eps and multiplies by std). openpi's are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vla.contract import TaktError

EPS = 1e-8
# The statistics that a mode takes: a line through two of them, or centre and width.
MODES = {
    "IDENTITY": (),
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


class Normalise(nn.Module):
    """Along the last axis; what it starts with changes nothing.

    Attributes:
        relative: None, or (width,), 1 where an action was learned as its distance from the state's number of
            the same place, else 0. The lines are then those of the distances.
    """

    relative: Tensor | None

    shift: Tensor
    gain: Tensor
    offset: Tensor
    base: Tensor
    span: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("relative", None, persistent=False)
        start = {"shift": 0.0, "gain": 1.0, "offset": 0.0, "base": 0.0, "span": 1.0}
        for name, value in start.items():
            self.register_buffer(name, torch.full((width,), value, device="cpu"), persistent=False)

    def forward(self, physical: Tensor) -> Tensor:
        return (physical - self.shift) * self.gain + self.offset

    def inverse(self, normalised: Tensor) -> Tensor:
        return normalised * self.span + self.base

    def set(
        self,
        mode: str,
        stats: Mapping[str, Tensor],
        eps: float = EPS,
        what: str = "a feature",
        exact: bool = False,
    ) -> None:
        """Take a mode's line from statistics, each of the width given.

        Args:
            what: for messages, the feature's name.
            exact: as openpi has it: `eps` is added to each width, and the inverse is one. LeRobot adds it to
                the standard deviation on the way there and not back, and replaces a width of 0 by it.

        Raises:
            TaktError: the mode is unknown, a statistic is missing, of another width, not finite, or of a
            width below 0.
        """
        if mode not in MODES:
            raise TaktError(f"{what}: no normalisation {mode!r}; known: {', '.join(MODES)}")
        first, second = (
            (self._read(stats, name, mode, what) for name in MODES[mode]) if MODES[mode] else (0, 0)
        )
        if mode == "IDENTITY":
            return
        assert isinstance(first, Tensor) and isinstance(second, Tensor)
        if (second < (0 if mode == "MEAN_STD" else first)).any():
            low, high = MODES[mode]
            raise TaktError(f"{what}.{high} holds a value below {'0' if mode == 'MEAN_STD' else low}")
        if mode == "MEAN_STD":
            span = second + eps if exact else second
            self.shift, self.gain, self.base, self.span = first, 1 / (second + eps), first, span
            return
        # -1 .. 1 between the two; where they are the same, the first becomes -1.
        width = torch.where(second == first, torch.full_like(first, eps), second - first)
        if exact:
            width = second - first + eps
        self.shift, self.gain, self.offset = first, 2 / width, torch.full_like(first, -1.0)
        self.base, self.span = first + width / 2, width / 2

    def origin(self, state: Tensor) -> Tensor | None:
        """Where relative actions start: of states (B, S), physical, (B, 1, width); None where none is."""
        if self.relative is None:
            return None
        width = len(self.relative)
        known = torch.nn.functional.pad(state, (0, max(0, width - state.shape[-1])))
        return (known[:, :width] * self.relative)[:, None]

    def rescale(self, scale: Tensor, shift: Tensor) -> None:
        """From now on physical numbers are `scale` times what they were, plus `shift`; both of the width. A
        distance is not shifted.
        """
        if self.relative is not None:
            shift = shift * (1 - self.relative)
        self.shift, self.gain = self.shift * scale + shift, self.gain / scale
        self.base, self.span = self.base * scale + shift, self.span * scale

    def _read(self, stats: Mapping[str, Tensor], name: str, mode: str, what: str) -> Tensor:
        if name not in stats:
            raise TaktError(f"{what} is normalised by {mode} and has no statistic {name!r}")
        value = stats[name].float().reshape(-1)
        if value.shape != self.shift.shape:
            raise TaktError(f"{what}.{name} has {len(value)} values, not {len(self.shift)}")
        if not torch.isfinite(value).all():
            raise TaktError(f"{what}.{name} holds a value that is not finite")
        return value
