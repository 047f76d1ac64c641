"""GR00T's protocol: its clients get what its servers would give, and nobody can spoil it for the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from runtime.desk import Desk
from runtime.protocols import gr00t, mapping
from tests import fakes
from tests.runtime.protocols import peers
from tests.runtime.protocols.peers import Gr00tClient, to_bytes
from tests.runtime.protocols.test_codec import HOSTILE
from vla.contract import Observation, TaktError

SPEC = fakes.arm_spec()
SO101 = {
    "state": [{"key": "single_arm", "size": 5, "unit": "deg"}, {"key": "gripper"}],
    "actions": {
        "single_arm": [{"names": list(SPEC.actions.names[:5]), "unit": "deg"}],
        "gripper": ["gripper"],
    },
}
WORDS = "annotation.human.task_description"


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    """A nested observation of `count` robots, as N1.6's SO-100 client makes it."""
    rng = np.random.default_rng(seed)
    return {
        "video": {k: rng.integers(0, 255, (count, 1, 48, 64, 3), np.uint8) for k in ("front", "wrist")},
        "state": {
            "single_arm": rng.uniform(-90, 90, (count, 1, 5)).astype(np.float32),
            "gripper": rng.uniform(0, 1, (count, 1, 1)).astype(np.float32),
        },
        "language": {WORDS: [[f"put the red cube {row}"] for row in range(count)]},
    }


def flat(nested: dict[str, Any]) -> dict[str, Any]:
    """The same as GR00T's simulators send it."""
    seen = {f"{m}.{k}": value for m in ("video", "state") for k, value in nested[m].items()}
    return seen | {WORDS: [words for (words,) in nested["language"][WORDS]]}


def echo(observation: Observation) -> np.ndarray:
    """Every row of the chunk is the state, and one more each row."""
    return np.asarray(observation.state, np.float64) + np.arange(SPEC.chunk_length)[:, None]


class Setting(peers.Setting):
    """A front over a scripted policy."""

    def __init__(self, keys: dict[str, Any] = SO101, bind: str = "tcp://127.0.0.1:*", **options: Any) -> None:
        super().__init__(gr00t.Front, "gr00t", fakes.ScriptedPolicy(SPEC, echo), keys, bind, **options)


@pytest.fixture
def setting() -> Iterator[Setting]:
    with Setting() as made:
        yield made


@pytest.fixture
def client(setting: Setting) -> Iterator[Gr00tClient]:
    with Gr00tClient(setting.front.address) as made:
        yield made


def expected(nested: dict[str, Any]) -> dict[str, np.ndarray]:
    """What `echo` gives back in the robot's own numbers."""
    steps = np.arange(SPEC.chunk_length)[:, None]
    return {
        "single_arm": nested["state"]["single_arm"] + np.degrees(steps),
        "gripper": nested["state"]["gripper"] + steps,
    }


@pytest.mark.parametrize("count", [1, 3])
def test_n16_nested(setting: Setting, client: Gr00tClient, count: int) -> None:
    nested = rows(count)
    action, info = client.get_action(nested)
    assert info == {}
    assert set(action) == {"single_arm", "gripper"}
    for key, value in expected(nested).items():
        assert action[key].dtype == np.float32
        np.testing.assert_allclose(action[key], value, atol=1e-3)
    seen = sorted(setting.policy.seen, key=lambda o: o.instruction)
    assert [o.instruction for o in seen] == [f"put the red cube {row}" for row in range(count)]
    for row, observation in enumerate(seen):
        np.testing.assert_array_equal(observation.frames["wrist"], nested["video"]["wrist"][row, 0])
    # Each of a request's robots has its own noise.
    assert sorted(setting.policy.resets) == [(0, row) for row in range(count)]
    assert setting.front.answered == 1


def test_n16_flat_as_simulators_send_it(client: Gr00tClient) -> None:
    nested = rows(2)
    action, _ = client.get_action(flat(nested))
    for key, value in expected(nested).items():
        np.testing.assert_allclose(action[f"action.{key}"], value, atol=1e-3)


def test_of_a_history_the_newest_is_taken(setting: Setting, client: Gr00tClient) -> None:
    nested = rows(1)
    nested["video"] = {k: np.concatenate([255 - v, v], axis=1) for k, v in nested["video"].items()}
    nested["state"] = {k: np.concatenate([v + 9, v], axis=1) for k, v in nested["state"].items()}
    action, _ = client.get_action(nested)
    np.testing.assert_allclose(action["gripper"], expected(rows(1))["gripper"], atol=1e-4)
    np.testing.assert_array_equal(setting.policy.seen[0].frames["front"], rows(1)["video"]["front"][0, 0])


