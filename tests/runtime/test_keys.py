"""Keys on disk, and who gets in with them. Real sockets."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from runtime import keys, wire
from runtime.client import RemotePolicy
from runtime.desk import Desk
from runtime.server import Server
from tests import fakes
from tests.runtime.peers import until
from vla.__main__ import main
from vla.contract import TaktError

SPEC = fakes.arm_spec()
ANYWHERE = "tcp://127.0.0.1:*"

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="pyzmq without CURVE")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.make(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """One that lets in only those whose keys are in `folder`."""
    with Desk(fakes.ScriptedPolicy(SPEC)) as desk, Server(desk, ANYWHERE, keys=folder) as server:
        yield server


def test_keys_are_private_and_never_overwritten(folder: Path) -> None:
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    own = {"server.key", "server.pub", "client.key", "client.pub"}
    assert names == own | {"authorized_clients/client.pub"}
    for name in ("server.key", "client.key"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    before = {name: (folder / name).read_text() for name in names}
    with pytest.raises(TaktError, match="--client NAME"):
        keys.make(folder)
    keys.add_client(folder, "arm7")
    with pytest.raises(TaktError, match="already"):
        keys.add_client(folder, "arm7")
    assert before == {name: (folder / name).read_text() for name in names}
    assert {file.name for file in (folder / "arm7").iterdir()} == {"client.key", "client.pub", "server.pub"}
    assert keys.client_pair(folder / "arm7")[1] == keys.server_pair(folder).public
    assert keys.Authorized(folder).name(keys.client_pair(folder / "arm7")[0].public) == "arm7"


def test_a_half_made_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "client.key").write_text("mine")
    with pytest.raises(TaktError, match="not overwritten"):
        keys.make(tmp_path)
    assert (tmp_path / "client.key").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", ".hidden", "authorized_clients", "server", "x" * 65, "a b"]
)
def test_names_that_could_lead_elsewhere_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(TaktError, match="cannot name a client"):
        keys.add_client(folder, name)


def test_a_private_key_that_others_can_read_is_refused(folder: Path) -> None:
    (folder / "server.key").chmod(0o640)
    with pytest.raises(TaktError, match="read by others"):
        keys.server_pair(folder)


@pytest.mark.parametrize(
    "damage", ["", "takt-public-key abc\n", "x" * 5000, "takt-secret-key " + "~" * 40, "\x00\xff"]
)
def test_damaged_keys_are_refused(folder: Path, damage: str) -> None:
    for name in ("server.key", "client.key", "server.pub", "authorized_clients/client.pub"):
        (folder / name).write_text(damage)
    for read in (keys.server_pair, keys.client_pair, keys.Authorized):
        with pytest.raises(TaktError, match="is not a"):
            read(folder)
    # Of two halves that do not belong together, too.
    keys.make(folder.parent / "other")
    public = (folder.parent / "other" / "server.pub").read_text()
    secret = (folder.parent / "other" / "client.key").read_text().splitlines()[1]
    (folder / "server.key").write_text(f"{public}{secret}\n")
    with pytest.raises(TaktError, match="is not a private key"):
        keys.server_pair(folder)


def test_missing_keys_name_the_command(tmp_path: Path) -> None:
    for read in (keys.server_pair, keys.client_pair, keys.Authorized):
        with pytest.raises(TaktError, match="takt keys"):
            read(tmp_path)


def test_the_command_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "new")
    assert main(["keys", place]) == 0
    assert main(["keys", place, "--client", "arm7"]) == 0
    assert str(tmp_path / "new" / "arm7" / "client.key") in capsys.readouterr().out
    assert main(["keys", place]) == 1
    assert "has keys already" in capsys.readouterr().err


def test_only_known_keys_get_in_and_the_holder_is_not_disturbed(
    server: Server, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys.make(tmp_path / "stranger")
    shutil.copy(folder / "server.pub", tmp_path / "stranger" / "server.pub")
    with RemotePolicy(server.address, robot="arm", keys=folder) as holder:
        holder.infer(fakes.observation(SPEC))
        for strange in (tmp_path / "stranger", None):
            before = server.refused["key"]
            with pytest.raises(TaktError, match="refuses this client: both ends need keys"):
                RemotePolicy(server.address, timeout=0.5, robot="arm", keys=strange)
            until(lambda before=before: server.refused["key"] > before, "it was not counted")
            holder.infer(fakes.observation(SPEC))
        # One who takes another for the server learns nothing and says nothing.
        shutil.copy(folder / "client.pub", tmp_path / "stranger" / "server.pub")
        with pytest.raises(TaktError):
            RemotePolicy(server.address, timeout=0.3, robot="arm", keys=tmp_path / "stranger")
        holder.infer(fakes.observation(SPEC))
        assert holder.errors == {}
        assert holder.link_up
    said = capfd.readouterr().err
    assert "no key that is known" in said
    assert len(said.splitlines()) <= 5


def test_one_who_is_added_gets_in_and_one_who_is_removed_does_not(server: Server, folder: Path) -> None:
    keys.add_client(folder, "arm7")
    with RemotePolicy(server.address, keys=folder / "arm7") as remote:
        remote.infer(fakes.observation(SPEC))
    (folder / "authorized_clients" / "arm7.pub").unlink()
    with pytest.raises(TaktError, match="refuses this client"):
        RemotePolicy(server.address, timeout=0.3, keys=folder / "arm7")
    (folder / "authorized_clients" / "broken.pub").write_text("half")
    (folder / "authorized_clients" / "old.pub").mkdir()
    with RemotePolicy(server.address, keys=folder) as remote:
        remote.infer(fakes.observation(SPEC))


def test_a_client_with_keys_does_not_speak_with_a_server_without(folder: Path, tmp_path: Path) -> None:
    with Desk(fakes.ScriptedPolicy(SPEC)) as desk, Server(desk, ANYWHERE) as server:
        with pytest.raises(TaktError, match="refuses this client"):
            RemotePolicy(server.address, timeout=0.3, keys=folder)
        with RemotePolicy(server.address) as remote:
            remote.infer(fakes.observation(SPEC))


def test_what_travels_under_keys_cannot_be_read(server: Server, folder: Path) -> None:
    """A proxy between them sees neither the words nor the schema."""
    seen = bytearray()
    host, _, port = server.address.removeprefix("tcp://").rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def carry(source: socket.socket, sink: socket.socket) -> None:
            while data := source.recv(65536):
                seen.extend(data)
                sink.sendall(data)

        def accept() -> None:
            one, _ = listener.accept()
            two = socket.create_connection((host, int(port)))
            for pair in ((one, two), (two, one)):
                threading.Thread(target=carry, args=pair, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        with RemotePolicy(f"tcp://127.0.0.1:{listener.getsockname()[1]}", keys=folder) as remote:
            remote.infer(fakes.observation(SPEC))
    assert b"CURVE" in seen
    for word in (b"instruction", b"put the red cube", b"session", SPEC.name.encode()):
        assert word not in seen
    assert wire.encode(wire.Hello("x"))[:8] not in seen
