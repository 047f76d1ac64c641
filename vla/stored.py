"""Files of a folder: JSON objects and safetensors, read or refused in one line. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vla.contract import TaktError

COMPILED = "_orig_mod."  # what torch.compile puts into the names of what it has compiled


def object_of(file: Path) -> dict[str, Any]:
    """A JSON file that is an object.

    Raises:
        TaktError: it is not.
    """
    try:
        data = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise TaktError(f"{file} is malformed: {_line(error)}") from None
    if not isinstance(data, dict):
        raise TaktError(f"{file} is malformed: an object is wanted")
    return data


def shapes_of(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of a file's tensors by key, and each key as it is stored: here without "_orig_mod.".

    Raises:
        TaktError: it is no safetensors file, or two keys become one.
    """
    shapes, keys = {}, {}
    try:
        with safe_open(file, "pt") as f:
            for key in f.keys():  # noqa: SIM118
                plain = key.replace(COMPILED, "")
                if plain in keys:
                    raise TaktError(f"{file} has {plain} twice, with and without {COMPILED}")
                shapes[plain], keys[plain] = tuple(f.get_slice(key).get_shape()), key
    except (SafetensorError, OSError) as error:
        raise TaktError(f"{file} is no safetensors file: {_line(error)}") from None
    return shapes, keys


def tensors(file: Path, keys: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """All of a file's, or those that are named: what they are called here -> as they are stored."""
    try:
        if keys is None:
            return load_file(file)
        with safe_open(file, "pt") as f:
            return {key: f.get_tensor(name) for key, name in keys.items()}
    except (SafetensorError, OSError) as error:
        raise TaktError(f"{file} is no safetensors file: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