def n15(nested: dict[str, Any]) -> dict[str, Any]:
    """One robot's observation as N1.5's SO-100 client sends it: no batch axis, float64, [str]."""
    seen = {f"video.{k}": v[0] for k, v in nested["video"].items()}
    seen |= {f"state.{k}": v[0].astype(np.float64) for k, v in nested["state"].items()}
    return seen | {WORDS: [nested["language"][WORDS][0][0]]}


def test_n15_is_told_from_its_request(client: Gr00tClient) -> None:
    nested = rows(1)
    action = client.call("get_action", n15(nested))
    wanted = expected(nested)
    assert action["action.single_arm"].shape == (SPEC.chunk_length, 5)
    assert action["action.gripper"].shape == (SPEC.chunk_length,)
    np.testing.assert_allclose(action["action.single_arm"], wanted["single_arm"][0], atol=1e-3)
    np.testing.assert_allclose(action["action.gripper"], wanted["gripper"][0, :, 0], atol=1e-4)


def test_n15_with_a_batch(client: Gr00tClient) -> None:
    nested = rows(2)
    action = client.call("get_action", flat(nested))
    np.testing.assert_allclose(action["action.gripper"], expected(nested)["gripper"], atol=1e-4)
    words = flat(nested) | {WORDS: np.array(["put", "the"])}
    assert client.call("get_action", words)["action.gripper"].shape == (2, SPEC.chunk_length, 1)


def test_the_endpoints(setting: Setting, client: Gr00tClient) -> None:
    assert client.call("ping", requires_input=False) == {"status": "ok", "message": "Server is running"}
    assert client.call("reset", {"options": None}) == {}
    with pytest.raises(RuntimeError, match="kill is refused"):
        client.call("kill", requires_input=False)
    with pytest.raises(RuntimeError, match=r"unknown endpoint; known are \['get_action', "):
        client.call("shutdown", {})
    assert client.call("ping", requires_input=False)["status"] == "ok"
    # The endpoint defaults to get_action.
    assert client.raw(to_bytes({"data": {"observation": rows(1), "options": None}}))[1] == {}


def test_reset_starts_the_noise_anew(setting: Setting, client: Gr00tClient) -> None:
    for options in (None, {"seed": 7}, {"seed": "no"}):
        client.get_action(rows(1))
        client.get_action(rows(1))
        client.call("reset", {"options": options})
    client.get_action(rows(1))
    assert setting.policy.resets == [(0, 0), (0, 1), (0, 0), (0, 1), (7, 0), (7, 1), (0, 0)]


def test_the_modality_config(client: Gr00tClient) -> None:
    configs = client.call("get_modality_config", requires_input=False)
    assert all(config["__ModalityConfig_class__"] for config in configs.values())
    found = {modality: config["as_json"] for modality, config in configs.items()}
    assert {modality: config["modality_keys"] for modality, config in found.items()} == {
        "video": ["front", "wrist"],
        "state": ["single_arm", "gripper"],
        "language": [WORDS],
        "action": ["single_arm", "gripper"],
    }
    fields = {"delta_indices", "modality_keys", "action_configs"}
    fields |= {"sin_cos_embedding_keys", "mean_std_embedding_keys"}
    assert all(set(config) == fields for config in found.values())
    assert found["video"]["delta_indices"] == [0]
    assert found["action"]["delta_indices"] == list(range(SPEC.chunk_length))
    kind = {"rep": "ABSOLUTE", "type": "NON_EEF", "format": "DEFAULT", "state_key": None}
    assert found["action"]["action_configs"] == [kind, kind]


def test_the_modality_config_of_n15() -> None:
    with (
        Setting(SO101 | {"dialect": "n1.5"}) as made,
        Gr00tClient(made.front.address) as client,
    ):
        configs = client.call("get_modality_config", requires_input=False)
        assert json.loads(configs["video"]["as_json"]) == {
            "delta_indices": [0],
            "modality_keys": ["video.front", "video.wrist"],
        }


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    modality, _, key = path.partition("/")

    def apply(nested: dict[str, Any]) -> None:
        if key:
            nested[modality][key] = value
        else:
            nested[modality] = value

    return apply


