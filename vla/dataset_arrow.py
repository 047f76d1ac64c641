"""Columns of the data files: a feature's Arrow type, and arrays to Arrow and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vla.contract import TaktError
from vla.dataset_format import Feature
from vla.dataset_media import encode_png


def arrow_type(feature: Feature) -> pa.DataType:
    """A scalar, a fixed-size list, nested lists, or LeRobot's struct of PNG bytes and a path."""
    if feature.dtype == "image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    if feature.dtype == "string":
        return pa.string()
    kind = pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.shape[0])
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def _hub_type(feature: Feature) -> dict[str, Any]:
    """What the `datasets` library calls the column."""
    if feature.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": f"Array{len(feature.shape)}D"}


def data_schema(features: dict[str, Feature]) -> pa.Schema:
    """The schema of data files: every feature but the videos, with the metadata `datasets` looks for."""
    stored = {name: f for name, f in features.items() if f.dtype != "video"}
    hub = {"info": {"features": {name: _hub_type(f) for name, f in stored.items()}}}
    fields = [(name, arrow_type(f)) for name, f in stored.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps(hub)})


def to_arrow(array: np.ndarray, feature: Feature) -> pa.Array:
    """Shape (T, *feature.shape) -> an Arrow column of T rows; pictures become PNG."""
    if feature.dtype == "image":
        return _png_column(array)
    if feature.dtype == "string":
        return pa.array(array.reshape(-1).tolist(), pa.string())
    values = pa.array(array.reshape(-1))
    if len(feature.shape) == 1:
        size = feature.shape[0]
        return values if size == 1 else pa.FixedSizeListArray.from_arrays(values, size)
    for size in reversed(feature.shape):
        values = pa.ListArray.from_arrays(np.arange(0, len(values) + 1, size, dtype=np.int32), values)
    return values


def from_arrow(column: pa.ChunkedArray, name: str, feature: Feature, path: Path) -> np.ndarray:
    """An Arrow column of N rows -> shape (N, *feature.shape), the feature's dtype; strings as objects.

    Raises:
        TaktError: rows of another shape, or missing values.
    """
    values, rows = column.combine_chunks(), len(column)
    if feature.dtype == "string":
        return np.array(values.to_pylist(), dtype=object).reshape(rows, 1)
    shape: list[int] = []
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        sizes = pc.min_max(pc.list_value_length(values)).as_py()
        if values.null_count or (rows and sizes["min"] != sizes["max"]):
            raise TaktError(f"{path}: {name!r} has rows of different shapes or missing values")
        shape.append(sizes["max"] if rows else 0)
        values = values.flatten()
    if rows and (tuple(shape) or (1,)) != feature.shape:
        raise TaktError(
            f"{path}: {name!r} has shape {tuple(shape) or (1,)}, meta/info.json says {feature.shape}"
        )
    if values.null_count or not (pa.types.is_primitive(values.type) or pa.types.is_boolean(values.type)):
        raise TaktError(f"{path}: {name!r} has missing values or type {values.type}, not {feature.dtype}")
    array: np.ndarray = values.to_numpy(zero_copy_only=False)
    return array.reshape(rows, *feature.shape).astype(feature.dtype, copy=False)


def as_feature(name: str, feature: Feature, array: np.ndarray) -> np.ndarray:
    """The array as (T, *feature.shape) of the feature's dtype.

    Raises:
        TaktError: another shape, a kind that would lose its meaning (float to int), or values not finite.
    """
    shape = array.shape[1:] or (1,)
    if array.ndim == 0 or shape != feature.shape:
        raise TaktError(f"{name!r} has shape {array.shape}, needs (T, {', '.join(map(str, feature.shape))})")
    array = array.reshape(len(array), *shape)
    if feature.dtype == "string":
        return array.astype(object)
    dtype = np.dtype("uint8" if feature.visual else feature.dtype)
    if not np.can_cast(array.dtype, dtype, "same_kind") or (feature.visual and array.dtype != dtype):
        raise TaktError(f"{name!r} is {array.dtype}, needs {dtype}")
    cast = np.ascontiguousarray(array, dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise TaktError(f"{name!r} has values that are not finite in {dtype}")
    return cast


def _png_column(frames: np.ndarray) -> pa.Array:
    files: list[bytes] = []
    for i, frame in enumerate(frames):  # a camera slower than the rows repeats its frames
        again = i > 0 and np.array_equal(frame, frames[i - 1])
        files.append(files[-1] if again else encode_png(frame))
    if sum(map(len, files)) >= 1 << 31:
        raise TaktError(
            f"{len(frames)} pictures of an episode take over 2 GiB as PNG: make the feature a video"
        )
    pictures = pa.array(files, pa.binary())
    paths = pa.array([f"frame-{i:06d}.png" for i in range(len(frames))], pa.string())
    return pa.StructArray.from_arrays([pictures, paths], ["bytes", "path"])
