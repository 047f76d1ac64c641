"""Whether everything that an instruction names is on the table, from what nano.py knows by then.

For each role (the thing, the place, the landmark) a small head looks at what the words ask for, at what the
eyes found that is most like it, and at how like it that is. It has to tell what is missing: named, and not
there. It learns from copies, so it judges what the policy sees and does not shape it.

The joints are among what it is given: an arm at work hides things, and nothing that is hidden is missing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 96  # of a head's hidden layers


class Possible(nn.Module):
    """What is given for each role (`given`) -> logits of what is missing, shape (B, roles)."""

    def __init__(self, roles: int, cameras: int, text: int, channels: int, state: int) -> None:
        super().__init__()
        given = 2 * text + state + cameras * (channels + 2 + 1 + 1)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(given, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
            )
            for _ in range(roles)
        )

    def forward(self, given: Tensor) -> Tensor:
        return torch.cat([head(given[:, i]) for i, head in enumerate(self.heads)], 1)


def given(words: Tensor, state: Tensor, eyes: list[dict[str, Tensor]]) -> Tensor:
    """What `Possible` is given, shape (B, roles, n), as a copy: nothing is learned through it.

    Args:
        words: (B, roles + 1, text), of each role and, last, of the verb. state: (B, S), normalised.
        eyes: what each camera saw (`nano.Eye`): looked (B, roles, channels), named (B, roles, 2), sure and
            peak (B, roles).
    """
    roles = words.shape[1] - 1
    parts = [words[:, :roles], words[:, roles:].expand(-1, roles, -1), state[:, None].expand(-1, roles, -1)]
    for saw in eyes:
        parts += [saw["looked"], saw["named"], saw["sure"][:, :, None], saw["peak"][:, :, None]]
    return torch.cat(parts, 2).detach()


def missing(meaning: Tensor, present: Tensor, named: tuple[tuple[int, ...], ...]) -> Tensor:
    """What is named and not there, shape (B, roles), 0 or 1.

    Args:
        meaning: (B, n), class numbers, 0 for none. present: (B, roles), 1 where it is on the table.
        named: for each role, which columns of the meaning name it.
    """
    asked = torch.stack([(meaning[:, list(rows)] > 0).any(1) for rows in named], 1)
    return (asked & (present < 0.5)).to(present.dtype)


def hold(actions: Tensor, state: Tensor, kept: Tensor, weights: Tensor, still: Tensor) -> Tensor:
    """Actions (B, H, A), or where nothing is to be done (`still` (B, 1), 1) the arm where it is.

    The rows that are committed will be executed whatever is answered; then it stays where they lead.

    Args:
        state: (B, A), the measured joints. kept: (B, H, A). weights: (B, H), 1 for a committed row.
    """
    committed = (weights >= 1).to(actions.dtype)
    after = torch.cat([committed[:, 1:], torch.zeros_like(committed[:, :1])], 1)
    last = committed * (1 - after)
    at = (last[:, :, None] * kept).sum(1) + (1 - last.sum(1, keepdim=True)) * state
    rest = committed[:, :, None] * kept + (1 - committed[:, :, None]) * at[:, None]
    return torch.where(still[:, :, None] > 0, rest, actions)