MISFITS = [
    (change("video", {}), "'video.front' is missing; the request has []"),
    (change("video", None), "'video.front' is missing; the request has []"),
    (change("video/front", "no"), "'video.front' is a str; wanted an array"),
    (
        change("video/front", np.zeros((1, 1, 9, 9, 3), np.float32)),
        "'front' is float32 (9, 9, 3); wanted uint8",
    ),
    (change("video/front", np.zeros((1, 1, 3, 9, 9), np.uint8)), "wanted uint8 (height, width, 3)"),
    (change("video/front", np.zeros((9, 9, 3), np.uint8)), "'video.front' has shape (9, 9, 3); wanted (B, T"),
    (change("video/front", np.zeros((2, 1, 9, 9, 3), np.uint8)), "differ in their batch"),
    (
        change("state/gripper", np.zeros((1, 1, 2), np.float32)),
        "'gripper' has 2 numbers; the mapping wants 1",
    ),
    (change("state/gripper", np.array([[["a"]]])), "'gripper' is <U1 (1,); wanted a row of numbers"),
    (change("state/gripper", np.full((1, 1, 1), np.nan, np.float32)), "not finite"),
    (change("state/gripper", np.full((1, 1, 1), 1e300)), "not finite"),
    (change("language", {}), "no instruction: the request has none of"),
    (change(f"language/{WORDS}", [[3]]), "is a int; wanted a text"),
    (change(f"language/{WORDS}", []), "wanted a text for each observation"),
    (change(f"language/{WORDS}", [["x" * 70_000]]), "wanted a text"),
]


@pytest.mark.parametrize(("misfit", "words"), MISFITS, ids=[words[:40] for _, words in MISFITS])
def test_what_does_not_fit_is_one_line(misfit: Callable[[dict[str, Any]], None], words: str) -> None:
    script = fakes.ScriptedPolicy(SPEC, checked)
    with (
        Desk(script) as desk,
        gr00t.Front(desk, "tcp://127.0.0.1:*", mapping.parse(SO101, "gr00t", SPEC)) as front,
        Gr00tClient(front.address) as client,
    ):
        nested = rows(1)
        misfit(nested)
        with pytest.raises(RuntimeError) as caught:
            client.get_action(nested)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert client.get_action(rows(1))[1] == {}
        assert (front.answered, front.refused) == (1, 1)


def checked(observation: Observation) -> np.ndarray:
    """As real policies do before they infer."""
    if not np.isfinite(observation.state).all():
        raise TaktError("state holds a value that is not finite")
    return echo(observation)


