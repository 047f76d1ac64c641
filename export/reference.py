"""What variants are compared with: the checkpoint, run by torch as it was trained."""

from __future__ import annotations

from pathlib import Path

import torch

from runtime.bundle import Bundle
from vla import plain_train, train, train_data
from vla.contract import TaktError
from vla.plain_policy import PlainPolicy
from vla.policy import TorchPolicy, reader


def nano(place: Path, bundle: Bundle, threads: int) -> TorchPolicy:
    """A nano checkpoint with the spec and the sampler of a bundle that was made from it.

    Args:
        threads: of torch, in the whole process.

    Raises:
        TaktError: it cannot be read, or the bundle is another's.
    """
    torch.set_num_threads(threads)
    model, spec = train.load(place), bundle.spec
    c = model.config
    ours = c.rows, c.state, c.actions, sorted(c.cameras)
    theirs = spec.chunk_length, len(spec.state), spec.actions.size, sorted(x.name for x in spec.cameras)
    if ours != theirs:
        raise TaktError(
            f"{bundle.path} was not made from {place}: {theirs} (rows, state, actions) against {ours}"
        )
    words = reader(train_data.encoder_folder(None), bundle.words_length, c.encoder)
    beta = float(bundle.policy["sampler"].get("beta", 5.0))
    return TorchPolicy(model, spec, words, bundle.steps, bundle.noise, beta=beta)


def plain(place: Path, bundle: Bundle, threads: int) -> PlainPolicy:
    """A plain checkpoint with the spec and the sampler of a bundle that was made from it.

    Args:
        threads: of torch, in the whole process.

    Raises:
        TaktError: it cannot be read, or the bundle is another's.
    """
    torch.set_num_threads(threads)
    model, spec = plain_train.load(place), bundle.spec
    ours = model.config.spec(spec.replan, spec.joining)
    if ours != spec:
        raise TaktError(f"{bundle.path} was not made from {place}: {spec} against {ours}")
    words = reader(train_data.encoder_folder(None), bundle.words_length, model.config.encoder)
    return PlainPolicy(model, spec, words, bundle.steps, bundle.noise)
