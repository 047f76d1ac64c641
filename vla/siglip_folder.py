"""Sizes of a SigLIP tower, read off a folder's weights."""

from __future__ import annotations

from vla import siglip
from vla.folder import Folder


def sizes(folder: Folder, prefix: str, heads: int | None, head: int) -> siglip.Config:
    """
    Args:
        prefix: of the tower's keys. heads: how many, where that is known. head: width of one otherwise.

    Raises:
        TaktError: a weight that shows a size is missing.
    """
    width, _, patch, _ = folder.shape(prefix + "embeddings.patch_embedding.weight", 4)
    patches, _ = folder.shape(prefix + "embeddings.position_embedding.weight", 2)
    return siglip.Config(
        width=width,
        hidden=folder.shape(prefix + "encoder.layers.0.mlp.fc1.weight", 2)[0],
        layers=folder.count(prefix + "encoder.layers."),
        heads=heads or width // head,
        patch=patch,
        side=round(patches**0.5),
    )