def test_too_many_robots_in_one_request(client: Gr00tClient) -> None:
    with pytest.raises(RuntimeError, match="33 observations in one request; at most 32"):
        client.get_action(rows(33))


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith("openpi")])
def test_hostile_messages_are_answered_in_one_line(client: Gr00tClient, name: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        client.raw(HOSTILE[name])
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert client.call("ping", requires_input=False)["status"] == "ok"


@pytest.mark.parametrize("message", [[], 5, {"endpoint": 3}, {"endpoint": ["ping"]}, {"data": 5}, {}])
def test_requests_that_make_no_sense(client: Gr00tClient, message: Any) -> None:
    with pytest.raises(RuntimeError):
        client.raw(msgpack.packb(message))


def test_frames_that_no_req_socket_sends(setting: Setting) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger, dealer.rcvtimeo = 0, 20_000
        dealer.connect(setting.front.address)
        ping = to_bytes({"endpoint": "ping"})
        for frames, good in [
            ([b"", ping], True),
            ([ping], True),
            ([b"id", b"", ping], True),
            ([b"", ping, ping], False),
            ([b""], False),
        ]:
            dealer.send_multipart(frames)
            *envelope, answer = dealer.recv_multipart()
            assert ("error" not in msgpack.unpackb(answer)) is good
            assert envelope == frames[: len(envelope)]


def test_a_token() -> None:
    with Setting(token="secret") as made:
        with Gr00tClient(made.front.address, "secret") as client:
            assert client.call("ping", requires_input=False)["status"] == "ok"
        for wrong in (None, "other", "sécret"):
            with (
                Gr00tClient(made.front.address, wrong) as client,
                pytest.raises(RuntimeError, match="Unauthorized: Invalid API token"),
            ):
                client.call("ping", requires_input=False)


def test_two_clients_at_once(setting: Setting) -> None:
    """Both ask before either is answered; each gets its own."""
    gate = threading.Event()
    setting.policy._script = lambda o: (gate.wait(20), echo(o))[1]
    with Gr00tClient(setting.front.address) as one, Gr00tClient(setting.front.address) as other:
        for client, seed in ((one, 1), (other, 2)):
            client.socket.send(to_bytes({"data": {"observation": rows(1, seed), "options": None}}))
        with Gr00tClient(setting.front.address) as third:
            assert third.call("ping", requires_input=False)["status"] == "ok"  # while the policy thinks
        gate.set()
        for client, seed in ((other, 2), (one, 1)):
            action = msgpack.unpackb(client.socket.recv())[0]
            assert action["gripper"]["as_npy"][:6] == b"\x93NUMPY"
            np.testing.assert_allclose(
                np.frombuffer(action["gripper"]["as_npy"][128:], "<f4")[0],
                rows(1, seed)["state"]["gripper"][0, 0, 0],
                atol=1e-4,
            )


def test_what_the_policy_raises(setting: Setting, client: Gr00tClient, capfd: Any) -> None:
    errors = iter([TaktError("camera is dark"), ZeroDivisionError("a secret")])

    def fail(_: Observation) -> np.ndarray:
        raise next(errors)

    setting.policy._script = fail
    with pytest.raises(RuntimeError, match="camera is dark"):
        client.get_action(rows(1))
    with pytest.raises(RuntimeError, match="inference failed, see the server's log"):
        client.get_action(rows(1))
    assert "a secret" in capfd.readouterr().err
    # One of a batch that fails is told once.
    setting.policy._script = lambda o: fail_first(o)

    def fail_first(observation: Observation) -> np.ndarray:
        if observation.instruction.endswith("0"):
            raise TaktError("the first is dark")
        return echo(observation)

    with pytest.raises(RuntimeError, match="the first is dark"):
        client.get_action(rows(3))
    assert client.call("ping", requires_input=False)["status"] == "ok"


def test_a_deadline_of_the_mapping() -> None:
    """What waits past it is answered with one line."""
    gate = threading.Event()
    with Setting(SO101 | {"deadline_ms": 1}) as made:
        made.policy._script = lambda o: (gate.wait(0.2), echo(o))[1]
        with Gr00tClient(made.front.address) as client, pytest.raises(RuntimeError, match="deadline passed"):
            client.get_action(rows(2))


def test_what_waits_when_it_stops_is_told() -> None:
    started, gate = threading.Event(), threading.Event()

    def hang(observation: Observation) -> np.ndarray:
        started.set()
        gate.wait(20)
        return echo(observation)

    with Setting() as made, Gr00tClient(made.front.address) as client:
        made.policy._script = hang
        client.socket.send(to_bytes({"data": {"observation": rows(1), "options": None}}))
        assert started.wait(20)
        made.front.__exit__()
        assert msgpack.unpackb(client.socket.recv()) == {"error": "the server stops"}
        gate.set()


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ("tcp://0.0.0.0:*", "other machines could reach it"),
        ("tcp://*:5555", "other machines could reach it"),
        ("tcp://[::]:5555", "other machines could reach it"),
        ("tcp://robot:5555", "other machines could reach it"),
        ("ws://127.0.0.1:5555", "give tcp://127.0.0.1:PORT"),
        ("tcp://127.0.0.1:70000", "give tcp://127.0.0.1:PORT"),
        ("5555", "give tcp://127.0.0.1:PORT"),
    ],
)
def test_addresses_that_are_refused(bind: str, words: str) -> None:
    with pytest.raises(TaktError, match=words):
        Setting(bind=bind)


def test_an_address_open_to_others_wants_a_token_or_trust() -> None:
    for options in ({"token": "secret"}, {"trust_network": True}):
        with Setting(bind="tcp://0.0.0.0:*", **options) as made:
            port = made.front.address.rpartition(":")[2]
            with Gr00tClient(f"tcp://127.0.0.1:{port}", "secret") as client:
                assert client.call("ping", requires_input=False)["status"] == "ok"


def test_a_taken_address_is_one_line(setting: Setting) -> None:
    with pytest.raises(TaktError, match="in use"):
        Setting(bind=setting.front.address)
