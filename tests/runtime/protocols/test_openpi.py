"""openpi's protocol: its own client gets what its servers would give, and nobody can spoil it for others."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest

from runtime.protocols import openpi
from tests import fakes
from tests.runtime.protocols import peers
from tests.runtime.protocols.test_codec import HOSTILE
from vla.contract import Observation, TaktError

pytest.importorskip("websockets")
import websockets.exceptions
from websockets.sync.client import connect

SPEC = fakes.arm_spec()
KEYS = {
    "cameras": {"front": "observation/image", "wrist": "observation/wrist_image"},
    "state": [{"key": "observation/joints", "size": 5, "unit": "deg"}, {"key": "observation/gripper"}],
    "actions": [{"names": list(SPEC.actions.names[:5]), "unit": "deg"}, "gripper"],
}


def echo(observation: Observation) -> np.ndarray:
    """Every row of the chunk is the state, and one more each row."""
    return np.asarray(observation.state, np.float64) + np.arange(SPEC.chunk_length)[:, None]


class Setting(peers.Setting):
    """A front over a scripted policy."""

    def __init__(self, keys: dict[str, Any] = KEYS, bind: str = "ws://127.0.0.1:*", **options: Any) -> None:
        super().__init__(openpi.Front, "openpi", fakes.ScriptedPolicy(SPEC, echo), keys, bind, **options)


@pytest.fixture
def setting() -> Iterator[Setting]:
    with Setting() as made:
        yield made


def seen(seed: int = 0) -> dict[str, Any]:
    """An observation as openpi's examples make it."""
    rng = np.random.default_rng(seed)
    return {
        "observation/image": rng.integers(0, 255, (224, 224, 3), np.uint8),
        "observation/wrist_image": rng.integers(0, 255, (224, 224, 3), np.uint8),
        "observation/joints": rng.uniform(-90, 90, 5),
        "observation/gripper": rng.uniform(0, 1, 1),
        "prompt": "put the red cube",
    }


def expected(observation: dict[str, Any]) -> np.ndarray:
    """What `echo` gives back in the robot's own numbers."""
    steps = np.arange(SPEC.chunk_length)[:, None]
    joints = observation["observation/joints"] + np.degrees(steps)
    return np.concatenate([joints, observation["observation/gripper"] + steps], axis=1)


def pack(value: Any) -> bytes:
    def default(array: Any) -> Any:
        data = {b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}
        return {b"__ndarray__": True, **data}

    return msgpack.packb(value, default=default)


def client(setting: Setting, **options: Any) -> Any:
    """openpi's own."""
    theirs = pytest.importorskip("openpi_client.websocket_client_policy")
    return theirs.WebsocketClientPolicy(setting.front.address, **options)


def plain(setting: Setting, **options: Any) -> Any:
    """A bare WebSocket that has read the metadata."""
    connection = connect(setting.front.address, compression=None, max_size=None, **options)
    connection.recv(timeout=20)
    return connection


def test_its_own_client(setting: Setting) -> None:
    host, port = setting.front.address.removeprefix("ws://").split(":")
    theirs = pytest.importorskip("openpi_client.websocket_client_policy")
    policy = theirs.WebsocketClientPolicy(host, int(port))
    assert policy.get_server_metadata() == {
        "policy": "fake",
        "action_horizon": 16,
        "action_names": list(SPEC.actions.names),
        "dt": 0.05,
    }
    for call in range(3):
        answer = policy.infer(seen(call))
        np.testing.assert_allclose(answer["actions"], expected(seen(call)), atol=1e-3)
        assert set(answer["server_timing"]) == {"infer_ms", "prev_total_ms"} - (
            set() if call else {"prev_total_ms"}
        )
        assert answer["policy_timing"]["queue_ms"] >= 0
    assert setting.policy.resets == [(0, 0), (0, 1), (0, 2)]
    assert [o.instruction for o in setting.policy.seen] == ["put the red cube"] * 3
    np.testing.assert_array_equal(setting.policy.seen[2].frames["wrist"], seen(2)["observation/wrist_image"])
    assert (setting.front.answered, setting.front.refused) == (3, 0)


