"""Folders of the hub: pinned or refused, nothing that could run downloaded, one line when it fails.

A server on loopback speaks the hub's endpoints; huggingface_hub is the real one, in processes of its own,
because it reads its settings when it is imported.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime.policies import open_policy
from tests.vla import folders, hub_server
from tests.vla.hub_server import Hub
from tests.vla.test_checkpoint import seen
from vla import hub
from vla.contract import TaktError

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PINNED = f"hub:lab/arm@{COMMIT}"
# Opens each place that is named, and prints its answer to the observation of `seen`, or the error.
OPEN = """
import json, sys
from runtime.policies import open_policy
from tests.vla.test_checkpoint import seen
from vla.contract import TaktError
for place in sys.argv[1:]:
    try:
        policy = open_policy(place)
        print(json.dumps([policy.spec.name, policy.infer(seen()).actions.tolist()]))
    except TaktError as error:
        print(json.dumps(str(error)))
"""
# The same for files alone, without torch.
FETCH = """
import json, sys
from vla import hub
from vla.contract import TaktError
for place in sys.argv[1:]:
    try:
        print(json.dumps(str(hub.fetched(place))))
    except TaktError as error:
        print(json.dumps([str(error)]))
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy's folder as people upload it, with things beside it that nobody needs."""
    path = tmp_path_factory.mktemp("lab") / "arm"
    folders.write(path, "smolvla")
    (path / "README.md").write_text("An arm.")
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))
    (path / "training_state").mkdir()
    for name in ("optimizer.pt", "training_state/optimizer_state.safetensors", "evil.pkl", "code.py"):
        (path / name).write_bytes(b"not for us")
    return path


@pytest.fixture
def server(there: Path) -> Iterator[Hub]:
    with hub_server.serving({"lab/arm": there}, COMMIT) as served:
        yield served


def asked(script: str, cache: Path, endpoint: str, *places: str) -> list[object]:
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", script, *places], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_pinned_folder_is_the_policy_that_was_uploaded(server: Hub, there: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "takt.json").write_text(json.dumps({"hub": f"lab/arm@{COMMIT}", "steps": 2, "fps": 10}))
    opened = asked(OPEN, tmp_path / "cache", server.url, PINNED, str(mine))
    here = open_policy(str(there)).infer(seen()).actions
    for name, actions in opened:  # type: ignore[misc]
        assert name == "smolvla lab/arm@01234567"
        near = np.abs(np.array(actions) - here).max() < 1e-6
        assert near == (actions is opened[0][1])  # type: ignore[index]  # two steps are another answer
    files = [path.split(f"{COMMIT}/")[-1] for _, path in server.asked if "/resolve/" in path]
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
    assert not any("optimizer" in name for name in files)


def test_what_was_downloaded_before_needs_no_hub(server: Hub, tmp_path: Path) -> None:
    (first,) = asked(FETCH, tmp_path, server.url, PINNED)
    assert (Path(str(first)) / "config.json").is_file()
    (again,) = asked(FETCH, tmp_path, "http://127.0.0.1:9", PINNED)
    assert again == first


def test_what_moves_is_refused_with_what_to_write_instead(server: Hub, tmp_path: Path) -> None:
    for place in ("hub:lab/arm@main", "hub:lab/arm"):
        ((line,),) = asked(FETCH, tmp_path / "cache", server.url, place)  # type: ignore[misc]
        assert (
            line
            == f"{place} is not pinned to a commit and may be another policy tomorrow: today it is {PINNED}"
        )
    assert not any("/resolve/" in path for _, path in server.asked)


def test_what_is_not_there_is_one_line(server: Hub, tmp_path: Path) -> None:
    places = {
        f"hub:lab/leg@{COMMIT}": "no such repository",
        f"hub:lab/arm@{COMMIT[::-1]}": "no such commit",
        "hub:lab/arm@nightly": "no such commit",
        "hub:lab/leg@main": "no such repository",
    }
    lines = asked(FETCH, tmp_path / "cache", server.url, *places)
    for (line,), (place, word) in zip(lines, places.items(), strict=True):  # type: ignore[misc]
        assert place in line and word in line and "\n" not in line
    for (line,) in asked(FETCH, tmp_path / "cache", "http://127.0.0.1:9", PINNED, "hub:lab/arm@main"):  # type: ignore[misc]
        assert "hub cannot be reached" in line and "\n" not in line


@pytest.mark.parametrize(
    "place",
    ["hub:", "hub:arm", "hub:a/b/c", "hub:a/b@", "hub:../../etc@" + COMMIT, "hub:a/b@c d", "hub:a b/c"],
)
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(TaktError, match="OWNER/NAME@COMMIT"):
        hub.fetched(place)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(TaktError, match=r"takt-vla\[hub\]"):
        open_policy(PINNED)
