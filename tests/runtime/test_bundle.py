"""A bundle is what its manifest says, or it is refused in one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import bundle
from tests import fakes
from vla.contract import TaktError

FILES = ["words.onnx", "prefix.onnx", "step.onnx", "tokenizer.json", "policy.json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fakes.write_bundle(tmp_path / "bundle", fakes.arm_spec(), steps=3, noise=0.5)


def refusal(folder: Path) -> str:
    with pytest.raises(TaktError) as caught:
        bundle.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Change policy.json and sign it anew, as a faulty exporter would."""
    policy = json.loads((folder / "policy.json").read_text())
    change(policy)
    (folder / "policy.json").write_text(json.dumps(policy))
    bundle.write_manifest(folder)


def test_a_bundle_loads_as_written(folder: Path) -> None:
    loaded = bundle.load(folder)
    assert loaded.spec == fakes.arm_spec()
    assert (loaded.steps, loaded.noise, loaded.words_length) == (3, 0.5, fakes.WORDS_LENGTH)
    assert set(loaded.graphs) == {"words", "prefix", "step"}


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert name in refusal(folder)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refusal(folder)


def test_an_unlisted_file_is_refused(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"?")
    assert "extra.bin" in refusal(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/../../b", "..\\b", ""])
def test_a_manifest_stays_inside_the_folder(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = "0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "leads out" in refusal(folder)


@pytest.mark.parametrize("name", ["../step.onnx", "/step.onnx", "..", "sub/step.onnx", 7, None])
def test_policy_json_names_plain_files(folder: Path, name: object) -> None:
    edit(folder, lambda p: p["graphs"].update(step=name))
    assert "only names inside" in refusal(folder)


@pytest.mark.parametrize("key", ["spec", "graphs", "sampler", "words_length"])
def test_a_required_key_that_is_missing_is_named(folder: Path, key: str) -> None:
    edit(folder, lambda p: p.pop(key))
    assert key in refusal(folder)


def test_other_formats_and_nonsense_are_refused(folder: Path) -> None:
    edit(folder, lambda p: p.update(format=2))
    assert "format 2" in refusal(folder)
    edit(folder, lambda p: p.update(format=1, spec="?"))
    assert "malformed" in refusal(folder)
    (folder / "policy.json").write_text("[" * 100_000)
    bundle.write_manifest(folder)
    assert "not JSON" in refusal(folder)


def test_a_policy_without_words_needs_no_tokenizer(folder: Path) -> None:
    edit(folder, lambda p: p.update(tokenizer=None))
    loaded = bundle.load(folder)
    assert loaded.tokenizer is None
    assert set(loaded.graphs) == {"prefix", "step"}


def test_a_copy_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert bundle.load(tmp_path / "copy").spec == bundle.load(folder).spec
