"""`takt serve`: which policy, which protocols, at which addresses. Real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import zmq

from runtime import bundle, keys, policies
from runtime.client import RemotePolicy
from runtime.policies import open_policy
from runtime.protocols import codec
from runtime.serve import places
from runtime.spawn import spawn
from tests import fakes
from tests.runtime.peers import PATIENCE
from vla.__main__ import main
from vla.contract import TaktError

SPEC = fakes.arm_spec()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_bundle(tmp_path_factory.mktemp("serve") / "bundle", SPEC, noise=0.01)


@contextmanager
def serve(folder: Path, tmp_path: Path, *flags: str) -> Iterator[dict]:
    """`takt serve` until the block ends; yields what it wrote."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "vla", "serve", str(folder), "--json", str(report), *flags]
    with subprocess.Popen([*command, "--parent", str(os.getpid())]) as child:
        try:
            end = time.monotonic() + PATIENCE
            while not report.exists():
                assert child.poll() is None
                assert time.monotonic() < end, "it does not serve"
                time.sleep(0.02)
            yield json.loads(report.read_text())
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == 0


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line with which `takt serve` ends."""
    assert main(["serve", *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_one_process_serves_all_protocols_from_one_policy(folder: Path, tmp_path: Path) -> None:
    client = pytest.importorskip("openpi_client.websocket_client_policy")
    binds = ["tcp://127.0.0.1:*", "tcp://127.0.0.1:*", "ws://127.0.0.1:*"]
    with serve(folder, tmp_path, "--protocol", "takt", "gr00t", "openpi", "--bind", *binds) as report:
        assert list(report["addresses"]) == ["takt", "gr00t", "openpi"]
        assert report["address"] == report["addresses"]["takt"]
        seen = fakes.observation(SPEC, 0.0, 0.3, 7)
        with RemotePolicy(report["address"]) as remote:
            remote.reset(0)
            ours = remote.infer(seen).actions
        host, _, port = report["addresses"]["openpi"].removeprefix("ws://").rpartition(":")
        theirs = client.WebsocketClientPolicy(host, int(port))
        frames = {f"observation/{name}": frame for name, frame in seen.frames.items()}
        asked = {**frames, "observation/state": seen.state, "prompt": seen.instruction}
        np.testing.assert_allclose(theirs.infer(asked)["actions"], ours, atol=1e-6)
        context = zmq.Context()
        with context.socket(zmq.REQ) as req:
            req.connect(report["addresses"]["gr00t"])
            req.send(codec.gr00t_pack({"endpoint": "ping"}))
            assert req.poll(PATIENCE * 1000)
            assert b"ok" in req.recv()
        context.destroy(linger=0)


def test_keys_are_asked_for(folder: Path, tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    flags = ["--bind", "tcp://127.0.0.1:*", "--keys", str(tmp_path / "keys")]
    with serve(folder, tmp_path, *flags) as report:
        with RemotePolicy(report["address"], keys=tmp_path / "keys") as remote:
            remote.infer(fakes.observation(SPEC))
        with pytest.raises(TaktError, match="keys"):
            RemotePolicy(report["address"], timeout=0.3)


def test_a_network_is_trusted_only_when_told(folder: Path, tmp_path: Path) -> None:
    with serve(folder, tmp_path, "--bind", "tcp://0.0.0.0:*", "--trust-network") as report:
        port = report["address"].rpartition(":")[2]
        with RemotePolicy(f"tcp://127.0.0.1:{port}") as remote:
            remote.infer(fakes.observation(SPEC))


def test_an_open_address_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, str(folder), "--bind", "tcp://0.0.0.0:5555")
    assert "takt keys" in line
    assert "--keys" in line
    for protocol, scheme in (("gr00t", "tcp"), ("openpi", "ws")):
        line = refused(capsys, str(folder), "--protocol", protocol, "--bind", f"{scheme}://0.0.0.0:5555")
        assert "other machines" in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--protocol", "grpc"], "valid: takt, gr00t, openpi, vla-eval"),
        (["--protocol", "takt", "takt"], "each once"),
        (["--protocol", "takt", "openpi", "--bind", "tcp://127.0.0.1:1"], "one address for each"),
        (["--mapping", "a.json"], "one file for each"),
        (["--batch", "0"], "at least 1"),
        (["--keys", "/nowhere"], "takt keys"),
        (["--token-file", "/nowhere"], "/nowhere"),
    ],
)
def test_nonsense_is_one_line(
    folder: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, str(folder), *flags)


def test_a_token_that_is_no_text_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00")
    assert "no text" in refused(capsys, str(folder), "--token-file", str(tmp_path / "token"))


def test_every_protocol_has_its_usual_place() -> None:
    assert places(["takt"], []) == {"takt": "tcp://127.0.0.1:5555"}
    assert places(["gr00t"], []) == {"gr00t": "tcp://127.0.0.1:5555"}
    assert places(["openpi"], []) == {"openpi": "ws://127.0.0.1:8000"}
    together = places(["openpi", "gr00t", "takt"], [])
    assert together["gr00t"] == "tcp://127.0.0.1:5556"
    assert len(set(together.values())) == 3
    assert places(["openpi", "takt"], ["a", "b"]) == {"openpi": "a", "takt": "b"}


# ---- policies by place ----


def offer(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    found = [EntryPoint(name, value, policies.GROUP) for name, value in names.items()]
    monkeypatch.setattr(policies, "entry_points", lambda group: found if group == policies.GROUP else [])


def make_scripted(argument: str = "none") -> fakes.ScriptedPolicy:
    policy = fakes.ScriptedPolicy(SPEC)
    if argument == "nonsense":
        raise ValueError("no such speed")
    policy.argument = argument
    return policy


def test_a_policy_is_a_folder_or_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, scripted="tests.runtime.test_serve:make_scripted", wrong="json:dumps")
    assert open_policy(str(folder)).spec == SPEC
    assert open_policy("scripted").argument == "none"
    assert open_policy("scripted:hf://a/b:c").argument == "hf://a/b:c"
    with pytest.raises(TaktError, match="valid: scripted, wrong"):
        open_policy("nothing")
    with pytest.raises(TaktError, match="no such speed"):
        open_policy("scripted:nonsense")
    with pytest.raises(TaktError, match="is no policy"):
        open_policy("wrong:x")
    with pytest.raises(TaktError, match="a folder with policy"):
        open_policy(str(folder.parent))


def test_no_names_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    with pytest.raises(TaktError, match="none is installed"):
        open_policy("nothing")


def test_spawning_a_name_that_nobody_offers_is_its_line() -> None:
    with pytest.raises(TaktError, match="nor a policy's name"), spawn("nothing"):
        pass


@pytest.mark.parametrize("kind", ["truncated", "pickle", "empty"])
@pytest.mark.parametrize("graph", ["words", "prefix", "step"])
def test_a_graph_that_is_none_is_refused_although_the_manifest_names_it(
    graph: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fakes.write_bundle(tmp_path / "bundle", SPEC)
    file, trace = folder / f"{graph}.onnx", tmp_path / "trace"
    data = file.read_bytes()
    ran = b"cposix\nsystem\n(S'touch %s'\ntR." % str(trace).encode()  # what pickle would run
    file.write_bytes({"truncated": data[: len(data) // 2], "pickle": ran, "empty": b""}[kind])
    bundle.write_manifest(folder)
    assert f"{graph}.onnx" in refused(capsys, str(folder), "--bind", f"ipc://{tmp_path}/policy")
    assert not trace.exists()
