"""A policy by its place: a bundle's folder, or what an installed package offers under a name."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

from runtime import bundle, engines
from runtime.think import Thinking
from vla.contract import Policy, TaktError

GROUP = "takt.policies"
CHECKPOINT = "checkpoint"  # the entry point that opens the folders people have
WRITTEN = ("config.json", "model.safetensors", "params", "takt.json")  # one of these is in each of them
HUB = "hub:"  # before the name of such a folder on the Hugging Face hub


def kind_of(place: Path) -> str:
    """The "type" in a checkpoint's config.json; "" for what has none, and for a bundle."""
    if (place / "policy.json").is_file():
        return ""
    try:
        return str(json.loads((place / "config.json").read_text())["type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def open_policy(
    place: str, threads: int = 1, engine: str = engines.DEFAULT, think: Thinking | None = None
) -> Policy:
    """The policy at `place`.

    Args:
        place: a folder with policy.json; a checkpoint's folder, or hub:OWNER/NAME@COMMIT
            (docs/checkpoints.md); or NAME or NAME:ARGUMENT, where NAME is an entry point of `takt.policies`:
            a function that takes the argument, or nothing, and returns a policy.
        threads: of the engine, for a bundle or a checkpoint.
        engine: what runs a bundle, one of runtime/engines.py. Torch runs a checkpoint, on the CPU, or with
            "cuda" on a GPU; nothing else has one to choose.
        think: candidates to draw and how to judge them, of a bundle; its own number by default.

    Raises:
        TaktError: there is no such thing, with the valid names; it does not take the argument; it is no
            policy; or the engine cannot run it.
    """
    if (Path(place) / "policy.json").is_file():
        engines.parse(engine)  # before what takes time
        return engines.open_bundle(bundle.load(Path(place)), engine, threads, think=think)
    engines.parse(engine)
    if think is not None:
        raise TaktError(f"--think is for a bundle, and {place} is none: takt export makes one")
    name, colon, argument = place.partition(":")
    checkpoint = place.startswith(HUB) or any((Path(place) / name).exists() for name in WRITTEN)
    if checkpoint:  # torch lives on the other side of that door
        name, argument = CHECKPOINT, place
    if engine not in (engines.DEFAULT, *(("cuda",) if checkpoint else ())):
        raise TaktError(f"--engine {engine} runs a bundle, and {place} is none: takt export makes one")
    device = "cuda" if engine == "cuda" else "cpu"
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        valid = ", ".join(sorted(found)) or "none is installed"
        raise TaktError(
            f"{place} is not a bundle (a folder with policy.json), nor a checkpoint (one with "
            f"config.json or model.safetensors), nor a policy's name; valid: {valid}"
        )
    try:
        make = found[name].load()
    except ImportError as error:
        raise TaktError(f"policy {place!r} needs {error.name}: pip install 'takt-vla[torch]'") from None
    try:
        policy = make(argument, threads, device) if checkpoint else make(argument) if colon else make()
    except ValueError as error:  # most likely an argument that it does not take
        raise TaktError(f"policy {place!r}: {error}") from None
    if not isinstance(policy, Policy):
        raise TaktError(f"{name!r} of {found[name].value} made a {type(policy).__name__}, which is no policy")
    return policy
