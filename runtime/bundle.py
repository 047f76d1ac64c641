"""A bundle: the folder that is deployed.

    policy.json      what the policy is
    *.onnx           its graphs
    tokenizer.json   its words, where it takes any
    manifest.json    {"sha256": {file name: hex}} of every other file

Nothing in it is executed or parsed by an engine before its sha256 has been compared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vla.contract import JOININGS, PolicySpec, TaktError
from vla.preprocess import Prompt

FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A verified folder.

    Attributes:
        graphs: "prefix", "step", with words that a graph reads "words" and perhaps "reader", and with all
            steps in one "denoise" -> file.
        words_length: L, the fixed number of tokens; 0 without a tokenizer.
        prompt: how an instruction becomes the text that is read.
        steps: of the sampler, >= 1.
        noise: the scale of the noise it starts from. noise_width: numbers in a row of it.
        candidates: how many chunks are drawn of which the best is taken, >= 1.
        critic: the graph that tells what a chunk is worth, where it has one; loaded where it is asked.
        policy: policy.json as it stands.
    """

    path: Path
    spec: PolicySpec
    graphs: dict[str, Path]
    tokenizer: Path | None
    words_length: int
    prompt: Prompt
    steps: int
    noise: float
    noise_width: int
    candidates: int
    critic: Path | None
    policy: dict[str, Any]


def load(path: Path) -> Bundle:
    """Verify and describe the bundle at `path`.

    Raises:
        TaktError: one line that names the file which is missing, altered, unlisted or malformed.
    """
    path = Path(path)
    verify(path)
    policy = _read_json(path / "policy.json")
    if policy.get("format") != FORMAT:
        raise TaktError(
            f"{path / 'policy.json'} has format {policy.get('format')!r}, this version reads {FORMAT}: "
            "export the policy again"
        )
    try:
        return _describe(path, policy)
    except KeyError as error:
        raise TaktError(f"{path / 'policy.json'} lacks the key {error}: export the policy again") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TaktError(f"{path / 'policy.json'} is malformed ({error}): export the policy again") from None


def verify(path: Path) -> None:
    """Compare every file of the folder with its manifest; raises TaktError naming the first that differs."""
    if not (path / _MANIFEST).is_file():
        raise TaktError(f"{path} is not a bundle: it has no {_MANIFEST}; make one with takt export")
    listed = _read_json(path / _MANIFEST).get("sha256")
    if not isinstance(listed, dict):
        raise TaktError(f"{path / _MANIFEST} has no map 'sha256': export the policy again")
    for name, digest in listed.items():
        file = _inside(path, name)
        if not file.is_file():
            raise TaktError(f"{file} is in the manifest but not in the folder: copy the bundle again")
        if sha256(file) != digest:
            raise TaktError(f"{file} was altered: its sha256 is not the manifest's; copy the bundle again")
    for name in _names(path):
        if name not in listed:
            raise TaktError(f"{path / name} is not in the manifest: remove it, or export the policy again")


def write_manifest(path: Path) -> None:
    """List the sha256 of every file of the folder; the last step of writing a bundle."""
    digests = {name: sha256(path / name) for name in _names(path)}
    (path / _MANIFEST).write_text(json.dumps({"sha256": digests}, indent=2) + "\n")


def sha256(file: Path) -> str:
    """Hex digest of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _names(path: Path) -> list[str]:
    files = (f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    return sorted(name for name in files if name != _MANIFEST)


def _inside(path: Path, name: object) -> Path:
    """The file a manifest's name means; it has to stay inside the folder."""
    relative = PurePosixPath(str(name))
    if relative.is_absolute() or ".." in relative.parts or "\\" in str(name) or not relative.parts:
        raise TaktError(f"{path / _MANIFEST} names {name!r}, which leads out of the folder: refused")
    return path / relative


def _file(path: Path, name: object) -> Path:
    """A file that policy.json names: plain names only."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise TaktError(f"{path / 'policy.json'} names the file {name!r}: only names inside the folder")
    if not (path / name).is_file():
        raise TaktError(f"{path / name} is named by policy.json but missing: export the policy again")
    return path / name


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise TaktError(f"{file} is missing: make a bundle with takt export")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise TaktError(f"{file} is not JSON: export the policy again") from None
    if not isinstance(data, dict):
        raise TaktError(f"{file} is not a JSON object: export the policy again")
    return data


def _describe(path: Path, policy: dict[str, Any]) -> Bundle:
    tokenizer = policy.get("tokenizer")
    wanted = ["prefix", "step"]
    if tokenizer is not None and "words" in policy["graphs"]:
        wanted = ["words", *(["reader"] if "reader" in policy["graphs"] else []), *wanted]
    if "denoise" in policy["graphs"]:
        wanted.append("denoise")
    sampler, spec = policy["sampler"], PolicySpec.from_json(policy["spec"])
    bundle = Bundle(
        path=path,
        spec=spec,
        graphs={graph: _file(path, policy["graphs"][graph]) for graph in wanted},
        tokenizer=None if tokenizer is None else _file(path, tokenizer),
        words_length=0 if tokenizer is None else int(policy["words_length"]),
        prompt=Prompt.from_json(policy.get("prompt", {}), len(spec.state)),
        steps=int(sampler["steps"]),
        noise=float(sampler["noise"]),
        noise_width=int(sampler.get("width", spec.actions.size)),
        candidates=int(sampler.get("candidates", 1)),
        critic=_file(path, policy["graphs"]["critic"]) if "critic" in policy["graphs"] else None,
        policy=policy,
    )
    _check(bundle)
    return bundle


def _check(bundle: Bundle) -> None:
    """Values that no policy can have; a ValueError says which."""
    spec, limits = bundle.spec, [v for d in bundle.spec.actions.dimensions for v in (d.lower, d.upper)]
    if not (1 <= bundle.steps <= 1000 and 1 <= spec.chunk_length <= 10_000):
        raise ValueError("steps is from 1 to 1000, chunk_length from 1 to 10000")
    if not (1e-3 <= spec.dt <= 10 and 0 < spec.replan < 3600 and 0 <= bundle.noise <= 100):
        raise ValueError("dt is from 0.001 to 10 s, replan positive, noise from 0 to 100")
    if not (1 <= bundle.noise_width <= 100_000 and 0 <= bundle.words_length <= 100_000):
        raise ValueError("width and words_length are at most 100000")
    if not (1 <= bundle.candidates <= 64 and 0 <= spec.committed <= spec.chunk_length):
        raise ValueError("candidates is from 1 to 64, committed from 0 to chunk_length")
    if spec.joining not in JOININGS:
        raise ValueError(f"joining is one of {', '.join(JOININGS)}, not {spec.joining!r}")
    if not (np.isfinite(limits).all() and all(d.lower <= d.upper for d in spec.actions.dimensions)):
        raise ValueError("an action's limits are finite and in order")
