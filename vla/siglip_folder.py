"""Sizes of a SigLIP tower, read off a folder's weights."""

from __future__ import annotations

from vla import siglip
from vla.contract import TaktError
from vla.folder import Folder

HEADS = {768: 12, 1024: 16, 1152: 16}  # by width, of SigLIP's own towers: base, large, so400m


def sizes(folder: Folder, prefix: str, heads: int | None, head: int) -> siglip.Config:
    """
    Args:
        prefix: of the tower's keys. heads: how many, where that is known. head: width of one in a tower of a
            width that is none of SigLIP's own.

    Raises:
        TaktError: a weight that shows a size is missing, or sizes do not fit together.
    """
    width, _, patch, _ = folder.shape(prefix + "embeddings.patch_embedding.weight", 4)
    patches, _ = folder.shape(prefix + "embeddings.position_embedding.weight", 2)
    heads, side = heads or HEADS.get(width), round(patches**0.5)
    heads = heads or folder.parts("the width of the vision tower", width, head)
    folder.parts("the width of the vision tower", width, heads)
    if side**2 != patches:
        raise TaktError(f"{folder.weights}: {patches} positions of patches are no square")
    return siglip.Config(
        width=width,
        hidden=folder.shape(prefix + "encoder.layers.0.mlp.fc1.weight", 2)[0],
        layers=folder.count(prefix + "encoder.layers."),
        heads=heads,
        patch=patch,
        side=side,
    )
