"""Engines built on this machine, and on no other.

A serialised TensorRT engine is machine code for one GPU and one version of the library, and loading it runs
it. So none travels in a bundle: it is built where it runs and kept in the user's cache, with a file beside it
that says of what, for what and by what it was made. Both are compared before TensorRT sees a byte of it.

    ~/.cache/takt/engines/step-0f3a5b8c1d2e4f60.engine
    ~/.cache/takt/engines/step-0f3a5b8c1d2e4f60.json      {"key": {...}, "sha256": ...}
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from vla import atomic
from vla.contract import TaktError

RECIPE = 1  # how a graph becomes an engine (export/tensorrt.py); counted up when that changes


@dataclass(frozen=True)
class Key:
    """What an engine depends on.

    Attributes:
        graph: sha256 of the ONNX file and of what lies beside it.
        product, version: of TensorRT.
        gpu: the GPU's name.
        compute: its compute capability, such as "8.7".
        precision: "" as the graph is typed, else what it was made into.
        recipe: `RECIPE` of the code that built it.
    """

    graph: str
    product: str
    version: str
    gpu: str
    compute: str
    precision: str = ""
    recipe: int = RECIPE

    @property
    def short(self) -> str:
        """16 hex digits of it, for a file's name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def folder() -> Path:
    """Where this user's engines are: $TAKT_ENGINES, else takt/engines in the cache directory."""
    if place := os.environ.get("TAKT_ENGINES"):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "takt" / "engines"


def graph_digest(file: Path) -> str:
    """Hex digest of an ONNX file and of its external data, which lies beside it under a longer name."""
    digest = hashlib.sha256()
    for part in sorted(file.parent.glob(f"{file.name}*")):
        digest.update(part.name.removeprefix(file.name).encode() + b"\0")
        with part.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def read(place: Path, graph: str, key: Key) -> bytes:
    """The engine of a graph.

    Args:
        place: the folder of engines.
        graph: the graph's name, "step".

    Raises:
        TaktError: there is none, or what is there was made of something else, elsewhere, or altered.
    """
    engine, about = _files(place, graph, key)
    again = f"delete {about} and run takt build again"
    if not (engine.is_file() and about.is_file()):
        raise TaktError(
            f"no {key.product} engine of the graph {graph!r} for {key.gpu} in {place}: "
            f"takt build BUNDLE --engine {key.product}{key.precision and ':' + key.precision} makes one"
        )
    if about.stat().st_uid != os.getuid() or engine.stat().st_uid != os.getuid():
        raise TaktError(f"{engine} belongs to another user, and an engine is code: build your own")
    try:
        said = json.loads(about.read_text())
        found, digest = dict(said["key"]), str(said["sha256"])
    except (ValueError, KeyError, TypeError):
        raise TaktError(f"{about} does not say what its engine was built for: {again}") from None
    for name, wanted in asdict(key).items():
        if found.get(name) != wanted:
            raise TaktError(
                f"{engine} was built for {name} {found.get(name)!r}, and here it is {wanted!r}: {again}"
            )
    data = engine.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise TaktError(f"{engine} was altered since it was built: {again}")
    return data


def write(place: Path, graph: str, key: Key, data: bytes) -> Path:
    """Keep an engine; where it is now. A reader sees all of it or nothing: its description comes last."""
    engine, about = _files(place, graph, key)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    about.unlink(missing_ok=True)
    atomic.write(engine, data, synced=True, private=True)
    digest = hashlib.sha256(data).hexdigest()
    said = json.dumps({"key": asdict(key), "sha256": digest}, indent=1) + "\n"
    atomic.write(about, said, synced=True, private=True)
    return engine


def _files(place: Path, graph: str, key: Key) -> tuple[Path, Path]:
    stem = f"{graph}-{key.short}"
    return place / f"{stem}.engine", place / f"{stem}.json"