def test_its_own_broker(setting: Setting) -> None:
    broker = pytest.importorskip("openpi_client.action_chunk_broker")
    policy = broker.ActionChunkBroker(client(setting), action_horizon=4)
    rows = [policy.infer(seen())["actions"] for _ in range(6)]
    np.testing.assert_allclose(rows[:4], expected(seen())[:4], atol=1e-3)
    np.testing.assert_allclose(rows[4:], expected(seen())[:2], atol=1e-3)
    assert len(setting.policy.seen) == 2


def test_keys_lead_through_maps() -> None:
    """As openpi's ALOHA client nests its images, planes first; a gripper may be a number."""
    cameras = {name: {"key": f"images/{name}", "layout": "chw"} for name in ("front", "wrist")}
    state = [{"key": "joints", "size": 5}, {"key": "gripper"}]
    with Setting({"cameras": cameras, "state": state}) as made, plain(made) as socket:
        picture = np.random.default_rng(0).integers(0, 255, (3, 32, 48), np.uint8)
        for gripper in (1, 1.0, np.array(1.0)):
            values = {"joints": np.zeros(5), "gripper": gripper, "prompt": "put"}
            socket.send(pack(values | {"images": {"front": picture, "wrist": picture}}))
            assert isinstance(socket.recv(timeout=20), bytes)
        assert [o.state[5] for o in made.policy.seen] == [1.0] * 3
        np.testing.assert_array_equal(made.policy.seen[0].frames["wrist"], picture.transpose(1, 2, 0))


def test_health(setting: Setting) -> None:
    url = setting.front.address.replace("ws://", "http://")
    with urllib.request.urlopen(f"{url}/healthz", timeout=20) as answer:
        assert (answer.status, answer.read()) == (200, b"OK\n")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=20)
    assert caught.value.code == 426  # Upgrade Required
    caught.value.close()


def refused(setting: Setting, message: bytes | str) -> str:
    """The text that answers a message, after which the server closes."""
    with plain(setting) as socket:
        socket.send(message)
        text = socket.recv(timeout=20)
        assert isinstance(text, str)
        assert "\n" not in text and "Traceback" not in text
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            socket.recv(timeout=20)
        assert socket.protocol.close_code == 1011
        return text


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"observation/image": None}, "'observation/image' is a NoneType; wanted uint8"),
    ({"observation/image": np.zeros((9, 9, 3))}, "is float64 (9, 9, 3); wanted uint8 (height, width, 3)"),
    ({"observation/image": np.zeros((9, 9), np.uint8)}, "wanted uint8 (height, width, 3)"),
    ({"observation/joints": np.zeros(6)}, "'observation/joints' has 6 numbers; the mapping wants 5"),
    ({"observation/joints": np.zeros((1, 5))}, "wanted a row of numbers"),
    ({"observation/joints": [1.0] * 5}, "is a list; wanted a row of numbers"),
    ({"prompt": 5}, "'prompt' is a int; wanted a text"),
    ({"prompt": "x" * 70_000}, "'prompt' is a str; wanted a text"),
]


@pytest.mark.parametrize(("misfit", "words"), MISFITS, ids=[words[:30] for _, words in MISFITS])
def test_what_does_not_fit_is_one_line(setting: Setting, misfit: dict[str, Any], words: str) -> None:
    assert words in refused(setting, pack(seen() | misfit))
    assert (setting.front.answered, setting.front.refused) == (0, 1)


@pytest.mark.parametrize("key", [key for key in seen()])
def test_a_missing_key_is_named(setting: Setting, key: str) -> None:
    text = refused(setting, pack({k: v for k, v in seen().items() if k != key}))
    assert (key if key != "prompt" else "none of ['prompt']") in text


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith("npy")])
def test_hostile_messages_are_one_line(setting: Setting, name: str) -> None:
    refused(setting, HOSTILE[name])
    with plain(setting) as socket:
        socket.send(pack(seen()))
        assert isinstance(socket.recv(timeout=20), bytes)


def test_text_and_things_that_are_no_maps(setting: Setting) -> None:
    assert "observations are binary" in refused(setting, "hello")
    assert "instead of an observation" in refused(setting, msgpack.packb([1]))


def test_its_own_client_shows_the_line(setting: Setting) -> None:
    with pytest.raises(RuntimeError, match="the request has"):
        client(setting).infer({"prompt": "put"})


def test_a_message_that_is_too_long(setting: Setting) -> None:
    with plain(setting) as socket:
        with suppress(websockets.exceptions.ConnectionClosed):  # it may be refused while it is sent
            socket.send(bytes((64 << 20) + 1))
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            socket.recv(timeout=20)
        assert socket.protocol.close_code in (1006, 1009)


def test_a_key() -> None:
    with Setting(token="secret") as made:
        assert client(made, api_key="secret").infer(seen())["actions"].shape == (16, 6)
        for headers in (None, {"Authorization": "Api-Key no"}, {"Authorization": "Bearer secret"}):
            with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
                connect(made.front.address, additional_headers=headers)
            assert caught.value.response.status_code == 401
        assert made.front.refused == 3


def test_a_browser_is_refused(setting: Setting) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(setting.front.address, origin="http://evil.example")
    assert caught.value.response.status_code == 403


def test_so_many_robots_and_no_more() -> None:
    with Setting(connections=2) as made:
        with plain(made), plain(made):
            with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
                connect(made.front.address)
            assert caught.value.response.status_code == 503
        end = time.monotonic() + 20
        while made.front._open and time.monotonic() < end:
            time.sleep(0.01)
        with plain(made) as socket:
            socket.send(pack(seen()))
            assert isinstance(socket.recv(timeout=20), bytes)


def test_two_clients_at_once(setting: Setting) -> None:
    """Both ask before either is answered; each gets its own, and others can come meanwhile."""
    gate = threading.Event()
    setting.policy._script = lambda o: (gate.wait(20), echo(o))[1]
    with plain(setting) as one, plain(setting) as other:
        one.send(pack(seen(1)))
        other.send(pack(seen(2)))
        with plain(setting):
            gate.set()
        for socket, seed in ((other, 2), (one, 1)):
            answer = msgpack.unpackb(socket.recv(timeout=20), strict_map_key=False)
            row = np.frombuffer(answer["actions"][b"data"], answer["actions"][b"dtype"])[:6]
            np.testing.assert_allclose(row, expected(seen(seed))[0], atol=1e-3)


def test_what_the_policy_raises(setting: Setting, capfd: Any) -> None:
    errors = iter([TaktError("camera is dark"), ZeroDivisionError("a secret")])

    def fail(_: Observation) -> np.ndarray:
        raise next(errors)

    setting.policy._script = fail
    assert refused(setting, pack(seen())) == "camera is dark"
    assert refused(setting, pack(seen())) == "inference failed, see the server's log"
    assert "a secret" in capfd.readouterr().err


def test_what_waits_when_it_stops_is_told() -> None:
    started, gate = threading.Event(), threading.Event()

    def hang(observation: Observation) -> np.ndarray:
        started.set()
        gate.wait(20)
        return echo(observation)

    with Setting() as made, plain(made) as socket:
        made.policy._script = hang
        socket.send(pack(seen()))
        assert started.wait(20)
        stop = threading.Thread(target=made.front.__exit__)
        stop.start()
        assert socket.recv(timeout=20) == "the server stops"
        stop.join(20)
        assert not stop.is_alive()
        gate.set()


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ("ws://0.0.0.0:*", "other machines could reach it"),
        ("ws://*:8000", "other machines could reach it"),
        ("ws://[::]:8000", "other machines could reach it"),
        ("tcp://127.0.0.1:8000", "give ws://127.0.0.1:PORT"),
        ("ws://127.0.0.1", "give ws://127.0.0.1:PORT"),
        ("8000", "give ws://127.0.0.1:PORT"),
    ],
)
def test_addresses_that_are_refused(bind: str, words: str) -> None:
    with pytest.raises(TaktError, match=words):
        Setting(bind=bind)


def test_an_address_open_to_others_wants_a_key_or_trust() -> None:
    for options in ({"token": "secret"}, {"trust_network": True}):
        with Setting(bind="ws://0.0.0.0:*", **options):
            pass


def test_a_taken_address_is_one_line(setting: Setting) -> None:
    with pytest.raises(TaktError, match="in use"):
        Setting(bind=setting.front.address)
